"""Waveforms in, embeddings out: the bundle and its contract, the ONNX Runtime session, queries."""
