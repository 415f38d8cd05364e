"""The ablation on a tiny network and four songs: what its systems have in common, and what the command writes."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import tiny_network

from benchmarks.quality import head_convergence
from benchmarks.quality.ablation import main, systems
from benchmarks.quality.frozen_head import insert_random_fc, pooled_batches, train_head
from bytecover2_milvus.config import Training
from bytecover2_milvus.errors import ConfigError
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.insert_pca import insert_embedding_pca, insert_pca_fc
from bytecover2_milvus.training.train import train
from bytecover2_milvus.training.validation import pooled_embeddings, validate

TRAINING = Training(
    phase="frozen", steps=3, works_per_batch=4, tracks_per_work=2, crop_s=(20.0,), learning_rate=1e-3, warmup_steps=2
)
POOLED_DIM = 256


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    torch.set_num_threads(1)  # the network is so small that threads only wait for each other
    return Corpus.of_songs([compose(seed) for seed in range(4)], arrangements=2)


@pytest.fixture(scope="module")
def bytecover() -> Checkpoint:
    config, network = tiny_network(feature_dim=None)
    return Checkpoint(replace(config, training=replace(TRAINING, phase="bytecover")), network)


@pytest.fixture(scope="module")
def cache(corpus, bytecover, tmp_path_factory) -> FeatureCache:
    cache = FeatureCache(tmp_path_factory.mktemp("cache"), bytecover.config.front_end)
    for _, track in corpus.tracks():
        cache.load(track)
    return cache


@pytest.fixture(scope="module")
def pooled(bytecover, corpus, cache) -> np.ndarray:
    return pooled_embeddings(bytecover.network, bytecover.config, corpus, cache)


def cosines(checkpoint: Checkpoint, pooled: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        embedding = torch.nn.functional.normalize(checkpoint.network.head(torch.from_numpy(pooled))[1], dim=1)
    return (embedding @ embedding.T).numpy()


def centred_on(checkpoint: Checkpoint, pooled: np.ndarray) -> Checkpoint:
    """The same with a BNNeck that takes the mean of these rows away."""
    network = copy.deepcopy(checkpoint.network)
    network.bnneck.running_mean.copy_(torch.from_numpy(pooled.mean(axis=0)))
    return replace(checkpoint, network=network)


def test_pca_to_all_dimensions_is_bytecover_centred(bytecover, pooled, corpus, cache):
    full, centred = insert_embedding_pca(bytecover, pooled, POOLED_DIM), centred_on(bytecover, pooled)
    np.testing.assert_allclose(cosines(full, pooled), cosines(centred, pooled), atol=1e-4)
    scores = [
        validate(checkpoint.network, checkpoint.config, corpus, cache).average_precisions.tolist()
        for checkpoint in (full, centred)
    ]
    assert scores[0] == scores[1]


def test_seven_axes_hold_what_eight_tracks_differ_in(bytecover, pooled):
    centred = centred_on(replace(bytecover, network=tiny_network(feature_dim=None)[1]), pooled)
    reduced = insert_embedding_pca(centred, pooled, 7)
    np.testing.assert_allclose(cosines(reduced, pooled), cosines(centred, pooled), atol=1e-5)


def test_fc_and_pca_fc_differ_in_their_first_weights_alone(bytecover, pooled):
    fc, pca_fc = insert_random_fc(bytecover, pooled, 16, seed=0), insert_pca_fc(bytecover, pooled, 16)
    assert fc.config == pca_fc.config
    there, here = fc.network.state_dict(), pca_fc.network.state_dict()
    neck = {"bnneck.weight", "bnneck.running_var"}  # follow from the weights
    differing = {name for name in there if not torch.equal(there[name], here[name])}
    assert differing - neck == {"pca_fc.weight", "pca_fc.bias"}
    again = insert_random_fc(bytecover, pooled, 16, seed=0).network.pca_fc.weight
    assert torch.equal(again, fc.network.pca_fc.weight)


def test_a_new_bnneck_changes_nothing_in_training_either(bytecover, pooled):
    """The rows that the layer was fitted on, as one batch: batch statistics are those that BNNeck has already."""
    reduced = insert_pca_fc(bytecover, pooled, 4).network
    rows = torch.from_numpy(pooled)
    with torch.no_grad():
        feature, evaluated = reduced.head(rows)
        trained = reduced.train().head(rows)[1]
    torch.testing.assert_close(evaluated, feature, atol=1e-4, rtol=1e-3)  # the axes are centred
    assert torch.nn.functional.cosine_similarity(trained, evaluated).min() > 0.99


@pytest.mark.parametrize("reduction", ["FC", "PCA-FC", None])
def test_shared_batches_train_as_the_frozen_phase_does(reduction, bytecover, pooled, corpus, cache, tmp_path):
    start = {
        "FC": lambda: insert_random_fc(bytecover, pooled, 16, seed=0),
        "PCA-FC": lambda: insert_pca_fc(bytecover, pooled, 16),
        None: lambda: bytecover,
    }[reduction]()
    batches = pooled_batches(bytecover, corpus, cache, TRAINING)
    shared = train_head(start, TRAINING, batches, list(corpus.works))
    config = replace(start.config, training=TRAINING)
    alone = load_checkpoint(train(config, corpus, cache, tmp_path, init=start, data_workers=0, device="cpu"))
    assert shared.config == alone.config
    for name, value in alone.network.state_dict().items():
        torch.testing.assert_close(shared.network.state_dict()[name], value, msg=name)
    torch.testing.assert_close(shared.classifier, alone.classifier)
    assert shared.works == alone.works  # so that the joint phase goes on with it
    changed = not torch.equal(shared.network.bnneck.weight, start.network.bnneck.weight)
    assert changed and not shared.network.training


def test_a_reduced_checkpoint_is_not_reduced_again(bytecover, pooled):
    with pytest.raises(ConfigError, match="to 16 dimensions already"):
        insert_random_fc(insert_pca_fc(bytecover, pooled, 16), pooled, 8, seed=0)
    with pytest.raises(ConfigError, match="100 inputs: the backbone has 256"):
        insert_pca_fc(bytecover, pooled[:, :100], 16)


def test_dimensions_beyond_the_backbone_are_left_out():
    assert [system.name for system in systems(POOLED_DIM, [2048, 256, 128, 128])] == [
        "ByteCover-256",
        "ByteCover-256, trained on",
        *(
            f"{system}-{dim}{how}"
            for dim in (128, 256)
            for system, how in (
                *(("ByteCoverFC", ""), ("ByteCoverPCA", ""), ("ByteCover2", ""), ("ByteCover2", ", untrained")),
                *(("ByteCoverPCA", ", whitened"), ("ByteCover2", ", whitened")),
            )
        ),
    ]


class TestCommand:
    @pytest.fixture(scope="class")
    @staticmethod
    def arguments(bytecover, cache, tmp_path_factory) -> list[str]:
        folder = tmp_path_factory.mktemp("ablation")
        bytecover.save(folder / "bytecover.safetensors")
        songs = ["--songs", "composed@0-4", "--validation-songs", "composed@0-4", "--arrangements", "2"]
        return [
            *(str(folder / "bytecover.safetensors"), *songs, "--cache", str(cache.folder), "--dims", "128,256"),
            *("--steps-frozen", "3", "--steps-joint", "2", "--workers", "1", "--device", "cpu"),
            *("--out", str(folder / "out")),
        ]

    @pytest.fixture(scope="class")
    @staticmethod
    def out(arguments) -> Path:
        """What the command wrote when it was run once."""
        result = call(arguments)
        assert len(result.stdout.splitlines()) == 14
        return Path(arguments[-1])

    def test_writes_the_table_and_the_plot(self, out):
        written = json.loads((out / "ablation.json").read_text())
        scores = {score["system"]: score for score in written["scores"]}
        assert list(scores) == [system.name for system in systems(POOLED_DIM, [128, 256])]
        for score in scores.values():
            assert 0 < score["map_low"] <= score["map"] <= score["map_high"] <= 1
            assert score["queries"] == 8 and score["works"] == 4 and score["mr1"] >= 1
        assert scores["ByteCover-256"]["further_steps"] == scores["ByteCoverPCA-128"]["further_steps"] == 0
        assert scores["ByteCover-256, trained on"]["further_steps"] == scores["ByteCover2-128"]["further_steps"] == 2
        for line in written["comparisons"]:
            difference = scores[line["system"]]["map"] - scores[line["against"]]["map"]
            assert line["difference"] == pytest.approx(difference)
        table = (out / "ablation.md").read_text()
        for line in (
            f"| ByteCover2-128 | {scores['ByteCover2-128']['map']:.3f} |",
            "| 256 |",
            "ByteCover-256, trained",
        ):
            assert line in table
        assert (out / "dimensions.png").read_bytes().startswith(b"\x89PNG")

    def test_trains_nothing_twice(self, out, arguments):
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
        table = (out / "ablation.md").read_text()
        assert sum(path.name == "last.safetensors" for path in before) == 7  # all but ByteCover and its PCAs
        call(arguments)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before
        assert (out / "ablation.md").read_text() == table

    def test_a_finished_run_is_scored_again_as_it_was(self, out, arguments):
        path = out / "bytecover2-128" / "score.json"
        score = path.read_text()
        path.unlink()
        last = (out / "bytecover2-128" / "last.safetensors").stat().st_mtime_ns
        call(arguments)
        assert path.read_text() == score
        assert (out / "bytecover2-128" / "last.safetensors").stat().st_mtime_ns == last

    def test_a_folder_of_another_ablation_is_refused(self, out, arguments):
        result = CliRunner().invoke(main, [*arguments, "--steps-joint", "3"])
        assert result.exit_code == 1
        assert "an ablation with another joint; choose an empty folder with --out" in result.stderr

    def test_heads_are_trained_on_what_the_resting_backbone_gave_once(self, arguments, tmp_path):
        given = dict(zip(arguments[1::2], arguments[2::2], strict=True))
        options = [text for name in ("--songs", "--validation-songs", "--cache") for text in (name, given[name])]
        options += ["--arrangements", "2", "--dim", "4", "--steps", "120", "--out", str(tmp_path)]
        options += ["--device", "cpu", "--set", "training.label_smoothing=0.0"]
        runs = [CliRunner().invoke(head_convergence.main, [arguments[0], *options]) for _ in range(2)]
        assert runs[0].exit_code == 0, runs[0].output
        assert runs[0].stdout == runs[1].stdout  # the second one from what the first one kept
        rows = {(row["system"], row["steps"]): row["map"] for row in map(json.loads, runs[0].stdout.splitlines())}
        assert set(rows) == {
            *((system, 0) for system in head_convergence.FIXED),
            *((system, steps) for system in ("ByteCover", *head_convergence.LEARNS) for steps in (0, 100, 120)),
        }
        assert rows["FC", 120] > rows["FC", 0]  # it is scored on the songs that it learns
        assert rows["whitened PCA-FC", 0] == rows["whitened PCA", 0]
        table = (tmp_path / "heads-paper.md").read_text()
        assert f"| FC | {rows['FC', 0]:.3f} | {rows['FC', 100]:.3f} | {rows['FC', 120]:.3f} |" in table
        assert "| whitened PCA-FC minus FC | " in table

    def test_what_cannot_be_compared_is_refused_before_anything_is_prepared(self, bytecover, pooled, tmp_path):
        path = tmp_path / "reduced.safetensors"
        insert_pca_fc(bytecover, pooled, 16).save(path)
        songs = ["--songs", "composed@0-4", "--out", str(tmp_path / "out")]
        result = CliRunner().invoke(main, [str(path), *songs, "--validation-songs", "composed@0-4"])
        assert result.exit_code == 1 and "has a PCA-FC already" in result.stderr
        result = CliRunner().invoke(main, [str(path), *songs])
        assert result.exit_code == 2 and "nothing to score on" in result.stderr
        assert not (tmp_path / "out").exists()


def call(arguments: list[str]) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result
