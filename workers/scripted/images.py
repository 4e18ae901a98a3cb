"""Image APIs of the scripted server: sd-server's native API, A1111's, and OpenAI's.

Requests to the first two name no scripted model, so the first word of the prompt is the
script if it is one: `scripted-image:chunks=4,rate=10,fail=error:2 a cat`. A job takes
`chunks` steps, `rate` of them per second; jobs run one after another, as on the real servers.

Faults of sd-server's jobs: at the start those of `script.py`; at a step: error (the job failed),
after (the job is unknown), cut (truncated JSON), drop, stall (the job never ends).
"""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json, to_json

from contract.errors import (
    FleetError,
    ModelMissing,
)
from workers.scripted.catalog import early_error, error_reply, json_reply
from workers.scripted.http import HttpRequest, Reply, StreamedReply
from workers.scripted.picture import CELLS, STEPS, png, script_in, words_of
from workers.scripted.responses import SSE, ScriptedResponses
from workers.scripted.script import EARLY_FAULTS, IMAGE, Script, parse
from workers.scripted.wire import CREATED

QUEUE_FULL: Final = {"error": "job queue is full"}
FORMATS: Final = ["png"]
TITLE: Final = f"{IMAGE}.safetensors [5c819fed]"


@dataclass(slots=True)
class _Job:
    """An image job; times are those of the event loop."""

    script: Script
    fault: str | None
    body: dict[str, Any]
    steps: int
    begins_at: float
    task: str = ""
    is_cancelled: bool = False

    @property
    def seconds(self) -> float:
        return self.script.first + (self.steps / self.script.rate if self.script.rate else 0.0)

    @property
    def ends_at(self) -> float:
        return self.begins_at + self.seconds

    def fraction(self, now: float) -> float:
        return min(1.0, max(0.0, (now - self.begins_at) / (self.seconds or 1.0)))

    def is_at_fault(self, now: float) -> bool:
        done = self.fraction(now) * self.steps if self.script.rate else self.steps
        return self.fault is not None and done >= self.script.after


class ScriptedDiffusion:
    """The APIs of sd-server and A1111, with one queue of jobs."""

    def __init__(self, responses: ScriptedResponses) -> None:
        """`responses` decides which requests fail."""
        self._responses = responses
        self._jobs: dict[str, _Job] = {}
        self._busy_until = 0.0
        self._current: _Job | None = None
        self.interrupted: list[str] = []
        """Ids of the tasks that were cancelled or interrupted."""
        self.handlers: dict[str, Callable[[HttpRequest], Reply | None]] = {
            "/sdcpp/": self._sdcpp,
            "/sdapi/": self._a1111,
        }

    def _sdcpp(self, request: HttpRequest) -> Reply | None:
        name = request.path.removeprefix("/sdcpp/v1/")
        if name == "capabilities":
            return json_reply(
                {"supported_modes": ["img_gen"], "output_formats_by_mode": {"img_gen": FORMATS}}
            )
        if name == "img_gen":
            return self._enqueue(from_json(request.body))
        job_id = name.removeprefix("jobs/").removesuffix("/cancel")
        job = self._jobs.get(job_id)
        if job is None:
            return Reply(to_json({"error": "job not found"}), 404)
        return self._cancel(job_id, job) if name.endswith("/cancel") else self._status(job_id, job)

    def _enqueue(self, body: dict[str, Any]) -> Reply | None:
        sampling = body.get("sample_params") or {}
        job = self._job(body, sampling.get("sample_steps"), int(body.get("batch_count", 1)))
        if isinstance(job, Reply) or job is None:
            return job
        job_id = f"job_{len(self._jobs):08x}"
        self._jobs[job_id] = job
        answer = {"id": job_id, "kind": "img_gen", "status": "queued", "created": 1_750_000_000}
        return Reply(to_json(answer | {"poll_url": f"/sdcpp/v1/jobs/{job_id}"}), 202)

    def _status(self, job_id: str, job: _Job) -> Reply | None:
        now = _now()
        if job.is_at_fault(now):
            match job.fault:
                case "after":
                    return Reply(to_json({"error": "job not found"}), 404)
                case "cut":
                    return Reply(b'{"id":"' + job_id.encode())
                case "drop" | "reset":
                    return None
                case _:
                    pass
        return json_reply(self._fields(job_id, job, now))

    def _fields(self, job_id: str, job: _Job, now: float) -> dict[str, Any]:
        status, error, result, place = "completed", None, None, 0
        if job.is_cancelled:
            status, error = "cancelled", {"code": "cancelled", "message": "cancelled by client"}
        elif now < job.begins_at:
            status = "queued"
            place = sum(now < each.begins_at <= job.begins_at for each in self._jobs.values())
        elif job.is_at_fault(now) and job.fault == "error":
            message = "generate_image returned no results"
            status, error = "failed", {"code": "generation_failed", "message": message}
        elif now < job.ends_at or job.fault == "stall":
            status = "generating"
        else:
            pictures = enumerate(_pictures(job.body, job.body.get("init_image"), "batch_count"))
            images = [{"index": at, "b64_json": data} for at, data in pictures]
            result = {"output_format": "png", "images": images}
        return {
            "id": job_id,
            "kind": "img_gen",
            "status": status,
            "queue_position": place,
            "result": result,
            "error": error,
        }

    def _cancel(self, job_id: str, job: _Job) -> Reply:
        if job.begins_at <= _now() < job.ends_at or job.fault == "stall":
            message = "job is currently generating and cannot be interrupted yet"
            return Reply(to_json({"error": message}), 409)
        job.is_cancelled = True
        self.interrupted.append(job_id)
        return json_reply(self._fields(job_id, job, _now()))

    def _a1111(self, request: HttpRequest) -> Reply | None:
        match request.path.removeprefix("/sdapi/v1/"):
            case "sd-models":
                return json_reply([{"title": TITLE, "model_name": IMAGE, "filename": "x"}])
            case "options":
                return json_reply({"sd_model_checkpoint": TITLE})
            case "txt2img" | "img2img":
                return self._txt2img(from_json(request.body))
            case "progress":
                return self._progress(is_bare=request.query.get("skip_current_image") == "true")
            case "interrupt":
                self.interrupted.append(self._current.task if self._current else "")
                self._busy_until = 0.0
                return json_reply(None)
            case _:
                return Reply(to_json({"detail": "Not Found"}), 404)

    def _txt2img(self, body: dict[str, Any]) -> Reply | None:
        count = int(body.get("n_iter", 1))
        job = self._job(body, body.get("steps"), count)
        if isinstance(job, Reply) or job is None:
            return job
        job.task = str(body.get("force_task_id", ""))
        self._current = job
        delay_s = job.ends_at - _now()
        match job.fault:
            case "error":
                error = {"error": "OutOfMemoryError", "detail": "", "errors": "CUDA out of memory"}
                return Reply(to_json(error), 500, delay_s=delay_s)
            case "cut":
                return Reply(b'{"images":["iVBOR', delay_s=delay_s)
            case "drop" | "reset":
                return None
            case "stall":
                return Reply(b"{}", delay_s=3600.0)
            case _:
                pass
        images = _pictures(body, (body.get("init_images") or [None])[0], "n_iter")
        info = to_json({"all_seeds": [body.get("seed")], "index_of_first_image": 0}).decode()
        return json_reply({"images": images, "parameters": {}, "info": info}, delay_s=delay_s)

    def _progress(self, *, is_bare: bool) -> Reply:
        job, now = self._current, _now()
        if job is None or now >= job.ends_at:
            return json_reply({"progress": 0.0, "eta_relative": 0.0, "current_image": None})
        preview = None if is_bare else _picture(job.body, None, cells=CELLS // 4)
        return json_reply(
            {
                "progress": job.fraction(now),
                "eta_relative": job.ends_at - now,
                "state": {"sampling_steps": job.steps},
                "current_image": preview,
                "current_task": job.task,
            }
        )

    def _job(self, body: dict[str, Any], steps: int | None, count: int) -> _Job | Reply | None:
        """A new job at the end of the queue; a `Reply` refuses it, None drops the connection."""
        try:
            script = parse(script_in(str(body.get("prompt", ""))))
        except FleetError as error:
            return Reply(to_json({"error": error.message}), 400)
        fault = self._responses.fault(script)
        if fault == "busy":
            return Reply(to_json(QUEUE_FULL), 429)
        if fault in EARLY_FAULTS:
            return early_error(fault, is_ollama=True)
        if fault == "drop" and not script.after:
            return None
        begins_at = max(_now(), self._busy_until)
        job = _Job(script, fault, body, (script.chunks or steps or STEPS) * count, begins_at)
        self._busy_until = job.ends_at
        return job


def _pictures(body: dict[str, Any], start: str | None, count: str) -> list[str]:
    return [_picture(body, start, number) for number in range(int(body.get(count, 1)))]


def _picture(
    body: dict[str, Any], start: str | None, number: int = 0, *, cells: int = CELLS
) -> str:
    words = words_of(
        str(body.get("prompt")),
        negative=str(body.get("negative_prompt", "")),
        start=start or "",
        strength=body.get("strength", body.get("denoising_strength")),
        seed=body.get("seed"),
    )
    width, height = int(body.get("width", 512)), int(body.get("height", 512))
    picture = png(words if not number else f"{words}\n{number}", width, height, cells)
    return base64.b64encode(picture).decode()


def _now() -> float:
    return asyncio.get_running_loop().time()


SIZE: Final = "64x64"
USAGE: Final = {"input_tokens": 5, "output_tokens": 272, "total_tokens": 277}


class ScriptedOpenAIImages:
    """Answers below `/v1/images/`."""

    def __init__(self, responses: ScriptedResponses) -> None:
        """`responses` builds the responses."""
        self._responses = responses
        self.handlers: dict[str, Callable[[HttpRequest], Reply | StreamedReply | None]] = {
            "/v1/images/": self._answer
        }

    def _answer(self, request: HttpRequest) -> Reply | StreamedReply | None:
        is_edit = request.path.endswith("/edits")
        try:
            fields = form_fields(request.body) if is_edit else from_json(request.body)
            script = self._responses.catalog.script(str(fields.get("model")))
            fault = self._responses.fault(script)
            if fault in EARLY_FAULTS:
                return early_error(fault, is_ollama=False)
            if fault == "refuse":
                return error_reply(400, "Your request was rejected.", "moderation_blocked")
            pictures = _openai_pictures(fields)
            if str(fields.get("stream")).lower() == "true":
                kind = "image_edit" if is_edit else "image_generation"
                return self._flow(script, kind, fields, pictures[0], fault)
            return json_reply(
                _response_body(fields, pictures), delay_s=self._responses.delay_s(script)
            )
        except ModelMissing as error:
            return error_reply(404, error.message, "model_not_found")
        except (FleetError, ValueError) as error:
            return error_reply(400, str(error), "invalid_request_error")

    def _flow(
        self, script: Script, kind: str, fields: dict[str, Any], picture: str, fault: str | None
    ) -> StreamedReply | None:
        common = {"created_at": CREATED, "output_format": "png", "size": SIZE, "b64_json": picture}
        events = [
            _event(f"{kind}.partial_image", common | {"partial_image_index": index})
            for index in range(int(fields.get("partial_images", 0)))
        ]
        events.append(_event(f"{kind}.completed", common | {"usage": USAGE}))
        return self._responses.flow(script, events, fault, 0, SSE)


def form_fields(body: bytes) -> dict[str, Any]:
    """The fields of a multipart form; files are base64."""
    boundary = body.partition(b"\r\n")[0]
    fields: dict[str, Any] = {}
    for part in body.split(boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode()
        content = content.removesuffix(b"\r\n")
        is_file = b"filename=" in head
        fields[name] = base64.b64encode(content).decode() if is_file else content.decode()
    return fields


def _openai_pictures(fields: dict[str, Any]) -> list[str]:
    width, _, height = str(fields.get("size") or SIZE).partition("x")
    words = words_of(str(fields["prompt"]), start=str(fields.get("image") or ""))
    return [
        base64.b64encode(png(f"{words}\n{number}", int(width), int(height))).decode()
        for number in range(int(fields.get("n") or 1))
    ]


def _response_body(fields: dict[str, Any], pictures: list[str]) -> dict[str, Any]:
    """The response body: URLs if the request wants them, else the images."""
    if fields.get("response_format") == "url":
        data = [{"url": f"http://pictures.test/{at}.png"} for at in range(len(pictures))]
        return {"created": CREATED, "data": data}
    data = [{"b64_json": picture} for picture in pictures]
    return {"created": CREATED, "data": data, "output_format": "png", "usage": USAGE}


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + to_json({"type": kind, **fields}) + b"\n\n"
