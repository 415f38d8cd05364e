"""Measurements: each prints JSON, with the reference and ours from the same run."""

import bytecover2_milvus  # noqa: F401  (before ONNX Runtime, whose telemetry it switches off)
