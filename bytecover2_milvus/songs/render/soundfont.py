"""Arrangements and MIDI played by FluidSynth: recorded instruments, where `renderer` has synthetic ones.

Needs mido (extra ``train``), the program ``fluidsynth`` (https://www.fluidsynth.org) and a sound font with the programs
of General MIDI. On Debian and Ubuntu these are the packages fluidsynth, and fluid-soundfont-gm (FluidR3, MIT licence)
or timgm6mb-soundfont (TimGM6mb, GPL 2).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...config import SAMPLE_RATE
from ...errors import SongError
from ...extras import why_not_imported
from ..arrange.arrangement import Arrangement
from .midi_events import MidiEvent, midi_events
from .renderer import at_peak, fade_out

if TYPE_CHECKING:
    import mido

SOUNDFONTS = Path("/usr/share/sounds/sf2")  # of Debian's packages

_TICKS_PER_BEAT = 500  # at MIDI's 120 beats per minute, when no tempo is given: a tick is a millisecond
_ALL_SOUND_OFF = 120  # controller
_DITHER = 2  # what FluidSynth gives for silence, in steps of its 16 bits
_TAIL_S = 2.0  # after the last event of a file, for what still sounds
_PATIENCE_S = 1800.0  # for what takes a second per two minutes of music on an idle machine
_GAIN = 0.6  # of FluidSynth, whose output has 16 bits: full mixes stay below full scale


def find_soundfont(path: str | Path | None = None) -> Path:
    """The sound font at `path`, else FluidR3 or TimGM6mb where Debian and Ubuntu install them.

    Raises
    ------
    SongError
        If there is none, or the file is no SoundFont 2 file.
    """
    if path is None:
        fonts = [SOUNDFONTS / name for name in ("FluidR3_GM.sf2", "TimGM6mb.sf2")]
        path = next((font for font in fonts if font.is_file()), None)
        if path is None:
            raise SongError(
                f"{SOUNDFONTS}: no sound font; apt-get install fluidsynth fluid-soundfont-gm (or timgm6mb-soundfont), "
                "or give the path of an .sf2 file"
            )
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise SongError(
            f"{path}: this sound font cannot be read ({error.strerror}); packages of sound fonts are "
            "fluid-soundfont-gm and timgm6mb-soundfont"
        ) from error
    if head[:4] != b"RIFF" or head[8:] != b"sfbk":
        raise SongError(f"{path}: not a SoundFont 2 file; FluidR3_GM.sf2 of the package fluid-soundfont-gm is one")
    return path


def render_with_soundfont(
    arrangement: Arrangement, soundfont: Path, max_duration_s: float | None = None
) -> NDArray[np.float32]:
    """The arrangement as audio, as `render` gives it, played by FluidSynth.

    Parameters
    ----------
    arrangement : Arrangement
    soundfont : Path
        As `find_soundfont` gives it.
    max_duration_s : float, optional
        Render only the beginning; what is cut is not synthesised.

    Returns
    -------
    waveform : np.ndarray [shape=(n_samples,)]
        Mono at 22 050 Hz, peak 0.9.

    Raises
    ------
    SongError
        If mido, FluidSynth or the font is missing, or there are more than 15 parts.
    """
    duration_s = arrangement.duration_s if max_duration_s is None else min(arrangement.duration_s, max_duration_s)
    n_samples = round(duration_s * SAMPLE_RATE)
    events = [event for event in midi_events(arrangement) if event[0] < duration_s]
    waveform = _synthesise(events, duration_s, soundfont, reverb=True)
    mix = np.zeros(n_samples, dtype=np.float32)
    mix[: len(waveform)] = waveform[:n_samples]
    return at_peak(fade_out(mix, arrangement))


def play(
    midi: mido.MidiFile, soundfont: Path, max_duration_s: float | None = None, reverb: bool = True
) -> NDArray[np.float32]:
    """A MIDI file as audio, from its first event to two seconds after its last.

    Parameters
    ----------
    midi : mido.MidiFile
        Of type 0 or 1. Its programs, controllers and pitch bends are obeyed; system exclusive messages are not sent.
    soundfont : Path
        As `find_soundfont` gives it.
    max_duration_s : float, optional
        Play only the beginning; what is cut is not synthesised.
    reverb : bool

    Returns
    -------
    waveform : np.ndarray [shape=(n_samples,)]
        Mono at 22 050 Hz, peak 0.9, or all zeros.

    Raises
    ------
    SongError
        If mido, FluidSynth or the font is missing, or the file is of type 2.
    """
    if midi.type == 2:
        raise SongError(f"{midi.filename or 'MIDI file'}: type 2, several songs in one file; export them one by one")
    events: list[MidiEvent] = []
    now_s = 0.0
    for message in midi:
        now_s += message.time  # mido gives seconds here, all tracks merged
        if message.is_meta or message.type == "sysex":
            continue
        if max_duration_s is not None and now_s >= max_duration_s:
            break
        fields = message.dict()
        events.append((now_s, len(events), fields.pop("type"), {k: v for k, v in fields.items() if k != "time"}))
    duration_s = now_s + _TAIL_S if max_duration_s is None else min(now_s + _TAIL_S, max_duration_s)
    return at_peak(_synthesise(events, duration_s, soundfont, reverb)[: round(duration_s * SAMPLE_RATE)])


def _synthesise(events: list[MidiEvent], duration_s: float, soundfont: Path, reverb: bool) -> NDArray[np.float32]:
    """The sound of FluidSynth, at least `duration_s` long but for a few milliseconds: mono, full scale 1."""
    program = shutil.which("fluidsynth")
    if program is None:
        raise SongError("FluidSynth is missing: apt-get install fluidsynth (brew install fluid-synth on a Mac)")
    with TemporaryDirectory(prefix="bytecover2-") as folder:
        score, audio = Path(folder) / "score.mid", Path(folder) / "audio.raw"
        _write_midi(events, duration_s, score)
        command = [
            program, "--quiet", "--no-midi-in", "--no-shell", f"--reverb={int(reverb)}", "--chorus=0",
            f"--gain={_GAIN}", f"--sample-rate={SAMPLE_RATE}", "--audio-file-type=raw", "--audio-file-format=s16",
            "--audio-file-endian=little", "-o", "synth.dynamic-sample-loading=1", f"--fast-render={audio}",
            str(soundfont), str(score),
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE_S
            )
        except subprocess.TimeoutExpired as error:
            raise SongError(f"{soundfont}: FluidSynth did not end within {error.timeout:.0f} s") from error
        said = (done.stderr or done.stdout).strip()
        if done.returncode or not audio.is_file() or "Failed to load" in said:  # it goes on with another font
            raise SongError(
                f"{soundfont}: FluidSynth cannot play it ({said.splitlines()[0] if said else done.returncode})"
            )
        stereo = np.fromfile(audio, dtype="<i2").reshape(-1, 2)  # (n_samples, 2)
    if np.abs(stereo).max(initial=0) <= _DITHER:
        return np.zeros(len(stereo), dtype=np.float32)
    return stereo.sum(axis=1, dtype=np.float32) / np.float32(2**16)


def _write_midi(events: list[MidiEvent], duration_s: float, path: Path) -> None:
    try:
        import mido
    except ImportError as error:
        raise SongError(f"playing MIDI: {why_not_imported(error, 'train')}") from error

    track = mido.MidiTrack()
    now = 0  # ticks
    for second, _, kind, fields in sorted(events, key=lambda event: event[:2]):
        tick = round(1000 * second)
        track.append(mido.Message(kind, time=tick - now, **fields))
        now = tick
    end = max(now, round(1000 * duration_s))
    for channel in range(16):  # FluidSynth goes on for as long as anything sounds: what is cut may sound for ever
        track.append(mido.Message("control_change", channel=channel, control=_ALL_SOUND_OFF, time=end - now))
        now = end
    mido.MidiFile(type=0, ticks_per_beat=_TICKS_PER_BEAT, tracks=[track]).save(path)
