"""Cover-song identification: ByteCover2 embeddings in ONNX Runtime, searched in Milvus.

``import bytecover2_milvus`` is light; onnxruntime and pymilvus are imported when a name that needs them is first used.
``__init__.pyi`` lists the names.
"""

import os

import lazy_loader

__version__ = "0.1.0"

# ONNX Runtime reads it once, when it is imported: it would keep an identifier of the machine and send what it notes.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
