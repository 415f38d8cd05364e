"""Versions of what makes songs and tracks: they are in the name of everything that is kept of what it made.

Raise a number when the same input no longer gives the same output; what caches hold of the old output is then made
again, and an unfinished training is told that its tracks are others. A change that leaves the output alone, as a
comment or a faster way to the same notes, raises nothing. ``tests/house/test_versions.py`` compares the output with
golden values and says which number to raise.

Composed and traditional songs need no number: a song's notes are in the name of every track that is made of it.
"""

from __future__ import annotations

READING = 3  # a score to a song: songs/readers.py and the readers of each form, transcript.py, phrases.py
ARRANGING = 1  # a song to an arrangement: songs/arrange/arrangement.py and all that it draws from
PLAYING = 2  # an arrangement to a waveform: songs/render/renderer.py, instruments.py, syllables.py, soundfont.py
DRAWING = 2  # an arrangement to a CQT: training/data/spectral.py, tone_bank.py
DEGRADING = 1  # a waveform to a degraded one: audio/degrade.py
ANALYSIS = 1  # an audio file to a CQT: audio/load.py, model/cqt.py

ALL = f"{READING}.{ARRANGING}.{PLAYING}.{DRAWING}.{DEGRADING}.{ANALYSIS}"  # for what depends on most of them
