"""Which model files a path offers: one file, or every GGUF of a folder by its name."""

import re
from pathlib import Path
from typing import Final

from contract.errors import (
    ModelMissing,
)
from contract.model_names import close

_SHARD: Final = re.compile(r"-(\d{5})-of-\d{5}$")
"""llama.cpp finds the other parts of a split model by the name of its first."""


def gguf_files(path: Path) -> dict[str, Path]:
    """Files by the name that callers use, which is the file's without `.gguf`.

    Projectors (`mmproj...`) and later parts of split models are no models of their own.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.gguf"))
    found: dict[str, Path] = {}
    for file in files:
        shard = _SHARD.search(file.stem)
        if (
            file.suffix == ".gguf"
            and not (shard and int(shard[1]) > 1)
            and "mmproj" not in file.stem
        ):
            found.setdefault(file.stem[: shard.start()] if shard else file.stem, file)
    return found


def size_bytes(file: Path) -> int:
    """Bytes on disk, all parts of a split model together."""
    shard = _SHARD.search(file.stem)
    if shard is None:
        return file.stat().st_size
    parts = file.parent.glob(f"{file.stem[: shard.start()]}-?????-of-?????.gguf")
    return sum(part.stat().st_size for part in parts)


def chosen(backend: str, models: dict[str, Path], name: str) -> Path:
    """The file of a model; raises ModelMissing, with the likeliest name that was meant."""
    if name in models:
        return models[name]
    meant = close(name, models, most=1)
    hint = f"did you mean {meant[0]!r}?" if meant else f"it has {', '.join(models) or 'none'}"
    raise ModelMissing(f"backend {backend!r} has no model {name!r}; {hint}")
