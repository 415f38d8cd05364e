"""Layers point one way: serving needs no torch, training needs no Milvus, and the package itself needs neither."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "onnxruntime", "pymilvus", "librosa", "soundfile", "av", "rich", "click"}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_the_package_is_light():
    assert not loaded_by("import bytecover2_milvus") & HEAVY


def test_its_public_names_resolve_without_torch():
    assert "torch" not in loaded_by("from bytecover2_milvus import *")


@pytest.mark.parametrize(
    "module",
    [
        "audio",
        "bundle",
        "collection",
        "embedder",
        "explain",
        "ingest",
        "manifest",
        "metrics",
        "pages.explain",
        "verify",
    ],
)
def test_serving_never_imports_torch(module):
    assert "torch" not in loaded_by(f"import bytecover2_milvus.{module}")


@pytest.mark.parametrize("module", ["bundle", "embedder"])
def test_onnx_runtime_is_imported_where_it_is_used(module):
    assert "onnxruntime" not in loaded_by(f"import bytecover2_milvus.{module}")


@pytest.mark.parametrize("module", ["training.checkpoint", "training.train", "model.network", "export.exporter"])
def test_training_and_export_never_import_milvus(module):
    assert "pymilvus" not in loaded_by(f"import bytecover2_milvus.{module}")


@pytest.mark.parametrize("module", ["audio", "config", "errors", "metrics", "songs.render"])
def test_leaves_import_neither_torch_nor_milvus_nor_onnx_runtime(module):
    assert not loaded_by(f"import bytecover2_milvus.{module}") & {"torch", "pymilvus", "onnxruntime"}
