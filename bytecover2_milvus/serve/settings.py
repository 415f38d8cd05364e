"""Settings of the service, as the operator chose them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..audio.limits import Limits
from ..cpu import usable_cores
from ..errors import ConfigError

TOKEN = "BYTECOVER2_SERVE_TOKEN"
SHORTEST_TOKEN = 16  # characters: fewer can be guessed
LIMITS = Limits(
    maximum_s=15 * 60.0, maximum_bytes=200 * 2**20
)  # a quarter of an hour as a WAV file of a CD has 152 MiB


@dataclass(frozen=True)
class Settings:
    """The bounds of the service, and what it shows.

    Raises
    ------
    ConfigError
        If strangers could reach it without a token and nobody said so, or the token is one that can be guessed.
    """

    host: str = "127.0.0.1"
    port: int = 8765  # 0 for any that is free
    token: str = field(default="", repr=False)
    without_token: bool = False  # also where others can reach it
    folder: Path | None = None  # below which files may be named; None: only uploads
    limits: Limits = LIMITS
    at_once: int = field(default_factory=usable_cores)  # requests that are worked on
    waiting: int = 16  # requests that wait meanwhile; more are refused
    timeout_s: float = 60.0  # of a request, from its first byte to its answer
    allow_audio: bool = False  # to give out the audio of stored tracks
    labels: Path | None = None  # file that judgements are appended to
    origins: Sequence[str] = ()  # of web pages elsewhere that may ask

    def __post_init__(self) -> None:
        plain = self.token.isascii() and self.token.isprintable() and " " not in self.token
        if self.token and not (plain and len(self.token) >= SHORTEST_TOKEN):
            raise ConfigError(f"{TOKEN}: at least {SHORTEST_TOKEN} characters of ASCII without spaces are needed")
        if not (self.token or self.without_token or self.is_local):
            raise ConfigError(
                f"{self.host}: others can reach it; set {TOKEN}, or say --without-token if a network keeps them out"
            )

    @property
    def is_local(self) -> bool:
        """True if only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
