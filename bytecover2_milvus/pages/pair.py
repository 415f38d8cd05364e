"""Two recordings beside each other on a page: the verdict on them in words, and buttons that play them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..second_stage.explain import clock, pitch_in_words, share_in_words, tempo_in_words
from .document import escape


@dataclass(frozen=True)
class Named:
    """A recording as people read it, and as the page finds its file."""

    name: str
    address: str


@dataclass(frozen=True)
class Shared:
    """The music that runs in two recordings, seen from the one that stands below the other on the page."""

    start_s: float
    end_s: float
    other_start_s: float
    other_end_s: float
    transposition: int  # semitones that it is above the other
    tempo_ratio: float  # 2 where it is twice as fast as the other


def told_apart(paths: Sequence[Path]) -> list[str]:
    """Names of files without their suffixes, with as many folders before each as tell it from the others.

    Examples
    --------
    >>> told_apart([Path("songs/a/1.mp3"), Path("songs/b/1.flac"), Path("songs/b/2.mp3")])
    ['a/1', 'b/1', '2']
    """
    parts = [path.with_suffix("").parts for path in paths]
    lengths = [1] * len(parts)
    while True:
        tails = [part[-length:] for part, length in zip(parts, lengths, strict=True)]
        count = Counter(tails)
        longer = [i for i, tail in enumerate(tails) if count[tail] > 1 and lengths[i] < len(parts[i])]
        if not longer:
            return ["/".join(tail) for tail in tails]
        for i in longer:
            lengths[i] += 1


def verdict_of(kind: str, other: str, probability: float | None, score: float | None, similarity: float) -> str:
    """A paragraph of HTML: `kind`, which is HTML, of the other recording, and how sure that is."""
    numbers = [] if score is None else [f"score {score:+.1f}"]
    numbers.append(f"similarity {similarity:.2f}")
    share = "" if probability is None else f" · {share_in_words(probability)}"
    return f'<p>{kind} {escape(other)}{share} <span class="quiet">({", ".join(numbers)})</span></p>'


def shared_in_words(shared: Shared) -> str:
    """A paragraph of HTML: from where to where the music runs in both, in which key and at what tempo."""
    here = f"{clock(shared.start_s)}–{clock(shared.end_s)}"
    there = f"{clock(shared.other_start_s)}–{clock(shared.other_end_s)}"
    pitch, tempo = pitch_in_words(shared.transposition), tempo_in_words(shared.tempo_ratio)
    return f"<p>{here} here runs as {there} there, {pitch}, {tempo}</p>"


def compare_button(this: Named, other: Named, shared: Shared) -> str:
    """A button that puts the other recording into the first player and this one into the second, where they meet."""
    return (
        f'<button type="button" data-query="{escape(other.address)}" data-query-name="{escape(other.name)}"'
        f' data-query-s="{shared.other_start_s:.2f}" data-end-s="{shared.other_end_s:.2f}"'
        f' data-track="{escape(this.address)}" data-name="{escape(this.name)}" data-track-s="{shared.start_s:.2f}"'
        f' data-ratio="{shared.tempo_ratio:.4f}">Compare</button>'
    )


def play_button(this: Named) -> str:
    """A button that plays one recording."""
    return (
        f'<button type="button" class="plain" data-track="{escape(this.address)}" data-name="{escape(this.name)}">'
        "Play</button>"
    )


def address_of(path: str, folder: Path) -> str:
    """A file as a page in `folder` names it."""
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # on another drive
        return Path(path).absolute().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))
