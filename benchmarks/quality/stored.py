"""Recordings in a collection of Milvus, as `ingest` stores them, by a bundle whose second stage is calibrated."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from benchmarks.held_out import Recording
from bytecover2_milvus.alignment.chroma import encode, to_levels
from bytecover2_milvus.audio.segments import times_s
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.milvus.cohort import Cohort, CohortTrack
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.schema import Row

bundle_option = click.option(
    "--bundle", type=click.Path(file_okay=False, path_type=Path), help="By default the one that ships."
)


def calibrated_embedder(bundle: Path | None) -> Embedder:
    """The embedder of a bundle, on the CPU.

    Raises
    ------
    click.ClickException
        If the bundle has no calibration.
    """
    embedder = Embedder(bundle, "cpu")
    if embedder.verdict is None:
        raise click.ClickException(
            f"{bundle or 'the bundle'}: has no calibration for this alignment; run benchmarks.quality.calibration first"
        )
    return embedder


def store(found: Sequence[Recording], embedder: Embedder, collection: TrackCollection) -> None:
    """All rows, with the statistics of the cohort that the collection has."""
    rows, heard = [], []
    for recording in found:
        content = hashlib.sha256(recording.track_id.encode()).hexdigest()
        duration_s = len(recording.waveform) / SAMPLE_RATE
        spans = collection.segments.audible_spans(recording.waveform)
        for span in spans:
            start_s, end_s = (0.0, duration_s) if span == spans[0] else times_s(span)
            rows.append(Row(recording.track_id, content, duration_s, start_s, end_s, recording.work_id))
        heard += embedder.hear_batch([recording.waveform[start:stop] for start, stop in spans])
    levels = [to_levels(one.chroma) for one in heard]
    whole = [
        CohortTrack(row.id, row.track_id, one.embedding, own)
        for row, one, own in zip(rows, heard, levels, strict=True)
        if row.is_whole
    ]
    known = dict(zip((track.id for track in whole), Cohort(whole).statistics_in_turn(whole), strict=True))
    chromas = [encode(own) if row.is_whole else "" for row, own in zip(rows, levels, strict=True)]
    collection.upsert(
        rows, np.stack([one.embedding for one in heard]), chromas, [known.get(row.id, {}) for row in rows]
    )
