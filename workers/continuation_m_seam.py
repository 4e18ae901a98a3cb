"""Where the rest of an answer is joined to its beginning: no letter lost, none said twice. Pure.

A beginning goes back to the backend without the white space at its end. Servers differ in what
they make of that: vLLM has refused it and its templates trim it (vllm #9547), and tokenizers cut
" " and "word" another way than " word". So the backend says it once more, and the seam drops as
much of it as was shown.
"""

from collections.abc import Iterable
from typing import Final

from contract.events import Done, Usage

_LONGEST_TOKEN_BYTES: Final = 32
"""A fragment that is longer is more than one token: the writer has joined some, or the server."""
_BYTES_A_TOKEN: Final = 4


class Seam:
    """Joins one answer."""

    def __init__(self, pieces: Iterable[str]) -> None:
        """`pieces` are the fragments that were said."""
        said = "".join(pieces := list(pieces))
        self.beginning = said.rstrip()
        """What goes back to the backend."""
        self.tokens = _tokens(pieces, len(self.beginning))
        """Of the beginning: an estimate, see `_tokens`."""
        self._owed = said[len(self.beginning) :]
        self._is_first = True

    def join(self, content: str) -> str:
        """What of the next fragment was not said before."""
        if self._is_first and content:
            self._is_first = False
            content = self._without_echo(content)
        while content and self._owed and content[0] == self._owed[0]:
            content, self._owed = content[1:], self._owed[1:]
        if content:
            self._owed = ""
        return content

    def _without_echo(self, content: str) -> str:
        """llama-server repeats a beginning in its first fragment unless it knows our flags.

        It does since May 2026 (llama.cpp #23012, #23089). A shorter repetition may be the
        model's own, a longer one is no single token.
        """
        is_long = len(self.beginning.encode()) > _LONGEST_TOKEN_BYTES
        return content.removeprefix(self.beginning) if is_long else content

    def whole(self, done: Done) -> Done:
        """The last word for both parts: the prompt counted once, the completion added up.

        The backend has counted the beginning as a part of the prompt. A backend that counts
        nothing is not helped out.
        """
        return done.model_copy(update={"usage": self.added_up(done.usage)})

    def added_up(self, usage: Usage | None) -> Usage | None:
        """What the backend has counted of the rest, with the beginning."""
        if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
            return usage
        prompt = max(0, usage.prompt_tokens - self.tokens)
        return usage.model_copy(
            update={
                "prompt_tokens": prompt,
                "completion_tokens": usage.completion_tokens + self.tokens,
                "cached_tokens": min(usage.cached_tokens, prompt),
            }
        )


def _tokens(pieces: Iterable[str], length: int) -> int:
    """Tokens of the first `length` letters, as near as fragments tell.

    Servers that can continue an answer send a fragment a token. They hold back what may become a
    stop word or is half a letter, so that a fragment may be two; longer ones are estimated.
    """
    total = 0
    for piece in pieces:
        if length <= 0:
            break
        size_bytes = len(piece[:length].encode())
        length -= len(piece)
        joined = size_bytes > _LONGEST_TOKEN_BYTES
        total += -(-size_bytes // _BYTES_A_TOKEN) if joined else 1
    return total
