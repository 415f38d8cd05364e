"""Names in a file's tags: ID3 (MP3, WAV, AIFF), Vorbis comments (FLAC, Ogg, Opus), MP4, ASF, APE and RIFF INFO.

tinytag reads them: it takes a tenth of the time that ffmpeg takes to open a file, and knows MusicBrainz' recording id
in MP3 (UFID), which ffmpeg passes over, and the Latin-1 of ID3v1. What tags say is bounded and cleaned here; whoever
shows it does so by `terminal.printable`, as all that comes from files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..terminal import UNPRINTABLE
from .limits import Limits, open_regular

MAX_CHARACTERS = 500  # of a name; nobody would read more of it
_SIZE_PER_NAME = 20 * MAX_CHARACTERS  # characters of a tag that are looked at
_UFID = "http://musicbrainz.org "  # a zero follows the owner; it is cleaned away
_ISRC = re.compile(r"[A-Z]{2}[A-Z0-9]{3}[0-9]{7}")
_MBID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# MusicBrainz' ids as Picard names them in Vorbis comments; in ID3, MP4 and ASF the names have other signs.
_MUSICBRAINZ = tuple(f"musicbrainz_{what}id" for what in ("track", "work", "album", "artist", "releasegroup"))


@dataclass(frozen=True, slots=True)
class Tags:
    """The names in a file; empty where it has none."""

    title: str = ""
    artist: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)  # album, isrc, musicbrainz_trackid and others


def read_tags(path: Path, limits: Limits | None = None) -> Tags:
    """The names in a file's tags; none where there are none, they are damaged, or no tag of a known form is there.

    Texts lose control characters and what lies beyond `MAX_CHARACTERS`; an ISRC or MusicBrainz id that is none is left
    out. Several artists are joined by a comma; of other names the first counts.
    """
    try:
        from tinytag import TinyTag

        with open_regular(path, limits) as file:
            read: Mapping[str, Any] = TinyTag.get(filename=str(path), file_obj=file, duration=False).as_dict()
    except Exception:  # of a parser over what anybody wrote: the audio is worth having without its names
        return Tags()
    texts = {re.sub("[^a-z]", "", name.lower()): _texts(values) for name, values in read.items()}
    ufids = [text.removeprefix(_UFID) for text in texts.get("ufid", []) if text.startswith(_UFID)]
    texts.setdefault("musicbrainztrackid", ufids)  # of a recording: a track was one when MusicBrainz began
    codes = (re.sub("[ -]", "", text).upper() for text in texts.get("isrc", []))
    metadata = {"album": _first(texts.get("album", [])), "isrc": _id(_ISRC, codes)}
    for name in _MUSICBRAINZ:
        metadata[name] = _id(_MBID, map(str.lower, texts.get(name.replace("_", ""), [])))
    artists = dict.fromkeys(texts.get("artist", []))
    known = {name: value for name, value in metadata.items() if value}
    return Tags(_first(texts.get("title", [])), ", ".join(artists)[:MAX_CHARACTERS], known)


def _texts(values: Any) -> list[str]:
    """The texts of a tag, cleaned, without empty ones."""
    given = values[:100] if isinstance(values, list) else [values]
    return list(filter(None, (_clean(value) for value in given if isinstance(value, str))))


def _clean(text: str) -> str:
    """`text` on one line, without what a terminal would obey."""
    return " ".join(UNPRINTABLE.sub(" ", text[:_SIZE_PER_NAME]).split())[:MAX_CHARACTERS].rstrip()


def _first(texts: list[str]) -> str:
    return texts[0] if texts else ""


def _id(form: re.Pattern[str], texts: Iterable[str]) -> str:
    """The first text of a form; "" if none is."""
    return next(filter(form.fullmatch, texts), "")
