"""Arrangements of songs as audio files with a manifest: a catalogue of covers made from nothing but notes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ..atomic import atomic_write
from ..config import SAMPLE_RATE
from ..manifest import Track
from ..parallel import map_in_processes
from .arrange.arrangement import arrange
from .render.renderer import render
from .score import Song


def render_tracks(
    songs: Sequence[Song],
    seeds: Sequence[int],
    folder: Path,
    workers: int,
    *,
    suffix: str = ".flac",
    max_duration_s: float | None = None,
) -> Iterator[Track]:
    """Render one arrangement of every song and seed to ``<folder>/<song_id>/<seed>.flac``, in that order.

    A file that is there already is kept. Each is yielded as the `Track` of a manifest as it is ready, with the song's
    work; the arrangement's facts are its metadata.

    Parameters
    ----------
    songs, seeds, folder, workers
        What is rendered, whereto, and by how many processes.
    suffix : {".flac", ".mp3"}
        Format of the files: 30 kB a second without loss, or 6 kB a second, which take longer to write.
    max_duration_s : float, optional
        Render only the beginning.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    jobs = [(song, seed) for song in songs for seed in seeds]
    render_one = partial(_render_track, folder, suffix, max_duration_s)
    yield from map_in_processes(render_one, jobs, workers, chunksize=2)


def _render_track(folder: Path, suffix: str, max_duration_s: float | None, job: tuple[Song, int]) -> Track:
    import soundfile

    song, seed = job
    arrangement = arrange(song, seed)
    path = folder / song.song_id / f"{seed}{suffix}"
    if not path.exists():
        encoded = io.BytesIO()  # written by us, since libsndfile does not say why it cannot write a file
        soundfile.write(encoded, render(arrangement, max_duration_s), SAMPLE_RATE, format=suffix[1:].upper())
        with atomic_write(path) as part:
            part.write_bytes(encoded.getvalue())
    return Track(
        path=path,
        track_id=f"{song.song_id}/{seed}",
        work_id=song.work_id,
        title=song.title,
        metadata={"arrangement": arrangement.describe()},
    )
