"""Builds the ONNX graph of a BERT encoder from its weights, without torch.

Inputs `input_ids`, `attention_mask`, `token_type_ids` (int64, [batch, sequence], both free);
output `last_hidden_state` (float32, [batch, sequence, hidden]). Names of weights are those of
Hugging Face's `BertModel`. Only plain operators of opset 17 are used, which every runtime since
2022 supports; runtimes fuse nodes when they load it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET: Final = 17
"""The first with LayerNormalization."""
IR_VERSION: Final = 8
HIDDEN: Final = -1e9
"""Added to the score of a padding token: its attention weight underflows to zero."""

Array = NDArray[Any]


@dataclass(frozen=True)
class BertShape:
    """The values of `config.json` that the graph depends on."""

    layers: int
    heads: int
    hidden: int
    epsilon: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "BertShape":
        """Read them from a parsed `config.json`; raises ValueError for another architecture."""
        activation = config.get("hidden_act", "gelu")
        if config.get("model_type") != "bert" or activation != "gelu":
            kind = f"{config.get('model_type')} with {activation}"
            raise ValueError(f"only BERT with gelu is supported, not {kind}")
        return cls(
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            hidden=config["hidden_size"],
            epsilon=config.get("layer_norm_eps", 1e-12),
        )


class _Drawing:
    """Nodes and constants of a graph under construction."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; returns the name of that output."""
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """Add a constant, once; returns its name."""
        if name not in self.constants:
            array = np.ascontiguousarray(value, dtype=dtype)
            self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str) -> str:
        """Add a weight of the model; returns its name."""
        return self.constant(name, self.weights[name])

    def linear(self, x: str, name: str, scale: float = 1.0) -> str:
        """`scale * (x W^T + b)`."""
        weight, bias = (self.weights[f"{name}.{part}"] for part in ("weight", "bias"))
        product = self.node(
            "MatMul", x, self.constant(f"{name}.weight", weight.astype(np.float32).T * scale)
        )
        return self.node("Add", product, self.constant(f"{name}.bias", bias * scale))

    def norm(self, x: str, name: str, epsilon: float) -> str:
        """Layer normalisation over the last axis."""
        return self.node(
            "LayerNormalization", x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"),
            axis=-1, epsilon=epsilon,
        )  # fmt: skip


def bert_model(config: Mapping[str, Any], weights: Mapping[str, Array]) -> onnx.ModelProto:
    """The model of a parsed `config.json` and its weights.

    Raises ValueError for another architecture, KeyError for a missing weight.
    """
    shape = BertShape.of(config)
    drawing = _Drawing(weights)
    x = _embeddings(drawing, shape)
    mask = _mask(drawing)
    for layer in range(shape.layers):
        x = _layer(drawing, shape, f"encoder.layer.{layer}", x, mask)
    drawing.nodes[-1].output[0] = "last_hidden_state"
    axes = ["batch", "sequence"]
    graph = helper.make_graph(
        drawing.nodes,
        "bert",
        [_value(name, TensorProto.INT64, axes)
         for name in ("input_ids", "attention_mask", "token_type_ids")],
        [_value("last_hidden_state", TensorProto.FLOAT, [*axes, shape.hidden])],
        list(drawing.constants.values()),
    )  # fmt: skip
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="llm-fleet",
    )


def _value(name: str, kind: int, axes: Sequence[str | int]) -> Any:
    return helper.make_tensor_value_info(name, kind, axes)


def _embeddings(drawing: _Drawing, shape: BertShape) -> str:
    """Words, plus positions 0 to the length of the sequence, plus token types; normalised."""
    words = drawing.node("Gather", drawing.weight("embeddings.word_embeddings.weight"), "input_ids")
    length = drawing.node("Shape", "input_ids", start=1, end=2)
    zero = drawing.constant("zero", [0], np.int64)
    positions = drawing.node(
        "Slice", drawing.weight("embeddings.position_embeddings.weight"), zero, length, zero
    )
    types = drawing.node(
        "Gather", drawing.weight("embeddings.token_type_embeddings.weight"), "token_type_ids"
    )
    total = drawing.node("Add", drawing.node("Add", words, types), positions)
    return drawing.norm(total, "embeddings.LayerNorm", shape.epsilon)


def _mask(drawing: _Drawing) -> str:
    """0 for a token and HIDDEN for padding, as [batch, 1, 1, sequence]."""
    seen = drawing.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    unseen = drawing.node("Sub", drawing.constant("one", 1.0), seen)
    penalty = drawing.node("Mul", unseen, drawing.constant("hidden", HIDDEN))
    return drawing.node("Unsqueeze", penalty, drawing.constant("axes", [1, 2], np.int64))


def _layer(drawing: _Drawing, shape: BertShape, name: str, x: str, mask: str) -> str:
    """Attention and the feed-forward network, each added to its input and normalised."""
    attended = drawing.linear(
        _attention(drawing, shape, f"{name}.attention.self", x, mask),
        f"{name}.attention.output.dense",
    )
    x = drawing.norm(
        drawing.node("Add", attended, x), f"{name}.attention.output.LayerNorm", shape.epsilon
    )
    inner = _gelu(drawing, drawing.linear(x, f"{name}.intermediate.dense"))
    outer = drawing.linear(inner, f"{name}.output.dense")
    return drawing.norm(drawing.node("Add", outer, x), f"{name}.output.LayerNorm", shape.epsilon)


def _attention(drawing: _Drawing, shape: BertShape, name: str, x: str, mask: str) -> str:
    """Softmax(q k / sqrt(size of a head)) v; the division is folded into q's weights."""
    size = shape.hidden // shape.heads
    split = drawing.constant("split", [0, 0, shape.heads, size], np.int64)

    def heads(part: str, order: Sequence[int], scale: float = 1.0) -> str:
        projected = drawing.linear(x, f"{name}.{part}", scale)
        return drawing.node("Transpose", drawing.node("Reshape", projected, split), perm=order)

    query = heads("query", (0, 2, 1, 3), scale=size**-0.5)
    key = heads("key", (0, 2, 3, 1))
    scores = drawing.node("Add", drawing.node("MatMul", query, key), mask)
    shares = drawing.node("Softmax", scores, axis=-1)
    mixed = drawing.node("MatMul", shares, heads("value", (0, 2, 1, 3)))
    joined = drawing.constant("join", [0, 0, shape.hidden], np.int64)
    return drawing.node("Reshape", drawing.node("Transpose", mixed, perm=(0, 2, 1, 3)), joined)


def _gelu(drawing: _Drawing, x: str) -> str:
    """`x/2 (1 + erf(x/sqrt(2)))`, in the order of nodes that runtimes know to fuse."""
    scaled = drawing.node("Div", x, drawing.constant("sqrt2", np.sqrt(2.0)))
    raised = drawing.node("Add", drawing.node("Erf", scaled), drawing.constant("one", 1.0))
    product = drawing.node("Mul", x, raised)
    return drawing.node("Mul", product, drawing.constant("half", 0.5))
