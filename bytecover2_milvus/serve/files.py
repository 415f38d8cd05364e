"""Files of this machine that clients may name: those below one folder, and the audio of stored tracks."""

from __future__ import annotations

import os.path
from pathlib import Path

from ..audio.load import AUDIO_SUFFIXES
from .refusal import Refused
from .upload import Recording, shown


def below(folder: Path | None, name: str) -> Recording:
    """The file of that name below a folder.

    Links are followed, but not out of the folder.

    Raises
    ------
    Refused
        403 if there is no such folder to name files in, 400 if the name is not one below it, 404 if there is no such
        file; a file elsewhere is answered as one that is not there.
    """
    if folder is None:
        raise Refused(403, "this service takes uploads only: it was started without --folder")
    path = Path(name)
    if "\0" in name or not name or path.is_absolute() or ".." in path.parts:
        raise Refused(400, "path: name a file below the folder of this service, without .. and no / first")
    missing = Refused(404, f"{shown(name)}: no such file below the folder of this service")
    root = folder.resolve()
    try:
        found = (root / path).resolve(strict=True)
    except (OSError, RuntimeError) as error:  # missing, not to be read, too long a name, links in a circle
        raise missing from error
    if not (found.is_relative_to(root) and os.path.isfile(found)):
        raise missing
    return Recording(found, shown(name), uploaded=False)


def audio_of(path: str) -> Path:
    """The file at the path of a stored track.

    Raises
    ------
    Refused
        404 if it is not on this machine, or no audio by its name: rows may come from elsewhere.
    """
    file = Path(path)
    if not path or file.suffix.lower() not in AUDIO_SUFFIXES or not os.path.isfile(file):
        raise Refused(404, "the file of this track is not on this machine")
    return file
