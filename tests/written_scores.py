"""Small scores, written as MIDI and MusicXML."""

from __future__ import annotations

from pathlib import Path

import mido

from bytecover2_milvus.songs.score import Song

TUNE = [60, 62, 64, 65, 67, 67, 69, 69, 67, 65, 64, 62, 64, 62, 60, 60] * 2


BASS = [36, 43, 36, 41] * 8


BACKWARDS = [pitch - 12 for pitch in TUNE[::-1]]


TICKS = 480


def write_midi(
    path: Path, *, tempo: int = 500_000, beats: int = 4, names: tuple[str, str] = ("Bass", "Melody")
) -> Path:
    """A tune of quarter notes, named as such, over a bass that comes first."""
    file = mido.MidiFile(ticks_per_beat=TICKS)
    for name, pitches, channel in zip(names, (BASS, TUNE), (1, 0), strict=True):
        track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
        if channel:
            track.append(mido.MetaMessage("set_tempo", tempo=tempo))
            track.append(mido.MetaMessage("time_signature", numerator=beats, denominator=4))
        for pitch in pitches:
            track.append(mido.Message("note_on", note=pitch, velocity=80, channel=channel, time=0))
            track.append(mido.Message("note_off", note=pitch, velocity=0, channel=channel, time=TICKS))
        file.tracks.append(track)
    file.save(path)
    return path


def write_musicxml(path: Path, *parts: str) -> Path:
    """Two parts of those names in bars of four quarters: TUNE, and TUNE backwards an octave lower."""
    listed = "".join(f'<score-part id="{name}"><part-name>{name}</part-name></score-part>' for name in parts)
    music = ""
    for name, pitches in zip(parts, (TUNE, BACKWARDS), strict=True):
        head = "<attributes><divisions>1</divisions><time><beats>4</beats><beat-type>4</beat-type></time></attributes>"
        bars = ""
        for bar in range(0, len(pitches), 4):
            notes = "".join(map(musicxml_note, pitches[bar : bar + 4]))
            bars += f'<measure number="{bar // 4 + 1}">{"" if bar else head}{notes}</measure>'
        music += f'<part id="{name}">{bars}</part>'
    path.write_text(f'<score-partwise version="3.1"><part-list>{listed}</part-list>{music}</score-partwise>')
    return path


def musicxml_note(pitch: int) -> str:
    """A quarter on a white key."""
    step, octave = "C D EF G A B"[pitch % 12], pitch // 12 - 1
    pitched = f"<pitch><step>{step}</step><octave>{octave}</octave></pitch>"
    return f"<note>{pitched}<duration>1</duration><type>quarter</type></note>"


def melody(song: Song) -> list[int]:
    return [note.pitch for index in song.form for note in song.sections[index].melody]
