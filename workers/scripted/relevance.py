"""Reranking of the scripted server, in the shapes of llama-server, vLLM, TEI and Infinity."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic_core import from_json

from contract.errors import FleetError, ModelMissing
from workers.scripted.catalog import (
    CONTEXT_LENGTH,
    VERSION,
    early_error,
    error_reply,
    json_reply,
)
from workers.scripted.http import Handler, HttpRequest, Reply, StreamedReply
from workers.scripted.responses import ScriptedResponses
from workers.scripted.script import EARLY_FAULTS, RERANK, Script, may_fail, scores

TEI_BATCH: Final = 4
"""Most texts of one request to the imitated TEI; a real one takes 32."""
Pairs = Sequence[tuple[str, str]]
Rendered = Callable[[Script, list[float], Pairs], Any]


class ScriptedRelevance:
    """Handles /rerank and /score; a TEI and an Infinity have fewer paths."""

    def __init__(
        self,
        responses: ScriptedResponses,
        fallback: Handler,
        on_pairs: Callable[[int], object] = lambda _: None,
    ) -> None:
        """`responses` decides which requests fail; `fallback` has the other paths.

        `on_pairs` is called with the number of pairs of each request.
        """
        self._responses = responses
        self._fallback = fallback
        self._on_pairs = on_pairs
        self.handlers: dict[str, Handler] = {
            **dict.fromkeys(("/v1/rerank", "/v2/rerank", "/rerank"), self._rerank),
            **dict.fromkeys(("/v1/score", "/score"), self._score),
        }
        self.infinity: dict[str, Handler] = {
            "/models": self._capabilities,
            "/embeddings": lambda request: fallback(replace(request, path="/v1/embeddings")),
            "/v1/": _not_found,
        }
        self.tei: dict[str, Handler] = {
            "/info": _info,
            "/v1/models": _not_found,
            "/rerank": self._ranks,
        }

    def _rerank(self, request: HttpRequest) -> Reply | StreamedReply | None:
        body = from_json(request.body)
        documents = [str(each) for each in body.get("documents") or ()]
        pairs = [(str(body.get("query")), each) for each in documents]

        def rendered(script: Script, found: list[float], pairs: Pairs) -> dict[str, Any]:
            best = sorted(enumerate(found), key=lambda pair: -pair[1])[: body.get("top_n")]
            results = [{"index": at, "relevance_score": score} for at, score in best]
            results = results[:-1] if "short" in script.wire else results
            return {"object": "list", "results": results, **_usage(script, pairs)}

        return self._answer(str(body.get("model")), pairs, rendered)

    def _score(self, request: HttpRequest) -> Reply | StreamedReply | None:
        body = from_json(request.body)
        pairs = list(zip(body.get("text_1") or (), body.get("text_2") or (), strict=True))

        def rendered(script: Script, found: list[float], pairs: Pairs) -> dict[str, Any]:
            data = [
                {"index": at, "object": "score", "score": score} for at, score in enumerate(found)
            ]
            data = data[:-1] if "short" in script.wire else data
            return {"object": "list", "data": data, **_usage(script, pairs)}

        return self._answer(str(body.get("model")), pairs, rendered)

    def _ranks(self, request: HttpRequest) -> Reply | StreamedReply | None:
        body = from_json(request.body)
        texts = [str(each) for each in body.get("texts") or ()]
        if len(texts) > TEI_BATCH:
            message = f"batch size {len(texts)} > maximum allowed batch size {TEI_BATCH}"
            return error_reply(422, message, "validation")
        pairs = [(str(body.get("query")), each) for each in texts]

        def rendered(_: Script, found: list[float], _pairs: Pairs) -> list[dict[str, Any]]:
            best = sorted(enumerate(found), key=lambda pair: -pair[1])
            return [{"index": at, "score": score} for at, score in best]

        return self._answer(RERANK, pairs, rendered)

    def _answer(self, model: str, pairs: Pairs, rendered: Rendered) -> Reply | StreamedReply | None:
        self._on_pairs(len(pairs))
        try:
            script = self._responses.catalog.script(model)
        except ModelMissing as error:
            return error_reply(404, error.message, "model_not_found")
        except (FleetError, ValueError) as error:
            return error_reply(400, str(error), "invalid_request_error")
        if script.form != RERANK:
            message = "This server does not support reranking. Start it with `--reranking`"
            return error_reply(501, message, "not_supported_error")
        fails = may_fail(script, [document for _, document in pairs])
        fault = self._responses.fault(script) if fails else None
        if fault is not None:
            return early_error(fault, is_ollama=False) if fault in EARLY_FAULTS else None
        found = scores(script, pairs)
        return json_reply(rendered(script, found, pairs), delay_s=self._responses.delay_s(script))

    def _capabilities(self, _: HttpRequest) -> Reply:
        kinds = {"scripted-embed": ["embed"], RERANK: ["rerank"]}
        data = [
            {
                "id": name,
                "object": "model",
                "owned_by": "infinity",
                "capabilities": kinds[name.partition(":")[0]],
            }
            for name in self._responses.catalog.names
            if name.partition(":")[0] in kinds
        ]
        return json_reply({"object": "list", "data": data})


def _usage(script: Script, pairs: Pairs) -> dict[str, Any]:
    tokens = sum(len(text.split()) for pair in pairs for text in pair)
    return {"model": script.model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _info(_: HttpRequest) -> Reply:
    return json_reply(
        {
            "model_id": RERANK,
            "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
            "max_input_length": CONTEXT_LENGTH,
            "max_client_batch_size": TEI_BATCH,
            "version": VERSION,
        }
    )


def _not_found(request: HttpRequest) -> Reply:
    return error_reply(404, f"no {request.method} {request.path}", "not_found_error")
