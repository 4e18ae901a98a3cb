"""The memory of a scripted backend: which models are in it, and which one has to leave."""

from collections.abc import Iterator


class ScriptedMemory:
    """Holds so many models at once; the one that was used longest ago makes room."""

    def __init__(self, room: int | None) -> None:
        """Nothing is in it; None: there is room for all, so that none counts as cold."""
        self._room = room
        self._models: dict[str, None] = {}

    def __contains__(self, model: str) -> bool:
        """Whether the model is there."""
        return model in self._models

    def __iter__(self) -> Iterator[str]:
        """Every model that is there."""
        return iter(tuple(self._models))

    @property
    def told(self) -> tuple[str, ...]:
        """The models that are there, where there is not room for all."""
        return () if self._room is None else tuple(self._models)

    def use(self, model: str) -> None:
        """Bring a model in."""
        self._models.pop(model, None)
        self._models[model] = None
        while self._room is not None and len(self._models) > self._room:
            self.drop(next(iter(self._models)))

    def drop(self, model: str) -> None:
        """Take a model out, if it is there."""
        self._models.pop(model, None)

    def is_warm(self, model: str) -> bool | None:
        """Whether the model is there; None where that makes no difference and it is not."""
        return True if model in self._models else (None if self._room is None else False)
