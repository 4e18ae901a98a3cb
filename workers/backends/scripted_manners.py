"""Which servers the scripted one can pretend to be: their paths stand before the usual ones."""

from collections.abc import Callable
from typing import Final

from workers.backends.scripted_http import Handler
from workers.backends.scripted_llamaswap import ScriptedLlamaSwap
from workers.backends.scripted_lmstudio import ScriptedLmStudio
from workers.backends.scripted_router import ScriptedRouter
from workers.backends.scripted_stage import Stage
from workers.backends.scripted_vllm import ScriptedVllm

Manner = Callable[[Stage, Handler], dict[str, Handler]]

MANNERS: Final[dict[str, Manner]] = {
    "llamacpp-router": lambda stage, usual: ScriptedRouter(stage, usual).surfaces,
    "llamaswap": lambda stage, usual: ScriptedLlamaSwap(stage, usual).surfaces,
    "lmstudio": lambda stage, usual: ScriptedLmStudio(stage, usual).surfaces,
    "vllm": lambda stage, usual: ScriptedVllm(stage, usual).surfaces,
}
