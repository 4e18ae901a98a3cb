"""llama.cpp inside the worker: GGUF files through the package llama-cpp-python.

llama:///models/qwen.gguf?n_ctx=8192&threads=4      one model
llama:///models                                     all GGUF files of a folder, one at a time
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from contract.errors import ModelMissing, NotSupported
from contract.features import Feature
from contract.roster import ModelReport, ModelTrait
from workers.backends.in_process.adapter import InMemory
from workers.backends.in_process.gguf_files import gguf_files, size_bytes
from workers.backends.in_process.llamacpp_model import (
    DEFAULT_CONTEXT,
    EXTRA,
    TEMPLATE,
    LlamaModel,
    LlamaOptions,
    is_pooled,
    metadata,
    trained_context,
    width,
)
from workers.backends.in_process.tool_parser import THINK

OPTIONS: Final[Mapping[str, str]] = {
    "n_ctx": "context",
    "threads": "threads",
    "gpu_layers": "gpu_layers",
    "batch": "batch",
    "pooling": "pooling",
}
"""DSN options, and their fields of `LlamaOptions`."""
_CERTAIN: Final[tuple[ModelTrait, ...]] = ("chat", "embed", "tools", "schema", "vision", "image")
"""Traits that a file determines; thinking may occur without a sign in the template."""
_options: TypeAdapter[LlamaOptions] = TypeAdapter(LlamaOptions)


class LlamaRuntime:
    """The `Runtime` of GGUF files."""

    grants: Final[frozenset[Feature]] = frozenset(
        {
            "prompt",
            "frequency_penalty",
            "presence_penalty",
            "repeat_penalty",
            "logit_bias",
            "messages[].thinking",
            "messages[].tool_name",
        }
    )
    continues: Final = True
    """It decodes tokens in the context of those before them, including the prompt."""

    def __init__(self, path: Path, options: LlamaOptions) -> None:
        """Raises NotSupported without llama-cpp-python."""
        try:
            import llama_cpp  # noqa: PLC0415 - the package is optional
        except (ImportError, OSError, RuntimeError) as error:
            # It raises RuntimeError when its own library cannot be loaded.
            raise NotSupported(f"type llama needs llama-cpp-python ({error}): {EXTRA}") from error
        self.version = f"llama-cpp-python {llama_cpp.__version__}"
        self._path = path
        self._options = options

    def find(self) -> Mapping[str, Path]:
        """GGUF files by name; raises ModelMissing."""
        found = gguf_files(self._path)
        if not found:
            raise ModelMissing(f"{self._path} is neither a GGUF file nor a folder with one")
        return found

    def describe(self, name: str, path: Path) -> ModelReport:
        """The report from the metadata of the file; without a chat template it cannot chat."""
        gguf = metadata(path)
        trained = trained_context(gguf) or DEFAULT_CONTEXT
        traits = self._traits(gguf)
        return ModelReport(
            name=name,
            traits=traits,
            lacks=tuple(trait for trait in _CERTAIN if trait not in traits),
            context_length=self._options.context or min(trained, DEFAULT_CONTEXT),
            dimension=width(gguf) if self._embeds(gguf) else None,
            size_bytes=size_bytes(path),
        )

    def _embeds(self, gguf: Mapping[str, str]) -> bool:
        return self._options.pooling is not None or is_pooled(gguf)

    def _traits(self, gguf: Mapping[str, str]) -> tuple[ModelTrait, ...]:
        traits: list[ModelTrait] = ["embed"] if self._embeds(gguf) else []
        if template := gguf.get(TEMPLATE):
            traits += ["chat", "schema"]
            if "tools" in template:
                traits.append("tools")
            if THINK in template or "enable_thinking" in template:
                traits.append("thinking")
        return tuple(sorted(traits))

    def load(self, path: Path, *, embeds: bool) -> LlamaModel:
        """Load the weights; raises BadEndpoint."""
        return LlamaModel(path, self._options, embeds=embeds)


def llama(name: str, path: Path, options: Mapping[str, str]) -> InMemory:
    """A backend for a GGUF file or a folder of them; `options` are those of a DSN.

    Raises NotSupported for an invalid option, or without llama-cpp-python.
    """
    fields = {OPTIONS[key]: value for key, value in options.items()}
    try:
        chosen = _options.validate_python(fields)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise NotSupported(f"backend {name!r}: {first['loc'][0]}: {first['msg']}") from None
    return InMemory(name, LlamaRuntime(path, chosen))
