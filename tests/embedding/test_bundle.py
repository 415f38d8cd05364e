"""A bundle is what its sums say, and its contract is one that this package knows."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jsonschema
import onnxruntime
import pytest

import bytecover2_milvus
from bytecover2_milvus.config import FrontEnd
from bytecover2_milvus.embedding import bundle as bundle_module
from bytecover2_milvus.embedding.bundle import default_bundle, open_bundle, write_sums
from bytecover2_milvus.embedding.contract import Contract
from bytecover2_milvus.errors import BundleError

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "contract.schema.json").read_text())
SHIPPED = [path for path in Path(bytecover2_milvus.__file__).parent.glob("bundles/bytecover*") if path.is_dir()]


@pytest.fixture
def copied(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit_contract(folder: Path, edit: Callable[[dict], None]) -> None:
    """Change ``contract.json`` and make the sums right again, as a foreign exporter would leave them."""
    table = json.loads((folder / "contract.json").read_text())
    edit(table)
    (folder / "contract.json").write_text(json.dumps(table))
    write_sums(folder)


def test_holds_what_the_hand_off_promises(tiny_bundle):
    names = {path.name for path in tiny_bundle.iterdir()}
    needed = {"model.onnx", "contract.json", "MODEL_CARD.md", "golden.npz", "embed.py", "SHA256SUMS"}
    assert names == needed | {"checkpoint.safetensors"}


def test_sums_list_every_file_but_themselves(tiny_bundle):
    listed = {line.split("  ")[1] for line in (tiny_bundle / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in tiny_bundle.iterdir()} - {"SHA256SUMS"}


def test_contract_is_valid_against_its_schema(tiny_bundle):
    jsonschema.validate(json.loads((tiny_bundle / "contract.json").read_text()), SCHEMA)
    fields = [field.name for field in dataclasses.fields(Contract)]
    assert SCHEMA["required"] == fields[:-1] and SCHEMA["then"]["required"] == fields[-1:] == ["chroma"]


def test_contract_survives_json(tiny_bundle):
    contract = open_bundle(tiny_bundle).contract
    assert Contract.from_json(contract.to_json()) == contract
    assert contract.embedding_dim == 128
    assert contract.minimum_samples == 8 * contract.front_end.time_pooling * 512  # one column of the backbone's output


def test_metadata_of_the_model_repeats_the_contract(tiny_bundle):
    session = onnxruntime.InferenceSession(tiny_bundle / "model.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    contract = open_bundle(tiny_bundle).contract
    assert metadata == contract.to_metadata()
    assert metadata["model_id"] == contract.model_id
    assert FrontEnd(**json.loads(metadata["front_end"])) == contract.front_end


@pytest.mark.parametrize(
    "name", ["model.onnx", "contract.json", "MODEL_CARD.md", "golden.npz", "embed.py", "checkpoint.safetensors"]
)
def test_one_changed_byte_is_found_and_named(copied, name):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: changed since it was exported"):
        open_bundle(copied)


def test_a_missing_file_is_named(copied):
    (copied / "golden.npz").unlink()
    with pytest.raises(BundleError, match=r"golden\.npz: listed in SHA256SUMS but missing"):
        open_bundle(copied)


def test_a_bundle_without_checkpoint_is_whole_but_no_start_of_a_training(copied):
    (copied / "checkpoint.safetensors").unlink()
    write_sums(copied)
    bundle = open_bundle(copied)
    with pytest.raises(BundleError, match=r"bundle: exported without checkpoint\.safetensors, good for inference only"):
        _ = bundle.checkpoint


def test_a_checkpoint_that_the_sums_do_not_list_is_not_used(copied):
    (copied / "checkpoint.safetensors").unlink()
    write_sums(copied)
    (copied / "checkpoint.safetensors").write_bytes(b"put there later")
    with pytest.raises(BundleError, match="exported without"):
        _ = open_bundle(copied).checkpoint


def test_a_folder_without_sums_is_no_bundle(copied, tmp_path):
    (copied / "SHA256SUMS").unlink()
    with pytest.raises(BundleError, match="not a bundle, it has no SHA256SUMS"):
        open_bundle(copied)
    with pytest.raises(BundleError, match="nowhere: no such folder"):
        open_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("line", ["", "no sums at all", f"{'0' * 64}  ../../etc/passwd"])
def test_sums_that_do_not_cover_the_model_are_refused(copied, line):
    (copied / "SHA256SUMS").write_text(f"{line}\n" if line else "")
    with pytest.raises(BundleError, match=r"SHA256SUMS: (does not list model\.onnx|not a line of SHA-256 sums)"):
        open_bundle(copied)


def test_chroma_of_other_groups_is_refused(tiny_notes_bundle):
    contract = json.loads((tiny_notes_bundle / "contract.json").read_text())
    contract["chroma"]["groups"] = ["notes", "bass"]
    with pytest.raises(BundleError, match=r"chroma\.groups: notes, bass, this package aligns notes, lead"):
        Contract.from_json(json.dumps(contract))


def test_another_contract_version_is_refused(copied):
    edit_contract(copied, lambda table: table.update(contract_version=3))
    with pytest.raises(BundleError, match=r"contract\.json: contract version 3, this package reads 1 and 2"):
        open_bundle(copied)


def test_missing_and_unknown_fields_are_named(copied):
    edit_contract(copied, lambda table: (table.pop("sample_rate"), table.update(colour="red")))
    with pytest.raises(BundleError, match="missing or unknown fields: colour, sample_rate"):
        open_bundle(copied)
    edit_contract(copied, lambda table: (table.pop("colour"), table.update(sample_rate=22_050, front_end={"hop": 512})))
    with pytest.raises(BundleError, match="front_end"):
        open_bundle(copied)


def test_default_bundle_is_the_one_that_ships(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module.resources, "files", lambda package: tmp_path)
    with pytest.raises(BundleError, match=r"ships no bundle; .*--bundle"):
        default_bundle()
    (tmp_path / "bytecover2-128").mkdir()
    assert default_bundle() == tmp_path / "bytecover2-128"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_bundle_that_ships_opens_and_is_small(path):
    assert open_bundle(path).contract.name == path.name
    assert sum(file.stat().st_size for file in path.iterdir()) < 50e6
