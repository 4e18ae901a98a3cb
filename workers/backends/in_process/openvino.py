"""OpenVINO GenAI inside the worker: exported models and GGUF files, run by openvino-genai.

openvino:///models/qwen?device=GPU      one exported model: a folder with openvino_model.xml
openvino:///models                      every such folder, and every GGUF, one at a time
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from contract.errors import ModelMissing, NotSupported
from contract.features import Feature
from contract.roster import ModelReport, ModelTrait
from workers.backends.in_process.adapter import InMemory, LoadedModel
from workers.backends.in_process.gguf_files import gguf_files, size_bytes
from workers.backends.in_process.openvino_model import (
    EXTRA,
    OpenVinoChat,
    OpenVinoEmbed,
    OpenVinoOptions,
)

GRAPH: Final = "openvino_model.xml"
DEFAULT_CONTEXT: Final = 4096
"""Tokens, if neither the model nor the configuration has a limit."""
OPTIONS: Final[Mapping[str, str]] = {
    "n_ctx": "context",
    "device": "device",
    "threads": "threads",
    "pooling": "pooling",
}
"""DSN options, and their fields of `OpenVinoOptions`."""
_CHATS: Final = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
"""Suffixes of the architectures of transformers that generate text."""
_options: TypeAdapter[OpenVinoOptions] = TypeAdapter(OpenVinoOptions)


class OpenVinoRuntime:
    """The `Runtime` of exported models and GGUF files."""

    grants: Final[frozenset[Feature]] = frozenset(
        {
            "prompt",
            "frequency_penalty",
            "presence_penalty",
            "messages[].thinking",
            "messages[].tool_name",
        }
    )
    continues: Final = False
    """Its streamer decodes new tokens alone: SentencePiece drops the space before the first."""

    def __init__(self, path: Path, options: OpenVinoOptions) -> None:
        """Raises NotSupported without openvino-genai; it is imported by the first job."""
        try:
            self.version = f"openvino-genai {version('openvino-genai')}"
            version("openvino-tokenizers")
        except PackageNotFoundError as error:
            raise NotSupported(f"type openvino needs {error.name}: {EXTRA}") from error
        self._path = path
        self._options = options

    def find(self) -> Mapping[str, Path]:
        """Folders and GGUF files by name; raises ModelMissing."""
        if (self._path / GRAPH).is_file():
            return {self._path.resolve().name: self._path}
        folders = {graph.parent.name: graph.parent for graph in sorted(self._path.rglob(GRAPH))}
        found = gguf_files(self._path) | folders
        if not found:
            raise ModelMissing(f"{self._path} has no {GRAPH} and is no GGUF file")
        return found

    def describe(self, name: str, path: Path) -> ModelReport:
        """The report from the exported config.json; a GGUF file is a chat model."""
        is_embedder = not self._chats(path)
        traits: tuple[ModelTrait, ...] = ("embed",) if is_embedder else ("chat", "schema", "tools")
        dimension = _config(path).get("hidden_size")
        return ModelReport(
            name=name,
            traits=traits,
            lacks=("image", "vision", *(("chat",) if is_embedder else ("embed",))),
            context_length=self._context(path),
            dimension=dimension if is_embedder and isinstance(dimension, int) else None,
            size_bytes=size_bytes(path)
            if path.is_file()
            else sum(file.stat().st_size for file in path.glob("*.bin")),
        )

    def _chats(self, path: Path) -> bool:
        architectures = _config(path).get("architectures") or ("ForCausalLM",)
        return any(str(architecture).endswith(_CHATS) for architecture in architectures)

    def _context(self, path: Path) -> int:
        positions = _config(path).get("max_position_embeddings")
        trained = positions if isinstance(positions, int) else DEFAULT_CONTEXT
        return self._options.context or trained

    def load(self, path: Path, *, embeds: bool) -> LoadedModel:
        """Load the weights; raises NotSupported for the wrong purpose, BadEndpoint."""
        chats = self._chats(path)
        if embeds and chats:
            raise NotSupported(f"{path.name} is a chat model: OpenVINO cannot embed with it")
        if not embeds and not chats:
            raise NotSupported(f"{path.name} is an embedding model: it cannot chat")
        kind = OpenVinoEmbed if embeds else OpenVinoChat
        return kind(path, self._options, self._context(path))


def _config(path: Path) -> dict[str, Any]:
    """The object in `config.json`; empty if there is none."""
    try:
        parsed = from_json((path / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def openvino(name: str, path: Path, options: Mapping[str, str]) -> InMemory:
    """A backend for an exported model, or a folder of them; `options` are those of a DSN.

    Raises NotSupported for an invalid option, or without openvino-genai.
    """
    fields = {OPTIONS[key]: value for key, value in options.items()}
    try:
        chosen = _options.validate_python(fields)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise NotSupported(f"backend {name!r}: {first['loc'][0]}: {first['msg']}") from None
    return InMemory(name, OpenVinoRuntime(path, chosen))
