"""The ONNX hand-off room: from checkpoint to bundle."""
