"""Arrangements as waveforms, by synthetic instruments or a sound font."""
