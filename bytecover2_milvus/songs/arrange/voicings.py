"""Voicings of a chord: a hand's width on a keyboard, across six strings, two tones only."""

from __future__ import annotations

from ..score import Chord

VOICINGS = ("close", "close", "open", "six strings", "two tones")  # to draw from


def voicing(chord: Chord, centre: float, kind: str = "close") -> list[int]:
    """The chord with every tone as near `centre` as it can be: common tones stay where they are when chords change.

    Parameters
    ----------
    kind : str
        One of `VOICINGS`: as it is, with its second highest tone an octave lower, with root and fifth below and an
        octave above, or its outer tones alone.
    """
    tones = sorted(nearest(pitch_class, centre) for pitch_class in chord.pitch_classes)
    match kind:
        case "open" if len(tones) > 2:
            return sorted([*tones[:-2], tones[-2] - 12, tones[-1]])
        case "six strings":
            root = nearest(chord.root, centre - 14)
            fifth = root + (chord.pitch_classes[-1 if len(tones) == 2 else 2] - chord.root) % 12
            return sorted({root, fifth, *tones, tones[0] + 12})
        case "two tones":
            return [tones[0], tones[-1]]
    return tones


def nearest(pitch_class: int, centre: float) -> int:
    """The MIDI number of a pitch class that lies nearest to `centre`."""
    return round(centre + (pitch_class - centre + 6) % 12 - 6)
