"""Key and chords of notes that come without them.

References
----------
Key: correlation of pitch-class durations with the probe-tone profiles of Krumhansl and Kessler, "Tracing the dynamic
changes in perceived tonal organization", 1982. Chords: the most probable path through templates, one chord per
half bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..score import CHORD_QUALITIES, SCALES, Chord, Note

KRUMHANSL_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
KRUMHANSL_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
MODES = ("major", "minor", "dorian", "mixolydian")  # what songs are in
FINAL_BONUS = 0.15  # correlation that a tonic gains by being the last note
MODAL_COST = 0.015  # correlation by which dorian and mixolydian must win

QUALITIES = ("maj", "min", "7", "min7", "dim")
STATES = tuple((root, quality) for root in range(12) for quality in QUALITIES)
CHORD_TONES = (1.0, 0.8, 0.8, 0.6)  # relative weight of root, third, fifth and seventh
SCALE_TONE, CHROMATIC_TONE = 0.12, 0.04  # of a note outside the chord
EVIDENCE = 8.0  # observations that one line of notes makes in one segment
BASS_BELOW = 53  # F3: what sounds lower tells the root
BASS_ROOT, BASS_TONE, BASS_OTHER = 0.7, 0.12, 0.02
DEGREE_COST = (0.0, 1.0, 1.5, 0.5, 0.5, 1.0, 1.0)  # nats; I is free, IV and V nearly so
SEVENTH_COST, DIMINISHED_COST, FOREIGN_COST = 0.7, 1.0, 3.0
CHANGE_COST, MID_BAR_COST = 0.5, 1.0  # of a new chord, and more of one off the downbeat
FINAL_COST = 2.0  # of a last chord that is not the tonic's


def estimate_key(notes: Sequence[Note], final: int) -> tuple[int, str]:
    """Tonic and mode that fit `notes` best.

    Parameters
    ----------
    notes
        All that sounds.
    final
        Last pitch of the melody: tunes tend to end on the tonic.

    Returns
    -------
    tonic, mode
        Pitch class, and one of MODES.
    """
    weights = np.zeros(12)
    for note in notes:
        weights[note.pitch % 12] += note.duration
    scores = {
        (tonic, mode): float(np.corrcoef(weights, np.roll(_profile(mode), tonic))[0, 1])
        + FINAL_BONUS * (tonic == final % 12)
        - MODAL_COST * (mode in ("dorian", "mixolydian"))
        for mode in MODES
        for tonic in range(12)
    }
    return max(scores, key=lambda key: scores[key])


def harmonise(notes: Sequence[Note], downbeats: Sequence[float], tonic: int, mode: str) -> tuple[Chord, ...]:
    """Chords for `notes`, from the first downbeat to the last without gaps.

    Each half bar (each bar, where the bar is shorter than four beats) is one observation: the durations of the pitch
    classes that sound in it, and of those in the bass. Chords of the key and staying on a chord are likelier a priori;
    the Viterbi path wins.

    Parameters
    ----------
    notes
        All that sounds.
    downbeats
        Start of each bar and end of the last, in beats.
    tonic, mode
        The key; mode is a key of SCALES.
    """
    edges, on_downbeat = _segments(downbeats)
    tones, basses = _observations(notes, edges)  # (n_segments, 12) each
    tone_model, bass_model = _emission(tonic, mode)  # (n_states, 12) each
    log_likelihood: NDArray[np.float64] = tones @ tone_model.T + basses @ bass_model.T - _state_cost(tonic, mode)
    log_likelihood[-1] -= [FINAL_COST * (root != tonic) for root, _ in STATES]
    path = _viterbi(log_likelihood, np.asarray(CHANGE_COST + MID_BAR_COST * ~on_downbeat, dtype=np.float64))
    chords: list[Chord] = []
    for segment, state in enumerate(path):
        root, quality = STATES[state]
        bass = _bass(basses[segment], root, quality)
        start, end = edges[segment], edges[segment + 1]
        if chords and (chords[-1].root, chords[-1].quality, chords[-1].bass) == (root, quality, bass):
            start = chords.pop().onset
        chords.append(Chord(start, end - start, root, quality, bass))
    return tuple(chords)


def _profile(mode: str) -> NDArray[np.float64]:
    """Krumhansl and Kessler's major or minor, with the values exchanged where a mode exchanges degrees."""
    profile = np.array(KRUMHANSL_MAJOR if 4 in SCALES[mode] else KRUMHANSL_MINOR)
    if mode == "mixolydian":
        profile[[10, 11]] = profile[[11, 10]]
    elif mode == "dorian":
        profile[[8, 9]] = profile[[9, 8]]
    return profile


def _segments(downbeats: Sequence[float]) -> tuple[list[float], NDArray[np.bool_]]:
    edges: list[float] = []
    on_downbeat: list[bool] = []
    for start, end in pairwise(downbeats):
        halves = 2 if end - start >= 4 else 1
        edges += [start + half * (end - start) / halves for half in range(halves)]
        on_downbeat += [half == 0 for half in range(halves)]
    return [*edges, downbeats[-1]], np.array(on_downbeat)


def _observations(notes: Sequence[Note], edges: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pitch classes of all notes and of the bass per segment, in units of EVIDENCE."""
    tones = np.zeros((len(edges) - 1, 12))
    basses = np.zeros_like(tones)
    for note in notes:
        note_end = note.onset + note.duration
        first = max(0, int(np.searchsorted(edges, note.onset, side="right")) - 1)
        for segment in range(first, len(tones)):
            if edges[segment] >= note_end:
                break
            length = edges[segment + 1] - edges[segment]
            share = (min(note_end, edges[segment + 1]) - max(note.onset, edges[segment])) / length
            tones[segment, note.pitch % 12] += EVIDENCE * max(0.0, share)
            if note.pitch < BASS_BELOW:
                basses[segment, note.pitch % 12] += EVIDENCE / 2 * max(0.0, share)
    return tones, basses


def _emission(tonic: int, mode: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-probability of each pitch class under each state, anywhere and in the bass."""
    scale = {(tonic + step) % 12 for step in SCALES[mode]}
    tone_model = np.array([[SCALE_TONE if pc in scale else CHROMATIC_TONE for pc in range(12)]] * len(STATES))
    bass_model = np.full((len(STATES), 12), BASS_OTHER)
    for state, (root, quality) in enumerate(STATES):
        for weight, interval in zip(CHORD_TONES, CHORD_QUALITIES[quality], strict=False):
            tone_model[state, (root + interval) % 12] = weight
            bass_model[state, (root + interval) % 12] = BASS_ROOT if interval == 0 else BASS_TONE
    return (
        np.log(tone_model / tone_model.sum(axis=1, keepdims=True)),
        np.log(bass_model / bass_model.sum(axis=1, keepdims=True)),
    )


def _state_cost(tonic: int, mode: str) -> NDArray[np.float64]:
    scale = [(tonic + step) % 12 for step in SCALES[mode]]
    subtonic_cost = DEGREE_COST[3] if 10 in SCALES[mode] else DEGREE_COST[6]  # bVII does what V does in major
    costs = []
    for root, quality in STATES:
        chord = {(root + interval) % 12 for interval in CHORD_QUALITIES[quality]}
        dominant = root == (tonic + 7) % 12 and quality in ("maj", "7")  # the leading note is borrowed freely
        if dominant:
            cost = DEGREE_COST[4]
        elif chord <= set(scale):
            degree = scale.index(root)
            cost = subtonic_cost if degree == 6 else DEGREE_COST[degree]
        else:
            cost = FOREIGN_COST
        cost += SEVENTH_COST * (len(chord) == 4) + DIMINISHED_COST * (quality == "dim")
        costs.append(cost)
    return np.array(costs)


def _viterbi(log_likelihood: NDArray[np.float64], change_cost: NDArray[np.float64]) -> list[int]:
    """Best sequence of states, where any change costs the same: `change_cost` (n_segments,)."""
    best = log_likelihood[0]
    came_from = []
    for observation, cost in zip(log_likelihood[1:], change_cost[1:], strict=True):
        leader = int(np.argmax(best))
        change = best[leader] - cost
        came_from.append(np.where(best >= change, np.arange(len(best)), leader))
        best = np.maximum(best, change) + observation
    path = [int(np.argmax(best))]
    for previous in reversed(came_from):
        path.append(int(previous[path[-1]]))
    return path[::-1]


def _bass(bass_weights: NDArray[np.float64], root: int, quality: str) -> int | None:
    lowest = int(np.argmax(bass_weights))
    inverted = {(root + interval) % 12 for interval in CHORD_QUALITIES[quality][1:]}
    return lowest if bass_weights[lowest] > 0 and lowest in inverted else None
