"""Checks whether embed jobs of a model may share requests.

Compares vectors of texts sent alone, in one job, and as concurrent jobs, which a worker packs into
requests. The worker does a check of its own before it packs (workers/embedding/packing_check.py),
and reports the result in the roster; this check goes through the whole fleet.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from contract.embeddings import unpack
from contract.errors import FleetError
from fleet.client.async_client import AsyncClient
from fleet.client.roster import ModelInfo
from fleet.doctor.finding import Finding, broken, note, ok
from workers.embedding.packing_check import LEAST_COSINE, TEXTS, Similarity, similarity

_JOB_S: Final = 120.0
_CROWD: Final = 16
"""Concurrent jobs that make a worker check whether it can pack."""
_ENDS: Final = ("Again.", "Once more.", "Still.", "At last.")
"""Endings that make texts different: a worker embeds the same text only once."""
_ROUNDS: Final = 8
_ROUND_S: Final = 0.5

Rows = list[list[float]]


async def vectors(fleet: AsyncClient, model: str | None) -> list[Finding]:
    """A finding for each model that embeds, or for the named one."""
    known = await fleet.models()
    chosen = [each for each in known if model == each.name or (not model and _embeds(each))]
    if not chosen:
        what = f"model {model}" if model else "embedding"
        fix = "see `fleet models`, or download one: `fleet pull MODEL --backend NAME`"
        return [note(what, "no backend has such a model", fix)]
    return [await _checked(fleet, each) for each in chosen]


def _embeds(model: ModelInfo) -> bool:
    return "embed" in model.traits


async def _checked(fleet: AsyncClient, model: ModelInfo) -> Finding:
    what = f"embed {model.name} on {model.backend}"
    others = [f"{text} {word}" for word in _ENDS for text in TEXTS]
    try:
        alone = [await _one(fleet, model, text) for text in (*TEXTS, *others)]
        packs = await _learnt(fleet, model)
        at_once = (_one(fleet, model, text, truncate=False) for text in TEXTS)
        packed = similarity(alone[: len(TEXTS)], await asyncio.gather(*at_once))
        rows = await _rows(fleet, model, others, truncate=False)
        together = similarity(alone[len(TEXTS) :], rows)
    except (FleetError, TimeoutError, IndexError) as error:
        fix = f"try `fleet embed` with the model {model.name}, and see `fleet jobs`"
        return broken(what, str(error) or f"no result within {_JOB_S:.0f} s", fix)
    return _judged(what, together, packed, packs=packs)


def _judged(what: str, together: Similarity, packed: Similarity, *, packs: bool | None) -> Finding:
    detail = (
        f"least cosine to each text alone: {packed.cosine:.5f} as concurrent jobs,"
        f" {together.cosine:.5f} in one job; {_in_words(packs=packs)}"
    )
    if not packed.is_same:
        fix = "give its worker FLEET_EMBED_PACK=false and its backend slots.embed=1"
        return broken(what, detail, fix)
    if not together.is_same:
        fix = f"send each text in its own job: below {LEAST_COSINE} the vector is a different one"
        return note(what, detail, fix)
    return ok(what, detail)


def _in_words(*, packs: bool | None) -> str:
    if packs is None:
        return "its worker does not pack, or had nothing to pack yet"
    return "jobs share requests" if packs else "so its worker lets no jobs share a request"


async def _learnt(fleet: AsyncClient, model: ModelInfo) -> bool | None:
    """Whether the worker packs jobs, as the roster says; sends it jobs until it is known."""
    for number in range(_ROUNDS):
        packs = await _packs(fleet, model)
        if packs is not None:
            return packs
        crowd = (_one(fleet, model, f"{number} of {at}") for at in range(_CROWD))
        await asyncio.gather(*crowd)
        await asyncio.sleep(_ROUND_S)
    return await _packs(fleet, model)


async def _packs(fleet: AsyncClient, model: ModelInfo) -> bool | None:
    views = [each for each in await fleet.models() if each.name == model.name]
    return next((each.packs for each in views if each.backend == model.backend), None)


async def _one(
    fleet: AsyncClient, model: ModelInfo, text: str, *, truncate: bool = True
) -> list[float]:
    return (await _rows(fleet, model, [text], truncate=truncate))[0]


async def _rows(
    fleet: AsyncClient, model: ModelInfo, texts: Sequence[str], *, truncate: bool
) -> Rows:
    """The vectors of one job.

    No text is long enough to be truncated: a different `truncate` only keeps the worker from
    returning cached vectors (FLEET_EMBED_CACHE_TTL_S), which would be compared with themselves.
    """
    job = await fleet.enqueue(
        "embed", model=model.name, backend=model.backend, input=tuple(texts), truncate=truncate
    )
    found = (await job.result(_JOB_S)).embeddings
    return unpack(found.data, found.dimension) if found else []
