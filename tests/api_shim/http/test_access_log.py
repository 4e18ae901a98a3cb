"""The log line of a request whose client leaves while it sends its body."""

import logging
import socket
from urllib.parse import urlsplit

import pytest
from support.shim import eventually

PATHS = [
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/embeddings",
    "/api/chat",
    "/api/v1/jobs/chat",
    "/api/v1/jobs/show",
]


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_leaves_while_it_sends_is_no_defect(
    path: str, shim: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = urlsplit(shim)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        "Content-Length: 1000\r\n\r\n{"
    )
    with caplog.at_level(logging.INFO, "api_shim.http.access_log"):
        with socket.create_connection((address.hostname or "", address.port or 0)) as line:
            line.sendall(head.encode())
        await eventually(lambda: any(record.msg == "request" for record in caplog.records))

    assert [record.msg for record in caplog.records] == ["request"]
    assert caplog.records[0].__dict__["facts"]["status"] == 408
