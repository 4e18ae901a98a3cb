"""The memory of a container counts, not that of its machine."""

from pathlib import Path

import pytest

from fleet.local.machine_memory import memory_bytes, redis_memory_bytes

MIB = 2**20


def group(root: Path, line: str, file: str, text: str) -> Path:
    """A file system with a process in this control group, and the limit of a group."""
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text(f"{line}\n")
    path = root / "sys/fs/cgroup" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/", "memory.max"),
        ("0::/a/b", "a/memory.max"),
        ("4:cpu,memory:/docker/x", "memory/docker/x/memory.limit_in_bytes"),
    ],
)
def test_the_limit_of_a_group_around_the_process_counts(
    tmp_path: Path, line: str, file: str
) -> None:
    assert memory_bytes(group(tmp_path, line, file, str(MIB))) == MIB


@pytest.mark.parametrize(
    ("file", "text"),
    [("memory.max", "max"), ("memory/memory.limit_in_bytes", "9223372036854771712")],
)
def test_without_a_limit_it_is_the_machines(tmp_path: Path, file: str, text: str) -> None:
    root = group(tmp_path, "0::/" if file == "memory.max" else "4:memory:/", file, text)

    assert memory_bytes(root) == memory_bytes(tmp_path / "nothing here")


def test_redis_gets_a_quarter_and_at_least_64_mib(tmp_path: Path) -> None:
    large = group(tmp_path / "large", "0::/", "memory.max", str(1024 * MIB))
    small = group(tmp_path / "small", "0::/", "memory.max", str(100 * MIB))

    assert redis_memory_bytes(large) == 256 * MIB
    assert redis_memory_bytes(small) == 64 * MIB
