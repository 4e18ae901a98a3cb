"""The drawn graph is a BERT: a checker, a runtime and numpy agree."""

import numpy as np
import onnx
import onnxruntime
import pytest
from support.tiny_bert import CONFIG, numpy_bert, tiny_weights

from fleet.demo.bert_graph import OPSET, bert_model

WEIGHTS = tiny_weights(CONFIG)


def test_the_graph_is_valid_and_every_axis_but_the_last_is_free() -> None:
    model = bert_model(CONFIG, WEIGHTS)
    onnx.checker.check_model(model, full_check=True)

    (output,) = model.graph.output
    shape = [axis.dim_param or axis.dim_value for axis in output.type.tensor_type.shape.dim]
    assert shape == ["batch", "sequence", 16]
    assert [opset.version for opset in model.opset_import] == [OPSET]


def test_padding_is_not_seen() -> None:
    session = onnxruntime.InferenceSession(bert_model(CONFIG, WEIGHTS).SerializeToString())
    ids = np.array([[2, 7, 9, 3, 0, 0], [2, 8, 8, 8, 8, 3]], np.int64)
    mask = (ids > 0).astype(np.int64)
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    short, long = session.run(None, feed)[0]

    np.testing.assert_allclose(short[:4], numpy_bert(CONFIG, WEIGHTS, ids[0, :4]), atol=1e-4)
    np.testing.assert_allclose(long, numpy_bert(CONFIG, WEIGHTS, ids[1]), atol=1e-4)


@pytest.mark.parametrize("difference", [{"model_type": "roberta"}, {"hidden_act": "relu"}])
def test_another_architecture_is_refused(difference: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="only BERT with gelu"):
        bert_model(CONFIG | difference, WEIGHTS)
