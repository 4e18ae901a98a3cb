"""Who else is measured: proxies and task queues, each in an environment of its own.

`make bench-peers` installs them under `.bench/peers/`, from locks/peers/.
"""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from bench.processes import Running, environment, started, wait_for
from bench.targets import PACED, PACED_SHORT
from fleet.local.redis_server import free_port

ROOT: Final = Path(".bench/peers")
FOLDERS: Final = {
    "LiteLLM": "litellm",
    "vllm-router": "vllm-router",
    "taskiq": "taskiq",
    "arq": "arq",
    "dramatiq": "dramatiq",
}
"""Folders under `.bench/peers/` and locks under locks/peers/; the package is called the same."""
LITELLM_ALIASES: Final = {PACED: "paced", PACED_SHORT: "paced-short"}
"""LiteLLM takes a name with commas for a list of models."""
Start = Callable[[Path, int], AbstractContextManager[tuple[int, Running]]]


def program(name: str, command: str) -> Path:
    """A command of a peer's environment."""
    return (ROOT / FOLDERS[name] / "bin" / command).absolute()


def version(name: str) -> str | None:
    """The version that is installed; None if it is not."""
    stem = FOLDERS[name].replace("-", "_")
    for folder in (ROOT / FOLDERS[name]).glob(f"lib/python*/site-packages/{stem}-*.dist-info"):
        return folder.name.removeprefix(f"{stem}-").removesuffix(".dist-info")
    return None


def why_missing(name: str) -> str | None:
    """Why a peer cannot be measured; None if it can."""
    if version(name):
        return None
    failed = ROOT / f"{FOLDERS[name]}.failed"
    if failed.exists():
        return f"it could not be installed: {failed.read_text(errors='replace').strip()[-300:]}"
    return "it is not installed: `make bench-peers`"


@contextmanager
def litellm(folder: Path, backend_port: int) -> Generator[tuple[int, Running]]:
    """LiteLLM's proxy with one worker."""
    config = folder / "litellm.yaml"
    models = {alias: model for model, alias in LITELLM_ALIASES.items()} | {"*": "*"}
    each = (
        f"- model_name: '{name}'\n  litellm_params:\n    model: 'openai/{model}'\n"
        f"    api_base: http://127.0.0.1:{backend_port}/v1\n    api_key: bench\n"
        for name, model in models.items()
    )
    config.write_text("model_list:\n" + "".join(each))
    port = free_port()
    variables = environment(
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY="true",
        LITELLM_LOG="ERROR",
    )
    command = (
        f"{program('LiteLLM', 'litellm')} --config {config} --host 127.0.0.1 --port {port}"
        " --num_workers 1"
    )
    with started("litellm", command, variables, folder) as process:
        wait_for(process, port, "/health/liveliness")
        yield port, process


@contextmanager
def vllm_router(folder: Path, backend_port: int) -> Generator[tuple[int, Running]]:
    """The router of vLLM's production stack."""
    port, metrics = free_port(), free_port()
    command = (
        f"{program('vllm-router', 'vllm-router')} --host 127.0.0.1 --port {port}"
        f" --worker-urls http://127.0.0.1:{backend_port} --policy round_robin"
        f" --prometheus-port {metrics} --prometheus-host 127.0.0.1 --log-level error"
    )
    with started("vllm-router", command, environment(), folder) as process:
        wait_for(process, port, "/health")
        yield port, process


PROXIES: Final[dict[str, Start]] = {"vllm-router": vllm_router, "LiteLLM": litellm}
