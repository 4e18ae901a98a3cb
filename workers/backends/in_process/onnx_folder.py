"""Reader of a model folder in the format of sentence-transformers.

Reads `modules.json`, the pooling configuration, `sentence_bert_config.json`,
`config_sentence_transformers.json`, `tokenizer_config.json` and `config.json`; all are optional.
Unknown settings that would change the vectors are refused, never ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic_core import from_json

from contract.errors import ModelMissing, NotSupported

Pooling = Literal["mean", "cls", "max", "lasttoken"]

MODEL_PATHS: Final = ("model.onnx", "onnx/model.onnx")
DEFAULT_MAX_TOKENS: Final = 512
NO_LIMIT: Final = 1_000_000
"""transformers writes 10^30 for a tokenizer without a limit."""

_FLAGS: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The flags for `pooling_mode` in sentence-transformers before version 6."""
_MODULES: Final = frozenset({"Transformer", "Pooling", "Normalize"})
# Their positions begin after that of the padding token.
_SHIFTED: Final = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"})


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """The files of a model and the settings of its vectors."""

    onnx: Path
    tokenizer: Path
    pooling: Pooling
    normalizes: bool
    max_tokens: int
    """Most tokens of a text, special tokens included."""
    pad_id: int
    lowers: bool
    """Whether texts are lower-cased before tokenization."""
    prompt: str
    """Prepended to every text."""
    prompts: Mapping[str, str]
    """Prompts by name, as in `query`."""
    extra_modules: tuple[str, ...]
    """Modules after the transformer that only a graph of the whole model can contain."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the model's files, weights beside the graph included."""
        beside = self.onnx.parent.glob(f"{self.onnx.name}[._]data*")
        return sum(path.stat().st_size for path in (self.onnx, *beside))


def read_folder(folder: Path) -> ModelFolder:
    """The settings of a folder.

    Raises ModelMissing without its files, NotSupported for pooling modes or JSON it cannot read.
    """
    onnx = next((folder / path for path in MODEL_PATHS if (folder / path).is_file()), None)
    if onnx is None:
        raise ModelMissing(f"{folder} has neither {' nor '.join(MODEL_PATHS)}")
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise ModelMissing(f"{folder} has no tokenizer.json")
    config = json_of(folder / "config.json")
    sentence = json_of(folder / "sentence_bert_config.json")
    prompts = json_of(folder / "config_sentence_transformers.json")
    modules = _modules(folder)
    return ModelFolder(
        onnx=onnx,
        tokenizer=tokenizer,
        pooling=_pooling(folder / modules.get("Pooling", "1_Pooling") / "config.json"),
        normalizes=not modules or "Normalize" in modules,
        max_tokens=_max_tokens(folder, sentence, config),
        pad_id=_pad_id(tokenizer, config),
        lowers=bool(sentence.get("do_lower_case")),
        prompt=(prompts.get("prompts") or {}).get(prompts.get("default_prompt_name")) or "",
        prompts=prompts.get("prompts") or {},
        extra_modules=tuple(sorted(modules.keys() - _MODULES)),
    )


def json_of(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        parsed = from_json(path.read_bytes())
    except ValueError:
        raise NotSupported(f"{path} is not JSON") from None
    return parsed if isinstance(parsed, dict) else {"": parsed}


def _modules(folder: Path) -> dict[str, str]:
    """Folders of the modules by the last word of their type; empty without a `modules.json`."""
    listed = json_of(folder / "modules.json").get("") or ()
    return {str(item["type"]).rpartition(".")[2]: str(item.get("path", "")) for item in listed}


def _pooling(path: Path) -> Pooling:
    config = json_of(path)
    flagged = [mode for flag, mode in _FLAGS.items() if config.get(flag)]
    configured = config.get("pooling_mode", flagged or "mean")
    modes = [configured] if isinstance(configured, str) else list(configured)
    match modes:
        case [("mean" | "cls" | "max" | "lasttoken") as mode]:
            return mode
        case _:
            known = ", ".join(get_args(Pooling))
            raise NotSupported(f"{path}: pooling {' + '.join(modes)}; supported: {known}")


def _max_tokens(folder: Path, sentence: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """The limit of the sentence model, else of its tokenizer and positions."""
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in _SHIFTED:
        positions -= int(config.get("pad_token_id") or 0) + 1
    tokenizer_limit = json_of(folder / "tokenizer_config.json").get("model_max_length")
    limits = [sentence.get("max_seq_length") or tokenizer_limit, positions]
    known = [n for n in limits if isinstance(n, int) and 0 < n < NO_LIMIT]
    return min(known, default=DEFAULT_MAX_TOKENS)


def _pad_id(tokenizer: Path, config: Mapping[str, Any]) -> int:
    padding = json_of(tokenizer).get("padding") or {}
    return int(padding.get("pad_id") or config.get("pad_token_id") or 0)
