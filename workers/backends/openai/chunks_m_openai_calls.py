"""Fragments of tool calls, told apart and numbered from 0 in the order in which the calls appear.

Servers number them from 0, from 1, all alike or not at all (vLLM, SGLang and proxies in front of
others), so an `index` is no more than a hint. What counts is the id: a new one begins a call, one
that was there before goes on with its call. A fragment without an id goes on with the call that was
the last one at its index, unless it brings a name although that call is whole.
"""

from typing import Final

from pydantic_core import from_json

from contract.events import ToolCallDelta
from workers.backends.openai.shapes import Call, Function
from workers.backends.tools import arguments_text

_OLDER: Final = "function_call"
"""Where the one call of the older form goes on, in place of an index."""


class _Open:
    """A call that has begun."""

    __slots__ = ("arguments", "name", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = ""
        self.arguments: list[str] = []

    @property
    def is_whole(self) -> bool:
        """Whether nothing can follow: an object has ended, and no JSON goes on after that."""
        try:
            return isinstance(from_json("".join(self.arguments)), dict)
        except ValueError:
            return False


class Calls:
    """The calls of one answer."""

    def __init__(self) -> None:
        """None yet."""
        self._by_id: dict[str, _Open] = {}
        self._by_index: dict[int | str | None, _Open] = {}
        self._count = 0

    def __bool__(self) -> bool:
        """Whether one has begun."""
        return self._count > 0

    def add(self, call: Call) -> ToolCallDelta:
        """A fragment as it came; the first of a call has an id and its number."""
        function: Function = call.get("function") or {}
        return self._told(call.get("index"), call.get("id") or None, function)

    def add_older(self, function: Function) -> ToolCallDelta:
        """A fragment of `function_call`, which has neither an id nor an index."""
        return self._told(_OLDER, None, function)

    def _told(self, index: int | str | None, id: str | None, function: Function) -> ToolCallDelta:
        name, arguments = function.get("name") or None, function.get("arguments")
        text = arguments_text(arguments) if arguments else None
        known = self._known(index, id, name, text)
        call = known or _Open(self._count)
        if known is None:
            self._count += 1
            id = id or self._counted(call.number)
            self._by_id[id] = call
        self._by_index[index] = self._by_index[None] = call
        call.name = name or call.name
        if text:
            call.arguments.append(text)
        return ToolCallDelta(index=call.number, id=None if known else id, name=name, arguments=text)

    def _known(
        self, index: int | str | None, id: str | None, name: str | None, text: str | None
    ) -> _Open | None:
        """The call that a fragment goes on with; None: it begins one."""
        if id is not None:
            return self._by_id.get(id)
        call = self._by_index.get(index)
        if call is None or not name:
            return call
        is_another = bool(call.name) and name != call.name and bool(call.arguments)
        return None if is_another or (text and call.is_whole) else call

    def _counted(self, number: int) -> str:
        """An id for a call that has none."""
        while f"call_{number}" in self._by_id:
            number += 1
        return f"call_{number}"
