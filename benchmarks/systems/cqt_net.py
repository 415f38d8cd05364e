"""CQT-Net: ten convolutions over a CQT, the largest value of each channel, and a layer of 300.

Z. Yu, X. Xu, X. Chen, D. Yang, "Learning a representation for cover song identification using convolutional neural
network", ICASSP 2020.

Fixed by the paper and its public code: CQT of 84 bins, 12 per octave, averaged over 20 frames (0.464 s); kernels 12 x
3, 13 x 3, 13 x 3, then 3 x 3, every second one dilated by 2 in time, each with batch normalisation and ReLU; halving
of time after every second one; global maximum; 512 -> 300; softmax over works, Adam, 1e-3; cosine of the 300.

Chosen: the magnitude is over the track's maximum; a track of fewer than 172 frames (80 s) is repeated, as nothing
would be left of it; augmentation and length of excerpts are those of all systems in a comparison.
"""

from __future__ import annotations

from torch import Tensor, nn

from .system import ByOutput, Objective, cqt_frames, scaled

# Channels, kernel and padding in pitch, dilation in time, halving of time behind it.
_LAYERS = (
    (32, 12, 6, 1, False),
    (64, 13, 0, 2, True),
    (64, 13, 0, 1, False),
    (64, 3, 0, 2, True),
    (128, 3, 0, 1, False),
    (128, 3, 0, 2, True),
    (256, 3, 0, 1, False),
    (256, 3, 0, 2, True),
    (512, 3, 0, 1, False),
    (512, 3, 0, 2, False),
)


class CQTNet(ByOutput):
    """CQT-Net with a share of the published channels, (B, n_bins, T) -> (B, 300)."""

    name = "CQT-Net"
    objective = Objective(cross_entropy=1.0, bias=True)
    frame = 4
    fewest = 172

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for channels, height, padding, dilation, halved in _LAYERS:
            after = scaled(channels, share)
            layers += [
                nn.Conv2d(before, after, (height, 3), padding=(padding, 0), dilation=(1, dilation), bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
            layers += [nn.MaxPool2d((1, 2), padding=(0, 1))] if halved else []
            before = after
        self.features = nn.Sequential(*layers)
        self.output = nn.Linear(before, scaled(300, share))

    def forward(self, magnitude: Tensor) -> tuple[Tensor, Tensor]:
        x = self.features(cqt_frames(self.long_enough(magnitude), self.frame))
        embedding = self.output(x.amax(dim=(2, 3)))
        return embedding, embedding
