"""Writes tiny models for OpenVINO: the tiny GGUF as an exported folder, and one that embeds.

Needs openvino and openvino-genai. A vector is the mean of random vectors of its tokens.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np

from fleet.real.tiny_model import tiny_model

WIDTH: Final = 16
MAX_TOKENS: Final = 128
VOCABULARY: Final = 1024
"""At least that of the tiny model."""


def exported_chat(folder: Path) -> Path:
    """Export the tiny GGUF as a folder with graph, weights and tokenizer, inside `folder`."""
    import openvino_genai  # noqa: PLC0415 - its package is optional

    place = folder / "tiny-chat"
    place.mkdir()
    gguf = place / "tiny.gguf"
    shutil.copy(tiny_model(), gguf)
    openvino_genai.LLMPipeline(str(gguf), "CPU", enable_save_ov_model=True)
    gguf.unlink()
    told = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 8192}
    (place / "config.json").write_text(json.dumps(told), encoding="utf-8")
    return place


def exported_embedder(folder: Path, chat: Path) -> Path:
    """Write a model that embeds into a folder, with the tokenizer of an exported chat model."""
    import openvino  # noqa: PLC0415

    place = folder / "tiny-embed"
    place.mkdir()
    for part in chat.glob("openvino_tokenizer.*"):
        shutil.copy(part, place)
    openvino.save_model(_graph(), place / "openvino_model.xml", compress_to_fp16=False)
    told = {
        "architectures": ["BertModel"],
        "max_position_embeddings": MAX_TOKENS,
        "hidden_size": WIDTH,
    }
    (place / "config.json").write_text(json.dumps(told), encoding="utf-8")
    return place


def _graph() -> Any:
    import openvino  # noqa: PLC0415
    from openvino import opset13 as ops  # noqa: PLC0415

    shape = openvino.PartialShape([-1, -1])
    tokens = ops.parameter(shape, openvino.Type.i64, name="input_ids")
    mask = ops.parameter(shape, openvino.Type.i64, name="attention_mask")
    table = np.random.default_rng(1).normal(size=(VOCABULARY, WIDTH)).astype(np.float32)
    rows = ops.gather(ops.constant(table), tokens, ops.constant(0))
    # The mask is an input that must be used; pooling hides the padding itself.
    seen = ops.convert(ops.unsqueeze(mask, ops.constant(2)), "f32")
    hidden = ops.multiply(rows, seen)
    hidden.output(0).set_names({"last_hidden_state"})
    for node, name in ((tokens, "input_ids"), (mask, "attention_mask")):
        node.output(0).set_names({name})
    return openvino.Model([hidden], [tokens, mask], "tiny-embed")
