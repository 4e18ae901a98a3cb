"""A llama-server lives as long as its block, whatever it is doing."""

import os
import signal
import socket
import urllib.request
from pathlib import Path
from time import monotonic

import pytest

from fleet.real.run_llama_server import DidNotStart, running_llama_server

pytestmark = pytest.mark.real


def test_it_answers_in_the_block_and_is_gone_after_it(llama_binary: Path) -> None:
    with running_llama_server() as server, urllib.request.urlopen(server.root + "/health") as ok:
        assert ok.status == 200

    assert server.process.returncode is not None
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0


def test_one_that_does_not_listen_to_signals_is_killed(llama_binary: Path) -> None:
    with running_llama_server() as server:
        os.kill(server.process.pid, signal.SIGSTOP)
        # A busy machine stops it later than this returns; till then it may end by SIGTERM.
        os.waitid(os.P_PID, server.process.pid, os.WSTOPPED | os.WNOWAIT)

    assert server.process.returncode == -signal.SIGKILL


def test_a_model_that_is_none_shows_the_servers_log(llama_binary: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"no GGUF")
    began = monotonic()
    with (
        pytest.raises(DidNotStart, match=r"broken\.gguf"),
        running_llama_server(model=tmp_path / "broken.gguf"),
    ):
        pass

    assert monotonic() - began < 10
