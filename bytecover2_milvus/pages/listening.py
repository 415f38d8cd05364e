"""An `Answer` in a notebook with players of the places that run alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..audio.load import load_audio
from ..config import SAMPLE_RATE
from ..errors import AudioError
from ..second_stage.matches_html import matches_html
from .document import data_uri, escape
from .sound import compress

if TYPE_CHECKING:
    from ..second_stage.answer import Answer

SECONDS = 15.0  # of a clip; 90 kB in the notebook


@dataclass(frozen=True)
class Listening:
    """An answer with the HTML of players for its first matches."""

    answer: Answer
    players: Sequence[str] = field(repr=False)

    def _repr_html_(self) -> str:
        return matches_html(self.answer.matches, self.answer.nearest, self.answer.note, self.players)


def listen(
    answer: Answer, query: str | Path | NDArray[np.float32], *, limit: int = 3, seconds: float = SECONDS
) -> Listening:
    """The answer as a notebook shows it, with clips of the query and of the first matches, from where they run alike.

    The clips are MP3s in the notebook itself, of 6 kB a second. A file that is gone, or cannot be read, is named in the
    place of its player.

    Parameters
    ----------
    answer : Answer
    query : str, Path, or np.ndarray [shape=(n_samples,)] of float32
        The recording that was asked for, a file or a waveform at 22 050 Hz.
    limit : int
        Matches that get players; each of their files is decoded.
    seconds : float
        Length of a clip.

    Raises
    ------
    AudioError
        If the query cannot be read.
    """
    asked = query if isinstance(query, np.ndarray) else load_audio(query)
    players = []
    for match in answer.matches[:limit]:
        try:
            track = load_audio(match.path)
        except (AudioError, OSError) as error:
            players.append(f"<br>{escape(error)}")
            continue
        players.append(
            _player("query", asked, match.query_start_s or 0.0, seconds)
            + _player("track", track, match.start_s, seconds)
        )
    return Listening(answer, players)


def _player(name: str, waveform: NDArray[np.float32], start_s: float, seconds: float) -> str:
    start = int(start_s * SAMPLE_RATE)
    clip = waveform[start : start + int(seconds * SAMPLE_RATE)]
    sound = compress(clip) if len(clip) else None
    if sound is None:
        return ""
    source = data_uri("audio/mpeg", sound)
    look = "height: 2em; vertical-align: middle"
    return f'<br>{name} <audio controls preload="metadata" src="{source}" style="{look}"></audio>'
