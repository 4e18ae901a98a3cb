"""Texts a second of the local embedding backend, one core, as a ratio to one text at a time.

    python bench/local_embed.py [MODEL_FOLDER]

Without a folder it makes one of all-MiniLM-L6-v2 (see fleet/demo/minilm.py). Both sides of a
ratio run in turns in the same process, and seconds are of this process's CPU: a busy machine
slows both.
"""

import asyncio
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from statistics import median
from time import process_time
from typing import Final

from contract.embeddings import EmbedRequest
from fleet.demo import minilm
from workers.backends.in_process.onnx import LocalEmbed

ROUNDS: Final = 5
TEXTS: Final = 192
WORDS: Final = (Path(minilm.__file__).with_name("sentences.txt")).read_text().split()
SHAPES: Final[dict[str, Callable[[random.Random], int]]] = {
    "4 words": lambda _: 4,
    "16 words": lambda _: 16,
    "64 words": lambda _: 64,
    "4 to 200 words": lambda chance: chance.choice((4, 8, 16, 16, 32, 64, 200)),
}
BOUNDS: Final = (1, 128, 512, 2048)
"""Padded tokens a batch; 1 is one text at a time."""


def texts(shape: str) -> tuple[str, ...]:
    """The same texts in every run."""
    chance = random.Random(1)
    return tuple(
        " ".join(chance.choice(WORDS) for _ in range(SHAPES[shape](chance))) for _ in range(TEXTS)
    )


async def seconds(backend: LocalEmbed, input: tuple[str, ...]) -> float:
    """CPU seconds of one request."""
    request = EmbedRequest(model="model", input=input)
    began = process_time()
    async with aclosing(backend.embed(request)) as events:
        async for _ in events:
            pass
    return process_time() - began


async def measure(folder: Path) -> None:
    """Print a line for each shape and bound."""
    backends = {n: LocalEmbed("bench", folder, model="model", max_batch_tokens=n) for n in BOUNDS}
    print(f"{'texts':<16}{'tokens a batch':>16}{'texts/CPU s':>13}{'to one by one':>16}")
    for shape in SHAPES:
        input = texts(shape)
        took: dict[int, list[float]] = {bound: [] for bound in BOUNDS}
        for _ in range(ROUNDS):
            for bound, backend in random.sample(list(backends.items()), len(backends)):
                took[bound].append(await seconds(backend, input))
        alone = median(took[1])
        for bound in BOUNDS:
            name, rate = "one by one" if bound == 1 else str(bound), TEXTS / median(took[bound])
            print(f"{shape:<16}{name:>16}{rate:>13.0f}{alone / median(took[bound]):>16.2f}")
    for backend in backends.values():
        await backend.aclose()


def main(arguments: list[str]) -> None:
    """Measure the folder that is named, or MiniLM."""
    if arguments:
        asyncio.run(measure(Path(arguments[0])))
        return
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(measure(minilm.write_minilm(Path(place) / "minilm")))


if __name__ == "__main__":
    main(sys.argv[1:])
