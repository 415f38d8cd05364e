"""A *bundle*: the folder with an exported network and all that a consumer needs to use it.

``model.onnx`` maps ``waveform`` (batch, samples) to ``embedding`` (batch, D); ``contract.json`` states the contract,
which the metadata of the model repeats; ``SHA256SUMS`` lists every file. ``export/README.md`` says the same in words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..alignment.qmax import ALIGNMENT
from ..alignment.verdict import Verdict
from ..config import FrontEnd
from ..errors import BundleError
from ..untrusted import open_regular, read_text, shorten
from .contract import COPY_AGAIN, EXPORT_AGAIN, Contract

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL, CONTRACT, GOLDEN, SUMS = "model.onnx", "contract.json", "golden.npz", "SHA256SUMS"
CARD, EMBED = "MODEL_CARD.md", "embed.py"
MODEL_CQT = "model_cqt.onnx"  # for who has the pooled CQT already; a bundle may lack it
CALIBRATION = "calibration.json"  # how similarities become probabilities; a bundle may lack it
CHECKPOINT = "checkpoint.safetensors"  # to train on from; a bundle may lack it
FILE_BYTES = 2 << 30  # of any file of a bundle: protobuf, which ONNX is written in, holds no more
_COMPILED = "__pycache__"  # where Python keeps what it compiled of embed.py: pip does so as it installs


@dataclass(frozen=True)
class Bundle:
    """A folder whose files are what its ``SHA256SUMS`` says."""

    path: Path
    contract: Contract
    files: frozenset[str]  # names of all that ``SHA256SUMS`` lists

    @property
    def model(self) -> Path:
        return self.path / MODEL

    @property
    def checkpoint(self) -> Path:
        """The file that training can start from.

        Raises
        ------
        BundleError
            If the bundle was exported without one.
        """
        if CHECKPOINT not in self.files:
            raise BundleError(
                f"{self.path}: exported without {CHECKPOINT}, good for inference only; start from the checkpoint it "
                "was exported from, or export that again with the checkpoint"
            )
        return self.path / CHECKPOINT

    @property
    def calibration(self) -> Verdict | None:
        """The verdict of the second stage; None where the bundle has no note map, or was not calibrated for it.

        Raises
        ------
        BundleError
            If ``calibration.json`` cannot be read, or is none for the groups of the contract.
        """
        if self.contract.chroma is None or CALIBRATION not in self.files:
            return None
        verdict = read_calibration(self.path / CALIBRATION, self.contract.chroma.groups)
        return verdict if verdict.alignment == ALIGNMENT else None


def read_calibration(path: Path, groups: Sequence[str]) -> Verdict:
    """The verdict in a ``calibration.json``, for these groups of chroma channels.

    Raises
    ------
    BundleError
        If it cannot be read, or is none for these groups.
    """
    try:
        return Verdict.read(read_text(path), groups)
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); {COPY_AGAIN}") from error
    except BundleError as error:
        raise BundleError(f"{path}: {error}; {COPY_AGAIN}") from error


def open_bundle(path: str | Path) -> Bundle:
    """The bundle in the folder `path`, every file of it checked against ``SHA256SUMS``.

    Raises
    ------
    BundleError
        If there is no such folder, the sums or a file are missing, a file was changed, or the contract is not one that
        this package knows.
    """
    path = Path(path)
    sums = path / SUMS
    if not sums.is_file():
        what = "no such folder" if not path.is_dir() else f"not a bundle, it has no {SUMS}"
        raise BundleError(f"{path}: {what}; name the folder that `bytecover2-milvus export` wrote")
    try:
        listed = read_sums(sums)
        for name in (MODEL, CONTRACT):
            if name not in listed:
                raise BundleError(f"{sums}: does not list {name}; {EXPORT_AGAIN}")
        for fault in damaged_files(path, listed):
            raise BundleError(fault)
        text = read_text(path / CONTRACT)
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); check its permissions or copy it again") from error
    try:
        return Bundle(path, Contract.from_json(text), frozenset(listed))
    except BundleError as error:
        raise BundleError(f"{path / CONTRACT}: {error}") from error


def damaged_files(folder: Path, listed: Mapping[str, str]) -> Iterator[str]:
    """A sentence for every file of `listed`, from name to SHA-256, that is missing from `folder` or was changed."""
    for name, expected in listed.items():
        try:
            if file_sha256(folder / name) != expected:
                yield f"{folder / name}: changed since it was exported; copy the bundle again"
        except FileNotFoundError:
            yield f"{folder / name}: listed in {SUMS} but missing; copy the bundle again"
        except OSError as error:
            yield f"{folder / name}: cannot be read ({error.strerror}); copy the bundle again"


def unlisted_files(folder: Path, listed: Iterable[str]) -> Iterator[Path]:
    """Files in `folder` that are neither in `listed` nor compiled by Python from a program that is."""
    known = {*listed, SUMS}
    for file in sorted(folder.iterdir()):
        if file.name == _COMPILED and file.is_dir() and not file.is_symlink():
            # Python runs none of these without the program of that name beside the folder.
            yield from (entry for entry in sorted(file.iterdir()) if f"{entry.name.split('.')[0]}.py" not in known)
        elif file.name not in known:
            yield file


def default_bundle() -> Path:
    """The folder of the bundle that ships with this package.

    Raises
    ------
    BundleError
        If this installation ships none.
    """
    path = Path(str(resources.files("bytecover2_milvus.bundles") / "bytecover2-128"))
    if not path.is_dir():
        raise BundleError(
            f"{path}: this installation ships no bundle; make one with `bytecover2-milvus train` and "
            "`bytecover2-milvus export`, and name it with --bundle"
        )
    return path


def make_model_id(front_end: FrontEnd, weights: Mapping[str, NDArray[Any]]) -> str:
    """32 hexadecimal digits over the front end's settings and every learned or calibrated weight, by name.

    Weights in half precision count as float32, those of an int8 form as the integers that they are.
    """
    digest = hashlib.sha256(json.dumps(front_end.facts(), sort_keys=True).encode())
    _add_weights(digest, weights)
    return digest.hexdigest()[:32]


def _add_weights(digest: hashlib._Hash, weights: Mapping[str, NDArray[Any]]) -> None:
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.shape}".encode())
        digest.update((weight.astype("<f4") if weight.dtype.kind == "f" else weight).tobytes())


def make_chroma_id(weights: Mapping[str, NDArray[Any]]) -> str:
    """32 hexadecimal digits over every weight of the note map and of its folding, as `make_model_id` makes them."""
    digest = hashlib.sha256()
    _add_weights(digest, weights)
    return digest.hexdigest()[:32]


def file_sha256(path: Path) -> str:
    """The SHA-256 of a regular file of at most `FILE_BYTES`, in hexadecimal."""
    with open_regular(path, FILE_BYTES) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> None:
    """List every file of `folder` in its ``SHA256SUMS``, in the form that ``sha256sum --check`` reads."""
    paths = [path for path in sorted(folder.iterdir()) if path.name not in (SUMS, _COMPILED)]
    (folder / SUMS).write_text("".join(f"{file_sha256(path)}  {path.name}\n" for path in paths), encoding="utf-8")


def read_sums(path: Path) -> dict[str, str]:
    """File name -> SHA-256 in hexadecimal.

    Raises
    ------
    BundleError
        If a line is no sum of a file in the same folder.
    """
    listed = {}
    for line in read_text(path).splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or "/" in name or "\\" in name or "\0" in name:
            raise BundleError(f"{path}: not a line of SHA-256 sums: {shorten(repr(line))}; copy the bundle again")
        listed[name] = digest
    return listed
