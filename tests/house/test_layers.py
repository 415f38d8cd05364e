"""Layers point one way: serving needs no torch, training needs no Milvus, and the package itself needs neither."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = "bytecover2_milvus"
HEAVY = {"torch", "onnxruntime", "pymilvus", "librosa", "soundfile", "av", "rich", "click"}

# The rooms, and those that each imports from; modules beside the rooms are leaves that all may use.
IMPORTS = {
    "alignment": set(),
    "audio": set(),
    "datasets": {"audio"},
    "embedding": {"alignment", "audio"},
    "milvus": {"alignment", "audio", "embedding"},
    "second_stage": {"alignment", "embedding", "milvus"},
    "ingest": {"alignment", "audio", "embedding", "milvus"},
    "groups": {"alignment", "milvus", "second_stage"},
    "pages": {"alignment", "audio", "embedding", "groups", "milvus", "second_stage"},
    "serve": {"alignment", "audio", "embedding", "milvus", "pages", "second_stage"},
    "songs": set(),
    "model": set(),
    "training": {"alignment", "audio", "embedding", "model", "songs"},
    "export": {"alignment", "audio", "embedding", "model", "training"},
}
SERVING = ("alignment", "audio", "embedding", "milvus", "second_stage", "ingest", "groups", "pages", "serve")
SCHEMAS = {"schemas", "bundles"}  # data


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def modules_in(folder: str) -> list[str]:
    """Names of the modules of a room, as seen from the package."""
    paths = (REPOSITORY / ("export" if folder == "export" else f"{PACKAGE}/{folder}")).rglob("*.py")
    start = REPOSITORY if folder == "export" else REPOSITORY / PACKAGE
    names = [path.relative_to(start).with_suffix("").parts for path in paths if "consumers" not in path.parts]
    return sorted(".".join(name).removesuffix(".__init__") for name in names)


def names_of(path: Path) -> tuple[str, ...]:
    """The dotted name of a source file's module, in parts."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    parts = parts if parts[0] == PACKAGE else (PACKAGE, *parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def names_imported_by(path: Path) -> set[tuple[str, ...]]:
    """Dotted names, in parts, that a file imports from the package, at its top, in functions or for types alone."""
    package = names_of(path) if path.name == "__init__.py" else names_of(path)[:-1]
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(part for part in (node.module or "").split(".") if part))
            found |= {(*module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
    return {name for name in found if name[0] == PACKAGE and len(name) > 1}


def imported_by(path: Path) -> set[str]:
    """Rooms, and modules beside them, that a file imports from."""
    return {name[1] for name in names_imported_by(path)}


def sources(folder: str) -> list[Path]:
    return sorted((REPOSITORY / folder).rglob("*.py"))


@pytest.mark.parametrize("room", IMPORTS)
def test_rooms_import_from_those_below(room):
    files = sources(room if room == "export" else f"{PACKAGE}/{room}")
    used = set().union(*(imported_by(path) for path in files)) & IMPORTS.keys()
    assert used - {room} == IMPORTS[room]


def test_no_modules_import_each_other_in_a_circle():
    modules = {names_of(path): path for folder in (PACKAGE, "export") for path in sources(folder)}
    graph = {}
    for module, path in modules.items():
        named = {name if name in modules else name[:-1] for name in names_imported_by(path)}
        graph[module] = (named & modules.keys()) - {module}
    assert graph[PACKAGE, "milvus", "collection"] >= {(PACKAGE, "milvus", "search"), (PACKAGE, "milvus", "schema")}
    assert list(TopologicalSorter(graph).static_order())  # a circle raises CycleError, which names it


def test_there_are_no_circles_and_no_other_rooms():
    assert list(TopologicalSorter(IMPORTS).static_order())
    folders = {path.parent.name for path in (REPOSITORY / PACKAGE).glob("*/__init__.py")}
    assert folders - SCHEMAS == IMPORTS.keys() | {"cli"}


def test_every_room_is_in_the_wheel():
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "packages"
    ]
    there = [path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / PACKAGE).rglob("__init__.py")]
    linked = {f"{PACKAGE}.export", f"{PACKAGE}.schemas"}
    assert set(declared) == {".".join(path.parts) for path in there} | linked


@pytest.mark.parametrize(
    "folder", [*(f"{PACKAGE}/{room}" for room in IMPORTS if room != "export"), "export", "benchmarks"]
)
def test_nothing_imports_the_command_line(folder):
    assert not [path for path in sources(folder) if "cli" in imported_by(path)]


def test_the_package_is_light():
    assert not loaded_by("import bytecover2_milvus") & HEAVY


def test_its_public_names_resolve_without_torch():
    assert "torch" not in loaded_by("from bytecover2_milvus import *")


@pytest.mark.parametrize("room", SERVING)
def test_serving_never_imports_torch(room):
    statements = (f"import {PACKAGE}.{module}" for module in modules_in(room) if not module.endswith("ray"))
    assert "torch" not in loaded_by("\n".join(statements))


@pytest.mark.parametrize("module", ["bundle", "embedder"])
def test_onnx_runtime_is_imported_where_it_is_used(module):
    assert "onnxruntime" not in loaded_by(f"import {PACKAGE}.embedding.{module}")


@pytest.mark.parametrize("room", ["training", "model", "songs", "export"])
def test_training_and_export_never_import_milvus(room):
    statements = (f"import {PACKAGE}.{module}" for module in modules_in(room))
    assert "pymilvus" not in loaded_by("\n".join(statements))


@pytest.mark.parametrize("room", ["alignment", "audio", "datasets", "songs"])
def test_leaves_import_neither_torch_nor_milvus_nor_onnx_runtime(room):
    statements = (f"import {PACKAGE}.{module}" for module in modules_in(room))
    assert not loaded_by("\n".join(statements)) & {"torch", "pymilvus", "onnxruntime"}
