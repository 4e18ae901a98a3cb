"""The image endpoints of the scripted server's OpenAI surface: whole answers, events, and forms."""

import base64
from collections.abc import Callable
from typing import Any, Final

from pydantic_core import from_json, to_json

from contract.errors import (
    FleetError,
)
from contract.errors_m_backend_errors import (
    ModelMissing,
)
from workers.scripted.catalog import early, error_reply, json_reply
from workers.scripted.http import Ask, Flow, Reply
from workers.scripted.picture import png, words_of
from workers.scripted.script import EARLY, Script
from workers.scripted.stage import SSE, Stage
from workers.scripted.wire import CREATED

SIZE: Final = "64x64"
USAGE: Final = {"input_tokens": 5, "output_tokens": 272, "total_tokens": 277}


class ScriptedOpenAIImages:
    """Answers below `/v1/images/`."""

    def __init__(self, stage: Stage) -> None:
        """`stage` performs."""
        self._stage = stage
        self.surfaces: dict[str, Callable[[Ask], Reply | Flow | None]] = {
            "/v1/images/": self._answer
        }

    def _answer(self, ask: Ask) -> Reply | Flow | None:
        is_edit = ask.path.endswith("/edits")
        try:
            fields = form_fields(ask.body) if is_edit else from_json(ask.body)
            script = self._stage.catalog.script(str(fields.get("model")))
            fault = self._stage.fault(script)
            if fault in EARLY:
                return early(fault, is_ollama=False)
            if fault == "refuse":
                return error_reply(400, "Your request was rejected.", "moderation_blocked")
            pictures = _pictures(fields)
            if str(fields.get("stream")).lower() == "true":
                kind = "image_edit" if is_edit else "image_generation"
                return self._flow(script, kind, fields, pictures[0], fault)
            return json_reply(_whole(fields, pictures), delay_s=self._stage.delay_s(script))
        except ModelMissing as error:
            return error_reply(404, error.message, "model_not_found")
        except (FleetError, ValueError) as error:
            return error_reply(400, str(error), "invalid_request_error")

    def _flow(
        self, script: Script, kind: str, fields: dict[str, Any], picture: str, fault: str | None
    ) -> Flow | None:
        told = {"created_at": CREATED, "output_format": "png", "size": SIZE, "b64_json": picture}
        events = [
            _event(f"{kind}.partial_image", told | {"partial_image_index": index})
            for index in range(int(fields.get("partial_images", 0)))
        ]
        events.append(_event(f"{kind}.completed", told | {"usage": USAGE}))
        return self._stage.flow(script, events, fault, 0, SSE)


def form_fields(body: bytes) -> dict[str, Any]:
    """The fields of a form; files as base64 under their field's name."""
    boundary = body.partition(b"\r\n")[0]
    fields: dict[str, Any] = {}
    for part in body.split(boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode()
        content = content.removesuffix(b"\r\n")
        is_file = b"filename=" in head
        fields[name] = base64.b64encode(content).decode() if is_file else content.decode()
    return fields


def _pictures(fields: dict[str, Any]) -> list[str]:
    width, _, height = str(fields.get("size") or SIZE).partition("x")
    words = words_of(str(fields["prompt"]), start=str(fields.get("image") or ""))
    return [
        base64.b64encode(png(f"{words}\n{number}", int(width), int(height))).decode()
        for number in range(int(fields.get("n") or 1))
    ]


def _whole(fields: dict[str, Any], pictures: list[str]) -> dict[str, Any]:
    """Addresses if they were asked for, else the pictures."""
    if fields.get("response_format") == "url":
        data = [{"url": f"http://pictures.test/{at}.png"} for at in range(len(pictures))]
        return {"created": CREATED, "data": data}
    data = [{"b64_json": picture} for picture in pictures]
    return {"created": CREATED, "data": data, "output_format": "png", "usage": USAGE}


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + to_json({"type": kind, **fields}) + b"\n\n"
