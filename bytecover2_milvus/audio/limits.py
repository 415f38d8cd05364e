"""Limits on what a file may ask of the machine that reads it, and the file itself, opened."""

from __future__ import annotations

import errno
import math
import os
import stat
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from ..errors import AudioBeyondLimits, ConfigError, UnreadableAudio

HOURS, GIB = "BYTECOVER2_MAXIMUM_HOURS", "BYTECOVER2_MAXIMUM_GIB"


@dataclass(frozen=True)
class Limits:
    """Bounds on a file of audio; what lies beyond them is refused.

    Parameters
    ----------
    maximum_s : float
        Seconds. 55 bytes of FLAC can state 18 hours, so what comes out is counted.
    maximum_bytes : int
        Bytes of the file.
    minimum_rate, maximum_rate : int
        Sample rates in Hz: below that of any recording, and that of DSD512 as ffmpeg gives it.
    """

    maximum_s: float = 3 * 3600.0  # the waveform is 1 GB; an opera in one file is longer, and asks for more
    maximum_bytes: int = 16 * 2**30
    minimum_rate: int = 4_000
    maximum_rate: int = 2_822_400

    @classmethod
    def here(cls) -> Limits:
        """Those of ``BYTECOVER2_MAXIMUM_HOURS`` and ``BYTECOVER2_MAXIMUM_GIB`` in the environment, else the defaults.

        Raises
        ------
        ConfigError
            If one of them is no positive number.
        """
        hours, gib = _number(HOURS, cls.maximum_s / 3600), _number(GIB, cls.maximum_bytes / 2**30)
        return cls(maximum_s=hours * 3600, maximum_bytes=round(gib * 2**30))


def _number(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        number = float(text) if text else default
    except ValueError:
        number = math.nan
    if not 0 < number < 1e9:
        raise ConfigError(f"{name}={text}: not a positive number; set another, or none")
    return number


def check_regular(path: Path | str, status: os.stat_result, limits: Limits | None = None) -> None:
    """Refuse what is no file on a disk, as a pipe may keep its reader waiting for ever and a device never ends.

    Raises
    ------
    UnreadableAudio
    AudioBeyondLimits
        If it is larger than the limit.
    """
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableAudio(f"{path}: {os.strerror(errno.EISDIR)}; name the files in it")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableAudio(f"{path}: a pipe or a device, no regular file; write it to a file first")
    limits = limits or Limits.here()
    if status.st_size > limits.maximum_bytes:
        size, allowed = (n_bytes / 2**30 for n_bytes in (status.st_size, limits.maximum_bytes))
        raise AudioBeyondLimits(
            f"{path}: a file of {size:.3g} GiB, and {allowed:.3g} are allowed; split it, or raise --maximum-gib ({GIB})"
        )


def open_regular(path: Path, limits: Limits | None = None) -> BufferedReader:
    """The file, open to be read.

    Raises
    ------
    UnreadableAudio
        If `check_regular` refuses it.
    OSError
        If it is missing, or may not be read.
    """
    wait_for_nobody = getattr(os, "O_NONBLOCK", 0)  # a pipe is opened at once, and refused
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | wait_for_nobody))  # noqa: SIM115
    try:
        check_regular(path, os.fstat(file.fileno()), limits)
    except UnreadableAudio:
        file.close()
        raise
    return file
