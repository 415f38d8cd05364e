"""A network that takes the note map's maps beside the CQT: its input, its training and its bundle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import lively_note_map, with_statistics

from bytecover2_milvus.config import Config, FrontEnd, Network, Notes, Training
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.errors import ConfigError, ExportError
from bytecover2_milvus.export.exporter import make_contract, write_bundle
from bytecover2_milvus.export.fold import InferenceModel
from bytecover2_milvus.model.cqt import pool_time, scale_magnitude
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.model.network_input import NetworkInput
from bytecover2_milvus.model.note_map import note_input
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.start import check_start
from bytecover2_milvus.training.train import train
from bytecover2_milvus.training.validation import validate
from bytecover2_milvus.verify import verify

NOTES = Notes(width=8, blocks=1)
CONFIG = Config(
    FrontEnd(time_pooling=40, scale="sqrt"),
    Network(feature_dim=None, stage_blocks=(1, 1, 1, 1), base_width=4, maps=True),
    notes=NOTES,
    training=Training(
        phase="bytecover",
        steps=4,
        works_per_batch=3,
        tracks_per_work=2,
        crop_s=(15.0,),
        learning_rate=3e-3,
        contrastive_weight=1.0,
        validate_every=4,
    ),
)


@pytest.fixture(scope="module")
def start() -> Checkpoint:
    """A network that takes the CQT alone, with a note map."""
    torch.manual_seed(3)
    network = replace(CONFIG.network, maps=False)
    return Checkpoint(replace(CONFIG, network=network), with_statistics(ByteCover2(network)), lively_note_map(NOTES))


def test_maps_are_channels_in_the_frames_of_the_cqt() -> None:
    note_map = lively_note_map(NOTES)
    magnitude = torch.rand(2, 84, 83)  # ten frames of the network, and three frames more
    with torch.inference_mode():
        both = NetworkInput(CONFIG.front_end, CONFIG.network, note_map)(magnitude)
        maps = torch.sigmoid(note_map(note_input(magnitude)))
    assert both.shape == (2, 3, 84, 10)
    torch.testing.assert_close(both[:, 0], scale_magnitude(pool_time(magnitude, 8), "sqrt"))
    torch.testing.assert_close(both[0, 2, 30, 4], maps[0, 1, 30, 8:10].mean())


def test_a_network_that_gains_maps_gives_what_it_gave_before(start: Checkpoint) -> None:
    network, magnitude = start.network.adapted(CONFIG.network), torch.rand(2, 84, 160)
    with torch.inference_mode():
        with_maps = network.embed(NetworkInput(CONFIG.front_end, CONFIG.network, start.note_map)(magnitude))
        alone = start.network.embed(scale_magnitude(pool_time(magnitude, 8), "sqrt"))
    torch.testing.assert_close(with_maps, alone)
    assert start.network.fits(CONFIG.network) and not network.fits(start.config.network)


def test_maps_are_transposed_with_the_cqt() -> None:
    """The mean over transpositions is that of inputs which are moved in every channel."""
    torch.manual_seed(0)
    network = with_statistics(ByteCover2(replace(CONFIG.network, transpositions=(0, 4))))
    x = torch.zeros(1, 3, 84, 30)
    x[:, :, 30:50] = torch.rand(1, 3, 20, 30)
    with torch.inference_mode():
        mean = (network.pooled(x) + network.pooled(torch.roll(x, 4, dims=2))) / 2
        torch.testing.assert_close(network.mean_pooled(x), mean)


def test_what_has_no_note_map_or_other_frames_is_refused(start: Checkpoint) -> None:
    with pytest.raises(ConfigError, match=r"network\.maps is on and there is no note map"):
        NetworkInput(CONFIG.front_end, CONFIG.network, None)
    with pytest.raises(ConfigError, match="time_pooling = 30: a multiple of 20"):
        NetworkInput(replace(CONFIG.front_end, time_pooling=30), CONFIG.network, start.note_map)


def test_training_learns_from_maps_and_its_bundle_hears_through_them(start: Checkpoint, tmp_path) -> None:
    corpus = Corpus.of_songs([compose(seed) for seed in range(3)], arrangements=2)
    cache = FeatureCache.of(tmp_path / "cache", CONFIG)
    best = train(CONFIG, corpus, cache, tmp_path / "run", init=start, data_workers=0)
    trained = load_checkpoint(best)
    assert trained.network.backbone.conv1.weight[:, 1:].abs().amax() > 0  # zeros at the start
    assert 0 < validate(trained.network, CONFIG, corpus, cache, note_map=trained.note_map).map <= 1
    notes = replace(CONFIG, training=replace(CONFIG.training, phase="notes"))
    with pytest.raises(ConfigError, match="would change the maps that the network takes"):
        check_start(notes, trained)

    network, note_map = with_statistics(trained.network), trained.note_map
    with pytest.raises(ExportError, match="takes maps"):
        write_bundle(CONFIG, network, tmp_path / "cqt", facts={}, note_map=note_map, cqt=True)
    skipping = replace(CONFIG, front_end=replace(CONFIG.front_end, silence="skipped"))
    bundle = write_bundle(skipping, network, tmp_path / "bundle", facts={}, note_map=note_map)
    assert {found.status for found in verify(bundle.path, "cpu")} <= {"ok", "skipped"}

    other = lively_note_map(NOTES)
    other.conv1.weight.data.neg_()
    hearing = InferenceModel(CONFIG.front_end, network, note_map)
    others = [make_contract(CONFIG, model) for model in (hearing, InferenceModel(CONFIG.front_end, network, other))]
    assert len({bundle.contract.model_id, *(contract.model_id for contract in others)}) == 3
    waveform = (0.1 * np.random.default_rng(0).standard_normal(22_050 * 20)).astype(np.float32)
    with torch.inference_mode():
        embedding, chroma = hearing(torch.from_numpy(waveform)[None])
    heard = Embedder(bundle.path, "cpu", 1).hear(waveform)
    np.testing.assert_allclose(heard.embedding, embedding[0], atol=1e-4)  # there is no silence
    assert heard.chroma is not None and heard.chroma.shape == (len(waveform) // 10_240, 24)
    np.testing.assert_allclose(heard.chroma, chroma[0], atol=1e-3)
