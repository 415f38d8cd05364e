"""The configuration: frozen dataclasses with the paper's values as defaults, read from TOML.

Sections refer to the ByteCover2 paper; a default without a section is a choice of this project, see "Ambiguities and
assumptions" in ``docs/paper.md``.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigError
from .untrusted import check_depth, read_text, shorten

WHITENING = 0.5  # of the axes that PCA-FC starts from, unless told otherwise; 0 is the paper's
JOINED_WHITENING = 0.25  # the same where a chroma network is joined
SAMPLE_RATE = 22_050  # Hz, section 3.1; every waveform in this package has it
SHORTEST_FRAMES = 8  # input frames of the network below which a track is repeated: one column of the backbone's output
CHROMA_GROUPS = ("notes", "lead")  # of twelve channels each, C first: all that sounds, and what carries the tune
SCALES = ("linear", "sqrt", "log")
SILENCES = ("kept", "skipped")
PHASES = ("bytecover", "frozen", "joint", "notes", "chroma")
OPTIMIZERS = ("adam", "muon")
AUTO = "auto"  # precision: the fastest that works where the training runs
PRECISIONS = ("32-true", "bf16-mixed")  # float16 would need a loss scaler, which a checkpoint does not hold

# Bounds beyond which a configuration is a mistake, or made to exhaust memory.
LOWEST_HZ = 8.0  # of the CQT: an octave below 16 Hz, the lowest note of organs
LONGEST_MINIMUM_S = 60.0  # seconds below which shorter recordings are repeated, at most
WIDEST = 256  # channels of the stem: four times the paper's
MOST_BLOCKS = 64  # of a group; ResNet-152 has 36
TOML_BYTES = 1 << 16

ENDLESS = 1 << 40  # more steps than any run makes


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class FrontEnd:
    """From waveform to the network's input: CQT magnitude, mean over time, scale."""

    hop_length: int = 512  # samples between CQT frames, section 3.1
    bins_per_octave: int = 12
    n_octaves: int = 7  # 7 x 12 = 84 bins
    fmin: float = 32.70319566257483  # Hz, C1
    time_pooling: int = 100  # CQT frames per input frame, section 3.1: 2.32 s
    scale: str = "linear"  # of the magnitude after division by the track's maximum
    silence: str = "kept"  # at both ends of a recording; skipped silence is not embedded, but stays in chroma

    def __post_init__(self) -> None:
        _require(self.time_pooling >= 1, f"time_pooling = {self.time_pooling}: must be at least 1 frame")
        _require(self.scale in SCALES, f"scale = {self.scale!r}: choose one of {', '.join(SCALES)}")
        _require(self.silence in SILENCES, f"silence = {self.silence!r}: choose one of {', '.join(SILENCES)}")
        for name, limit in (("hop_length", 8192), ("bins_per_octave", 120), ("n_octaves", 10)):
            _require(1 <= getattr(self, name) <= limit, f"{name} = {getattr(self, name)}: between 1 and {limit}")
        _require(self.fmin >= LOWEST_HZ, f"fmin = {self.fmin}: a frequency in Hz, {LOWEST_HZ:g} or above")
        highest = self.fmin * 2 ** ((self.n_bins - 1) / self.bins_per_octave)
        _require(highest < SAMPLE_RATE / 2, f"the highest bin is at {highest:.0f} Hz, half the sample rate is less")
        _require(
            self.hop_length % 2 ** (self.n_octaves - 1) == 0,
            f"hop_length = {self.hop_length}: must be divisible by 2^{self.n_octaves - 1}, one halving per octave",
        )
        _require(
            self.minimum_samples <= LONGEST_MINIMUM_S * SAMPLE_RATE,
            f"time_pooling = {self.time_pooling}: {SHORTEST_FRAMES} input frames last "
            f"{SHORTEST_FRAMES * self.frame_s:.4g} s, at most {LONGEST_MINIMUM_S:g} s",
        )

    def facts(self) -> dict[str, Any]:
        """The settings as a contract names them; without `silence` where it is kept, as contracts were at first."""
        settings = dataclasses.asdict(self)
        if self.silence == "kept":
            del settings["silence"]
        return settings

    @property
    def n_bins(self) -> int:
        return self.n_octaves * self.bins_per_octave

    @property
    def frame_s(self) -> float:
        """Seconds per input frame of the network."""
        return self.time_pooling * self.hop_length / SAMPLE_RATE

    @property
    def minimum_samples(self) -> int:
        """Samples below which a waveform is repeated before it is embedded."""
        return SHORTEST_FRAMES * self.time_pooling * self.hop_length


@dataclass(frozen=True)
class Network:
    """ResNet50-IBN, GeM, PCA-FC and BNNeck."""

    feature_dim: int | None = 128  # D after PCA-FC; None is ByteCover: no PCA-FC, 2048
    stage_blocks: tuple[int, ...] = (3, 4, 6, 3)  # residual blocks per group; the last group is plain
    base_width: int = 64  # channels of the stem; the backbone ends with 32 times as many
    gem_exponent: float = 3.0  # initial value of the learned exponent
    gem_eps: float = 1e-6
    transpositions: tuple[int, ...] = (0,)  # bins; the pooled embeddings of a track in these are averaged
    maps: bool = False  # the note map's two maps are channels of the input beside the CQT; the paper has none
    joined: int = 0  # values of the chroma network that PCA-FC takes beside the pooled ones, as fit-pca set it

    def __post_init__(self) -> None:
        four = len(self.stage_blocks) == 4 and all(1 <= blocks <= MOST_BLOCKS for blocks in self.stage_blocks)
        _require(four, f"stage_blocks = {list(self.stage_blocks)[:5]}: four groups of 1 to {MOST_BLOCKS} blocks")
        _require(1 <= self.base_width <= WIDEST, f"base_width = {self.base_width}: between 1 and {WIDEST}")
        _require(0 < self.gem_exponent <= 100, f"gem_exponent = {self.gem_exponent}: above 0, at most 100")
        _require(0 < self.gem_eps <= 1, f"gem_eps = {self.gem_eps}: above 0, at most 1")
        limit = self.pooled_dim + self.joined
        _require(
            self.feature_dim is None or 1 <= self.feature_dim <= limit,
            f"feature_dim = {self.feature_dim}: between 1 and {limit}, or none",
        )
        _require(0 <= self.joined <= 4 * WIDEST, f"joined = {self.joined}: between 0 and {4 * WIDEST}")
        _require(0 < len(self.transpositions) <= 24, "transpositions: between one and 24; [0] is none")

    @property
    def pooled_dim(self) -> int:
        """Channels of the backbone's output, 2048 at full width."""
        return 32 * self.base_width

    @property
    def embedding_dim(self) -> int:
        return self.feature_dim or self.pooled_dim

    @property
    def joins(self) -> bool:
        """True if the embedding is made of that of the chroma network too."""
        return self.joined > 0 and self.feature_dim is not None


@dataclass(frozen=True)
class Notes:
    """The note map, which finds the notes that sound, for the second stage; the paper has none."""

    width: int = 0  # channels between its blocks; 0 is no note map
    blocks: int = 4  # residual blocks, each of which sees two octaves further either way

    def __post_init__(self) -> None:
        even = 0 <= self.width <= 1024 and self.width % 2 == 0
        _require(even, f"width = {self.width}: an even number, at most 1024, or 0 for no note map")
        _require(1 <= self.blocks <= MOST_BLOCKS, f"blocks = {self.blocks}: between 1 and {MOST_BLOCKS}")


@dataclass(frozen=True)
class Chroma:
    """The chroma network, which embeds the chroma of the note map beside the backbone; the paper has none."""

    width: int = 0  # channels of its first layer; its embedding has four times as many; 0 is no chroma network

    def __post_init__(self) -> None:
        even = 0 <= self.width <= WIDEST and self.width % 2 == 0
        _require(even, f"width = {self.width}: an even number, at most {WIDEST}, or 0 for no chroma network")

    @property
    def dim(self) -> int:
        """Values of its embedding."""
        return 4 * self.width


@dataclass(frozen=True)
class Training:
    """One run of the training loop; the phases of the paper are three runs of it (section 3.3)."""

    phase: str = "bytecover"  # bytecover: all without PCA-FC; frozen: PCA-FC and head only; joint: all; notes, chroma
    steps: int = 20_000  # 0: until the run is stopped, at a constant learning rate
    works_per_batch: int = 16  # P of P x K
    tracks_per_work: int = 4  # K
    parts: int = 1  # of a batch, which go through the backbone one by one, to save memory; the losses see all of it
    hearings: float = 0.0  # of a track, on average, before another of its work replaces it; 0: it is never replaced
    crop_s: tuple[float, ...] = (100.0, 150.0, 200.0)  # seconds; one length per batch
    optimizer: str = "adam"  # muon: kernels by Muon, at Adam's learning rates
    learning_rate: float = 1e-4
    warmup_steps: int = 200
    final_rate: float = 0.01  # the cosine schedule ends at this share of learning_rate
    averaging: float = 0.0  # decay of the moving average of the weights, which is validated and kept; 0 is none
    weight_decay: float = 0.0
    triplet_margin: float = 0.3
    cross_entropy_weight: float = 1.0
    triplet_weight: float = 1.0
    contrastive_weight: float = 0.0  # supervised contrastive loss on the normalised embedding
    temperature: float = 0.1  # of the contrastive loss
    label_smoothing: float = 0.1
    # Augmentation of the cached CQT; 0 (of tempo, 1) switches each one off.
    transpose: int = 6  # bins either way (semitones, with 12 per octave)
    tuning: float = 0.3  # bins either way, off the tuning of the track
    tempo: float = 1.3  # largest change of speed
    mask_bins: int = 12  # SpecAugment on frequency
    mask_s: float = 0.0  # SpecAugment on time: the longest stretch that falls silent, seconds
    equaliser_db: float = 9.0  # random smooth filter
    compression: float = 0.0  # largest share by which loudness, in decibels, is evened out
    room_s: float = 0.0  # longest decay (time constant) of a room; its sound may outweigh the direct one
    noise: float = 0.02  # share of the track's maximum
    crowd: float = 0.0  # chance of applause and talk over the beginning, the end or all of it
    silence: float = 0.0  # chance that up to a quarter of the excerpt, at one end, is silent
    precision: str = "32-true"
    validate_every: int = 1000  # steps
    save_every: int = 500  # steps
    seed: int = 0

    @property
    def last_step(self) -> int:
        return self.steps or ENDLESS

    def __post_init__(self) -> None:
        _require(self.phase in PHASES, f"phase = {self.phase!r}: choose one of {', '.join(PHASES)}")
        _require(2 <= self.works_per_batch <= 4096, "works_per_batch: a triplet needs at least 2 works; at most 4096")
        _require(2 <= self.tracks_per_work <= 256, "tracks_per_work: a triplet needs at least 2 of a work; at most 256")
        _require(1 <= self.parts <= 1024, f"parts = {self.parts}: between 1 and 1024")
        _require(self.optimizer in OPTIMIZERS, f"optimizer = {self.optimizer!r}: choose one of {', '.join(OPTIMIZERS)}")
        precisions = (*PRECISIONS, AUTO)
        _require(self.precision in precisions, f"precision = {self.precision!r}: choose one of {', '.join(precisions)}")
        for name in ("validate_every", "save_every"):
            _require(getattr(self, name) >= 1, f"{name} = {getattr(self, name)}: at least 1")
        not_negative = (
            *("transpose", "tuning", "mask_bins", "mask_s", "equaliser_db", "room_s", "noise", "seed"),
            *("steps", "warmup_steps", "weight_decay", "triplet_margin"),
            *("cross_entropy_weight", "triplet_weight", "contrastive_weight"),
        )
        for name in not_negative:
            _require(getattr(self, name) >= 0, f"{name} = {getattr(self, name)}: 0 or more")
        for name, limit in (("equaliser_db", 60), ("room_s", 60), ("noise", 10)):
            _require(getattr(self, name) <= limit, f"{name} = {getattr(self, name)}: at most {limit}")
        for name in ("learning_rate", "temperature"):
            _require(getattr(self, name) > 0, f"{name} = {getattr(self, name)}: above 0")
        for name in ("compression", "crowd", "silence", "label_smoothing", "final_rate"):
            _require(0 <= getattr(self, name) <= 1, f"{name} = {getattr(self, name)}: between 0 and 1")
        _require(
            self.hearings == 0 or 1 <= self.hearings <= 1e6, f"hearings = {self.hearings}: 1 or more, or 0 to keep all"
        )
        _require(0 <= self.averaging < 1, f"averaging = {self.averaging}: from 0 to below 1")
        _require(self.tuning <= 1, f"tuning = {self.tuning}: at most 1 bin; transpose does the rest")
        _require(len(self.crop_s) > 0 and min(self.crop_s) > 0, "crop_s: at least one positive length in seconds")
        _require(max(self.crop_s) <= 3600, f"crop_s: {max(self.crop_s):g}, an hour at most")
        _require(1 <= self.tempo <= 4, f"tempo = {self.tempo}: 1 (none) to 4")


@dataclass(frozen=True)
class Config:
    """A whole model: what a checkpoint carries and what a TOML file may set, one table per part."""

    front_end: FrontEnd = FrontEnd()
    network: Network = Network()
    training: Training = Training()
    notes: Notes = Notes()
    chroma: Chroma = Chroma()

    def __post_init__(self) -> None:
        for name in ("transpose", "mask_bins"):
            bins = getattr(self.training, name)
            _require(bins < self.front_end.n_bins, f"{name} = {bins}: the CQT has {self.front_end.n_bins} bins")
        for bins in self.network.transpositions:
            _require(
                abs(bins) < self.front_end.n_bins, f"transpositions: {bins}, the CQT has {self.front_end.n_bins} bins"
            )

    @classmethod
    def from_toml(cls, path: str | Path, base: Config | None = None) -> Config:
        """The configuration in a TOML file with tables named as the fields of this class.

        What the file does not name is that of `base`, which is the paper's configuration by default.

        Raises
        ------
        ConfigError
            If the file cannot be read, is not TOML, or holds an unknown key or an impossible value.
        """
        try:
            table = _parse_toml(read_text(path, TOML_BYTES))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not TOML ({error})") from error
        except ValueError as error:
            raise ConfigError(f"{path}: not TOML ({shorten(error)})") from error
        try:
            return (base or cls()).changed(table)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> Config:
        """The paper's configuration with the values that the tables name in place of its own; raises as `changed`."""
        return cls().changed(table)

    def changed(self, table: dict[str, Any]) -> Config:
        """This configuration with the values that the tables name in place of its own.

        Raises
        ------
        ConfigError
            If there is an unknown table or key, or an impossible value.
        """
        parts = [field.name for field in dataclasses.fields(self)]
        _require(isinstance(table, dict), f"{shorten(repr(table))}: the tables {', '.join(parts)} are needed")
        unknown = sorted(set(table) - set(parts))
        _require(not unknown, f"unknown table [{shorten(', '.join(unknown))}]: the tables are {', '.join(parts)}")
        return dataclasses.replace(
            self, **{name: _changed(getattr(self, name), name, values) for name, values in table.items()}
        )

    def with_settings(self, settings: Iterable[str]) -> Config:
        """This configuration with each ``table.key=value`` of `settings`, in TOML, put in its place.

        Raises
        ------
        ConfigError
            If one is not of that form, or as `changed`.
        """
        table: dict[str, dict[str, Any]] = {}
        for setting in settings:
            try:
                parsed = _parse_toml(setting)
            except ValueError as error:
                reason = f"not KEY=VALUE in TOML; a word needs quotes ({shorten(error)})"
                raise ConfigError(f"{shorten(setting)}: {reason}") from error
            for part, values in parsed.items():
                _require(
                    isinstance(values, dict), f"{shorten(setting)}: name the table too, as training.{shorten(setting)}"
                )
                table[part] = table.get(part, {}) | values
        return self.changed(table)

    def differences(self, before: Config) -> list[str]:
        """Settings that differ from `before`, as ``training.steps 2 -> 4``."""
        mine, theirs = self.to_dict(), before.to_dict()
        return [
            f"{table}.{key} {theirs[table][key]} -> {value}"
            for table, values in mine.items()
            for key, value in values.items()
            if theirs[table][key] != value
        ]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def learned_dim(self) -> int:
        """D of the embedding that the training's phase learns."""
        return self.chroma.dim if self.training.phase == "chroma" else self.network.embedding_dim


_Part = TypeVar("_Part", FrontEnd, Network, Notes, Chroma, Training)


def _parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text; a `ValueError` if the text is no TOML or is nested too deeply."""
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    check_depth(table)
    return table


def _changed(part: _Part, name: str, values: dict[str, Any]) -> _Part:
    """A part of the configuration with some values changed; `name` is its table; raises as `Config.changed`."""
    _require(isinstance(values, dict), f"{name} = {shorten(repr(values))}: a table is needed")
    defaults = {field.name: field.default for field in dataclasses.fields(part)}
    for key in values:
        _require(key in defaults, f"unknown key {name}.{shorten(key)}: the keys are {', '.join(defaults)}")
    return dataclasses.replace(
        part, **{key: _coerce(f"{name}.{key}", value, defaults[key]) for key, value in values.items()}
    )


def _coerce(key: str, value: Any, default: Any) -> Any:
    """`value` in the type of `default`; TOML has no tuples, and no null, for which "none" stands.

    Raises
    ------
    ConfigError
        If it is of another type, infinite or too large.
    """
    if key == "network.feature_dim" and value in ("none", None):
        return None
    if isinstance(default, tuple):
        _require(isinstance(value, (list, tuple)), f"{key} = {shorten(repr(value))}: a list is needed")
        return tuple(_coerce(key, item, default[0]) for item in value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        value = float(value)
    shown = f"{key} = {shorten(repr(value))}"
    _require(type(value) is type(default), f"{shown}: {type(default).__name__} is needed")
    _require(not isinstance(value, float) or math.isfinite(value), f"{shown}: must be finite")
    _require(not isinstance(value, int) or abs(value) < 2**63, f"{shown}: does not fit into 64 bits")
    return value
