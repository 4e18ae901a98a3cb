"""Servers that count the tokens of a chat's prompt: llama-server and vLLM.

Sources: llama.cpp `tools/server/README.md` (POST /apply-template, POST /tokenize); vLLM
`entrypoints/serve/tokenize/protocol.py` (TokenizeChatRequest).
"""

from contract.chat import CountRequest
from contract.errors import BadAnswer
from contract.events import Details, Done
from workers.backends.openai import requests as wire
from workers.backends.openai import shapes
from workers.backends.openai.adapter import OpenAI
from workers.backends.protocols import Stream

_PROMPT: frozenset[str] = frozenset({"model", "messages", "tools", "tool_choice"})
"""Fields of a chat that its prompt depends on."""


class CountingOpenAI(OpenAI):
    """An OpenAI-shaped server that also tokenizes."""

    async def count(self, request: CountRequest) -> Stream[Details | Done]:
        """POST /tokenize; llama-server's takes text, so its /apply-template makes that first.

        Raises BackendError.
        """
        whole = wire.to_chat(self._with_server_name(request.chat), self.dialect).fields
        body = {name: value for name, value in whole.items() if name in _PROMPT}
        if self.dialect.catalog == "props":
            templated = await self._root.json(
                "POST", "/apply-template", body, shape=shapes.TEMPLATED
            )
            text = templated.get("prompt")
            if text is None:
                raise BadAnswer("the backend's answer is not understood at prompt: missing")
            body = {"content": text, "add_special": True, "parse_special": True}
        else:
            body.pop("tool_choice", None)
        counted = await self._root.json("POST", "/tokenize", body, shape=shapes.TOKENIZED)
        tokens, count = counted.get("tokens"), counted.get("count")
        if count is None and tokens is None:
            raise BadAnswer("the backend's answer is not understood at tokens: missing")
        yield Details(details={"input_tokens": len(tokens or ()) if count is None else count})
        yield Done()
