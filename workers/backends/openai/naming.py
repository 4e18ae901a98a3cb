"""Public model names: clients never see paths of the server's file system.

llama-server without `--alias` names its model by the path of its file, vLLM by the folder that it
was started with. Clients see the base name; requests carry the server's own name.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from contract.model_names import base_name, is_path
from contract.roster import ModelReport


class ModelNames:
    """Maps the public names of one server's models to the server's own, and back."""

    def __init__(self) -> None:
        """Empty before the first list."""
        self._own: dict[str, str] = {}

    def shown(
        self, reports: Iterable[ModelReport], aliases: Mapping[str, Sequence[str]] | None = None
    ) -> list[ModelReport]:
        """The reports with public names; `aliases` are the server's, by its own name."""
        found = list(reports)
        names = _names([each.name for each in found], aliases or {})
        self._own = {name: own for own, name in names.items()}
        return [each.model_copy(update={"name": names[each.name]}) for each in found]

    def name(self, own: str) -> str:
        """The public name of a model, by the server's name."""
        return next((name for name, known in self._own.items() if known == own), _short(own))

    def own(self, name: str) -> str:
        """The server's name of a model, by its public name or any path to its file."""
        if name in self._own.values():
            return name
        return self._own.get(name) or self._own.get(_short(name), name)


def aliases_in(listing: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """The aliases of listed models, by id (llama-server)."""
    items = [item for item in listing.get("data") or () if isinstance(item, dict)]
    return {str(item.get("id")): [str(it) for it in item.get("aliases") or ()] for item in items}


def _short(name: str) -> str:
    return base_name(name) if is_path(name) else name


def _names(own: Sequence[str], aliases: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """A public name for each: an alias, else the file name, numbered if taken."""
    taken = {name for name in own if not is_path(name)}
    names = {name: name for name in taken}
    for each in own:
        if not is_path(each):
            continue
        offered = [it for it in aliases.get(each, ()) if it and not is_path(it)]
        wanted = offered[0] if offered else base_name(each)
        name, number = wanted, 2
        while name in taken:  # another folder has a file of that name
            name, number = f"{wanted}-{number}", number + 1
        taken.add(name)
        names[each] = name
    return names
