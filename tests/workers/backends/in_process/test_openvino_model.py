"""Properties with which OpenVINO loads a model; the library itself is tested in tests/real."""

from typing import Any

import pytest

from workers.backends.in_process import openvino_model
from workers.backends.in_process.openvino_model import OpenVinoOptions

F32 = {"INFERENCE_PRECISION_HINT": "f32"}


@pytest.mark.parametrize(
    ("options", "cpus", "properties"),
    [
        ({"threads": 1}, 8, {"INFERENCE_NUM_THREADS": 1, **F32}),
        ({"threads": 2}, 8, {"INFERENCE_NUM_THREADS": 2}),
        ({}, 1, F32),
        ({}, 2, {}),
        ({"device": "GPU", "threads": 1}, 1, {"INFERENCE_NUM_THREADS": 1}),
    ],
)
def test_one_thread_computes_in_f32(
    options: dict[str, Any], cpus: int, properties: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # bfloat16, the default of a CPU with AMX, ends the process there.
    monkeypatch.setattr(openvino_model, "_usable_cpus", lambda: cpus)

    assert OpenVinoOptions(**options).properties == properties
