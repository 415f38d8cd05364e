"""Songs that are as like another as a song can be that is not a cover of it: another tune over its chords.

Half of what covers share, chords, form, metre and tempo, is shared by thousands of songs that are none. A stranger has
all of that of its song, and its arrangements are those of the song, by the same band in the same key: only the tune
tells them apart.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from statistics import median

import numpy as np

from .arrange.patterns import Metre
from .compose.composer import Composer
from .score import SCALES, Song


def stranger(song: Song, number: int) -> Song:
    """Another tune over the song's chords, in its form, mode, metre and tempo: a work of its own.

    Parameters
    ----------
    song : Song
        Composed or written.
    number : int
        Not negative; of several strangers of a song.
    """
    rng = np.random.default_rng([zlib.crc32(song.song_id.encode()), number])
    writer = Composer(rng)
    metre = Metre.of(song)
    writer.beats, writer.step, writer.tonic, writer.mode = song.beats_per_bar, metre.step, song.tonic, song.mode
    writer.scale = writer.steps = SCALES[song.mode]
    writer.pulses = tuple(range(0, writer.beats, 3 if writer.beats == 6 else 1))
    pitches = [note.pitch for section in song.sections for note in section.melody]
    writer.centre = round(median(pitches)) if pitches else writer.centre
    writer.melodist = writer.draw_melodist()
    sections = []
    for section in song.sections:
        n_bars = max(1, round(section.n_beats / writer.beats))
        home, reach = int(rng.integers(-1, 3)), rng.uniform(0.5, 1.2)
        sections.append(replace(section, melody=writer.melody(n_bars, section.chords, home, reach)))
    song_id = f"{song.song_id}-stranger-{number}"
    return replace(
        song,
        song_id=song_id,
        title=f"{song.title}, another tune",
        sections=tuple(sections),
        version_of="",
        stranger_to=song.song_id,
    )
