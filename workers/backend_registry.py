"""The adapter class of each backend type: one dict, `FACTORIES`, and `build`."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from contract.errors import NotSupported
from workers.backends.diffusion.a1111 import A1111
from workers.backends.diffusion.sdcpp import Sdcpp
from workers.backends.dsn import BackendConfig
from workers.backends.google.gemini import Gemini
from workers.backends.google.vertex import vertex
from workers.backends.ollama.adapter import Ollama
from workers.backends.openai.adapter import OpenAI, OpenAIImages
from workers.backends.openai.dialects import (
    LLAMACPP,
    LLAMACPP_ROUTER,
    LLAMASWAP,
    LMSTUDIO,
    LOCALAI,
    OPENAI,
    THINKING_FIELDS,
    VLLM,
    Dialect,
    generic,
)
from workers.backends.openai.llamacpp_router import LlamaRouter
from workers.backends.openai.llamaswap import LlamaSwap
from workers.backends.openai.lmstudio import LmStudio
from workers.backends.openai.one_address_a_model import DeclaredEndpoints
from workers.backends.openai.pooling_servers import Infinity, Tei
from workers.backends.openai.reranking import (
    LlamaServer,
    RerankingOpenAI,
    RerankingOpenAIImages,
    Vllm,
)
from workers.backends.openai.vllm import SleepingVllm
from workers.backends.protocols import Backend
from workers.scripted.backend import Scripted

Factory = Callable[[BackendConfig], Backend]


def _key(config: BackendConfig) -> str | None:
    return config.key.get_secret_value() if config.key else None


def _ollama(config: BackendConfig) -> Backend:
    return Ollama(config.name, config.url, key=_key(config), idle_s=config.idle_s)


def _openai(dialect: Dialect, adapter: type[OpenAI] = OpenAI) -> Factory:
    def make(config: BackendConfig) -> Backend:
        headers = {
            f"openai-{name}": value
            for name, value in config.options.items()
            if name in {"organization", "project"}
        }
        return adapter(
            config.name,
            config.url,
            dialect,
            key=_key(config),
            idle_s=config.idle_s,
            headers=headers,
        )

    return make


def _sd(config: BackendConfig) -> Backend:
    return Sdcpp(config.name, config.url, key=_key(config), idle_s=config.idle_s)


def _a1111(config: BackendConfig) -> Backend:
    user, _, password = (_key(config) or "").partition(":")
    return A1111(config.name, config.url, user=user or None, password=password)


def _vllm(config: BackendConfig) -> Backend:
    is_dev = config.options.get("dev", "0") not in {"", "0"}
    return _openai(VLLM, SleepingVllm if is_dev else Vllm)(config)


def _endpoints(config: BackendConfig) -> Backend:
    return DeclaredEndpoints(config.name, config.endpoints, idle_s=config.idle_s)


def _generic(config: BackendConfig) -> Backend:
    makes_images = config.options.get("images", "0") not in {"", "0"}
    reranks = config.options.get("rerank", "0") not in {"", "0"}
    thinking = config.options.get("thinking")
    if thinking not in {None, "", *THINKING_FIELDS}:
        raise NotSupported(
            f"backend {config.name!r}: thinking={thinking} is not one of"
            f" {', '.join(THINKING_FIELDS)}"
        )
    dialect = generic(config.url, thinking)
    if reranks:
        return _openai(dialect, RerankingOpenAIImages if makes_images else RerankingOpenAI)(config)
    return _openai(dialect, OpenAIImages if makes_images else OpenAI)(config)


def _pooling(adapter: type[Infinity]) -> Factory:
    return lambda config: adapter(config.name, config.url, key=_key(config), idle_s=config.idle_s)


def _gemini(config: BackendConfig) -> Backend:
    return Gemini(config.name, config.url, key=_key(config), idle_s=config.idle_s)


def _scripted(config: BackendConfig) -> Backend:
    room = config.options.get("room", "")
    if room and not room.isdecimal():
        raise NotSupported(f"backend {config.name!r}: room={room} must be a number of models")
    return Scripted(
        config.name,
        idle_s=config.idle_s,
        room=int(room) if room else None,
        evicts=config.options.get("evicts", "0") not in {"", "0"},
        may_die=config.options.get("may_die", "0") not in {"", "0"},
    )


def _local(config: BackendConfig) -> Backend:
    try:
        from workers.backends.in_process.onnx import LocalEmbed  # noqa: PLC0415 - its extra is optional
        from workers.backends.in_process.onnx_ranker import (  # noqa: PLC0415
            LocalRerank,
            is_ranker,
        )
    except ImportError as error:
        raise NotSupported(
            f"backend {config.name!r}: type local needs {error.name}; install the extra with"
            " pip install 'llm-fleet[local-embed]'"
        ) from error
    folder = Path(config.url)
    made: Backend = (LocalRerank if is_ranker(folder) else LocalEmbed)(config.name, folder)
    return made


def _llama(config: BackendConfig) -> Backend:
    from workers.backends.in_process.llamacpp import llama  # noqa: PLC0415 - imports numpy

    return llama(config.name, Path(config.url), config.options)


def _openvino(config: BackendConfig) -> Backend:
    from workers.backends.in_process.openvino import openvino  # noqa: PLC0415 - imports numpy

    return openvino(config.name, Path(config.url), config.options)


FACTORIES: Final[dict[str, Factory]] = {
    "ollama": _ollama,
    "llamacpp": _openai(LLAMACPP, LlamaServer),
    "llamacpp-router": _openai(LLAMACPP_ROUTER, LlamaRouter),
    "llamaswap": _openai(LLAMASWAP, LlamaSwap),
    "lmstudio": _openai(LMSTUDIO, LmStudio),
    "vllm": _vllm,
    "openai": _openai(OPENAI, OpenAIImages),
    "generic": _generic,
    "localai": _openai(LOCALAI, RerankingOpenAI),
    "tei": _pooling(Tei),
    "infinity": _pooling(Infinity),
    "gemini": _gemini,
    "vertex": vertex,
    "endpoints": _endpoints,
    "sd": _sd,
    "a1111": _a1111,
    "scripted": _scripted,
    "local": _local,
    "llama": _llama,
    "openvino": _openvino,
}


def build(config: BackendConfig) -> Backend:
    """Return the adapter of a configured backend; opens no connection.

    Raises NotSupported for an option with a wrong value, or a missing optional package.
    """
    return FACTORIES[config.type](config)
