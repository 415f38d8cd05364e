"""The families of songs that the composer draws from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Idiom:
    """What a family of songs has in common."""

    name: str
    metres: tuple[tuple[int, float], ...]  # beats per bar, and the value the melody moves in (beats)
    bpm: tuple[float, float]
    modes: tuple[str, ...]
    bars: tuple[int, ...]  # per section
    forms: tuple[str, ...]  # a letter per section
    density: tuple[float, float]  # chance of a note on an off-beat
    colour: tuple[float, float]  # chance of sevenths, suspensions and sixths


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
    ),
)
