"""A whole fleet, started once for the tests that ask it things, and the `fleet` command."""

import os
from collections.abc import Iterator

import pytest
from support.fleet import scripted_server
from support.up import Command, Said, Up, environment, start_up, stop
from typer.testing import CliRunner

from fleet.cli.app import app


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A fleet with two shims and a scripted backend, for tests that leave it as it is."""
    started = start_up(tmp_path_factory.mktemp("up"), "--shims", "2")
    yield started
    stop(started)


@pytest.fixture(scope="session")
def box() -> Iterator[str]:
    """Address, as in `127.0.0.1:4711`, of a model server in a process of its own."""
    with scripted_server() as url:
        yield url.removeprefix("http://")


@pytest.fixture
def fleet(up: Up, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the `fleet` command against it, inside the test's own process."""
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)

    def run(*words: str, stdin: str = "", **variables: str) -> Said:
        result = CliRunner().invoke(
            app, words, input=stdin, env={"FLEET_URL": up.url, **variables}, catch_exceptions=False
        )
        return Said(result.exit_code, result.stdout, result.stderr)

    return run
