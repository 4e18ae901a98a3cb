"""A download names a file that a client can store where it is, whatever it was uploaded as.

Subjects: api_shim/batch/http_responses.py.
"""

import httpx
import pytest
from support.shim import serving


@pytest.mark.parametrize(
    ("uploaded", "named"),
    [
        ("../../etc/passwd", "passwd"),
        (r"C:\Users\ann\rows.jsonl", "rows.jsonl"),
        ("..", "file"),
        ("a/", "file"),
        ("é ;.jsonl", "%C3%A9%20%3B.jsonl"),
    ],
)
async def test_a_download_names_the_last_part_of_a_name(
    redis_url: str, uploaded: str, named: str
) -> None:
    with serving(redis_url) as url:
        async with httpx.AsyncClient(base_url=url, timeout=10) as http:
            form, files = {"purpose": "batch"}, {"file": (uploaded, b"{}")}
            file = (await http.post("/v1/files", data=form, files=files)).json()
            download = await http.get(f"/v1/files/{file['id']}/content")

    assert download.headers["content-disposition"] == f"attachment; filename*=UTF-8''{named}"
