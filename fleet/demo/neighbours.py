"""The scene with the real embedding model: embeds sentences, and shows the nearest to one."""

import time
from collections.abc import Iterator
from contextlib import aclosing
from importlib.resources import files

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from fleet.client.roster import ModelInfo, model_for
from fleet.demo.minilm import MODEL_NAME
from fleet.demo.narrator import Narrator, promise
from fleet.demo.stage import Stage
from fleet.embed.embedder import Embedding
from fleet.embed.spool import Rows
from fleet.embed.text_files import Text

_TEXTS_A_JOB = 32
_NEIGHBOURS = 4
_RELATED = 0.3
"""Cosine similarity: with this model unrelated sentences are below, paraphrases far above."""
_SAME = 0.999


def sentences() -> list[str]:
    """The bundled sentences, one a line."""
    lines = (files("fleet.demo") / "sentences.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip()]


async def nearest_neighbours(stage: Stage, narrator: Narrator) -> None:
    """Embed every sentence through the queue; show the nearest neighbours of one of them."""
    texts = sentences()
    narrator.scene(
        "3 · Real embeddings",
        f"{len(texts)} sentences go through the queue to {MODEL_NAME}, a real model that a worker "
        "runs in its own process.",
    )
    await stage.fleet.ready()
    model = await _model(stage)
    began_at = time.monotonic()
    vectors = await _embedded(stage, narrator, model, texts)
    took_s = time.monotonic() - began_at
    promise(vectors.shape[0] == len(texts), "there is one vector for each sentence")
    alone = await stage.second.embed([texts[0]], model=model.name, backend=model.backend)
    promise(float(alone[0] @ vectors[0]) > _SAME, "a vector does not depend on its batch")
    chosen = len(texts) // 2
    found = _nearest(vectors, chosen)
    _show(narrator, texts, chosen, found)
    promise(found[0][1] > _RELATED, "the nearest sentence is related")
    narrator.measured(
        f"{len(texts)} sentences embedded by {MODEL_NAME}, in order",
        f"{len(texts) / took_s:.0f} texts/s, {vectors.shape[1]} dimensions",
    )


async def _model(stage: Stage) -> ModelInfo:
    models = [each for each in await stage.first.models() if each.backend == "local"]
    model = model_for("embed", models)
    promise(model is not None, "the local worker reports its model")
    assert model is not None  # noqa: S101 - for the type checker
    return model


async def _embedded(stage: Stage, narrator: Narrator, model: ModelInfo, texts: list[str]) -> Rows:
    work = Embedding(stage.first, model.name, model.backend, texts_a_job=_TEXTS_A_JOB)
    bar = Progress(
        TextColumn("embed"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=narrator.console,
    )
    blocks: list[Rows] = []
    with bar:
        task = bar.add_task("embed", total=len(texts))
        async with aclosing(work.blocks(_rows(texts))) as parts:
            async for part in parts:
                blocks.append(part.rows)
                bar.advance(task, part.count)
    return np.concatenate(blocks)


def _rows(texts: list[str]) -> Iterator[Text]:
    return (Text(text) for text in texts)


def _nearest(vectors: Rows, chosen: int) -> list[tuple[int, float]]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    closeness = unit @ unit[chosen]
    order = [int(row) for row in np.argsort(-closeness) if row != chosen]
    return [(row, float(closeness[row])) for row in order[:_NEIGHBOURS]]


def _show(
    narrator: Narrator, texts: list[str], chosen: int, found: list[tuple[int, float]]
) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("", f"[bold]{texts[chosen]}")
    for row, closeness in found:
        table.add_row(f"{closeness:.2f}", texts[row])
    narrator.console.print(table)
