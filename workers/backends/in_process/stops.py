"""Ends an answer before a stop word, however the pieces of text are cut. Pure."""

from collections.abc import Sequence


class Stops:
    """Passes text on, but nothing that could still become a stop word."""

    def __init__(self, words: Sequence[str]) -> None:
        """`words` may be none."""
        self.is_met = False
        self._words = tuple(word for word in words if word)
        self._held = ""

    def add(self, text: str) -> str:
        """What of the text may be said now; once a word was met, nothing."""
        if self.is_met:
            return ""
        text = self._held + text
        found = [at for word in self._words if (at := text.find(word)) >= 0]
        if found:
            self.is_met, self._held = True, ""
            return text[: min(found)]
        held = max((_overlap(text, word) for word in self._words), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> str:
        """What was held back, at the end."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, word: str) -> int:
    """Letters at the end of the text that are the word's beginning."""
    return next((n for n in range(len(word) - 1, 0, -1) if text.endswith(word[:n])), 0)
