"""llama.cpp inside the worker: the GGUF files of a path, run by the package llama-cpp-python.

llama:///models/qwen.gguf?n_ctx=8192&threads=4      one model
llama:///models                                     every GGUF of a folder, one at a time
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from contract.errors import (
    ModelMissing,
    NotSupported,
)
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
"""Names in a DSN, and the fields they mean."""
CERTAIN: Final[tuple[ModelTrait, ...]] = ("chat", "embed", "tools", "schema", "vision", "image")
"""What a model can or cannot without a doubt; thoughts may come where no template says so."""
_options: TypeAdapter[LlamaOptions] = TypeAdapter(LlamaOptions)


class LlamaRuntime:
    """Runs GGUF files."""

    grants: Final[frozenset[Feature]] = frozenset(
        {
            "prompt",
            "frequency_penalty",
            "presence_penalty",
            "repeat_penalty",
            "logit_bias",
            "messages[].thinking",
        }
    )
    continues: Final = True
    """It turns tokens into text in the light of those before them, the prompt's as well."""

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
            raise ModelMissing(f"{self._path} is no GGUF file, nor a folder with any")
        return found

    def describe(self, name: str, path: Path) -> ModelReport:
        """From the file's own words; one without a chat template cannot chat."""
        told = metadata(path)
        trained = trained_context(told) or DEFAULT_CONTEXT
        traits = self._traits(told)
        return ModelReport(
            name=name,
            traits=traits,
            lacks=tuple(trait for trait in CERTAIN if trait not in traits),
            context_length=self._options.context or min(trained, DEFAULT_CONTEXT),
            dimension=width(told) if self._embeds(told) else None,
            size_bytes=size_bytes(path),
        )

    def _embeds(self, told: Mapping[str, str]) -> bool:
        return self._options.pooling is not None or is_pooled(told)

    def _traits(self, told: Mapping[str, str]) -> tuple[ModelTrait, ...]:
        traits: list[ModelTrait] = ["embed"] if self._embeds(told) else []
        if template := told.get(TEMPLATE):
            traits += ["chat", "schema"]
            if "tools" in template:
                traits.append("tools")
            if THINK in template or "enable_thinking" in template:
                traits.append("thinking")
        return tuple(sorted(traits))

    def load(self, path: Path, *, embeds: bool) -> LlamaModel:
        """Bring the weights into memory."""
        return LlamaModel(path, self._options, embeds=embeds)


def llama(name: str, path: Path, options: Mapping[str, str]) -> InMemory:
    """A backend for a GGUF file or a folder of them; raises NotSupported.

    `options` are those of a DSN.
    """
    fields = {OPTIONS[key]: value for key, value in options.items()}
    try:
        chosen = _options.validate_python(fields)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise NotSupported(f"backend {name!r}: {first['loc'][0]}: {first['msg']}") from None
    return InMemory(name, LlamaRuntime(path, chosen))
