"""Models in the worker's own process: llama.cpp, OpenVINO, ONNX."""
