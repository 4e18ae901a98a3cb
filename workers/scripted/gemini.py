"""The Gemini API of the scripted server, and Vertex's: the same models at other paths.

It also gives tokens to whoever asks at `/token`, as Google's cloud does to service accounts.
"""

import base64
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

from pydantic_core import from_json

from contract.errors import (
    FleetError,
)
from contract.errors_m_backend_errors import (
    ModelMissing,
)
from workers.scripted import gemini_m_scripted_gemini_wire as wire
from workers.scripted.catalog import CONTEXT_LENGTH, json_reply
from workers.scripted.http import Ask, Flow, Reply
from workers.scripted.picture import png
from workers.scripted.script import EARLY, FORMS, Script, play, vector
from workers.scripted.stage import SSE, Stage

MOST_TEXTS: Final = 100
OUTPUT_LIMIT: Final = 2048
SIDE: Final = 64
"""Pixels of a picture."""
_METHODS: Final = {"scripted-embed": ["embedContent", "batchEmbedContents"]}
_NOT_FOUND: Final = 404


class ScriptedGemini:
    """Answers below `/v1beta`, `/v1beta1` and `/token`."""

    def __init__(self, stage: Stage) -> None:
        """`stage` performs."""
        self._stage = stage
        self._tokens = 0
        self.surfaces: dict[str, Callable[[Ask], Reply | Flow | None]] = {
            "/v1beta": self._answer,
            "/token": self._token,
        }
        self._methods: dict[str, Callable[[Script, dict[str, Any]], Reply | Flow | None]] = {
            "streamGenerateContent": self._chat,
            "generateContent": self._picture,
            "batchEmbedContents": self._embed,
            "embedContent": self._embed_one,
            "predict": self._predict,
        }

    def _answer(self, ask: Ask) -> Reply | Flow | None:
        path, _, method = unquote(ask.path).rpartition(":")
        if ask.method == "GET":
            return _listed(ask)
        if method not in self._methods or "/models/" not in path:
            return wire.refused(_NOT_FOUND, "NOT_FOUND", f"no {ask.method} {ask.path}")
        try:
            script = self._stage.catalog.script(path.partition("/models/")[2])
            fault = script.fail
            if fault in EARLY and self._stage.fault(script):
                return wire.early(fault)
            return self._methods[method](script, from_json(ask.body))
        except ModelMissing:
            message = f"models/{path} is not found for API version v1beta"
            return wire.refused(_NOT_FOUND, "NOT_FOUND", message)
        except (FleetError, ValueError) as error:
            return wire.refused(400, "INVALID_ARGUMENT", str(error))

    def _chat(self, script: Script, body: dict[str, Any]) -> Reply | Flow | None:
        fault = self._stage.fault(script)
        if name := wire.unsigned(body["contents"]):
            raise ValueError(f"Function call {name} is missing a thought_signature.")
        turn = play(script, wire.prompt(body))
        error = wire.stream_error(script.style)
        return self._stage.flow(script, wire.packets(script, turn), fault, 0, SSE, error=error)

    def _picture(self, script: Script, body: dict[str, Any]) -> Reply | Flow | None:
        picture = png(wire.prompt(body).text, SIDE, SIDE)
        data = {"mimeType": "image/png", "data": base64.b64encode(picture).decode()}
        content = {"role": "model", "parts": [{"inlineData": data}]}
        if script.fail == "refuse":
            candidate: dict[str, Any] = {"finishReason": "IMAGE_SAFETY", "index": 0}
        else:
            candidate = {"content": content, "finishReason": "STOP", "index": 0}
        usage = {"promptTokenCount": 3, "candidatesTokenCount": 1290}
        return json_reply({"candidates": [candidate], "usageMetadata": usage})

    def _embed(self, script: Script, body: dict[str, Any]) -> Reply | Flow | None:
        asked = body["requests"]
        if len(asked) > MOST_TEXTS:
            raise ValueError("at most 100 requests can be in one batch")
        texts = [each["content"]["parts"][0]["text"] for each in asked]
        width = asked[0].get("outputDimensionality")
        rows = [{"values": values} for values in self._rows(script, texts, width)]
        tokens = sum(len(text.split()) for text in texts)
        return json_reply({"embeddings": rows, "usageMetadata": {"promptTokenCount": tokens}})

    def _embed_one(self, script: Script, body: dict[str, Any]) -> Reply | Flow | None:
        text = body["content"]["parts"][0]["text"]
        wishes = body.get("embedContentConfig") or {}
        rows = self._rows(script, [text], wishes.get("outputDimensionality"))
        usage = {"promptTokenCount": len(text.split())}
        return json_reply({"embedding": {"values": rows[0]}, "usageMetadata": usage})

    def _predict(self, script: Script, body: dict[str, Any]) -> Reply | Flow | None:
        texts = [each["content"] for each in body["instances"]]
        rows = self._rows(script, texts, body["parameters"].get("outputDimensionality"))
        predictions = [
            {"embeddings": {"values": row, "statistics": {"token_count": len(text.split())}}}
            for row, text in zip(rows, texts, strict=False)
        ]
        return json_reply({"predictions": predictions})

    def _rows(self, script: Script, texts: list[str], width: int | None) -> list[list[float]]:
        """Vectors; those that were cut short are no unit vectors any more."""
        rows = [vector(text, width or script.dim) for text in texts]
        rows = rows if width is None else [[2 * value for value in row] for row in rows]
        return rows[:-1] if "short" in script.wire else rows

    def _token(self, _: Ask) -> Reply:
        self._tokens += 1
        token = f"ya29.scripted-{self._tokens}"
        return json_reply({"access_token": token, "expires_in": 3600, "token_type": "Bearer"})


def _listed(ask: Ask) -> Reply:
    """A page of the list; the token is where the next begins."""
    start, size = int(ask.query.get("pageToken", "0")), int(ask.query.get("pageSize", "50"))
    end = start + min(size, 3)
    more = {"nextPageToken": str(end)} if end < len(FORMS) else {}
    if "publishers" in ask.path:
        names = [{"name": f"publishers/google/models/{form}"} for form in FORMS[start:end]]
        return json_reply({"publisherModels": names, **more})
    return json_reply({"models": [_item(form) for form in FORMS[start:end]], **more})


def _item(form: str) -> dict[str, Any]:
    return {
        "name": f"models/{form}",
        "version": "1",
        "inputTokenLimit": CONTEXT_LENGTH,
        "outputTokenLimit": OUTPUT_LIMIT,
        "supportedGenerationMethods": _METHODS.get(form, ["generateContent", "countTokens"]),
        "thinking": form == "scripted-think",
    }
