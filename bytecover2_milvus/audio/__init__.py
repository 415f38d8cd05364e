"""Audio files in, waveforms out: reading, what a file may cost, worker processes, degradations, segments."""
