"""What an ended job keeps in Redis, before and after its compaction, and what compacting it costs.

    python -m bench.memory [JOBS]

Chats of 16 and 500 chunks through the relay alone, against a server of its own. Memory is the
server's `used_memory` divided by the jobs, so that everything counts: keys, lists, expiry times.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from time import process_time
from typing import Final, NamedTuple

import uvloop
from pydantic import SecretStr

from bench.processes import redis as redis_server
from contract.chat import ChatRequest, Message
from contract.events import Delta, Done, Usage
from relay.claims import Claims
from relay.compaction.compactor import Compactor
from relay.connection import Connection
from relay.leases import Holder, Leases
from relay.publisher import Publisher
from relay.queue import Queue
from relay.settings import RelaySettings

QUEUE: Final = "bench.chat"
STORY: Final = (
    "It was late in the year and the llama walked slowly over the dry hills; nobody in the "
    "village had seen it coming, and the wind did not ask. "
)
WORDS: Final = [f"{word} " for word in STORY.split()]
JOBS: Final = 10_000
LIMIT_BYTES, TEXT_FACTOR = 2500, 1.2


class Row(NamedTuple):
    """Bytes and microseconds a job."""

    chunks: int
    text: float
    before: float
    after: float
    here: float
    there: float

    @property
    def holds(self) -> bool:
        """Whether an ended job is as small as it should be."""
        return self.after <= LIMIT_BYTES + TEXT_FACTOR * self.text


class Memory:
    """Jobs that run one after the other, and what they leave."""

    def __init__(self, connection: Connection) -> None:
        """Work through this connection."""
        self.connection = connection
        self.queue = Queue(connection)
        self.claims = Claims(connection)
        self.leases = Leases(connection)
        self.publisher = Publisher(connection)

    async def run(self, chunks: int) -> int:
        """One chat, to its end; the bytes of its text."""
        question = Message(role="user", content="Tell me a story about a llama, please.")
        await self.queue.enqueue(ChatRequest(model="m", messages=(question,)), queue=QUEUE)
        claim = await self.claims.claim(QUEUE, "w1")
        job = claim and await self.claims.start(claim)
        if not job:
            raise RuntimeError("the job that was enqueued could not be claimed")
        log = self.publisher.attempt_log(job)
        pieces = [WORDS[at % len(WORDS)] for at in range(chunks)]
        for piece in pieces:
            log.append(Delta(content=piece))
            await log.flush()  # an entry of its own, as from a backend that takes its time
        log.append(Done(usage=Usage(prompt_tokens=12, completion_tokens=chunks)))
        await log.flush()
        await self.leases.release(QUEUE, job.record.id, Holder(job.attempt, "w1"))
        return sum(len(piece.encode()) for piece in pieces)

    async def used(self) -> int:
        """Bytes that the server uses."""
        return int((await self.connection.command("INFO", "memory"))["used_memory"])

    async def server_s(self) -> float:
        """Processor seconds that the server has used."""
        told = await self.connection.command("INFO", "cpu")
        return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])

    async def compact(self) -> None:
        """Compact all jobs."""
        await asyncio.sleep(0.01)  # until the last one is due
        while await Compactor(self.connection).compact_some(float("inf")):
            pass

    async def row(self, chunks: int, jobs: int) -> Row:
        """Run jobs, compact them, and see."""
        await self.run(chunks)
        await self.compact()
        start = await self.used()
        text = [await self.run(chunks) for _ in range(jobs)]
        before = await self.used()
        here, there = process_time(), await self.server_s()
        await self.compact()
        here, there = process_time() - here, await self.server_s() - there
        after = await self.used()
        return Row(
            chunks, sum(text) / jobs, (before - start) / jobs, (after - start) / jobs,
            here / jobs * 1e6, there / jobs * 1e6,
        )  # fmt: skip


async def measured(url: str, jobs: int) -> list[Row]:
    """Chats of 16 chunks, and a tenth as many of 500."""
    # Not validated: a job is due as soon as it has ended.
    settings = RelaySettings(redis_url=SecretStr(url)).model_copy(update={"compact_after_s": 0.001})
    async with Connection.open(settings) as connection:
        memory = Memory(connection)
        writing = asyncio.get_running_loop().create_task(memory.publisher.write())
        try:
            return [await memory.row(16, jobs), await memory.row(500, max(1, jobs // 10))]
        finally:
            writing.cancel()


def main() -> int:
    """Print the table; 1 if an ended job is larger than it should be."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else JOBS
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as (url, _):
        rows = uvloop.run(measured(url, jobs))
    print("| chunks | bytes of text | an ended job | compacted | compacting: us here | us Redis |")
    print("|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print("| {} | {:,.0f} | {:,.0f} | {:,.0f} | {:,.0f} | {:,.0f} |".format(*row))
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
