"""The network's input: a scaled CQT, and beside it, where the network asks for them, the two maps of the note map.

The maps say which notes sound and which carry the tune whatever plays them, which a network would have to learn from
the CQT alone. They come from a note map that is trained already and learns nothing here.

Shapes: magnitude (B, n_bins, T) -> input (B, n_bins, T), or with maps (B, 3, n_bins, T * NOTE_POOLING / time_pooling).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import FrontEnd, Network
from ..errors import ConfigError
from .cqt import pool_time, scale_magnitude
from .note_map import CHROMA_FRAME_HOPS, MAPS, NOTE_POOLING, TIME_STRIDE, NoteMap, note_input


def input_channels(config: Network) -> int:
    """Channels of the input: the CQT, and the maps if there are any."""
    return 1 + len(MAPS) * config.maps


def input_pooling(front_end: FrontEnd, config: Network) -> int:
    """CQT frames per frame of the magnitude that an input is made of: the note map needs finer ones than the network.

    Raises
    ------
    ConfigError
        If a frame of the network is no whole number of frames of the maps.
    """
    if not config.maps:
        return front_end.time_pooling
    if front_end.time_pooling % CHROMA_FRAME_HOPS:
        raise ConfigError(
            f"network.maps with time_pooling = {front_end.time_pooling}: a multiple of {CHROMA_FRAME_HOPS}, as one"
            " frame of the maps has so many CQT frames"
        )
    return NOTE_POOLING


def check_input(front_end: FrontEnd, config: Network, note_map: NoteMap | None) -> None:
    """Make sure that there is all that a network's input is made of.

    Raises
    ------
    ConfigError
        If the network wants maps and there is no note map, or as `input_pooling`.
    """
    input_pooling(front_end, config)
    if config.maps and note_map is None:
        raise ConfigError("network.maps is on and there is no note map: give --init a checkpoint that has one")


class NetworkInput(nn.Module):
    """The input of `ByteCover2`, of the magnitude of a CQT (B, n_bins, T) in frames of `pooling` CQT frames.

    Parameters
    ----------
    front_end : FrontEnd
    config : Network
    note_map : NoteMap or None
        In eval mode; not used by a network without maps.

    Raises
    ------
    ConfigError
        As `check_input`.
    """

    def __init__(self, front_end: FrontEnd, config: Network, note_map: NoteMap | None) -> None:
        super().__init__()
        check_input(front_end, config, note_map)
        self.front_end = front_end
        self.pooling = input_pooling(front_end, config)
        self.note_map = note_map if config.maps else None

    def forward(self, magnitude: Tensor) -> Tensor:
        if self.note_map is None:
            return scale_magnitude(magnitude, self.front_end.scale)
        return beside_maps(magnitude, self.note_map(note_input(magnitude)), self.front_end)


def beside_maps(magnitude: Tensor, logits: Tensor, front_end: FrontEnd) -> Tensor:
    """The input with maps, of a magnitude (B, n_bins, T) and its note map's logits (B, 2, n_bins, T // 4)."""
    ratio = front_end.time_pooling // NOTE_POOLING  # frames of the magnitude per frame of the input
    cqt = scale_magnitude(pool_time(magnitude, ratio), front_end.scale)
    maps = [pool_time(sounding, ratio // TIME_STRIDE) for sounding in torch.sigmoid(logits).unbind(dim=1)]
    return torch.stack([cqt, *maps], dim=1)
