"""How many tokens a prompt has: asks the model's backend in a short job, or else estimates.

A backend counts with the model's own template and vocabulary. Where none can, or none answers in
time, four bytes of text are a token (contract/cost.py), and X-Fleet-Estimated says so: clients ask
for a number in order to decide something, and an error would stop them.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from api_shim.following.drop_in import DropInCall
from api_shim.http.error_hints import OPENAI
from api_shim.http.problems import Refusal
from api_shim.submission.roster_cache import Pool
from api_shim.submission.selection import absent
from contract.chat import ChatRequest, CountRequest
from contract.cost import IMAGE_TOKENS, prompt_tokens
from contract.errors import ModelMissing, NotSupported, NoWorker, QueueFull

ESTIMATED: Final = "X-Fleet-Estimated"
"""Header of a response whose number is an estimate."""
_DEADLINE_S: Final = 10.0
_NOT_COUNTED: Final = frozenset({NotSupported.code, NoWorker.code, QueueFull.code})
"""Refusals after which the number is estimated."""
_FINAL: Final = frozenset({ModelMissing.code, "caller_left", "shim_stopping", "cancelled"})
"""Ends of the job that are the client's to know."""


class PromptCount(NamedTuple):
    """The tokens of a prompt."""

    input_tokens: int
    is_estimated: bool

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the response that tell how the number was found."""
        return {ESTIMATED: "input_tokens"} if self.is_estimated else {}


class TokenCount:
    """The count of one prompt."""

    def __init__(self, chat: ChatRequest) -> None:
        """The prompt is the messages and tools of `chat`, of which it has at least one message."""
        self._chat = chat
        self._request = CountRequest(
            model=chat.model,
            backend=chat.backend,
            messages=chat.messages,
            tools=chat.tools,
            priority="interactive",
            deadline_s=_DEADLINE_S,
            max_attempts=1,
            on_no_worker="refuse",
        )
        self._images = sum(len(message.images) for message in chat.messages)

    async def of(self, call: DropInCall, fleet: Mapping[str, Pool]) -> PromptCount:
        """The number of tokens; raises Refusal for an unknown model, RelayUnavailable."""
        try:
            record = await call.submit(self._request)
        except Refusal as refusal:
            if refusal.code not in _NOT_COUNTED:
                raise
            self._check_model(fleet)
            return self._estimate
        try:
            result = await call.result(record)
        except Refusal as refusal:
            if refusal.code in _FINAL:
                raise
            return self._estimate
        counted = (result.details or {}).get("input_tokens")
        if not isinstance(counted, int):
            return self._estimate
        return PromptCount(counted + self._images * IMAGE_TOKENS, self._images > 0)

    def _check_model(self, fleet: Mapping[str, Pool]) -> None:
        if not any(pool.find(self._chat.model) for pool in fleet.values()):
            raise absent(self._chat.model, fleet.values(), OPENAI)

    @property
    def _estimate(self) -> PromptCount:
        return PromptCount(prompt_tokens(self._chat), is_estimated=True)
