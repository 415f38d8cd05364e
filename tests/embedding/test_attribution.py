"""What the parts of a query contribute to a similarity, by an ear that hears nothing but the energy of octaves."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from bytecover2_milvus.config import SAMPLE_RATE, FrontEnd
from bytecover2_milvus.embedding.embedder import Heard
from bytecover2_milvus.second_stage.attribution import (
    LONGEST_S,
    MOST_STRETCHES,
    contributions,
    without_octaves,
    without_stretch,
)

FRONT_END = FrontEnd(time_pooling=40)
CELL = FRONT_END.hop_length * FRONT_END.time_pooling


class OctaveEar:
    """The unit vector of the energies in seven octaves from C1 on."""

    contract = SimpleNamespace(sample_rate=SAMPLE_RATE, silence_peak=1e-3, front_end=FRONT_END)

    def hear(self, waveform: NDArray[np.float32]) -> Heard:
        power = np.abs(np.fft.rfft(waveform)) ** 2
        octave = np.log2(np.maximum(np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE), 1) / FRONT_END.fmin)
        energies = np.array([power[(octave >= number) & (octave < number + 1)].sum() for number in range(7)])
        return Heard((energies / np.linalg.norm(energies)).astype(np.float32))


def tone(hz: float, duration_s: float) -> NDArray[np.float32]:
    return (0.4 * np.sin(2 * np.pi * hz * np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def test_what_is_alike_is_found_in_time_and_pitch() -> None:
    ear, shared_hz, other_hz = OctaveEar(), 392.0, 1568.0  # the middles of two octaves
    query = np.concatenate([tone(shared_hz, 20), tone(other_hz, 20)])
    whole, track = ear.hear(query).embedding, ear.hear(tone(shared_hz, 10)).embedding
    found = contributions(query, whole, track, ear)
    assert found.similarity == pytest.approx(1 / np.sqrt(2), abs=1e-3)  # equal energies in two octaves, one shared
    assert (found.times[0].start, found.times[-1].end) == (0, 40)
    for before, after in zip(found.times, found.times[1:], strict=False):
        assert before.end == after.start and before.end * SAMPLE_RATE % CELL == pytest.approx(0, abs=1e-6)
    for part in found.times:
        seconds = part.end - part.start
        if part.end <= 20:  # what is left is 20 s - seconds of what is shared, in energies, and 20 s of the other
            expected = (20 - seconds) / np.hypot(20 - seconds, 20)
            assert found.similarity - part.contribution == pytest.approx(expected, abs=2e-3)
        elif part.start >= 20:
            assert part.contribution < 0
    assert [part.start for part in found.bands] == pytest.approx([FRONT_END.fmin * 2**number for number in range(7)])
    of_octave = {round(np.log2(part.start / FRONT_END.fmin)): part.contribution for part in found.bands}
    assert of_octave[3] == pytest.approx(found.similarity, abs=1e-3)  # without it nothing is shared
    assert of_octave[5] == pytest.approx(found.similarity - 1, abs=1e-3)  # without it all is
    assert all(abs(of_octave[number]) < 1e-3 for number in (0, 1, 2, 4, 6))


def test_without_its_only_octave_a_query_has_no_similarity() -> None:
    ear, query = OctaveEar(), tone(392.0, 10) * np.hanning(10 * SAMPLE_RATE).astype(np.float32)  # no clicks at its ends
    heard = ear.hear(query).embedding
    found = contributions(query, heard, heard, ear)
    assert [round(part.contribution, 3) for part in found.bands] == [0, 0, 0, 1, 0, 0, 0]
    assert all(abs(part.contribution) < 1e-3 for part in found.times)  # the rest sounds alike


def test_a_filter_takes_one_octave_and_leaves_the_others() -> None:
    waveform = tone(392.0, 5) + tone(98.0, 5)
    for low, high, rest in without_octaves(waveform, FRONT_END, SAMPLE_RATE):
        kept = [hz for hz in (392.0, 98.0) if not low <= hz < high]
        middle = slice(SAMPLE_RATE, -SAMPLE_RATE)
        np.testing.assert_allclose(rest[middle], sum(tone(hz, 5) for hz in kept)[middle], atol=0.01)


@pytest.mark.parametrize(("start", "end"), [(0, 1000), (1000, 5000), (9000, 10_000), (100, 200)])
def test_a_cut_leaves_the_rest_as_it_was(start: int, end: int) -> None:
    waveform = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    rest = without_stretch(waveform, start, end)
    assert len(rest) == 10_000 - (end - start)
    np.testing.assert_array_equal(rest[start:], waveform[end:])
    np.testing.assert_array_equal(rest[: max(0, start - 256)], waveform[: max(0, start - 256)])
    ramp = tone(100, 1)[:10_000]
    joined = without_stretch(ramp, start, end)
    if start >= 256 and end + 256 < 10_000:  # no click: no step is larger than those of the blend
        assert np.abs(np.diff(joined)).max() < 0.02


def test_a_long_query_has_no_more_parts_and_a_very_long_one_none() -> None:
    heard = np.ones(1, np.float32)
    deaf = SimpleNamespace(contract=OctaveEar.contract, hear=lambda waveform: Heard(heard))
    found = contributions(tone(392.0, 100), heard, heard, deaf)
    assert len(found.times) == MOST_STRETCHES
    assert not any(part.contribution for part in (*found.times, *found.bands[4:]))
    assert contributions(np.zeros(round(LONGEST_S * SAMPLE_RATE) + 1, np.float32), heard, heard, deaf) is None
