"""The object `response`: the request's settings, the status, the output so far. Pure.

Source: openai/openai-openapi, Response.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from api_shim.following.job_refusals import refusal_of
from api_shim.openai.errors import known_code
from api_shim.openai.response_head import ResponseHead
from api_shim.openai.responses.output import Output
from api_shim.openai.responses.response_tools import client_tools
from contract.chat import ChatRequest, ResponseNotes
from contract.events import Failed, Frame, Usage

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

_SERVER_ERROR: Final = 500
_DEFAULTS: Final[Mapping[str, Any]] = {
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {},
    "safety_identifier": None,
    "temperature": None,
    "text": {},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
_REASONING: Final = {"effort": None, "summary": None}
_TEXT: Final = {"format": {"type": "text"}, "verbosity": "medium"}
_TOOL: Final = {"description": None, "parameters": None, "strict": None}
_WHY_INCOMPLETE: Final[Mapping[str, str]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}
"""Why an output is incomplete, by the backend's finish reason; other reasons mean completed."""


class ResponseFacts:
    """The fields of a response that do not depend on its status."""

    def __init__(self, head: ResponseHead, request: ChatRequest) -> None:
        """`head` and `request` are those of its job."""
        self._head = head
        self.job_id = head.job_id
        notes = request.response_notes or ResponseNotes()
        # The notes are untrusted: a native job may have any.
        echo = {**_DEFAULTS, **{k: v for k, v in notes.echo.items() if k in _DEFAULTS}}
        reasoning = {**_REASONING, **_object(echo["reasoning"])}
        self.as_summary = bool(reasoning["summary"] or reasoning.pop("generate_summary", None))
        self.in_background = notes.background
        self._tools = client_tools(echo["tools"])
        has_instructions = notes.has_instructions and request.messages
        self._fields = {
            "id": f"resp_{head.job_id}",
            "object": "response",
            "created_at": head.created,
            "background": notes.background,
            "instructions": request.messages[0].text if has_instructions else None,
            "model": head.model,
            "previous_response_id": f"resp_{notes.chain[-1]}" if notes.chain else None,
            "service_tier": head.tier,
            "store": notes.stored,
            **echo,
            "reasoning": reasoning,
            "text": {**_TEXT, **_object(echo["text"])},
            "tools": [{**_TOOL, **_object(tool)} for tool in _list(echo["tools"])],
        }

    def answered_by(self, started: Frame) -> None:
        """Take the model that an attempt runs, which may be another one of an alias."""
        if self._head.is_alias:
            self._fields["model"] = self._head.answered_by(started).model

    @property
    def output(self) -> Output:
        """A new, empty output."""
        return Output(self.job_id, as_summary=self.as_summary, tools=self._tools)

    def response(self, status: Status, output: Output, **ending: Any) -> dict[str, Any]:
        """The object; `ending` are fields that the end of the job sets."""
        is_under_way = status in {"queued", "in_progress"}
        return {
            **self._fields,
            "status": status,
            "output": output.values("in_progress" if is_under_way else "incomplete"),
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "usage": None,
            **ending,
        }


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


class ResponseEnding:
    """How a job that is done ends its response."""

    def __init__(self, finish_reason: str | None, *, has_refused: bool = False) -> None:
        """`finish_reason` is the backend's."""
        self._reason = None if has_refused else _WHY_INCOMPLETE.get(finish_reason or "")

    @property
    def status(self) -> Literal["completed", "incomplete"]:
        """Whether the output is complete."""
        return "incomplete" if self._reason else "completed"

    def fields(self, used: Usage | None, at: float | None) -> dict[str, Any]:
        """The fields that the end sets; `at` is unix seconds."""
        if self._reason:
            return {"incomplete_details": {"reason": self._reason}, "usage": usage(used)}
        return {"completed_at": None if at is None else int(at), "usage": usage(used)}


def usage(used: Usage | None) -> dict[str, Any] | None:
    """Token counts as the Responses API has them; None if the backend reported none."""
    if used is None:
        return None
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {"cached_tokens": used.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }


def error(failed: Failed) -> dict[str, Any]:
    """The error of a failed response; `type` is our own code."""
    refusal = refusal_of(failed)
    is_ours = refusal.status_code >= _SERVER_ERROR
    code = "server_error" if is_ours else known_code(failed.code)
    return {"code": code, "message": failed.message, "param": None, "type": failed.code}
