"""vLLM in development mode, which can sleep: VLLM_SERVER_DEV_MODE=1, `--enable-sleep-mode`.

A plain vLLM has no such paths and cannot be probed for them, so this is an option of the type,
`vllm://host?dev=1`. Sleep level 1 keeps the weights in main memory. Source: vLLM
`entrypoints/serve/dev/sleep`.
"""

from collections.abc import Sequence

from typing_extensions import override

from contract.errors import ModelMissing
from contract.events import Details, Done, Phase
from contract.model_names import find
from contract.models import (
    EVERY_MODEL,
    LoadRequest,
    UnloadRequest,
)
from contract.roster import ModelReport
from workers.backends.http.client import QUICK_S
from workers.backends.openai.reranking import Vllm
from workers.backends.protocols import Stream


class SleepingVllm(Vllm):
    """One vLLM server; load wakes it up, unload puts it to sleep."""

    @override
    async def models(self) -> Sequence[ModelReport]:
        """GET /models; cold while the server sleeps."""
        warm = not await self._is_asleep()
        return [report.model_copy(update={"warm": warm}) for report in await super().models()]

    async def running(self) -> Stream[Details | Done]:
        """GET /is_sleeping: all models, or none."""
        models = await self.models()
        yield Details(
            details={
                "models": [
                    {"name": model.name, "model": model.name, "state": "ready"}
                    for model in models
                    if model.warm
                ]
            }
        )
        yield Done()

    async def load(self, request: LoadRequest) -> Stream[Phase | Done]:
        """POST /wake_up, which returns when the weights are loaded."""
        await self._require_model(request.model)
        if await self._is_asleep():
            yield Phase(phase="loading")
            await self._post_empty("/wake_up")
        yield Done(ignored=("keep_alive_s",) if request.keep_alive_s is not None else ())

    async def unload(self, request: UnloadRequest) -> Stream[Done]:
        """POST /sleep?level=1; it aborts running requests."""
        if request.model != EVERY_MODEL:
            await self._require_model(request.model)
        if not await self._is_asleep():
            await self._post_empty("/sleep?level=1")
        yield Done()

    async def _is_asleep(self) -> bool:
        answer = await self._root.json("GET", "/is_sleeping", limit_s=QUICK_S)
        return bool(answer.get("is_sleeping"))

    async def _post_empty(self, path: str) -> None:
        """POST; success has an empty body."""
        async with self._root.open("POST", path) as answer:
            await answer.read()

    async def _require_model(self, model: str) -> None:
        names = {report.name: report for report in await super().models()}
        if find(names, model) is None:
            raise ModelMissing(f"model {model!r} not found; vLLM serves {', '.join(names)}")
