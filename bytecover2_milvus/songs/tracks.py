"""Arrangements of songs as audio files with a manifest: a catalogue of covers made from nothing but notes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ..config import SAMPLE_RATE
from ..manifest import Track
from ..processes import map_in_processes
from ..writing import whole_file
from .arrange import arrange
from .render import render
from .score import Song


def render_tracks(songs: Sequence[Song], seeds: Sequence[int], folder: Path, workers: int) -> Iterator[Track]:
    """Render one arrangement of every song and seed to ``<folder>/<song_id>/<seed>.flac``, in that order.

    A file that is there already is kept. Each is yielded as the `Track` of a manifest as it is ready: the song is its
    work, the arrangement's facts are its metadata.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    jobs = [(song, seed) for song in songs for seed in seeds]
    yield from map_in_processes(partial(_render_track, folder), jobs, workers, chunksize=2)


def _render_track(folder: Path, job: tuple[Song, int]) -> Track:
    import soundfile

    song, seed = job
    arrangement = arrange(song, seed)
    path = folder / song.song_id / f"{seed}.flac"
    if not path.exists():
        flac = io.BytesIO()  # written by us, since libsndfile does not say why it cannot write a file
        soundfile.write(flac, render(arrangement), SAMPLE_RATE, format="FLAC")
        with whole_file(path) as part:
            part.write_bytes(flac.getvalue())
    return Track(
        path=path,
        track_id=f"{song.song_id}/{seed}",
        work_id=song.song_id,
        title=song.title,
        metadata={"arrangement": arrangement.describe()},
    )
