"""Sets of works that the model was not trained on and is judged by, and the audio of their tracks, made once."""

from __future__ import annotations

import csv
import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.compiled import compile_librosa
from benchmarks.quality.sung import render_sung, voices
from bytecover2_milvus.atomic import atomic_write
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.errors import BytecoverError, SongError
from bytecover2_milvus.parallel import map_in_processes
from bytecover2_milvus.songs import version
from bytecover2_milvus.songs.arrange.arrangement import arrange
from bytecover2_milvus.songs.read.traditional import traditional_songs
from bytecover2_milvus.songs.readers import read_song, song_paths
from bytecover2_milvus.songs.render.soundfont import SOUNDFONTS, find_soundfont, play, render_with_soundfont
from bytecover2_milvus.songs.score import Song

if TYPE_CHECKING:
    import mido

logger = logging.getLogger("held_out")

Waveform: TypeAlias = NDArray[np.float32]  # (n_samples,)
_Job, _Result = TypeVar("_Job"), TypeVar("_Result")

# Files of these folders, counted as by `select_songs`, FROM included, TO not. The recipe neither trains on them nor
# chooses a checkpoint by them.
HELD_OUT = {"pop909": (865, 909), "lieder": (1265, 1460), "cre": (1000, 1100)}
IN_TRAINING = frozenset({"brahms-wiegenlied"})  # of the traditional songs: it is one of the lieder, too
SETS = ("asap", *HELD_OUT, "traditional", "recordings")
SONGS = tuple(name for name in SETS if name != "recordings")  # sets of songs and performances
SUNG = "sung"  # the traditional songs, every other track sung by recorded voices
LONGEST_S = 120.0  # of a track; a performance of ASAP may last a quarter of an hour


@dataclass(frozen=True)
class Work:
    """A work of a set, and how its tracks come about."""

    set: str
    work_id: str
    source: Path | Song | tuple[Path, ...]  # a score, a song, or one file for every track
    n_tracks: int
    voices: Path | None = None  # folder of sung syllables; they sing the lead of every other track


@dataclass(frozen=True, eq=False)
class Recording:
    """A track with its samples."""

    track_id: str
    work_id: str
    waveform: Waveform


@dataclass(frozen=True)
class HeldOut:
    """Held-out sets, as the options of a benchmark name them."""

    scores: Path  # folder of the sets
    names: tuple[str, ...]
    soundfont: Path
    folder: Path  # of the audio made of them
    n_works: int  # of each set, at most
    n_tracks: int  # of each work, at most

    def works_of(self, name: str) -> list[Work]:
        """The works of one of the sets."""
        return works_of(name, self.scores, self.n_works, self.n_tracks)

    def works(self) -> list[Work]:
        """The works of all sets."""
        return [work for name in self.names for work in self.works_of(name)]

    def recordings(self, work: Work) -> Iterator[Recording]:
        """The tracks of a work as they are; none of an unreadable score."""
        for track_id, waveform in clean_tracks(work, self.soundfont, self.folder):
            yield Recording(track_id, f"{work.set}/{work.work_id}", waveform)


def held_out_options(
    works: int | None = 40,
    tracks: int | None = 3,
    *,
    least_works: int = 2,
    required: bool = True,
    sets: Sequence[str] = SONGS,
    of: Sequence[str] = SETS,
) -> Callable[[Callable[..., object]], Any]:
    """Options of held-out sets: the command takes a `HeldOut` as `held_out`; what it raises is told in one line.

    Parameters
    ----------
    works, tracks : int or None
        Defaults of ``--works`` and ``--tracks``; None leaves the option out, and of each work there are 3 tracks.
    least_works : int
        The smallest value of ``--works``.
    required : bool
        ``--scores`` has to be given; else it is the folder ``scores``, and the traditional songs do without.
    sets, of : sequence of str
        Default and choices of ``--sets``.
    """

    def decorate(command: Callable[..., object]) -> Any:
        @wraps(command)
        def with_held_out(
            *args: Any,
            scores: Path,
            names: tuple[str, ...],
            soundfont: Path,
            cache: Path,
            n_works: int = 0,
            n_tracks: int = 3,
            **kwargs: Any,
        ) -> object:
            try:
                font = find_soundfont(soundfont)
                folder = cache / f"{version.ALL} {font.stem}"
                return command(*args, held_out=HeldOut(scores, names, font, folder, n_works, n_tracks), **kwargs)
            except BytecoverError as error:
                raise click.ClickException(str(error)) from error

        options = [
            click.option(
                "--scores",
                type=click.Path(exists=required, file_okay=False, path_type=Path),
                required=required,
                default=None if required else "scores",
                help="Folder of asap, pop909, lieder, cre and audio, as docs/songs.md has it; traditional needs none.",
            ),
            click.option("--sets", "names", multiple=True, type=click.Choice(of), default=sets, show_default=True),
            *_most("--works", "n_works", works, least_works, "Of each set, at most."),
            *_most("--tracks", "n_tracks", tracks, 2, "Of each work, at most."),
            click.option(
                "--soundfont",
                type=click.Path(path_type=Path),
                default=SOUNDFONTS / "TimGM6mb.sf2",
                show_default=True,
            ),
            click.option(
                "--cache", type=click.Path(path_type=Path), default=Path(".cache/validation"), show_default=True
            ),
        ]
        for option in reversed(options):
            with_held_out = option(with_held_out)
        return with_held_out

    return decorate


def _most(name: str, parameter: str, default: int | None, least: int, told: str) -> list[Any]:
    """An option of a number, if it has a default."""
    if default is None:
        return []
    return [click.option(name, parameter, type=click.IntRange(least), default=default, show_default=True, help=told)]


def in_processes(job: Callable[[_Job], _Result], jobs: Sequence[_Job], workers: int) -> Iterator[_Result]:
    """The results of a job of each work, in order, computed in `workers` processes under a progress bar."""
    compile_librosa()  # else these would, all at once
    results = map_in_processes(job, jobs, workers, chunksize=1)
    with click.progressbar(results, length=len(jobs), label="works", file=sys.stderr) as done:
        yield from done


def works_of(name: str, scores: Path, works: int, tracks: int) -> list[Work]:
    """At most `works` works of a set, of at most `tracks` tracks each.

    Raises
    ------
    SongError
        If the set's folder is not in `scores`.
    """
    if name in ("traditional", SUNG):
        folder = scores / "voices" if name == SUNG else None
        if folder and not (folder / "index.csv").is_file():
            raise SongError(f"{folder / 'index.csv'}: not there; leave the set {SUNG} out")
        songs = [song for song in traditional_songs() if song.song_id not in IN_TRAINING]
        return [Work(name, song.song_id, song, tracks, folder) for song in _drawn(songs, works)]
    folder = scores / name
    if name in HELD_OUT:
        start, stop = HELD_OUT[name]
        return [Work(name, path.stem, path, tracks) for path in _drawn(song_paths(folder)[start:stop], works)]
    files: dict[str, list[Path]] = {}
    try:
        if name == "asap":
            with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    files.setdefault(row["work_id"], []).append(folder / row["path"])
        else:
            for path in sorted((scores / "audio").iterdir()):
                if path.suffix == ".ogg":
                    files.setdefault(path.name.removesuffix(".ogg").removesuffix(".hq"), []).append(path)
    except OSError as error:
        raise SongError(f"{error.filename}: cannot be read ({error.strerror}); leave the set {name} out") from error
    kept = [(work_id, tuple(paths[:tracks])) for work_id, paths in files.items() if len(paths) > 1]
    return [Work(name, work_id, paths, len(paths)) for work_id, paths in _drawn(kept, works)]


def _drawn(items: Sequence, count: int) -> list:
    """At most `count` of the items, drawn at random but the same each time; a few are a part of many."""
    return [items[i] for i in sorted(np.random.default_rng(0).permutation(len(items))[:count].tolist())]


def clean_tracks(work: Work, soundfont: Path, folder: Path) -> Iterator[tuple[str, Waveform]]:
    """Every track of a work, as it is, made once and kept in `folder`; none of an unreadable score."""
    for number in range(work.n_tracks):
        track_id = f"{work.set}/{work.work_id}/{number}"
        audio = folder / track_id
        if isinstance(work.source, Path) and not audio.exists() and not _readable(work.source):
            return
        yield track_id, cached(audio / "whole.flac", partial(_waveform, work, number, soundfont))


def _waveform(work: Work, number: int, soundfont: Path) -> Waveform:
    """One track of a work."""
    if song := song_of(work):
        arrangement = arrange(song, number)
        if work.voices and number % 2 == 0:
            return render_sung(arrangement, voices(work.voices), soundfont, LONGEST_S)
        return render_with_soundfont(arrangement, soundfont, LONGEST_S)
    assert isinstance(work.source, tuple)
    path = work.source[number]
    if path.suffix != ".mid":
        return load_audio(path)

    import mido

    midi = mido.MidiFile(path, clip=True)
    _start_with_the_first_note(midi)
    return play(midi, soundfont, LONGEST_S)


def _start_with_the_first_note(midi: mido.MidiFile) -> None:
    """Move all events to the front: some pianists were recorded long before they played."""
    first = min(
        (time for track in midi.tracks for time, message in _with_ticks(track) if message.type == "note_on"), default=0
    )
    for track in midi.tracks:
        before = 0
        for time, message in list(_with_ticks(track)):
            message.time = max(0, time - first) - before
            before += message.time


def _with_ticks(track: mido.MidiTrack) -> Iterator[tuple[int, mido.Message]]:
    """The messages of a track with their times from its start, in ticks."""
    now = 0
    for message in track:
        now += message.time
        yield now, message


def song_of(work: Work) -> Song | None:
    """The song whose arrangements are the tracks of a work; None where they are files."""
    if isinstance(work.source, tuple):
        return None
    return work.source if isinstance(work.source, Song) else _song(work.source)


_song = lru_cache(maxsize=1)(read_song)  # the tracks of a work follow each other


def _readable(score: Path) -> bool:
    try:
        _song(score)
    except SongError as error:
        logger.warning("left out: %s", error)
        return False
    return True


def cached(path: Path, make: Callable[[], Waveform]) -> Waveform:
    """The waveform in a FLAC file of 16 bits, made if it is not there; as it is in the file either way."""
    import soundfile

    if not path.exists():
        flac = io.BytesIO()
        soundfile.write(flac, np.clip(make(), -1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        with atomic_write(path) as part:
            part.write_bytes(flac.getvalue())
    return soundfile.read(path, dtype="float32")[0]
