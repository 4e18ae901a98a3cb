"""GGUF files of a path by model name: one file, or all of a folder."""

import re
from pathlib import Path
from typing import Final

from contract.errors import ModelMissing
from contract.model_names import close

_SHARD: Final = re.compile(r"-(\d{5})-of-\d{5}$")
"""The suffix of a part of a split model; llama.cpp loads the others from the first."""


def gguf_files(path: Path) -> dict[str, Path]:
    """Files by model name, which is the file name without `.gguf`; {} if there are none.

    Projectors (`mmproj...`) and later parts of split models are left out.
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
    """Bytes on disk, including all parts of a split model."""
    shard = _SHARD.search(file.stem)
    if shard is None:
        return file.stat().st_size
    parts = file.parent.glob(f"{file.stem[: shard.start()]}-?????-of-?????.gguf")
    return sum(part.stat().st_size for part in parts)


def model_file(backend: str, models: dict[str, Path], name: str) -> Path:
    """The file of a model; raises ModelMissing with the closest name."""
    if name in models:
        return models[name]
    meant = close(name, models, most=1)
    hint = f"did you mean {meant[0]!r}?" if meant else f"it has {', '.join(models) or 'none'}"
    raise ModelMissing(f"backend {backend!r} has no model {name!r}; {hint}")
