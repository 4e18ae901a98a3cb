"""The servers that the scripted server can imitate; their paths override the common ones."""

from collections.abc import Callable
from typing import Final

from workers.scripted.http import Handler
from workers.scripted.llamacpp_router import ScriptedRouter
from workers.scripted.llamaswap import ScriptedLlamaSwap
from workers.scripted.lmstudio import ScriptedLmStudio
from workers.scripted.stage import ScriptedStage
from workers.scripted.vllm import ScriptedVllm

Manner = Callable[[ScriptedStage, Handler], dict[str, Handler]]

MANNERS: Final[dict[str, Manner]] = {
    "llamacpp-router": lambda stage, usual: ScriptedRouter(stage, usual).surfaces,
    "llamaswap": lambda stage, usual: ScriptedLlamaSwap(stage, usual).surfaces,
    "lmstudio": lambda stage, usual: ScriptedLmStudio(stage, usual).surfaces,
    "vllm": lambda stage, usual: ScriptedVllm(stage, usual).surfaces,
}
