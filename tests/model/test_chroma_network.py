"""The chroma network: the same in every key, trained by its own phase, joined with the backbone, and in the bundle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import lively_note_map, with_statistics

from bytecover2_milvus.config import Chroma, Config, FrontEnd, Network, Notes, Training
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.errors import ConfigError, ExportError
from bytecover2_milvus.export.exporter import make_contract, write_bundle
from bytecover2_milvus.export.fold import InferenceModel
from bytecover2_milvus.metrics import evaluate
from bytecover2_milvus.model.chroma_network import ChromaNetwork, rotations
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint
from bytecover2_milvus.training.data.chroma_batches import ChromaBatches, ChromaCache
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.insert_pca import insert_embedding_pca, join_chroma_network
from bytecover2_milvus.training.resume import weights_digest
from bytecover2_milvus.training.run import configuration
from bytecover2_milvus.training.start import check_start
from bytecover2_milvus.training.train import train
from bytecover2_milvus.training.validation import embeddings, pooled_embeddings, validate
from bytecover2_milvus.verify import verify

NOTES = Notes(width=8, blocks=1)
START = Config(
    FrontEnd(time_pooling=40, scale="sqrt"),
    Network(feature_dim=None, stage_blocks=(1, 1, 1, 1), base_width=4),
    notes=NOTES,
)
CONFIG = replace(
    START,
    chroma=Chroma(width=4),
    training=Training(
        phase="chroma",
        steps=6,
        works_per_batch=3,
        tracks_per_work=2,
        crop_s=(15.0, 20.0),
        learning_rate=3e-3,
        contrastive_weight=1.0,
        averaging=0.5,
        hearings=1.0,
        validate_every=3,
        save_every=3,
    ),
)


@pytest.fixture(scope="module")
def start() -> Checkpoint:
    """A network with a note map."""
    torch.manual_seed(3)
    return Checkpoint(START, with_statistics(ByteCover2(START.network)), lively_note_map(NOTES))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.of_songs([compose(seed) for seed in range(3)], arrangements=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return FeatureCache.of(tmp_path_factory.mktemp("chroma"), CONFIG)


@pytest.fixture(scope="module")
def trained(start: Checkpoint, corpus: Corpus, cache: FeatureCache, tmp_path_factory) -> Checkpoint:
    run = tmp_path_factory.mktemp("run")
    return load_checkpoint(train(CONFIG, corpus, cache, run, init=start, validation=corpus, data_workers=0))


def test_the_embedding_is_the_same_in_every_key() -> None:
    network = with_statistics(ChromaNetwork(Chroma(width=4)))
    chroma = torch.rand(2, 50, 24)
    up = torch.cat([group.roll(5, dims=2) for group in chroma.split(12, dim=2)], dim=2)
    with torch.inference_mode():
        torch.testing.assert_close(network(up)[1], network(chroma)[1])
        mixed = torch.cat([chroma[:, :, :12].roll(5, dims=2), chroma[:, :, 12:]], dim=2)  # the notes alone are higher
        assert (network(mixed)[1] - network(chroma)[1]).abs().max() > 1e-3


def test_rotations_move_both_groups_alike() -> None:
    chroma = torch.arange(24.0).expand(1, 3, 24)
    rotated = rotations(chroma)
    assert rotated.shape == (1, 24, 12, 3)
    torch.testing.assert_close(rotated[0, :, 0, 1], torch.arange(24.0))
    torch.testing.assert_close(rotated[0, :12, 4, 1], torch.arange(12.0).roll(-4))
    torch.testing.assert_close(rotated[0, 12:, 4, 1], 12 + torch.arange(12.0).roll(-4))


def test_the_network_of_the_recipe_has_as_many_parameters_as_its_page_says() -> None:
    assert sum(parameter.numel() for parameter in ChromaNetwork(Chroma(width=48)).parameters()) == 189_985


def test_the_note_map_hears_a_track_once_and_the_same_again(start: Checkpoint, corpus: Corpus, tmp_path) -> None:
    assert start.note_map is not None
    features = FeatureCache.of(tmp_path, CONFIG)
    cache = ChromaCache(features, start.note_map, CONFIG.training)
    (_, first), (_, second), *_ = corpus.tracks()
    chroma = cache.load(first)
    written = cache.path(first).stat().st_mtime_ns
    np.testing.assert_array_equal(cache.load(first), chroma)
    assert cache.path(first).stat().st_mtime_ns == written
    assert chroma.shape[0] == 24 and chroma.min() >= 0 and chroma.max() <= 1
    cache.path(first).write_bytes(b"damaged")
    np.testing.assert_array_equal(cache.load(first), chroma)
    assert cache.path(first) != cache.path(second)
    louder = ChromaCache(features, start.note_map, replace(CONFIG.training, noise=0.5))
    assert louder.path(first) != cache.path(first) and (louder.load(first) != chroma).any()


def test_batches_depend_on_the_step_alone_and_delete_what_was_heard(
    start: Checkpoint, corpus: Corpus, tmp_path
) -> None:
    assert start.note_map is not None
    cache = ChromaCache(FeatureCache.of(tmp_path, CONFIG), start.note_map, CONFIG.training)
    batches = ChromaBatches(corpus, cache, CONFIG.training)
    first, work = batches[0]
    assert first.shape[0] == 6 and first.shape[2] == 24 and sorted(work.tolist()) == [0, 0, 1, 1, 2, 2]
    held = set(tmp_path.rglob("*.npy"))
    later = batches[1]  # one hearing each: all tracks are replaced
    assert len(held) == 6 and not held & set(tmp_path.rglob("*.npy"))
    torch.testing.assert_close(later, batches[1])
    torch.testing.assert_close((first, work), batches[0])


def test_training_changes_the_chroma_network_alone(start: Checkpoint, trained: Checkpoint, corpus, cache) -> None:
    assert trained.note_map is not None and start.note_map is not None
    assert weights_digest(trained.network) == weights_digest(start.network)
    assert weights_digest(trained.note_map) == weights_digest(start.note_map)
    assert trained.chroma_network is not None and trained.chroma_network.config == CONFIG.chroma
    reached = validate(trained.chroma_network, CONFIG, corpus, cache, note_map=trained.note_map)
    assert f"{reached.map:.6f}" == trained.facts["Validation MAP"]


def test_a_run_that_was_cut_off_goes_on_exactly(start: Checkpoint, corpus: Corpus, cache, tmp_path) -> None:
    class CutOff(Exception):
        pass

    def cut(progress) -> None:
        if progress.step == 4:
            raise CutOff

    options = {"init": start, "validation": corpus, "data_workers": 0}
    with pytest.raises(CutOff):
        train(CONFIG, corpus, cache, tmp_path / "cut", report=cut, **options)
    resumed, whole = (
        load_checkpoint(train(CONFIG, corpus, cache, tmp_path / run, **options)) for run in ("cut", "whole")
    )
    assert resumed.chroma_network is not None and whole.chroma_network is not None
    assert weights_digest(resumed.chroma_network) == weights_digest(whole.chroma_network)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chroma": Chroma()}, r"there is none: add --set chroma\.width=48"),
        ({"notes": Notes(width=6, blocks=1)}, "give --init one that has one"),
        ({"network": replace(START.network, maps=True)}, "leaves the network of the checkpoint as it is"),
        ({"training": replace(CONFIG.training, precision="auto")}, r'set training\.precision="32-true"'),
        ({"training": replace(CONFIG.training, phase="bytecover")}, 'only phase "chroma" trains a chroma network'),
    ],
)
def test_a_run_that_cannot_start_is_refused(start: Checkpoint, changes, message: str) -> None:
    check_start(CONFIG, start)
    with pytest.raises(ConfigError, match=message):
        check_start(replace(CONFIG, **changes), start)


def test_a_backbone_goes_on_from_a_joined_checkpoint_without_its_pca_fc(trained: Checkpoint) -> None:
    """As `recipes/continue.sh` and a finetuning do: the chroma network stays what it is, to be joined again."""
    network = replace(trained.config.network, feature_dim=5, joined=CONFIG.chroma.dim)
    joined = replace(trained, config=replace(trained.config, network=network), network=ByteCover2(network))
    config = configuration(None, ['training.phase="joint"', 'network.feature_dim="none"'], joined)
    check_start(config, joined)
    assert config.chroma == CONFIG.chroma and not config.network.joins
    with pytest.raises(ConfigError, match="so that it is fitted and not trained"):
        check_start(configuration(None, ['training.phase="joint"'], joined), joined)


def test_both_embeddings_count_alike_in_a_joined_one(trained: Checkpoint, corpus, cache) -> None:
    """At full width and without whitening the similarity is that of both embeddings, scaled and centred."""
    known = (trained.network, trained.config, corpus, cache)
    pooled = pooled_embeddings(*known, note_map=trained.note_map, chroma_network=trained.chroma_network)
    assert pooled.shape == (6, 128 + 16) and trained.chroma_network is not None
    joined = join_chroma_network(trained, pooled, 144)
    with torch.inference_mode():
        parts = [
            trained.network.head(torch.from_numpy(pooled[:, :128]))[1].numpy(),
            trained.chroma_network.head(torch.from_numpy(pooled[:, 128:]))[1].numpy(),
        ]
    parts = [part - part.mean(axis=0) for part in parts]
    both = np.concatenate([part / np.sqrt(np.square(part).sum(axis=1).mean()) for part in parts], axis=1)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    found = embeddings(
        joined.network, joined.config, corpus, cache, note_map=joined.note_map, chroma_network=joined.chroma_network
    )
    np.testing.assert_allclose(found @ found.T, both @ both.T, atol=1e-4)

    # A PCA-FC that is there already becomes part of the new one.
    reduced = insert_embedding_pca(trained, pooled[:, :128], 5)
    assert reduced.chroma_network is not None
    again = join_chroma_network(reduced, pooled, 21)
    assert again.network.pca_fc.weight.shape == (21, 144)
    with pytest.raises(ConfigError, match="both embeddings have 21 dimensions"):
        join_chroma_network(reduced, pooled, 22)
    with pytest.raises(ConfigError, match="it has no chroma network"):
        join_chroma_network(replace(trained, chroma_network=None), pooled, 8)


def test_another_chroma_network_takes_the_place_of_one_that_is_joined(trained: Checkpoint, corpus, cache) -> None:
    known = (trained.network, trained.config, corpus, cache)
    pooled = pooled_embeddings(*known, note_map=trained.note_map, chroma_network=trained.chroma_network)
    joined = join_chroma_network(trained, pooled, 144)
    again = join_chroma_network(joined, pooled, 144)  # at full width nothing is lost, so both are one similarity
    with torch.inference_mode():
        first, second = (
            network.head(torch.from_numpy(pooled))[0].numpy() for network in (joined.network, again.network)
        )
    similar = [rows @ rows.T / np.square(rows).sum(axis=1).mean() for rows in (first, second)]
    np.testing.assert_allclose(similar[1], similar[0], atol=0.05)


def test_a_joined_network_is_saved_exported_and_heard(trained: Checkpoint, corpus, cache, tmp_path) -> None:
    known = (trained.network, trained.config, corpus, cache)
    pooled = pooled_embeddings(*known, note_map=trained.note_map, chroma_network=trained.chroma_network)
    join_chroma_network(trained, pooled, 5).save(tmp_path / "joined.safetensors")
    joined = load_checkpoint(tmp_path / "joined.safetensors")
    network, note_map, chroma_network = joined.network, joined.note_map, joined.chroma_network
    assert note_map is not None and chroma_network is not None
    rows = embeddings(network, joined.config, corpus, cache, note_map=note_map, chroma_network=chroma_network)
    tracks = list(corpus.tracks())
    found = evaluate(rows, [work for work, _ in tracks], [track.track_id for _, track in tracks])
    assert validate(network, joined.config, corpus, cache, note_map=note_map, chroma_network=chroma_network) == found
    with pytest.raises(ConfigError, match="so that it is fitted and not trained"):
        check_start(replace(joined.config, training=Training(phase="joint")), joined)

    heard = {"note_map": note_map, "chroma_network": chroma_network}
    with pytest.raises(ExportError, match="joins a chroma network"):
        write_bundle(joined.config, network, tmp_path / "cqt", facts={}, cqt=True, **heard)
    with pytest.raises(ConfigError, match="needs the note map and the chroma network"):
        write_bundle(joined.config, network, tmp_path / "alone", facts={}, note_map=note_map)
    skipping = replace(joined.config, front_end=replace(joined.config.front_end, silence="skipped"))
    bundle = write_bundle(skipping, network, tmp_path / "bundle", facts={}, **heard)
    assert {finding.status for finding in verify(bundle.path, "cpu")} <= {"ok", "skipped"}
    kept = load_checkpoint(bundle.path).chroma_network
    assert kept is not None and kept.config == chroma_network.config

    hearing = InferenceModel(joined.config.front_end, network, note_map, chroma_network)
    other = lively_note_map(NOTES)
    other.conv1.weight.data.neg_()
    models = (hearing, InferenceModel(joined.config.front_end, network, other, chroma_network))
    others = [make_contract(joined.config, model).model_id for model in models]
    assert len({bundle.contract.model_id, *others}) == 3
    waveform = (0.1 * np.random.default_rng(0).standard_normal(22_050 * 20)).astype(np.float32)
    with torch.inference_mode():
        embedding, chroma = hearing(torch.from_numpy(waveform)[None])
    answer = Embedder(bundle.path, "cpu", 1).hear(waveform)
    np.testing.assert_allclose(answer.embedding, embedding[0], atol=1e-4)  # there is no silence
    assert answer.chroma is not None
    np.testing.assert_allclose(answer.chroma, chroma[0], atol=1e-3)
