"""The families of songs that the composer draws from."""

from __future__ import annotations

from dataclasses import dataclass

Changes = tuple[tuple[int, ...], ...]

# Chord degrees (0 is the tonic) that hundreds of songs share: whoever knows a song by them knows nothing.
_POP: Changes = (
    (0, 4, 5, 3), (5, 3, 0, 4), (0, 5, 3, 4), (0, 5, 1, 4), (0, 3, 4, 3), (0, 3, 0, 4), (3, 0, 4, 5), (0, 2, 3, 4),
    (0, 4, 5, 2, 3, 0, 3, 4), (0, 0, 3, 3), (5, 4, 3, 4), (0, 3, 5, 4), (0, 5, 2, 6), (0, 6, 5, 6), (0, 4, 3, 3),
)  # fmt: skip
_BLUES: Changes = (
    (0, 0, 0, 0, 3, 3, 0, 0, 4, 3, 0, 4), (0, 3, 0, 0, 3, 3, 0, 0, 4, 3, 0, 0), (0, 0, 0, 0, 3, 3, 0, 0, 4, 4, 0, 0),
    (0, 0, 0, 0, 3, 3, 0, 0, 1, 4, 0, 4),
)  # fmt: skip
_VAMPS: Changes = ((0,), (0, 3), (0, 0, 0, 3), (1, 4), (0, 6), (0, 1), (0, 6, 3, 0), (0, 2), (0, 0, 6, 6))
_TURNAROUNDS: Changes = (
    (0, 5, 1, 4), (1, 4, 0, 5), (1, 4, 0, 0), (2, 5, 1, 4), (0, 3, 2, 5, 1, 4, 0, 0), (0, 0, 1, 4, 2, 5, 1, 4),
    (3, 6, 2, 5, 1, 4, 0, 0),
)  # fmt: skip


@dataclass(frozen=True)
class Idiom:
    """The traits that a family of songs has in common."""

    name: str
    metres: tuple[tuple[int, float], ...]  # beats per bar, and the value the melody moves in (beats)
    bpm: tuple[float, float]
    modes: tuple[str, ...]
    bars: tuple[int, ...]  # per section
    forms: tuple[str, ...]  # a letter per section
    density: tuple[float, float]  # chance of a note on an off-beat
    colour: tuple[float, float]  # chance of sevenths, suspensions and sixths
    changes: Changes = _POP  # successions of chords that everybody uses
    stock: float = 0.3  # chance of a section being built on one of them
    two_per_bar: float = 0.25  # chance of sections with two chords in many bars
    repeats: tuple[float, float] = (0.0, 0.3)  # chance of a melody staying on its tone
    push: tuple[float, float] = (0.0, 0.3)  # chance of a downbeat sung early
    rests: tuple[float, float] = (0.0, 0.3)  # chance of phrases that begin late or wait for an answer
    pentatonic: float = 0.3  # chance of a melody on five tones
    blue: bool = False  # minor pentatonic melodies over dominant seventh chords


IDIOMS: tuple[Idiom, ...] = (
    Idiom(
        "pop",
        ((4, 0.5), (4, 0.5), (4, 0.25), (6, 1.0)),
        (75, 140),
        ("major", "major", "minor", "minor", "mixolydian", "dorian"),
        (8, 8, 16),
        ("ABABCB", "ABABB", "AABAB", "ABCABC", "AABABCB"),
        (0.35, 0.7),
        (0.05, 0.35),
        stock=0.5,
        repeats=(0.0, 0.5),
        push=(0.0, 0.6),
        rests=(0.0, 0.5),
    ),
    Idiom(
        "rock",
        ((4, 0.5), (4, 0.5), (4, 0.25)),
        (90, 160),
        ("major", "mixolydian", "minor", "minor", "dorian"),
        (8, 8, 12, 16),
        ("ABABCB", "ABABB", "AABAB", "ABAB", "ABABCAB"),
        (0.3, 0.7),
        (0.0, 0.15),
        stock=0.5,
        repeats=(0.2, 0.6),
        push=(0.1, 0.6),
        rests=(0.2, 0.7),
        pentatonic=0.6,
    ),
    Idiom(
        "folk",
        ((4, 0.5), (3, 0.5), (2, 1 / 3), (6, 1.0), (2, 0.25)),
        (70, 140),
        ("major", "major", "minor", "dorian", "mixolydian"),
        (8, 16),
        ("AABB", "AABA", "ABAB", "AAAB", "ABABAB"),
        (0.3, 0.7),
        (0.0, 0.1),
        push=(0.0, 0.0),
        rests=(0.0, 0.1),
    ),
    Idiom(
        "songwriter",
        ((4, 0.5), (4, 0.5), (4, 0.25), (3, 0.5), (6, 1.0)),
        (65, 130),
        ("major", "major", "major", "minor", "mixolydian"),
        (8, 8, 10, 12, 16),
        ("AAAA", "AABA", "ABAB", "ABABCB", "AABAAB"),
        (0.4, 0.8),
        (0.05, 0.3),
        stock=0.5,
        repeats=(0.1, 0.5),
        push=(0.0, 0.4),
    ),
    Idiom(
        "dance",
        ((4, 0.5), (4, 0.25)),
        (100, 160),
        ("minor", "minor", "major", "phrygian", "dorian", "lydian"),
        (8, 8, 16),
        ("ABAB", "AABB", "ABCAB", "AABCB"),
        (0.45, 0.85),
        (0.0, 0.3),
        stock=0.4,
        repeats=(0.1, 0.6),
    ),
    Idiom(
        "groove",
        ((4, 0.25), (4, 0.25), (4, 0.5)),
        (80, 125),
        ("dorian", "minor", "mixolydian", "major"),
        (8, 8, 16),
        ("ABABCB", "ABAB", "AABAB", "ABABAB"),
        (0.4, 0.8),
        (0.5, 1.0),
        changes=_VAMPS,
        stock=0.7,
        repeats=(0.1, 0.5),
        push=(0.2, 0.7),
        rests=(0.3, 0.8),
        pentatonic=0.6,
    ),
    Idiom(
        "reggae",
        ((4, 0.5), (4, 0.25)),
        (65, 100),
        ("major", "major", "minor", "mixolydian"),
        (8,),
        ("ABAB", "ABABB", "AABAB"),
        (0.35, 0.7),
        (0.0, 0.2),
        changes=_VAMPS + _POP,
        stock=0.8,
        repeats=(0.1, 0.5),
        rests=(0.2, 0.6),
    ),
    Idiom(
        "blues",
        ((4, 1 / 3), (4, 0.5), (4, 1 / 3), (6, 1.0)),
        (65, 150),
        ("mixolydian", "mixolydian", "minor", "dorian"),
        (12,),
        ("AAAA", "AAB", "AABA", "AAAAA"),
        (0.3, 0.65),
        (0.7, 1.0),
        changes=_BLUES,
        stock=0.85,
        repeats=(0.0, 0.4),
        rests=(0.4, 0.9),
        blue=True,
    ),
    Idiom(
        "ballad",
        ((4, 0.5), (4, 0.25), (3, 0.5), (6, 1.0)),
        (60, 90),
        ("major", "major", "minor", "lydian", "dorian"),
        (8, 8, 16),
        ("AABA", "ABAB", "ABABCB", "AABAB"),
        (0.2, 0.55),
        (0.1, 0.6),
        stock=0.4,
        push=(0.0, 0.5),
    ),
    Idiom(
        "hymn",
        ((4, 1.0), (3, 1.0), (4, 0.5)),
        (70, 120),
        ("major", "major", "minor"),
        (8, 16),
        ("AAAA", "AABA", "ABAB", "AB"),
        (0.3, 0.7),
        (0.0, 0.1),
        two_per_bar=0.8,
        push=(0.0, 0.0),
        rests=(0.0, 0.0),
        pentatonic=0.1,
    ),
    Idiom(
        "standard",
        ((4, 0.5), (4, 1 / 3), (3, 0.5)),
        (70, 160),
        ("major", "major", "minor", "dorian"),
        (8,),
        ("AABAAABA", "ABACABAC", "AABAA"),
        (0.3, 0.6),
        (0.6, 0.95),
        changes=_TURNAROUNDS,
        stock=0.6,
        two_per_bar=0.4,
        pentatonic=0.1,
    ),
)
