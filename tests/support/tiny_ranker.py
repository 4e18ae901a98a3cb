"""A cross-encoder of random weights: the tiny BERT with a head of one number; and in numpy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import processors

from fleet.demo.bert_graph import bert_model
from support.tiny_bert import CONFIG, WORDS, numpy_bert, tiny_tokenizer, tiny_weights

RANKER: dict[str, Any] = {**CONFIG, "architectures": ["BertForSequenceClassification"]}
WEIGHTS = tiny_weights(CONFIG)
_DICE = np.random.default_rng(7)
HEAD = _DICE.normal(size=(CONFIG["hidden_size"], 1)).astype(np.float32)


def write_tiny_ranker(folder: Path, labels: int = 1, **changes: Any) -> Path:
    """A folder that can be served; `changes` are of its `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save_model(_graph(labels), str(folder / "model.onnx"))
    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({**RANKER, **changes}))
    return folder


def _graph(labels: int) -> onnx.ModelProto:
    """The encoder's graph with the first token's state times the head as its output."""
    model = bert_model(CONFIG, WEIGHTS)
    graph = model.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.repeat(HEAD, labels, axis=1), "head"),
            numpy_helper.from_array(np.array(0, np.int64), "first"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("Gather", ["last_hidden_state", "first"], ["cls"], axis=1),
            helper.make_node("MatMul", ["cls", "head"], ["logits"]),
        ]
    )
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])
    )
    return model


def numpy_logit(query: str, document: str) -> float:
    """What numpy makes of a pair of texts of single letters."""
    first = [2, *(WORDS.index(letter) for letter in query.split()), 3]
    second = [*(WORDS.index(letter) for letter in document.split()), 3]
    types = np.array([0] * len(first) + [1] * len(second))
    hidden = numpy_bert(CONFIG, WEIGHTS, np.array(first + second), types)
    return float((hidden[0] @ HEAD.astype(np.float64))[0])
