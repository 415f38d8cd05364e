"""Draws arrangements.png: two arrangements of one song as the front end sees them."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap

import librosa
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from bytecover2_milvus.config import SAMPLE_RATE, FrontEnd
from bytecover2_milvus.songs.arrange.arrangement import arrange
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.render.renderer import render

SONG, SEEDS, SHOWN_S = 5, (3, 5), 45.0
POOLING = 8  # CQT frames per column: finer than the network's 100, to let the eye follow the melody

front_end = FrontEnd()
column_s = POOLING * front_end.hop_length / SAMPLE_RATE
figure, rows = plt.subplots(1, len(SEEDS), figsize=(11, 4.2), sharey=True, layout="constrained")
for axes, seed in zip(rows, SEEDS, strict=True):
    arrangement = arrange(compose(SONG), seed)
    cqt = np.abs(librosa.cqt(render(arrangement, SHOWN_S), sr=SAMPLE_RATE, hop_length=front_end.hop_length))
    n_columns = cqt.shape[1] // POOLING
    pooled = cqt[:, : n_columns * POOLING].reshape(front_end.n_bins, n_columns, POOLING).mean(axis=2)
    axes.imshow(
        librosa.amplitude_to_db(pooled, ref=np.max),
        vmin=-45,
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(0, n_columns * column_s, 24, 24 + front_end.n_bins),
    )
    lead = next(part for part in arrangement.parts if part.role == "lead").notes
    lead = lead[lead["onset_s"] < SHOWN_S]
    axes.hlines(
        lead["pitch"] + 0.5,
        lead["onset_s"],
        np.minimum(SHOWN_S, lead["onset_s"] + lead["duration_s"]),
        "cyan",
        lw=1.6,
    )
    head, players = arrangement.describe().split("; ")[:2]
    axes.set_title("\n".join((*wrap(head, 90), *wrap(players, 90))), fontsize=7)
    axes.set_xlabel("seconds")
    axes.set_xlim(0, SHOWN_S)
rows[0].set_ylabel("MIDI pitch")
image = Path(__file__).with_suffix(".png")
figure.savefig(image, dpi=80)
Image.open(image).quantize(64, Image.Quantize.FASTOCTREE).save(image, optimize=True)  # a quarter of the size
