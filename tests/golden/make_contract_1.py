"""How ``contract-1`` was made: by package version 0.1.0, once, before its first release.

It is never made again: what it holds is what bundles of contract version 1 look like out there. A new contract version
gets a folder of its own, from a copy of this script.

    python tests/golden/make_contract_1.py NEW_FOLDER
"""

from __future__ import annotations

import sys

import torch

from bytecover2_milvus.config import Config, FrontEnd, Network
from bytecover2_milvus.export import exporter, golden
from bytecover2_milvus.model.network import ByteCover2

GOLDEN_S = {"long": 4.0, "short": 1.5}  # seconds, to keep the repository small; a real bundle has 20 and 3


def main(folder: str) -> None:
    config = Config(FrontEnd(time_pooling=20), Network(base_width=4, stage_blocks=(1, 1, 1, 1)))
    torch.manual_seed(1)
    network = ByteCover2(config.network).eval()
    for module in network.modules():  # as if it had been trained
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    golden.GOLDEN_S = GOLDEN_S
    exporter.write_bundle(config, network, folder, facts={"Trained on": "nothing; it keeps contract version 1 alive"})


if __name__ == "__main__":
    main(*sys.argv[1:])
