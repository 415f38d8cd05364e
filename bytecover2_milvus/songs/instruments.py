"""Instruments as a handful of numbers each: harmonics, body, envelope, and the tone they make of one pitch.

A tone is read from two single-cycle wavetables, the spectrum of the attack and that of the steady sound, crossfaded
over `fade_s`: struck and plucked strings lose their brightness, bowed and blown tones gain theirs, a voice moves from
vowel to vowel. Resonances stand at fixed frequencies (formants, wooden bodies), so the spectrum changes with pitch as
it does on the real thing. A singer who sings words reads the vowels of measured syllables instead, another for every
note, and begins with their consonants.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..config import SAMPLE_RATE
from .syllables import MOMENTS, Syllable, syllables

_TABLE_BITS = 12  # wavetables of 4096 samples: reading without interpolation stays 60 dB clean
_BREATH_SAMPLES = 2**13  # of noise, over and over: too long to be heard as a tone
_HIGHEST_PARTIAL_HZ = 10_000.0  # below the Nyquist frequency with room for vibrato

Formants = tuple[tuple[float, float, float], ...]  # (centre in Hz, width in Hz, gain)

_VOWELS: tuple[Formants, ...] = (
    ((750, 130, 1.0), (1200, 150, 0.6), (2700, 250, 0.25)),  # a
    ((500, 100, 1.0), (1800, 180, 0.45), (2600, 250, 0.25)),  # e
    ((320, 80, 1.0), (2200, 200, 0.3), (3000, 280, 0.2)),  # i
    ((480, 100, 1.0), (850, 120, 0.6), (2600, 250, 0.15)),  # o
    ((340, 80, 1.0), (700, 110, 0.4), (2500, 250, 0.1)),  # u
)
_VIOLIN_BODY: Formants = ((290, 60, 0.5), (480, 90, 0.7), (1100, 300, 0.6), (2600, 700, 0.8))
_GUITAR_BODY: Formants = ((105, 30, 0.6), (215, 50, 0.8), (420, 120, 0.5), (1500, 900, 0.5))
_BRASS_BELL: Formants = ((600, 250, 0.6), (1300, 500, 1.0))
_REED_BORE: Formants = ((550, 200, 0.8), (1400, 400, 0.7), (2600, 600, 0.4))


@dataclass(frozen=True)
class Instrument:
    """The sound of one instrument; times in seconds, slopes as the exponent of amplitude over harmonic number."""

    name: str
    lowest: int  # MIDI number
    highest: int  # MIDI number
    attack_slope: float  # of the spectrum at the onset: smaller is brighter
    steady_slope: float  # of the spectrum that remains
    fade_s: float  # time constant of the change between the two
    attack_s: float
    decay_s: float = 0.0  # time constant at middle C of what fades after the attack; 0 for none
    sustain: float = 1.0  # share of the peak that does not fade
    release_s: float = 0.08
    even: float = 1.0  # weight of even harmonics; near 0 for cylindrical bores
    body: Formants = ()
    sings: bool = False  # the body is a vowel that changes from tone to tone
    vibrato_cents: float = 0.0
    unison_cents: float = 0.0  # detuning of a second copy: chorus, honky-tonk, sections of players
    noise: float = 0.0  # hammer, pick, chiff or consonant at the onset, as a share of the peak
    noise_s: float = 0.025  # how long it lasts
    breath: float = 0.0  # noise for as long as the tone lasts
    drive: float = 0.0  # overdrive of the whole part, in units of its RMS
    tract: float = 1.0  # of a singer: formants over those of `_VOWELS`, below 1 for large bodies, above for children
    lyrics: float = 0.0  # chance that a singer sings words and no mere vowels
    words: tuple[Syllable, ...] = ()  # what a singer sings them of
    glide_s: float = 0.05  # time constant of sliding into a tone
    steady_s: float = 0.2  # how long a tone speaks before it is shaken

    @property
    def decays(self) -> bool:
        """True if a held tone dies away by itself."""
        return self.decay_s > 0 and self.sustain < 0.2

    @property
    def finds_its_pitch(self) -> bool:
        """True if the player makes the pitch, and may miss it by some cents."""
        return self.vibrato_cents > 0 and not self.decays

    def played_by(self, rng: np.random.Generator) -> Instrument:
        """This instrument as one more player and microphone have it: brightness, attack and vibrato are their own."""
        played = replace(
            self,
            attack_slope=self.attack_slope * rng.uniform(0.75, 1.3),
            steady_slope=self.steady_slope * rng.uniform(0.75, 1.3),
            attack_s=self.attack_s * rng.uniform(0.7, 1.6),
            decay_s=self.decay_s * rng.uniform(0.6, 1.5),
            even=self.even * rng.uniform(0.7, 1.0),
            vibrato_cents=self.vibrato_cents * rng.choice([0.1, 0.6, 1.0, 1.4, 2.5]) * rng.uniform(0.7, 1.3),
            unison_cents=self.unison_cents * rng.uniform(0.5, 1.5)
            or self.sings * float(rng.choice([0.0, 0.0, 0.0, rng.uniform(4, 20)])),  # a singer recorded twice
            noise=self.noise * rng.uniform(0.3, 1.5),
            breath=self.breath * rng.uniform(0.3, 1.5),
            body=tuple((hz * rng.uniform(0.9, 1.12), width, gain) for hz, width, gain in self.body),
            drive=self.drive * np.exp(rng.uniform(-0.7, 0.9)),
            tract=rng.uniform(0.82, 1.3),
            glide_s=rng.uniform(0.03, 0.12),
            steady_s=rng.uniform(0.1, 0.7),
        )
        return played.with_words(rng) if self.lyrics and rng.random() < self.lyrics else played

    def with_words(self, rng: np.random.Generator) -> Instrument:
        """A singer who sings words, with one of the voices whose syllables were measured."""
        voices = syllables()
        voice = str(rng.choice(sorted(voices)))
        return replace(self, words=voices[voice], tract=1 + 0.5 * (self.tract - 1))

    def tone(self, pitch: float, n_samples: int, glide: float, rng: np.random.Generator) -> NDArray[np.float32]:
        """One tone that has not been released yet.

        Parameters
        ----------
        pitch : float
            MIDI number; fractions are heard.
        n_samples : int
            Length at 22 050 Hz.
        glide : float
            Semitones from which the tone slides into `pitch`; 0 for none.
        rng : np.random.Generator
            Phases, vowels and noise.

        Returns
        -------
        tone : np.ndarray [shape=(n_samples,)]
            RMS near 1 where it is loudest.
        """
        if self.words:
            return self._sung(pitch, n_samples, glide, self.words[rng.integers(len(self.words))], rng)
        frequency = 440.0 * 2 ** ((pitch - 69) / 12)
        time_s = np.arange(n_samples, dtype=np.float32) / np.float32(SAMPLE_RATE)
        phase = self._phase(frequency, glide, time_s, rng)
        attack_table, steady_table = self._tables(frequency, rng)
        place = phase >> np.uint32(32 - _TABLE_BITS)
        tone = steady_table[place]  # (n_samples,)
        fading = slice(int(5 * self.fade_s * SAMPLE_RATE))
        change = np.exp(time_s[fading] * np.float32(-1 / self.fade_s))
        tone[fading] += change * (attack_table - steady_table)[place[fading]]
        if self.unison_cents:
            ratio = 2 ** (self.unison_cents / 1200)
            second = self._phase(frequency * ratio, glide, time_s, rng)
            tone = 0.7 * (tone + steady_table[second >> np.uint32(32 - _TABLE_BITS)])
        chiff = rng.standard_normal(int(self.noise_s * SAMPLE_RATE), dtype=np.float32)
        if self.breath:
            tone += np.float32(self.breath) * np.resize(
                rng.standard_normal(_BREATH_SAMPLES, dtype=np.float32), n_samples
            )
        tone *= self._envelope(pitch, time_s)
        if self.noise:
            chiff *= np.float32(self.noise) * np.linspace(1, 0, len(chiff), dtype=np.float32) ** 3
            tone[: len(chiff)] += chiff[:n_samples]
        return tone

    def _sung(
        self, pitch: float, n_samples: int, glide: float, syllable: Syllable, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """One syllable: the consonant, then the vowel as it sets in, is held, and moves on."""
        frequency = 440.0 * 2 ** ((pitch - 69) / 12)
        n_hiss = min(int(syllable.consonant_s * rng.uniform(0.6, 1.1) * SAMPLE_RATE), n_samples // 3)
        n_vowel = n_samples - n_hiss
        time_s = np.arange(n_vowel, dtype=np.float32) / np.float32(SAMPLE_RATE)
        number = np.arange(1, max(1, min(60, int(_HIGHEST_PARTIAL_HZ / frequency))) + 1)
        slope = number ** (0.5 * (1 - self.steady_slope))  # brighter or darker than the voice that was measured
        phases = np.exp(2j * np.pi * rng.random(len(number)))
        start, middle, end = (
            _table(syllable.amplitudes(moment, number * frequency / self.tract) * slope, phases)
            for moment in range(MOMENTS)
        )
        drift = np.linspace(0, 1, n_vowel, dtype=np.float32)
        onset = np.exp(time_s * np.float32(-1 / rng.uniform(0.02, 0.08)))
        singers = [(frequency, 1.0)]
        if self.unison_cents:
            singers = [(frequency, 0.7), (frequency * 2 ** (self.unison_cents / 1200), 0.7)]
        vowel = np.zeros(n_vowel, dtype=np.float32)
        for hz, gain in singers:
            place = self._phase(hz, glide, time_s, rng) >> np.uint32(32 - _TABLE_BITS)
            held = (1 - drift) * middle[place] + drift * end[place]
            vowel += np.float32(gain) * (held + onset * (start[place] - held))
        breath = syllable.breath(_BREATH_SAMPLES, rng) * np.float32(10 ** (syllable.noise_db / 20))
        vowel = (vowel + np.resize(breath, n_vowel)) * self._envelope(pitch, time_s)
        if n_hiss < 2:
            return np.pad(vowel, (n_hiss, 0))
        hiss = syllable.hiss(n_hiss, rng) * np.float32(10 ** (min(syllable.consonant_db, 0) / 20))
        return np.concatenate([hiss * np.hanning(n_hiss).astype(np.float32) ** 0.5, vowel])

    def _phase(
        self, frequency: float, glide: float, time_s: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.uint32]:
        """Phase per sample, a full turn being 2^32, so that it wraps by itself."""
        turn = 2.0**32
        step = frequency / SAMPLE_RATE * turn
        start = np.uint32(rng.integers(2**32))
        if glide:
            bent = step * np.exp2(np.float32(glide / 12) * np.exp(time_s * np.float32(-1 / self.glide_s)))
            phase = np.cumsum(bent.astype(np.uint32), dtype=np.uint32) + start
        else:
            phase = np.arange(len(time_s), dtype=np.uint32) * np.uint32(step) + start
        if self.vibrato_cents:
            rate = rng.uniform(4.5, 6.5)  # Hz
            depth = self.vibrato_cents / 1200 * np.log(2) * frequency / (2 * np.pi * rate)  # turns
            swell = np.minimum(time_s * np.float32(0.5 / self.steady_s), 1)
            swing = np.float32(depth * turn) * swell * np.sin(time_s * np.float32(2 * np.pi * rate))
            phase += swing.astype(np.int64).astype(np.uint32)
        return phase

    def _tables(self, frequency: float, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One cycle of the attack and one of the steady sound, each of RMS 1, same phases in both."""
        n_harmonics = max(1, min(60, int(_HIGHEST_PARTIAL_HZ / frequency)))
        number = np.arange(1, n_harmonics + 1)
        bodies = [self.body, self.body]
        if self.sings:
            vowels = [_VOWELS[i] for i in rng.integers(len(_VOWELS), size=2)]
            bodies = [tuple((hz * self.tract, width, gain) for hz, width, gain in vowel) for vowel in vowels]
        phases = np.exp(2j * np.pi * rng.random(n_harmonics))
        tables = []
        for slope, body in zip((self.attack_slope, self.steady_slope), bodies, strict=True):
            amplitude = number**-slope
            amplitude[1::2] *= self.even
            if body:
                hz = number * frequency
                amplitude *= 0.12 + sum(
                    gain * np.exp(-(((hz - centre) / (2 * width)) ** 2)) for centre, width, gain in body
                )
            tables.append(_table(amplitude, phases))
        return tables[0], tables[1]

    def _envelope(self, pitch: float, time_s: NDArray[np.float32]) -> NDArray[np.float32]:
        envelope = np.minimum(time_s * np.float32(1 / self.attack_s), 1)
        if self.decay_s:
            decay_s = self.decay_s * 2 ** ((60 - pitch) / 24)  # short strings die sooner
            envelope *= np.float32(1 - self.sustain) * np.exp(time_s * np.float32(-1 / decay_s)) + np.float32(
                self.sustain
            )
        return envelope


def _table(amplitude: NDArray[np.floating], phases: NDArray[np.complex128]) -> NDArray[np.float32]:
    """One cycle, of RMS 1, of harmonics with these amplitudes."""
    spectrum = np.zeros(2 ** (_TABLE_BITS - 1) + 1, dtype=np.complex128)
    spectrum[1 : len(amplitude) + 1] = amplitude * np.sqrt(2 / np.sum(amplitude**2)) * phases
    return np.fft.irfft(spectrum * 2 ** (_TABLE_BITS - 1)).astype(np.float32)


INSTRUMENTS: dict[str, Instrument] = {
    instrument.name: instrument
    for instrument in (
        # name, lowest, highest, slopes of attack and steady sound, fade_s, attack_s
        Instrument(
            "voice",
            45,
            81,
            1.0,
            1.0,
            0.3,
            0.06,
            sings=True,
            vibrato_cents=35,
            noise=0.3,
            noise_s=0.06,
            breath=0.02,
            lyrics=0.6,
        ),
        Instrument(
            "raw voice",
            45,
            84,
            0.6,
            0.7,
            0.2,
            0.03,
            sings=True,
            vibrato_cents=12,
            noise=0.6,
            noise_s=0.08,
            breath=0.1,
            drive=1.2,
            lyrics=0.6,
        ),
        Instrument("choir", 48, 79, 1.1, 1.1, 0.6, 0.15, release_s=0.25, sings=True, vibrato_cents=20, unison_cents=14),
        Instrument("flute", 60, 93, 2.6, 2.0, 0.15, 0.07, even=0.7, vibrato_cents=18, noise=0.1, breath=0.05),
        Instrument("whistle", 67, 98, 3.2, 3.0, 0.1, 0.04, vibrato_cents=12, noise=0.08, breath=0.03),
        Instrument("violin", 55, 96, 1.2, 0.9, 0.12, 0.08, body=_VIOLIN_BODY, vibrato_cents=28, noise=0.06),
        Instrument("cello", 36, 72, 1.3, 1.0, 0.15, 0.09, body=_VIOLIN_BODY, vibrato_cents=22, noise=0.05),
        Instrument("strings", 40, 88, 1.4, 1.1, 0.4, 0.2, release_s=0.3, body=_VIOLIN_BODY, unison_cents=12),
        Instrument("saxophone", 49, 82, 0.9, 1.1, 0.1, 0.04, body=_REED_BORE, vibrato_cents=22, noise=0.1, breath=0.03),
        Instrument("clarinet", 50, 89, 1.4, 1.2, 0.1, 0.04, even=0.12, noise=0.04),
        Instrument("oboe", 58, 91, 0.7, 0.8, 0.1, 0.04, body=_REED_BORE, vibrato_cents=15, noise=0.05),
        Instrument("harmonica", 55, 88, 0.7, 0.8, 0.2, 0.04, body=_REED_BORE, vibrato_cents=15, unison_cents=5),
        Instrument("accordion", 48, 89, 0.8, 0.9, 0.2, 0.05, unison_cents=12),
        Instrument("trumpet", 54, 84, 1.8, 0.9, 0.08, 0.03, body=_BRASS_BELL, vibrato_cents=12, noise=0.06),
        Instrument("brass", 40, 79, 1.9, 1.1, 0.1, 0.05, release_s=0.12, body=_BRASS_BELL, unison_cents=9),
        Instrument("nylon guitar", 40, 84, 1.2, 2.4, 0.25, 0.003, 0.9, 0, 0.15, body=_GUITAR_BODY, noise=0.25),
        Instrument("steel guitar", 40, 84, 0.8, 1.7, 0.3, 0.002, 1.2, 0, 0.15, body=_GUITAR_BODY, noise=0.3),
        Instrument("electric guitar", 40, 88, 1.0, 1.5, 0.5, 0.003, 1.8, 0, 0.1, vibrato_cents=8, noise=0.1),
        Instrument(
            "driven guitar", 36, 88, 0.9, 1.1, 0.6, 0.004, 4.0, 0.1, 0.06, vibrato_cents=10, noise=0.1, drive=3.0
        ),
        Instrument(
            "fuzz guitar",
            33,
            88,
            0.6,
            0.8,
            0.8,
            0.004,
            5.0,
            0.2,
            0.06,
            vibrato_cents=10,
            noise=0.2,
            breath=0.03,
            drive=9.0,
        ),
        Instrument("muted guitar", 36, 84, 0.9, 2.2, 0.06, 0.002, 0.16, 0, 0.05, body=_GUITAR_BODY, noise=0.4),
        Instrument("pedal steel", 48, 90, 1.2, 1.6, 0.6, 0.02, 2.2, 0.2, 0.2, vibrato_cents=20, unison_cents=3),
        Instrument(
            "mandolin", 55, 93, 0.7, 1.6, 0.15, 0.002, 0.4, 0, 0.1, body=_GUITAR_BODY, unison_cents=6, noise=0.3
        ),
        Instrument("banjo", 48, 86, 0.6, 1.4, 0.12, 0.002, 0.35, 0, 0.08, body=((650, 250, 1.0),), noise=0.35),
        Instrument("harp", 36, 96, 1.6, 2.6, 0.3, 0.004, 1.3, 0, 0.4, noise=0.08),
        Instrument("piano", 24, 104, 1.0, 1.9, 0.3, 0.003, 1.6, 0, 0.12, unison_cents=1.2, noise=0.12),
        Instrument("upright piano", 24, 104, 0.8, 1.6, 0.25, 0.003, 1.1, 0, 0.1, unison_cents=5, noise=0.18),
        Instrument("electric piano", 28, 96, 1.3, 3.0, 0.15, 0.004, 1.8, 0, 0.12, even=0.6, noise=0.05),
        Instrument("clavinet", 36, 90, 0.3, 1.2, 0.15, 0.002, 0.5, 0, 0.04, noise=0.3, drive=0.8),
        Instrument("harpsichord", 36, 89, 0.4, 0.8, 0.3, 0.002, 0.9, 0, 0.06, noise=0.2),
        Instrument("marimba", 45, 96, 1.5, 4.0, 0.04, 0.002, 0.25, 0, 0.2, even=0.2, noise=0.2),
        Instrument("vibraphone", 53, 89, 2.6, 4.0, 0.08, 0.003, 1.6, 0, 0.4, even=0.3, noise=0.05),
        Instrument("organ", 36, 96, 1.0, 1.0, 1.0, 0.012, release_s=0.03, unison_cents=4, noise=0.05),
        Instrument("church organ", 36, 96, 0.8, 0.8, 1.0, 0.06, release_s=0.4, unison_cents=3),
        Instrument("synth lead", 40, 96, 0.8, 1.1, 0.3, 0.01, vibrato_cents=10, unison_cents=9),
        Instrument("square lead", 40, 96, 1.0, 1.1, 0.3, 0.008, even=0.02, vibrato_cents=8),
        Instrument("synth pad", 36, 88, 1.8, 1.2, 1.0, 0.3, release_s=0.6, unison_cents=11),
        Instrument("pluck synth", 36, 96, 0.7, 2.6, 0.12, 0.003, 0.45, 0, 0.15, unison_cents=8),
        Instrument("double bass", 26, 60, 1.5, 2.6, 0.15, 0.008, 0.7, 0, 0.1, body=_GUITAR_BODY, noise=0.12),
        Instrument("electric bass", 26, 64, 1.1, 2.0, 0.3, 0.005, 1.4, 0, 0.06, noise=0.08),
        Instrument("driven bass", 26, 64, 0.8, 1.3, 0.4, 0.004, 2.0, 0.1, 0.06, noise=0.15, drive=2.5),
        Instrument("synth bass", 24, 60, 0.8, 1.8, 0.2, 0.005, 0.8, 0.4, 0.05),
        Instrument("tuba", 26, 58, 2.0, 1.5, 0.1, 0.05, body=_BRASS_BELL, noise=0.05),
    )
}
