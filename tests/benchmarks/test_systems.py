"""The other systems: sizes as published, invariances that their papers claim, and a step that learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.systems.bytecover import LAYERS, ByteCover
from benchmarks.systems.cqt_net import CQTNet
from benchmarks.systems.move import MOVE, ReMOVE
from benchmarks.systems.qmax import QmaxOfNotes, QmaxOfPeaks
from benchmarks.systems.system import FRONT_END, Learned, magnitude_of
from benchmarks.systems.tpp_net import TPPNet
from benchmarks.systems.train import Training
from bytecover2_milvus.config import SAMPLE_RATE, Notes
from bytecover2_milvus.model.note_map import NoteMap

SMALL = 1 / 32


@pytest.fixture(scope="module")
def note_map() -> NoteMap:
    torch.manual_seed(0)
    return NoteMap(Notes(width=8, blocks=1))


def music(seed: int, frames: int = 700) -> np.ndarray:
    """A magnitude (84, frames) of notes that last two seconds, each with its octave."""
    rng = np.random.default_rng(seed)
    magnitude = np.full((84, frames), 1e-3, dtype=np.float32)
    for start in range(0, frames, 20):
        for note in rng.integers(20, 60, size=2):
            magnitude[[note, note + 12], start : start + 20] = [[1.0], [0.5]]
    return magnitude


def systems(note_map: NoteMap, share: float) -> list[Learned]:
    torch.manual_seed(0)
    move = MOVE(note_map, share)
    bytecover = ByteCover.new(share)
    return [CQTNet(share), TPPNet(share), move, ReMOVE.of(move, 8), bytecover]


def test_sizes_are_those_of_the_public_code(note_map):
    """By hand, layer by layer: the public models without their classifier of 10 000 works."""
    cqt_net, tpp_net, move = CQTNet(), TPPNet(), MOVE(note_map)
    assert (cqt_net.size(), cqt_net.dim) == (5_080_428, 300)
    assert (tpp_net.size(), tpp_net.dim) == (3_010_796, 300)
    assert (move.size(), move.dim) == (6_288_902, 16_000)
    assert (ReMOVE.of(move).size(), ReMOVE.of(move).dim) == (2_258_438, 256)
    # ResNet-50 without its classifier has 23 508 032, with kernels of three channels in the first layer.
    bytecover = ByteCover.new()
    assert (bytecover.size(), bytecover.dim) == (23_508_032 - 2 * 64 * 7 * 7 + 1 + 2 * 2048, 2048)  # GeM, BNNeck


def test_a_classifier_of_ten_thousand_works_has_the_size_of_the_public_one():
    assert sum(p.numel() for p in CQTNet.objective.classifier(300, 10_000).parameters()) == 3_010_000


@pytest.mark.parametrize("index", range(5))
def test_vectors_are_unit_whole_tracks_of_any_length_are_heard_and_a_batch_is_its_tracks(note_map, index):
    system = systems(note_map, SMALL)[index]
    for frames in (40, 700):
        vector = system.hear(music(1, frames))
        assert vector.shape == (system.dim,) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    system.eval()
    batch = torch.from_numpy(np.stack([music(1), music(2)]))
    together = torch.nn.functional.normalize(system(batch)[1], dim=1).detach().numpy()
    assert together == pytest.approx(np.stack([system.hear(music(1)), system.hear(music(2))]), abs=1e-4)
    scores = system.scores(together[0], list(together))
    assert scores.shape == (2,) and scores[0] == pytest.approx(1, abs=1e-5)


def test_move_hears_no_key(note_map):
    move = MOVE(note_map, SMALL).eval()
    chroma = move.pitch_classes(torch.from_numpy(music(1))[None])  # (1, 1, 23, T)
    assert chroma.shape[2:] == (23, 700 // 4 * 5)
    turned = chroma[:, :, :12].roll(5, dims=2)
    turned = torch.cat([turned, turned[:, :, :-1]], dim=2)
    with torch.inference_mode():
        assert torch.allclose(move.keys(chroma).amax(dim=2), move.keys(turned).amax(dim=2), atol=1e-5)


def test_cqt_net_and_bytecover_take_a_track_of_any_loudness(note_map):
    for system in systems(note_map, SMALL):
        assert system.hear(music(3, 260)) == pytest.approx(system.hear(music(3, 260) * 0.01), abs=1e-4)


@pytest.mark.parametrize("index", range(5))
def test_steps_learn_to_tell_works_apart(note_map, index):
    system = systems(note_map, SMALL)[index]
    rows = torch.from_numpy(np.stack([music(seed, 260) for seed in (1, 1, 2, 2)]))
    rows = rows + 0.01 * torch.rand(rows.shape, generator=torch.Generator().manual_seed(0))
    losses = Training(system, lambda step: (rows, torch.tensor([0, 0, 1, 1])), 2).run(8)
    assert np.isfinite(losses).all() and min(losses[-3:]) < losses[0]


def test_a_frozen_phase_changes_the_head_alone(note_map):
    remove = systems(note_map, SMALL)[3]
    before = {name: value.clone() for name, value in remove.state_dict().items()}
    rows = torch.from_numpy(np.stack([music(seed, 260) for seed in (1, 1, 2, 2)]))
    training = Training(remove, lambda step: (rows, torch.tensor([0, 0, 1, 1])), 2)
    training.run(2, frozen=True)
    changed = {name.partition(".")[0] for name, value in remove.state_dict().items() if not value.equal(before[name])}
    assert changed == {"output", "norm"}
    training.run(1, taken_over=True)
    assert training.step == 3 and not remove.keys.weight.equal(before["keys.weight"])


def test_layers_between_pooling_and_bnneck():
    torch.manual_seed(0)
    bytecover = ByteCover.new(share=1 / 16)
    tracks = [music(seed, 200) for seed in range(24)]
    pooled = bytecover.pooled(tracks)
    assert pooled.shape == (24, 128)
    made = {name: bytecover.reduced(name, insert, pooled, 16) for name, insert in LAYERS.items()}
    assert {name: one.hear(tracks[0]).shape for name, one in made.items()} == dict.fromkeys(LAYERS, (16,))
    axes = made["PCA-FC"].network.pca_fc.weight.detach().numpy()
    assert axes @ axes.T == pytest.approx(np.eye(16), abs=1e-4)
    random = made["FC"].network.pca_fc.weight.detach().numpy()
    assert not np.allclose(random @ random.T, np.eye(16), atol=0.1)
    assert bytecover.network.config.feature_dim is None


def test_qmax_aligns_what_is_transposed_and_not_what_is_another_tune(note_map):
    tune, other = music(1, 400), music(2, 400)
    peaks, notes = QmaxOfPeaks(), QmaxOfNotes(note_map)
    heard = [peaks.hear(one) for one in (tune, np.roll(tune, 3, axis=0), other)]
    assert heard[0].shape == (100, 12) and heard[0].dtype == np.uint8
    same, moved, strange = peaks.scores(heard[0], heard)
    assert same >= moved > 2 * strange
    learned = [notes.hear(one) for one in (tune, other)]
    assert learned[0].shape == (100, 24)
    assert notes.scores(learned[0], learned)[0] > notes.scores(learned[0], learned)[1]


def test_the_magnitude_is_that_of_the_front_end():
    t = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    magnitude = magnitude_of(np.sin(2 * np.pi * 440 * t).astype(np.float32))
    assert magnitude.shape == (84, (3 * SAMPLE_RATE // 512 + 1) // 5)
    assert magnitude.mean(axis=1).argmax() == 45  # A4, from C1
    assert magnitude.max() == 1 and FRONT_END.time_pooling == 5
