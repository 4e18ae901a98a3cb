"""The scripted server as LM Studio: its /api/v1, and 200 with an error for unknown paths."""

from typing import Any

from pydantic_core import from_json

from contract.errors import FleetError
from workers.scripted import wire
from workers.scripted.backend import LAYERS, PULL_STEPS
from workers.scripted.catalog import CONTEXT_LENGTH, error_reply, json_reply
from workers.scripted.http import Handler, HttpRequest, Reply
from workers.scripted.responses import ScriptedResponses

_TOTAL = sum(total for _, total in LAYERS)


class ScriptedLmStudio:
    """The paths of LM Studio; a download advances by one step per poll."""

    def __init__(self, responses: ScriptedResponses, _: Handler) -> None:
        """Nothing loaded, nothing downloaded."""
        self._responses, self._catalog = responses, responses.catalog
        self._instances: dict[str, list[str]] = {}
        self._jobs: dict[str, tuple[str, int]] = {}
        self.handlers: dict[str, Handler] = {
            "/api/v1/models/load": self._load,
            "/api/v1/models/unload": self._unload,
            "/api/v1/models/download/status/": self._status,
            "/api/v1/models/download": self._download,
            "/api/v1/models": self._models,
            **dict.fromkeys(("/api/", "/props", "/health", "/version", "/sdapi/"), _unexpected),
        }

    def _models(self, _: HttpRequest) -> Reply:
        return json_reply({"models": [self._item(name) for name in self._catalog.names]})

    def _item(self, name: str) -> dict[str, Any]:
        config = {"context_length": CONTEXT_LENGTH, "flash_attention": True}
        return {
            "type": "embedding" if name == "scripted-embed" else "llm",
            "key": name,
            "display_name": name,
            "size_bytes": 1_000_000,
            "loaded_instances": [
                {"id": id, "config": config} for id in self._instances.get(name, ())
            ],
            "max_context_length": 4 * CONTEXT_LENGTH,
            "format": "gguf",
            "capabilities": {"vision": False, "trained_for_tool_use": name == "scripted-tools"},
        }

    def _load(self, request: HttpRequest) -> Reply:
        model = str(from_json(request.body)["model"])
        if model not in self._catalog.names:
            return error_reply(404, f"Model {model} not found", "model_not_found")
        ids = self._instances.setdefault(model, [])
        ids.append(f"{model}:{len(ids) + 1}" if ids else model)
        script = self._catalog.script(model)
        answer = {"type": "llm", "instance_id": ids[-1], "status": "loaded"}
        return json_reply(answer | {"load_time_seconds": script.load}, delay_s=script.load)

    def _unload(self, request: HttpRequest) -> Reply:
        id = from_json(request.body)["instance_id"]
        for ids in self._instances.values():
            if id in ids:
                ids.remove(id)
                return json_reply({"instance_id": id})
        return error_reply(404, f"no instance {id}", "model_not_found")

    def _download(self, request: HttpRequest) -> Reply:
        model = str(from_json(request.body)["model"])
        if model in self._catalog.names:
            return json_reply({"status": "already_downloaded", "total_size_bytes": _TOTAL})
        try:
            script = self._catalog.script(model, is_pull=True)
        except FleetError as error:
            return error_reply(404, error.message, "model_not_found")
        if script.fail == "missing":
            return error_reply(404, f"Model {model} not found", "model_not_found")
        job = f"job-{len(self._jobs) + 1}"
        self._jobs[job] = (model, 0)
        return json_reply(self._job_status(job))

    def _status(self, request: HttpRequest) -> Reply | None:
        job = request.path.rpartition("/")[2]
        if job not in self._jobs:
            return error_reply(404, f"no job {job}", "job_not_found")
        model, step = self._jobs[job]
        script = self._catalog.script(model, is_pull=True)
        if script.fail == "drop" and self._responses.fault(script):
            return None
        if script.fail != "stall":
            self._jobs[job] = (model, min(step + 1, PULL_STEPS))
        if self._jobs[job][1] == PULL_STEPS:
            self._catalog.add(model)
        return json_reply(self._job_status(job))

    def _job_status(self, job: str) -> dict[str, Any]:
        model, step = self._jobs[job]
        script = self._catalog.script(model, is_pull=True)
        fields: dict[str, Any] = {"job_id": job, "started_at": wire.CREATED_AT}
        fields |= {"total_size_bytes": _TOTAL, "downloaded_bytes": _TOTAL * step // PULL_STEPS}
        if script.fail == "crash" and step > script.after:
            return fields | {"status": "failed", "error_message": "no space left on device"}
        return fields | {"status": "completed" if step == PULL_STEPS else "downloading"}


def _unexpected(request: HttpRequest) -> Reply:
    return json_reply(
        {"error": f"Unexpected endpoint or method. ({request.method} {request.path})"}
    )
