"""Tool calls put together from fragments: Ollama tells one whole, its arguments an object. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from api_shim.http.problems import Refusal
from contract.chat import ToolCall
from contract.errors_m_backend_errors import ServerFault


class Calls:
    """The calls of one answer."""

    def __init__(self) -> None:
        """None yet."""
        self._calls: dict[int, dict[str, Any]] = {}

    @classmethod
    def of(cls, calls: Sequence[ToolCall]) -> "Calls":
        """Calls that were put together elsewhere."""
        made = cls()
        made.add({"index": at, **call.model_dump()} for at, call in enumerate(calls))
        return made

    def __len__(self) -> int:
        """How many there are so far."""
        return len(self._calls)

    def add(self, fragments: Iterable[Mapping[str, Any]]) -> None:
        """Take fragments as they stand in a delta's JSON; those of one index belong together."""
        for fragment in fragments:
            call = self._calls.setdefault(fragment["index"], {"arguments": ""})
            call["id"] = fragment.get("id") or call.get("id")
            call["name"] = fragment.get("name") or call.get("name") or ""
            call["arguments"] += fragment.get("arguments") or ""

    @property
    def whole(self) -> list[dict[str, Any]]:
        """The calls as they stand in a message; raises Refusal if one broke off."""
        return [
            {
                **({"id": call["id"]} if call["id"] else {}),
                "function": {
                    "index": index,
                    "name": call["name"],
                    "arguments": _object(call["name"], call["arguments"]),
                },
            }
            for index, (_, call) in enumerate(sorted(self._calls.items()))
        ]


def _object(name: str, text: str) -> dict[str, Any]:
    """Arguments as an object; some models write the object as a string within the string."""
    try:
        found = from_json(text or "{}")
        found = from_json(found) if isinstance(found, str) else found
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Refusal(
            ServerFault,
            f"The model called {name[:64]!r} with arguments that are no JSON object, which this "
            "API cannot tell; they may have been cut off by num_predict.",
            status=502,
        )
    return found
