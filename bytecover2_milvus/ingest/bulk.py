"""Parquet for Milvus' bulk import: a catalogue that is too large to be inserted over the network.

`ingest` fills a `BulkFolder` as it would a collection. `BulkFolder.write` then makes ``1.parquet``, ``2.parquet``, ...
of it with pymilvus' own writer, and at last ``files.json``, which names them and is there only while they hold all that
the folder holds. Milvus does not look for equal keys when it imports: import into an empty collection, and each file
once.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_write
from ..errors import BytecoverError, OutputError
from ..extras import why_not_imported
from ..milvus.properties import EmbeddingModel
from ..milvus.schema import FEATURES, STORED, Row, collection_schema
from ..untrusted import DAMAGED, parse_json, read_text, shorten
from .sqlite import Staging

STAGING = "embedded.sqlite"  # what the next run goes on from
CONTENTS = "files.json"
_NAME = re.compile(r"[1-9]\d{0,8}\.parquet")
PART = ".part"  # where files are until they are whole
VALUES_PER_FILE = 3_200_000  # of embeddings, 25 000 of 128: the writer keeps a file's rows as Python numbers
CHARACTERS_PER_VALUE = 32  # of chroma: a Python number takes the memory of as many


class BulkFolder(Staging):
    """A folder of files for bulk import; see `Staging`.

    Raises
    ------
    OutputError
        If it cannot be written, or pymilvus' bulk writer is not installed.
    """

    def __init__(self, folder: str | Path, model: EmbeddingModel) -> None:
        self.folder = Path(folder)
        self._writer_class, self._parquet = _bulk_writer(self.folder)
        super().__init__(self.folder / STAGING, model)

    def upsert(
        self,
        rows: Sequence[Row],
        embeddings: NDArray[np.float32],
        chromas: Sequence[str] | None = None,
        statistics: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self._outdate()
        super().upsert(rows, embeddings, chromas, statistics)

    def delete_tracks(self, track_ids: Sequence[str], *, keep: Sequence[str] = ()) -> int:
        self._outdate()
        return super().delete_tracks(track_ids, keep=keep)

    def write(self) -> list[Path]:
        """Write all rows to files, unless they are there; which they are."""
        contents = self.folder / CONTENTS
        if contents.exists():
            return _listed(contents)
        with _written(self.folder):
            for old in self.folder.glob("*.parquet"):
                if old.stem.isdecimal():
                    old.unlink()
            shutil.rmtree(self.folder / PART, ignore_errors=True)
            (self.folder / PART).mkdir()
        files: list[Path] = []
        rows: list[dict[str, Any]] = []
        n_values = 0
        for page in self.pages(["id", *STORED, *FEATURES]):
            rows += page
            n_values += sum(self.dim + len(entity["chroma"]) // CHARACTERS_PER_VALUE for entity in page)
            if n_values >= VALUES_PER_FILE:
                files.append(self._write_file(rows, len(files) + 1))
                rows, n_values = [], 0
        if rows:
            files.append(self._write_file(rows, len(files) + 1))
        shutil.rmtree(self.folder / PART, ignore_errors=True)
        told = {
            "model_id": self.model_id,
            "chroma_id": self.chroma_id,
            "segment_s": self.segments.length_s,
            "hop_s": self.segments.hop_s,
            "rows": self.count(),
            "files": [file.name for file in files],
        }
        with atomic_write(contents) as part:
            part.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        return files

    def _outdate(self) -> None:
        with _written(self.folder):
            (self.folder / CONTENTS).unlink(missing_ok=True)

    def _write_file(self, rows: list[dict[str, Any]], number: int) -> Path:
        """A file that is whole or absent: the writer leaves half of one where the disk is full, and says nothing."""
        path = self.folder / f"{number}.parquet"
        with _written(path), _raised_in_threads():
            writer = self._writer_class(collection_schema(self.dim), str(self.folder / PART), chunk_size=1 << 40)
            for row in rows:
                writer.append_row(row)
            writer.commit()
            [[part]] = writer.batch_files
            if self._parquet.read_metadata(part).num_rows != len(rows):
                raise OSError(f"{part} is not whole")
            os.replace(part, path)
        return path


def _listed(contents: Path) -> list[Path]:
    """The files that ``files.json`` names, all of them there."""
    try:
        told = parse_json(read_text(contents))
        names = told["files"] if isinstance(told, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
            raise ValueError("it does not list files of this folder")
        files = [contents.parent / name for name in names]
        if missing := [file.name for file in files if not file.is_file()]:
            raise ValueError(f"{missing[0]} is not there")
    except DAMAGED as error:
        raise OutputError(
            f"{contents}: damaged ({shorten(error)}); delete it and run again, which writes the files anew"
        ) from error
    return files


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except BytecoverError:
        raise
    except (OSError, ValueError) as error:  # Arrow's errors are either
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise OutputError(f"{path}: cannot be written ({reason}); choose another place") from error


@contextmanager
def _raised_in_threads() -> Iterator[None]:
    """Raise here what a thread of the block raised: the writer writes in one, and drops its exceptions."""
    raised: list[BaseException | None] = []
    hook, threading.excepthook = threading.excepthook, lambda args: raised.append(args.exc_value)
    try:
        yield
    except ValueError:
        if not raised:
            raise
    finally:
        threading.excepthook = hook
    if raised and raised[0]:
        raise raised[0]


def _bulk_writer(folder: Path) -> tuple[Any, Any]:
    """The writer's class, and ``pyarrow.parquet``."""
    try:
        from pyarrow import parquet
        from pymilvus.bulk_writer import LocalBulkWriter
    except ImportError as error:
        raise OutputError(f"{folder}: needs Milvus' bulk writer; {why_not_imported(error, 'bulk')}") from error
    for logger in ("pymilvus.bulk_writer", "bulk_writer"):  # they print every step
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    return LocalBulkWriter, parquet
