"""What makes songs and tracks gives what it gave when its version was last raised, so that caches hold what they say.

``python tests/house/test_versions.py`` writes the golden values anew, after a version was raised.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from written_scores import write_midi, write_musicxml

from bytecover2_milvus.audio.degrade import DEGRADATIONS
from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE, FrontEnd
from bytecover2_milvus.songs import version
from bytecover2_milvus.songs.arrange.arrangement import Arrangement, Part, arrange
from bytecover2_milvus.songs.arrange.drums import DRUM_SOUNDS
from bytecover2_milvus.songs.arrange.performance import DRUM_DTYPE, NOTE_DTYPE
from bytecover2_milvus.songs.instruments import INSTRUMENTS
from bytecover2_milvus.songs.readers import read_song
from bytecover2_milvus.songs.render.midi_events import midi_events
from bytecover2_milvus.songs.render.renderer import render
from bytecover2_milvus.songs.score import SCALES, Chord, Note, Section, Song
from bytecover2_milvus.training.data.rendering import analyse
from bytecover2_milvus.training.data.spectral import SpectralRenderer
from bytecover2_milvus.training.data.tone_bank import ANCHORS, N_FRAMES, ToneBank, factorise, loudness_weight

GOLDEN = Path(__file__).parents[1] / "golden" / "generators.json"
FRONT_END = FrontEnd(time_pooling=20)

Values = dict[str, Any]  # numbers, lists of them and words


def reading() -> Values:
    """Songs of a MIDI, a MusicXML and a POP909 score."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "001").mkdir()
        write_midi(folder / "001" / "001.mid", names=("PIANO", "MELODY"))
        beats = "".join(f"{0.5 * beat} {int(beat % 2 == 0)} {int(beat % 4 == 0)}\n" for beat in range(34))
        (folder / "001" / "beat_midi.txt").write_text(beats)
        (folder / "001" / "chord_midi.txt").write_text("0.0 2.0 C:maj\n2.0 4.0 F:maj/3\n4.0 6.0 G:sus4(b7)\n")
        scores = (write_midi(folder / "a.mid"), write_musicxml(folder / "b.musicxml", "Flute", "Bassoon"))
        return {path.name: json.loads(read_song(path).to_json()) for path in (*scores, folder / "001")}


def arranging() -> Values:
    """What arrangements are made of, and the sums of what their parts play."""
    values = {}
    for beats, mode in ((4, "major"), (3, "minor"), (6, "dorian")):
        for seed in range(6):
            made = arrange(written_song(beats, mode), seed)
            words = [made.style, made.mode, made.harmony, made.drum_style, *made.form, *made.instruments]
            numbers = [made.duration_s, made.bpm, made.transpose, made.swing, made.fade_out_s, made.drum_gain]
            played = chain.from_iterable(sums(notes) for notes in (made.drums, *(part.notes for part in made.parts)))
            values[f"{beats} {mode} {seed}"] = [*words, *numbers, *played]
    return values


def playing() -> Values:
    """The sound of arrangements, and what FluidSynth is told to play."""
    values: Values = {}
    for seed in range(4):
        made = performed(seed)
        values[f"sound {seed}"] = loudness(render(made))
        events = list(midi_events(made))
        sent = [
            sum(value for *_, message in events for value in message.values()),
            sum(second for second, *_ in events),
        ]
        values[f"events {seed}"] = [len(events), *sent]
    for name, instrument in INSTRUMENTS.items():
        rng = np.random.default_rng(0)
        values[name] = loudness(instrument.played_by(rng).tone(60, 22_050, 0.0, rng))
    return values


def drawing() -> Values:
    """A CQT drawn with tones of random spectra, and the factors of random tones."""
    rng = np.random.default_rng(0)
    names = np.array(sorted(INSTRUMENTS))
    n_anchors = len(ANCHORS)
    bank = ToneBank(
        names=names,
        from_font=np.zeros(len(names), dtype=bool),
        release_s=np.full(len(names), 0.2, dtype=np.float32),
        spectra=rng.random((len(names), n_anchors, FRONT_END.n_bins, 2), dtype=np.float32) ** 8,
        envelopes=np.sort(rng.random((len(names), n_anchors, 2, N_FRAMES), dtype=np.float32))[..., ::-1],
        drum_names=np.array(DRUM_SOUNDS),
        drum_from_font=np.zeros(len(DRUM_SOUNDS), dtype=bool),
        drums=rng.random((len(DRUM_SOUNDS), FRONT_END.n_bins, N_FRAMES), dtype=np.float32),
    )
    renderer = SpectralRenderer(bank, loudness_weight(FRONT_END))
    values: Values = {f"drawn {seed}": levels(renderer.render(performed(seed), 20, 20.0)) for seed in range(4)}
    spectra, envelopes = factorise(rng.random((2, 84, N_FRAMES), dtype=np.float32))
    return values | {"spectra": levels(spectra.sum(axis=0).T), "envelopes": levels(envelopes.sum(axis=1))}


def degrading() -> Values:
    """What every degradation leaves of three seconds; a codec's own library may change without us."""
    waveform = tones(3.0)
    kinds = {kind: change for kind, change in DEGRADATIONS.items() if kind != "codec"}
    return {
        f"{kind} {seed}": loudness(change(waveform, np.random.default_rng(seed)))
        for kind, change in kinds.items()
        for seed in range(3)
    }


def analysis() -> Values:
    """The CQT of a stereo file at 44.1 kHz."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "tones.wav"
        left = tones(3.0, rate=44_100)
        soundfile.write(path, np.stack([left, 0.5 * left[::-1]], axis=1), 44_100, subtype="PCM_16")
        return {"cqt": levels(analyse(load_audio(path), FRONT_END, 20))}


MEASURED: dict[str, Callable[[], Values]] = {
    "READING": reading,
    "ARRANGING": arranging,
    "PLAYING": playing,
    "DRAWING": drawing,
    "DEGRADING": degrading,
    "ANALYSIS": analysis,
}


def written_song(beats: int, mode: str) -> Song:
    """Two sections of eight bars: steps up and down a scale over its triads."""
    scale, qualities = SCALES[mode], {(4, 7): "maj", (3, 7): "min", (3, 6): "dim"}

    def pitch(step: int) -> int:
        return 60 + 12 * (step // 7) + scale[step % 7]

    def chord(bar: int, degree: int) -> Chord:
        root, third, fifth = (pitch(degree + i) for i in (0, 2, 4))
        return Chord(float(bar * beats), float(beats), root % 12, qualities[third - root, fifth - root])

    sections = []
    for name, degrees, turn in (("A", (0, 3, 4, 0, 5, 3, 4, 0), 3), ("B", (3, 4, 0, 5, 3, 4, 4, 0), 5)):
        steps = (abs(i % (2 * turn) - turn) + degrees[i // beats] for i in range(8 * beats))
        melody = tuple(Note(float(i), 1.0, pitch(step)) for i, step in enumerate(steps))
        sections.append(Section(name, 8.0 * beats, melody, tuple(chord(*place) for place in enumerate(degrees))))
    return Song("written", "Written", "nowhere", 0, mode, beats, 110.0, tuple(sections), (0, 1, 0, 1))


def performed(seed: int) -> Arrangement:
    """Ten seconds of a tune, chords, a bass and drums, from a random generator that is none of the package's."""
    rng = np.random.default_rng(seed)

    def part(role: str, instrument: str, onset_s: NDArray[np.float64], low: int, high: int) -> Part:
        notes = np.zeros(len(onset_s), dtype=NOTE_DTYPE)
        notes["onset_s"], notes["duration_s"] = onset_s, 0.45
        notes["pitch"] = rng.integers(low, high, len(notes))
        notes["velocity"] = rng.uniform(0.4, 1.0, len(notes))
        notes["glide"] = np.where(rng.random(len(notes)) < 0.2, -1.0, 0.0)
        return Part(role, instrument, "", notes, 0.7)

    lead, comping = (("voice", "piano"), ("violin", "steel guitar"), ("flute", "organ"), ("trumpet", "strings"))[seed]
    drums = np.zeros(20, dtype=DRUM_DTYPE)
    drums["onset_s"], drums["velocity"] = np.arange(20) * 0.5, rng.uniform(0.5, 1.0, 20)
    drums["sound"] = rng.integers(0, len(DRUM_SOUNDS), 20)
    return Arrangement(
        song_id="performed",
        seed=seed,
        duration_s=11.0,
        parts=(
            part("lead", lead, np.arange(0, 10, 0.5), 60, 80),
            part("comping", comping, np.repeat(np.arange(0, 10, 1.0), 3), 50, 70),
            part("bass", "electric bass", np.arange(0, 10, 1.0), 30, 45),
        ),
        drums=drums,
        drum_gain=0.4 * (seed % 2),
        transpose=0,
        tuning_cents=10.0 * seed,
        mode="major",
        beats_per_bar=4,
        bpm=120.0,
        liberty=0.5,
        style="",
        drum_style="",
        swing=0.5,
        harmony="",
        form=(),
        fade_out_s=2.0 * (seed % 2),
    )


def sums(notes: NDArray[np.void]) -> list[float]:
    """The number of notes or drum hits, and the sum of each of their fields."""
    return [len(notes), *(float(notes[name].sum(dtype=np.float64)) for name in notes.dtype.names or ())]


def tones(duration_s: float, rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
    """Chords of a few partials that begin every half second."""
    time_s = np.arange(round(duration_s * rate)) / rate
    pitches = np.random.default_rng(1).integers(40, 80, (int(2 * duration_s), 3))
    hz = 440 * 2 ** ((pitches[(2 * time_s).astype(int)] - 69) / 12)  # (n_samples, 3)
    phase = 2 * np.pi * np.cumsum(hz, axis=0) / rate
    sound = (np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.3 * np.sin(5 * phase)).sum(axis=1)
    return (0.1 * sound * np.exp(-3 * (time_s % 0.5))).astype(np.float32)


def loudness(waveform: NDArray[np.float32]) -> list[float]:
    """Length, root mean square of four quarters, and amplitude in the ten octaves of the spectrum."""
    quarters = [float(np.sqrt(np.mean(np.square(part, dtype=np.float64)))) for part in np.array_split(waveform, 4)]
    power = np.abs(np.fft.rfft(waveform.astype(np.float64))) ** 2 / len(waveform) ** 2
    edges = np.geomspace(1, len(power), 11).astype(int)
    octaves = [float(np.sqrt(power[low:high].sum())) for low, high in pairwise(edges)]
    return [len(waveform), *quarters, *octaves]


def levels(plane: NDArray[np.float32]) -> list[float]:
    """Shape, and the means of a plane's rows and of its columns, in groups of ten at most."""
    means = [float(part.mean()) for axis in (0, 1) for part in np.array_split(plane, min(10, plane.shape[axis]), axis)]
    return [*plane.shape, *means]


def alike(new: Any, old: Any) -> bool:
    """True if words and lengths are the same, and numbers within a thousandth: processors may differ by less."""
    if isinstance(old, dict) and isinstance(new, dict):
        return new.keys() == old.keys() and all(alike(new[name], old[name]) for name in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(new) == len(old) and all(map(alike, new, old))
    if isinstance(old, (int, float)) and isinstance(new, (int, float)):
        return math.isclose(new, old, rel_tol=1e-3, abs_tol=1e-5)
    return bool(new == old)


def plain(values: Values) -> Values:
    """`values` as JSON gives them back."""
    text = json.dumps(values, default=float)
    return json.loads(text, parse_float=lambda digits: float(f"{float(digits):.6g}"))


def differing(new: Values, old: Values) -> list[str]:
    return [name for name in dict.fromkeys([*old, *new]) if not alike(new.get(name), old.get(name))]


@pytest.mark.parametrize("name", MEASURED)
def test_output_changes_with_its_version_only(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())[name]
    again = "then write the golden values anew: python tests/house/test_versions.py"
    assert getattr(version, name) == golden["version"], f"{name} of songs/version.py was raised; {again}"
    changed = differing(plain(MEASURED[name]()), golden["values"])
    assert not changed, (
        f"other output: {', '.join(changed[:3])}. If it is meant, raise {name} in songs/version.py, {again}"
    )


def write() -> None:
    """The golden values of today; values that changed under the version that they had are refused."""
    old = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    written = {}
    for name, measure in MEASURED.items():
        now, values = getattr(version, name), plain(measure())
        if name in old and old[name]["version"] == now and differing(values, old[name]["values"]):
            raise SystemExit(f"{name}: other output under version {now}; raise it in songs/version.py")
        written[name] = {"version": now, "values": values}
    GOLDEN.write_text(json.dumps(written).replace('], "', '],\n"').replace('}, "', '},\n"') + "\n")


if __name__ == "__main__":
    write()
