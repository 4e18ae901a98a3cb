"""The model memory of a scripted backend, with least-recently-used eviction."""

from collections.abc import Iterator


class ScriptedMemory:
    """Holds `room` models; the least recently used one is evicted."""

    def __init__(self, room: int | None) -> None:
        """Empty; `room` None is unlimited, and no model counts as cold."""
        self._room = room
        self._models: dict[str, None] = {}

    def __contains__(self, model: str) -> bool:
        """Whether the model is loaded."""
        return model in self._models

    def __iter__(self) -> Iterator[str]:
        """The loaded models."""
        return iter(tuple(self._models))

    @property
    def limited_models(self) -> tuple[str, ...]:
        """The loaded models if `room` is limited, else ()."""
        return () if self._room is None else tuple(self._models)

    def use(self, model: str) -> None:
        """Load a model, or mark it as used."""
        self._models.pop(model, None)
        self._models[model] = None
        while self._room is not None and len(self._models) > self._room:
            self.drop(next(iter(self._models)))

    def drop(self, model: str) -> None:
        """Unload a model, if it is loaded."""
        self._models.pop(model, None)

    def is_warm(self, model: str) -> bool | None:
        """Whether the model is loaded; None if not loaded and `room` is unlimited."""
        return True if model in self._models else (None if self._room is None else False)
