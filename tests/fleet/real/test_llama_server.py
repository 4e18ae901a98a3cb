"""Finding and building the server; the compiler is a shell script, the source an empty archive."""

import shutil
import tarfile
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from fleet.real import build, llama_server, sd_server
from fleet.real.cache import alone, cache_folder

CMAKE = """#!/bin/sh
echo cmake "$@" >&2
case "$1" in
  -S) mkdir -p "$4" ;;
  --build) mkdir -p "$2/bin"; printf '#!/bin/sh\\n' > "$2/bin/$4"
           chmod +x "$2/bin/$4" ;;
esac
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LLAMA_SERVER_BIN", raising=False)
    monkeypatch.setenv("LLM_FLEET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with a shell, a cmake that pretends, and what a test adds."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sh", "mkdir", "chmod"):
        (folder / name).symlink_to(str(shutil.which(name)))
    for name, script in (("cmake", CMAKE), ("c++", "#!/bin/sh\n"), ("ninja", "#!/bin/sh\n")):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build, "ROOM_BYTES", 0)
    monkeypatch.setattr(build, "download", lambda recipe, work: archive(work, recipe.source))
    return folder


def archive(work: Path, content: str) -> Path:
    (work / "llama" / content).mkdir(parents=True)
    path = work / "source.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(work / "llama", "llama_cpp_python-0")
    shutil.rmtree(work / "llama")
    return path


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setenv("LLM_FLEET_CACHE", "/fleet")
    assert cache_folder() == Path("/fleet")
    monkeypatch.delenv("LLM_FLEET_CACHE")
    assert cache_folder() == Path("/x/llm-fleet")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "llm-fleet"


def test_without_a_server_the_error_says_how_to_build_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert llama_server.main(["path"]) == 1
    assert "python -m fleet.real.llama_server build" in capsys.readouterr().err


def test_a_binary_that_the_environment_names_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = tmp_path / "mine"
    monkeypatch.setenv("LLAMA_SERVER_BIN", str(binary))
    assert llama_server.main(["build"]) == 1
    binary.touch(mode=0o755)

    assert llama_server.main(["build"]) == 0
    assert capsys.readouterr().out == f"{binary}\n"


def test_it_is_built_once_and_nothing_but_the_binary_is_left(
    cache: Path, tools: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert llama_server.main(["build"]) == 0
    assert llama_server.main(["build"]) == 0
    heard = capfd.readouterr()
    binary = cache / f"llama-server-{llama_server.RECIPE.version}" / "llama-server"

    assert heard.out == f"{binary}\n" * 2
    assert heard.err.count("compiling") == 1
    assert sorted(path.name for path in binary.parent.iterdir()) == [
        ".llama-server.lock",
        "llama-server",
    ]


def test_the_image_server_is_built_beside_it_with_as_many_jobs_as_one_says(
    cache: Path,
    tools: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SD_SERVER_BIN", raising=False)
    assert sd_server.main(["path"]) == 1
    assert sd_server.main(["build", "--jobs", "1"]) == 0
    heard = capfd.readouterr()

    assert heard.out == f"{cache}/sd-server-{sd_server.RECIPE.version}/sd-server\n"
    assert "python -m fleet.real.sd_server build" in heard.err
    assert "compiling with 1 jobs" in heard.err
    assert "-DSD_BUILD_EXAMPLES=ON" in heard.err


def test_two_builders_do_not_race(cache: Path, tools: Path) -> None:
    built: list[Path] = []
    builders = [
        threading.Thread(target=lambda: built.append(llama_server.build_once())) for _ in range(2)
    ]
    with alone(llama_server.expected_path()):
        for builder in builders:
            builder.start()
        assert not llama_server.expected_path().exists()
    for builder in builders:
        builder.join(30)

    assert built == [llama_server.expected_path()] * 2


@pytest.mark.parametrize("ninja", [True, False])
def test_make_is_taken_where_ninja_is_not(
    tools: Path, capfd: pytest.CaptureFixture[str], *, ninja: bool
) -> None:
    if not ninja:
        (tools / "ninja").rename(tools / "make")
    llama_server.build_once()

    assert ("-G Ninja" if ninja else "-G Unix Makefiles") in capfd.readouterr().err


@pytest.mark.parametrize(
    ("gone", "remedy"), [("c++", "no C\\+\\+ compiler"), ("ninja", "neither ninja nor make")]
)
def test_a_missing_tool_is_named(tools: Path, gone: str, remedy: str) -> None:
    (tools / gone).unlink()
    with pytest.raises(build.CannotBuild, match=remedy):
        llama_server.build_once()


def test_a_full_disk_is_seen_before_anything_is_fetched(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil's own
    monkeypatch.setattr(build, "ROOM_BYTES", 2_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 100_000_000))
    with pytest.raises(build.CannotBuild, match=r"0\.1 GB of free space.* LLM_FLEET_CACHE"):
        llama_server.build_once()


def test_a_step_that_fails_is_named_and_leaves_nothing(tools: Path, cache: Path) -> None:
    (tools / "cmake").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(build.CannotBuild, match="cmake failed with exit code 3"):
        llama_server.build_once()

    assert [path.name for path in cache.glob("*/*")] == [".llama-server.lock"]
