"""Arrangements of songs as audio files with a manifest: a catalogue of covers made from nothing but notes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from ..config import SAMPLE_RATE
from ..manifest import Track
from .arrange import arrange
from .render import render
from .score import Song


def render_tracks(songs: Sequence[Song], seeds: Sequence[int], folder: Path, workers: int) -> Iterator[Track]:
    """Render one arrangement of every song and seed to ``<folder>/<song_id>/<seed>.flac``, in that order.

    A file that is there already is kept. Each is yielded as the `Track` of a manifest as it is ready: the song is its
    work, the arrangement's facts are its metadata.
    """
    jobs = [(song, seed) for song in songs for seed in seeds]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(_render_track, folder), jobs, chunksize=2)


def _render_track(folder: Path, job: tuple[Song, int]) -> Track:
    import soundfile

    song, seed = job
    arrangement = arrange(song, seed)
    path = folder / song.song_id / f"{seed}.flac"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        soundfile.write(part, render(arrangement), SAMPLE_RATE, format="FLAC")
        os.replace(part, path)
    return Track(
        path=path,
        track_id=f"{song.song_id}/{seed}",
        work_id=song.song_id,
        title=song.title,
        metadata={"arrangement": arrangement.describe()},
    )
