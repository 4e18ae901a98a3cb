"""Stop words: ends streamed text before the first one, across fragments. Does no I/O."""

from collections.abc import Sequence


class Stops:
    """Passes text on, holding back what could be the beginning of a stop word."""

    def __init__(self, words: Sequence[str]) -> None:
        """`words` may be empty."""
        self.met: str | None = None
        """The word that ended the text."""
        self._words = tuple(word for word in words if word)
        self._held = ""

    def add(self, text: str) -> str:
        """The text that can be sent now; "" after a stop word."""
        if self.met is not None:
            return ""
        text = self._held + text
        found = [(at, word) for word in self._words if (at := text.find(word)) >= 0]
        if found:
            at, self.met = min(found)
            self._held = ""
            return text[:at]
        held = max((_overlap(text, word) for word in self._words), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> str:
        """The text held back, at the end of the stream."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, word: str) -> int:
    """Length of the longest end of `text` that begins `word`."""
    return next((n for n in range(len(word) - 1, 0, -1) if text.endswith(word[:n])), 0)
