"""How ``contract-2`` was made: by package version 0.1.0, once, before its first release.

It is never made again: what it holds is what bundles of contract version 2 look like out there. Its network is that of
``contract-1``, so both have one model_id, and beside it stands a note map of random weights.

    python tests/golden/make_contract_2.py NEW_FOLDER
"""

from __future__ import annotations

import sys

import torch

from bytecover2_milvus.config import Config, FrontEnd, Network, Notes
from bytecover2_milvus.export import exporter, golden
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.model.note_map import NoteMap

GOLDEN_S = {"long": 4.0, "short": 1.5}  # seconds, to keep the repository small; a real bundle has 20 and 3


def main(folder: str) -> None:
    config = Config(
        FrontEnd(time_pooling=20),
        Network(base_width=4, stage_blocks=(1, 1, 1, 1)),
        notes=Notes(width=4, blocks=1),
    )
    torch.manual_seed(1)
    network = ByteCover2(config.network).eval()
    make_lively(network)
    note_map = NoteMap(config.notes)
    make_lively(note_map)
    torch.nn.init.normal_(note_map.output.weight)  # notes that come and go
    golden.GOLDEN_S = GOLDEN_S
    facts = {"Trained on": "nothing; it keeps contract version 2 alive"}
    exporter.write_bundle(config, network, folder, facts=facts, note_map=note_map)


def make_lively(module: torch.nn.Module) -> None:
    """Give the normalisations of a network statistics as if it had been trained."""
    for layer in module.modules():
        if isinstance(layer, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)


if __name__ == "__main__":
    main(*sys.argv[1:])
