"""A BERT of random weights, small enough to make on the spot, and a second runtime in numpy."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fleet.demo.bert_graph import bert_model

Array = NDArray[Any]

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz")
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 32,
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
    "vocab_size": len(WORDS),
    "pad_token_id": 0,
}
_erf = np.vectorize(math.erf, otypes=[float])


def tiny_weights(config: Mapping[str, Any], seed: int = 1) -> dict[str, Array]:
    """Random tensors of every name that a BERT has."""
    dice = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        **_norm("embeddings.LayerNorm", hidden),
    }
    for at in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{at}"
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{layer}.attention.self.{part}", hidden, hidden)
        shapes |= _linear(f"{layer}.attention.output.dense", hidden, hidden)
        shapes |= _norm(f"{layer}.attention.output.LayerNorm", hidden)
        shapes |= _linear(f"{layer}.intermediate.dense", hidden, inner)
        shapes |= _linear(f"{layer}.output.dense", inner, hidden)
        shapes |= _norm(f"{layer}.output.LayerNorm", hidden)
    return {name: dice.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def write_tiny_bert(folder: Path, **files: object) -> Path:
    """A folder that can be served; `files` are JSON by name (`__` is a slash) beside the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save_model(bert_model(CONFIG, tiny_weights(CONFIG)), str(folder / "model.onnx"))
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    for name, content in {"config": CONFIG, **files}.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def tiny_tokenizer() -> Tokenizer:
    """A token a letter, between [CLS] and [SEP]."""
    vocabulary = {word: at for at, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def numpy_bert(
    config: Mapping[str, Any], weights: Mapping[str, Array], ids: Array, types: Array | None = None
) -> Array:
    """Hidden states ([sequence, hidden]) of one text, in float64, by the book."""
    heads, epsilon = config["num_attention_heads"], config["layer_norm_eps"]

    def weight(name: str) -> Array:
        return weights[name].astype(np.float64)

    def linear(x: Array, name: str) -> Array:
        return x @ weight(f"{name}.weight").T + weight(f"{name}.bias")

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        return scaled * weight(f"{name}.weight") + weight(f"{name}.bias")

    def split(x: Array) -> Array:
        return x.reshape(len(x), heads, -1).swapaxes(0, 1)

    x = weight("embeddings.word_embeddings.weight")[ids]
    x = x + weight("embeddings.position_embeddings.weight")[: len(ids)]
    kinds = np.zeros_like(ids) if types is None else types
    x = norm(x + weight("embeddings.token_type_embeddings.weight")[kinds], "embeddings.LayerNorm")
    for at in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{at}"
        query, key, value = (
            split(linear(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        scores = np.exp(query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1]))
        mixed = (scores / scores.sum(-1, keepdims=True) @ value).swapaxes(0, 1).reshape(x.shape)
        x = norm(
            x + linear(mixed, f"{layer}.attention.output.dense"),
            f"{layer}.attention.output.LayerNorm",
        )
        inner = linear(x, f"{layer}.intermediate.dense")
        inner = inner * 0.5 * (1 + _erf(inner / math.sqrt(2)))
        x = norm(x + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x
