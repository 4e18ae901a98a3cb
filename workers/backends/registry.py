"""Which class speaks to which type of backend: one dict, and nothing else decides."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from contract.errors import NotSupported
from workers.backends.dialects import GENERIC, LLAMACPP, LMSTUDIO, OPENAI, VLLM, Dialect
from workers.backends.dsn import BackendConfig
from workers.backends.ollama import Ollama
from workers.backends.openai import OpenAI
from workers.backends.protocols import Backend
from workers.backends.scripted import Scripted

Factory = Callable[[BackendConfig], Backend]


def _key(config: BackendConfig) -> str | None:
    return config.key.get_secret_value() if config.key else None


def _ollama(config: BackendConfig) -> Backend:
    return Ollama(config.name, config.url, key=_key(config), idle_s=config.idle_s)


def _openai(dialect: Dialect) -> Factory:
    def make(config: BackendConfig) -> Backend:
        headers = {
            f"openai-{name}": value
            for name, value in config.options.items()
            if name in {"organization", "project"}
        }
        return OpenAI(
            config.name,
            config.url,
            dialect,
            key=_key(config),
            idle_s=config.idle_s,
            headers=headers,
        )

    return make


def _scripted(config: BackendConfig) -> Backend:
    return Scripted(config.name, idle_s=config.idle_s)


def _local(config: BackendConfig) -> Backend:
    try:
        from workers.backends.local import LocalEmbed  # noqa: PLC0415 - its extra is optional
    except ImportError as error:
        raise NotSupported(
            f"backend {config.name!r}: type local needs {error.name}; install the extra with"
            " pip install 'llm-fleet[local-embed]'"
        ) from error
    made: Backend = LocalEmbed(config.name, Path(config.url))
    return made


FACTORIES: Final[dict[str, Factory]] = {
    "ollama": _ollama,
    "llamacpp": _openai(LLAMACPP),
    "lmstudio": _openai(LMSTUDIO),
    "vllm": _openai(VLLM),
    "openai": _openai(OPENAI),
    "generic": _openai(GENERIC),
    "scripted": _scripted,
    "local": _local,
}


def build(config: BackendConfig) -> Backend:
    """The backend that a configuration describes; opens no connection yet."""
    return FACTORIES[config.type](config)
