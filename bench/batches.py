"""Batches at their limits: 200 MB in one upload, 50,000 rows in one batch, and who holds how much.

    python -m bench.batches [--rows 50000] [--megabytes 200]

One shim, one worker with a scripted embedding model, one Redis, and the `fleet` command as the
caller. Memory is the most that each process ever had resident (VmHWM), so a short peak counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.request import urlopen

from bench.machine import described, load
from bench.processes import Running, environment, redis, started, wait_for
from bench.sections import put
from fleet.local.process import commands
from fleet.local.redis_server import free_port

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
LIMIT_MIB: Final = 300
SLOTS: Final = 64
_MODEL: Final = "scripted-embed"
_LOOK_S: Final = 0.5


class Run(NamedTuple):
    """One batch."""

    rows: int
    size_bytes: int
    upload_s: float
    ready_s: float
    """From the upload's end until every line has been looked at."""
    total_s: float | None
    """From the first row to the last; None: it was cancelled."""
    peaks_mib: Mapping[str, float]


def write_rows(path: Path, rows: int, size_bytes: int) -> int:
    """A file of embedding requests; each is padded so that all are about so large."""
    with path.open("w", encoding="ascii") as out:
        for number in range(rows):
            text = f"text {number} "
            line: dict[str, Any] = {
                "custom_id": f"row-{number}",
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"model": _MODEL, "input": text},
            }
            spare = size_bytes // rows - len(json.dumps(line)) - 1
            line["body"]["input"] = text + "x" * max(0, spare)
            out.write(json.dumps(line) + "\n")
    return path.stat().st_size


@contextmanager
def fleet(folder: Path) -> Generator[tuple[str, dict[str, Running]]]:
    """Redis, one worker, one shim: the shim's address, and the processes."""
    port = free_port()
    folder.mkdir()
    with ExitStack() as stack:
        url, server = stack.enter_context(redis(folder / "redis"))
        variables = environment(
            FLEET_REDIS_URL=url,
            FLEET_WORKER_BACKEND="bench",
            FLEET_WORKER_NAME=f"bench-{os.getpid()}-{time.monotonic_ns()}",
            FLEET_PORT=str(port),
            FLEET_DATA_DIR=str(folder / "data"),
            LLM_BENCH=f"scripted://?slots={SLOTS}",
        )
        shim = stack.enter_context(started("shim", commands()["shim"], variables, folder))
        worker = stack.enter_context(started("worker", commands()["worker"], variables, folder))
        wait_for(worker if not worker.is_alive() else shim, port, "/readyz?workers=1")
        yield f"http://127.0.0.1:{port}", {"shim": shim, "worker": worker, "redis": server}


def run(folder: Path, rows: int, size_bytes: int, *, to_the_end: bool) -> Run:
    """Submit a batch; wait for its end, or only until it is under way."""
    source = folder / "rows.jsonl"
    size_bytes = write_rows(source, rows, size_bytes)
    with fleet(folder / "fleet") as (url, processes):
        began_at = time.monotonic()
        told, fleet_mib = command(url, "submit", str(source), "--json")
        batch = json.loads(told)["id"]
        uploaded_at = time.monotonic()
        until(url, batch, {"in_progress", "completed"})
        ready_at = time.monotonic()
        if to_the_end:
            until(url, batch, {"completed"})
            ended_at = time.monotonic()
            out = folder / "out.jsonl"
            _, fetch_mib = command(url, "results", batch, "-o", str(out))
            fleet_mib = max(fleet_mib, fetch_mib)
            check(out, rows)
        else:
            ended_at = None
            command(url, "cancel", batch)
            until(url, batch, {"cancelled"})
        peaks = {name: peak_mib(process.pid) for name, process in processes.items()}
    return Run(
        rows, size_bytes, uploaded_at - began_at, ready_at - uploaded_at,
        None if ended_at is None else ended_at - ready_at, peaks | {"fleet batch": fleet_mib},
    )  # fmt: skip


def command(url: str, *words: str) -> tuple[str, float]:
    """What `fleet batch` prints, and the most memory it had (MiB); raises if it failed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fleet", "batch", *words],
        env=environment(FLEET_URL=url),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"fleet batch {' '.join(words)} ended with {process.returncode}")
    return told, used.ru_maxrss / 1024


def until(url: str, batch: str, statuses: set[str]) -> None:
    """Wait until a batch has one of these; raises if it ends otherwise."""
    while True:
        now = look(url, batch)
        if now["status"] in statuses:
            return
        if now["status"] in {"failed", "expired", "cancelled", "completed"}:
            raise RuntimeError(f"the batch is {now['status']}: {now['errors']}")
        time.sleep(_LOOK_S)


def look(url: str, batch: str) -> dict[str, Any]:
    """A batch now, without the half second of processor time that a command takes to start."""
    with urlopen(f"{url}/v1/batches/{batch}", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def check(out: Path, rows: int) -> None:
    """Raise unless every row is there, once."""
    with out.open(encoding="utf-8") as lines:
        found = [json.loads(line)["custom_id"] for line in lines]
    if len(found) != rows or len(set(found)) != rows:
        raise RuntimeError(f"{len(found)} lines, {len(set(found))} of {rows} rows")


def peak_mib(pid: int) -> float:
    """The most memory that a process has ever had resident."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def report(large: Run, many: Run, load_before: float) -> str:
    """The section of RESULTS.md."""
    names = list(many.peaks_mib)
    worst = max([*large.peaks_mib.values(), *many.peaks_mib.values()])
    verdict = "reached" if worst < LIMIT_MIB else "not reached"
    head = (
        "Written by `python -m bench.batches`: one shim, one worker with a scripted embedding "
        f"model in {SLOTS} slots, one Redis, on one machine; each row is a job of its own."
    )
    target = f"under {LIMIT_MIB} MiB at its peak: {worst:.0f} MiB, {verdict}"
    peaks = f"peak MiB: {', '.join(names)}"
    lines = [
        "## Batches",
        "",
        head,
        "",
        *(f"- {line}" for line in described()[:1]),
        f"- the machine's load when it began: {load_before:.1f}",
        f"- target: every process {target}",
        "",
        f"|  | rows | file | upload | every line checked | run | rows/s | {peaks} |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        _row("a large file, cancelled once under way", large),
        _row("many rows, to the end", many),
    ]
    return "\n".join(lines)


def _row(title: str, run: Run) -> str:
    took = "-" if run.total_s is None else f"{run.total_s:.0f} s"
    rate = "-" if run.total_s is None else f"{run.rows / run.total_s:.0f}"
    peaks = ", ".join(f"{peak:.0f}" for peak in run.peaks_mib.values())
    return (
        f"| {title} | {run.rows:,} | {run.size_bytes / 1e6:.0f} MB | {run.upload_s:.1f} s | "
        f"{run.ready_s:.1f} s | {took} | {rate} | {peaks} |"
    )


def main() -> None:
    """Measure, and write down what came out."""
    parser = argparse.ArgumentParser(prog="python -m bench.batches", description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--megabytes", type=int, default=200)
    given = parser.parse_args()
    load_before = load()
    with tempfile.TemporaryDirectory() as folder:
        large_folder, many_folder = Path(folder) / "large", Path(folder) / "many"
        large_folder.mkdir()
        many_folder.mkdir()
        large = run(large_folder, 50_000, given.megabytes * 10**6, to_the_end=False)
        print(large, flush=True)
        many = run(many_folder, given.rows, 0, to_the_end=True)
        print(many, flush=True)
    text = report(large, many, load_before)
    print(text)
    put(RESULTS, "batches", text)


if __name__ == "__main__":
    main()
