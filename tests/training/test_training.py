"""The training loop on a tiny network and real arrangements of songs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from two_ranks import gradients, uneven_corpus

from bytecover2_milvus.config import Config, FrontEnd, Network, Training
from bytecover2_milvus.errors import (
    CheckpointError,
    ConfigError,
    ManifestError,
    OutputError,
    SongError,
    TrainingError,
)
from bytecover2_milvus.manifest import Track
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint
from bytecover2_milvus.training.data.batches import TrainingBatches, WorkSampler
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.data.feature_cache import FeatureCache, Prepared
from bytecover2_milvus.training.distributed import launch
from bytecover2_milvus.training.insert_pca import insert_pca_fc
from bytecover2_milvus.training.learner import learning_rate
from bytecover2_milvus.training.start import check_disjoint, check_start, initial_classifier
from bytecover2_milvus.training.train import train
from bytecover2_milvus.training.validation import VALIDATION, pooled_embeddings, validate

CONFIG = Config(
    front_end=FrontEnd(time_pooling=40, scale="sqrt"),
    network=Network(feature_dim=None, stage_blocks=(1, 1, 1, 1), base_width=8),
    training=Training(
        steps=30,
        works_per_batch=4,
        tracks_per_work=2,
        crop_s=(20.0, 30.0),
        learning_rate=3e-3,
        warmup_steps=5,
        mask_bins=0,
        noise=0.0,
        transpose=0,
        tuning=0.0,
        tempo=1.0,
        equaliser_db=0.0,
        validate_every=30,
        save_every=10,
    ),
)


def with_training(config: Config, **changes: object) -> Config:
    return Config.from_dict(config.to_dict() | {"training": config.to_dict()["training"] | changes})


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.of_songs([compose(seed) for seed in range(4)], arrangements=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> FeatureCache:
    return FeatureCache(tmp_path_factory.mktemp("cache"), CONFIG.front_end)


@pytest.fixture(scope="module")
def bytecover(corpus, cache, tmp_path_factory) -> Checkpoint:
    """A ByteCover that has learned the four songs by heart."""
    torch.set_num_threads(1)  # the network is so small that threads only wait for each other
    config = with_training(CONFIG, steps=120, seed=1)
    out = tmp_path_factory.mktemp("bytecover")
    losses = []
    best = train(config, corpus, cache, out, data_workers=0, device="cpu", report=lambda p: losses.append(p.loss))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    return load_checkpoint(best)


def test_a_tiny_network_overfits_four_songs(bytecover, corpus, cache):
    """Processors round differently, which moves the MAP by 1/16 or 2/16; not knowing the songs moves it by 9/16.

    Eight tracks with one relevant track each: a query that finds it second instead of first takes 1/16 away.
    """
    torch.manual_seed(0)
    untrained = validate(ByteCover2(CONFIG.network), CONFIG, corpus, cache).map
    assert untrained < 0.6 and validate(bytecover.network, bytecover.config, corpus, cache).map > 0.75


def test_the_papers_phases_follow_each_other(bytecover, corpus, cache, tmp_path):
    pooled = pooled_embeddings(bytecover.network, bytecover.config, corpus, cache)
    assert pooled.shape == (8, 256)
    pca = insert_pca_fc(bytecover, pooled, 6)
    assert validate(pca.network, pca.config, corpus, cache).map > 0.7
    before = {name: value.clone() for name, value in pca.network.state_dict().items()}

    frozen_config = with_training(pca.config, phase="frozen", steps=5)
    frozen = load_checkpoint(
        train(frozen_config, corpus, cache, tmp_path / "frozen", init=pca, data_workers=0, device="cpu")
    )
    changed = {name for name, value in frozen.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {
        "pca_fc.weight",
        "pca_fc.bias",
        "bnneck.weight",
        "bnneck.running_mean",
        "bnneck.running_var",
        "bnneck.num_batches_tracked",
    }

    joint_config = with_training(pca.config, phase="joint", steps=5)
    joint = load_checkpoint(
        train(joint_config, corpus, cache, tmp_path / "joint", init=frozen, data_workers=0, device="cpu")
    )
    assert not torch.equal(joint.network.backbone.conv1.weight, frozen.network.backbone.conv1.weight)
    assert not joint.network.bnneck.bias.any()


def test_what_a_checkpoint_reached_is_not_said_of_the_one_that_starts_from_it(bytecover, corpus, cache, tmp_path):
    reached = replace(bytecover, facts={"Works": "4", VALIDATION: "0.99"})
    pooled = pooled_embeddings(bytecover.network, bytecover.config, corpus, cache)
    assert insert_pca_fc(reached, pooled, 6).facts == {"Works": "4"}
    config = with_training(CONFIG, steps=1)
    best = train(config, corpus, cache, tmp_path, init=reached, facts=reached.facts, data_workers=0, device="cpu")
    assert load_checkpoint(best).facts == {"Works": "4"}


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "muon", "averaging": 0.9, "hearings": 40.0}], ids=["adam", "muon"]
)
def test_a_run_cut_off_and_resumed_is_the_run_in_one_go(corpus, cache, tmp_path, changes):
    config = with_training(CONFIG, **changes)

    class Cut(Exception):
        pass

    def cut(progress) -> None:
        if progress.step == 17:
            raise Cut

    arguments = {"data_workers": 0, "device": "cpu"}
    whole = load_checkpoint(train(config, corpus, cache, tmp_path / "whole", **arguments))
    with pytest.raises(Cut):
        train(config, corpus, cache, tmp_path / "parts", report=cut, **arguments)
    steps = []
    parts = load_checkpoint(
        train(config, corpus, cache, tmp_path / "parts", report=lambda p: steps.append(p.step), **arguments)
    )
    assert steps[0] == 11  # the last save was after step 10
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, parts.network.state_dict()[name]), name


def test_what_is_kept_is_the_moving_average_of_weights_and_statistics(corpus, cache, tmp_path):
    constant = {"final_rate": 1.0, "warmup_steps": 0}

    def last(steps: int, **changes: object) -> Checkpoint:
        config = with_training(CONFIG, steps=steps, **constant, **changes)
        out = tmp_path / f"{steps} {changes}"
        train(config, corpus, cache, out, data_workers=0, device="cpu")
        return load_checkpoint(out / "last.safetensors")

    one, two, three = (last(steps).network.state_dict() for steps in (1, 2, 3))
    run = last(3, averaging=0.2)
    assert run.running.keys() == three.keys()
    for name, average in run.network.state_dict().items():
        assert torch.equal(run.running[name], three[name]), name  # an average changes nothing of the training
        if average.is_floating_point():
            # the average of the first two keeps 2/11 of the first, then 0.2 of that, as 3/12 would be more
            expected = 0.2 * (2 / 11 * one[name] + 9 / 11 * two[name]) + 0.8 * three[name]
            torch.testing.assert_close(average, expected, msg=name)
    best = load_checkpoint(tmp_path / "3 {'averaging': 0.2}" / "best.safetensors").network.state_dict()
    assert all(torch.equal(best[name], value) for name, value in run.network.state_dict().items())


def test_a_folder_of_another_run_is_refused(corpus, cache, tmp_path):
    train(with_training(CONFIG, steps=1), corpus, cache, tmp_path, data_workers=0, device="cpu")
    with pytest.raises(CheckpointError, match=r"another configuration \(training.steps 1 -> 2\)"):
        train(with_training(CONFIG, steps=2), corpus, cache, tmp_path, data_workers=0, device="cpu")
    exchanged = Corpus(dict(reversed(corpus.works.items())))  # as many works, but labels would mean others
    with pytest.raises(CheckpointError, match="on other tracks"):
        train(with_training(CONFIG, steps=1), exchanged, cache, tmp_path, data_workers=0, device="cpu")


def test_what_a_cache_holds_damaged_is_computed_again(corpus, cache, tmp_path):
    damaged = FeatureCache(tmp_path, CONFIG.front_end)
    _, track = next(corpus.tracks())
    whole = damaged.load(track)
    huge = damaged.path(track).read_bytes()[:300].replace(b"(84, ", b"(10000000000, ")  # of header and first values
    nan, flat = io.BytesIO(), io.BytesIO()
    np.save(nan, np.full_like(whole, np.nan))
    np.save(flat, whole.ravel())
    for content in (b"", damaged.path(track).read_bytes()[:300], huge, nan.getvalue(), flat.getvalue()):
        damaged.path(track).write_bytes(content)
        np.testing.assert_array_equal(damaged.load(track), whole)


def test_the_folder_of_a_run_is_no_checkpoint_but_has_one(corpus, cache, tmp_path):
    best = train(with_training(CONFIG, steps=1), corpus, cache, tmp_path, data_workers=0, device="cpu")
    with pytest.raises(CheckpointError, match=f"the folder of a run; name its checkpoint, {best}"):
        load_checkpoint(tmp_path)


def test_a_run_whose_best_another_validation_chose_is_another_run(corpus, cache, tmp_path):
    learned = Corpus({f"again {work}": tracks for work, tracks in corpus.works.items()})
    arguments = {"data_workers": 0, "device": "cpu"}
    train(with_training(CONFIG, steps=1), corpus, cache, tmp_path, validation=learned, **arguments)
    for validation in (None, Corpus(dict(list(learned.works.items())[:2]))):
        with pytest.raises(CheckpointError, match="another validation"):
            train(with_training(CONFIG, steps=1), corpus, cache, tmp_path, validation=validation, **arguments)


def test_a_run_from_other_weights_is_another_run(bytecover, corpus, cache, tmp_path):
    config = with_training(CONFIG, steps=1)
    arguments = {"data_workers": 0, "device": "cpu"}
    best = load_checkpoint(train(config, corpus, cache, tmp_path, init=bytecover, **arguments))
    assert train(config, corpus, cache, tmp_path, init=bytecover, **arguments).exists()
    for init in (best, None):
        with pytest.raises(CheckpointError, match="began from other weights"):
            train(config, corpus, cache, tmp_path, init=init, **arguments)


def test_a_run_that_gains_nothing_returns_the_weights_it_was_given(bytecover, corpus, cache, tmp_path):
    config = with_training(CONFIG, steps=2, learning_rate=0.5, warmup_steps=0)
    reports = []
    learned = Corpus({f"again {work}": tracks for work, tracks in corpus.works.items()})
    arguments = {"init": bytecover, "validation": learned, "data_workers": 0, "device": "cpu", "report": reports.append}
    best = load_checkpoint(train(config, corpus, cache, tmp_path, **arguments))
    assert [progress.step for progress in reports] == [0, 1, 2]
    assert reports[2].validation.map < reports[0].validation.map
    assert best.facts[VALIDATION] == f"{reports[0].validation.map:.6f}"
    for name, value in bytecover.network.state_dict().items():
        assert torch.equal(value, best.network.state_dict()[name]), name
    last = load_checkpoint(tmp_path / "last.safetensors")
    assert not torch.equal(last.network.backbone.conv1.weight, bytecover.network.backbone.conv1.weight)


def test_a_classifier_goes_on_for_its_own_works_only(bytecover, corpus):
    works = bytecover.works
    assert torch.equal(initial_classifier(CONFIG, works, 4, bytecover).weight, bytecover.classifier)
    for other in (("others", 4, bytecover), (works, 4, None), (works, 5, bytecover)):
        weight = initial_classifier(CONFIG, *other).weight
        assert weight.shape == (other[1], 256) and weight.abs().max() < 0.1


def test_a_loss_that_is_no_number_ends_the_run(corpus, cache, tmp_path):
    config = with_training(CONFIG, learning_rate=1e18, warmup_steps=0, save_every=1, steps=20)
    with pytest.raises(TrainingError, match=r"step \d+: the loss is no number any more .* lower training.learn"):
        train(config, corpus, cache, tmp_path, data_workers=0, device="cpu")
    with safe_open(tmp_path / "last.safetensors", framework="pt") as last:  # weights that wild are refused when loaded
        assert int(last.metadata()["step"]) < 20


def test_bf16_trains(corpus, cache, tmp_path):
    config = with_training(CONFIG, steps=2, precision="bf16-mixed")
    losses = []
    train(config, corpus, cache, tmp_path, data_workers=0, device="cpu", report=lambda p: losses.append(p.loss))
    assert np.isfinite(losses).all()


def test_a_step_reports_its_speed(corpus, cache, tmp_path):
    speeds = []
    config = with_training(CONFIG, steps=2)
    train(config, corpus, cache, tmp_path, data_workers=0, device="cpu", report=lambda p: speeds.append(p.tracks_per_s))
    assert len(speeds) == 2 and all(0 < speed < 1e6 for speed in speeds)


def test_later_phases_need_a_checkpoint():
    with pytest.raises(ConfigError, match="--init"):
        check_start(with_training(CONFIG, phase="joint"), None)


def test_a_run_may_ask_for_more_blocks_than_it_starts_from_and_for_nothing_else(bytecover, corpus, cache, tmp_path):
    deeper, wider = (
        replace(with_training(CONFIG, steps=1), network=replace(CONFIG.network, **network))
        for network in ({"stage_blocks": (1, 2, 1, 1)}, {"base_width": 16})
    )
    check_start(deeper, bytecover)
    best = train(deeper, corpus, cache, tmp_path, init=bytecover, data_workers=0, device="cpu")
    assert len(load_checkpoint(best).network.backbone.groups[1]) == 2
    with pytest.raises(ConfigError, match=r"another network .*: network.base_width 8 -> 16$"):
        check_start(wider, bytecover)


IMPOSSIBLE = [
    *[("training", {"precision": "16-mixed"}), ("training", {"save_every": 0}), ("training", {"noise": -0.1})],
    *[("training", {"mask_bins": 84}), ("training", {"temperature": 0.0}), ("training", {"label_smoothing": 2.0})],
    *[
        ("training", {"learning_rate": -1.0}),
        ("training", {"triplet_weight": -1.0}),
        ("network", {"stage_blocks": [1, 0, 1, 1]}),
    ],
    *[("network", {"gem_exponent": 0.0}), ("network", {"transpositions": []}), ("network", {"transpositions": [90]})],
    *[("front_end", {"hop_length": 0}), ("front_end", {"fmin": -1.0})],
]


@pytest.mark.parametrize(("table", "setting"), IMPOSSIBLE)
def test_settings_that_no_run_can_have_are_refused(table, setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        Config.from_dict(CONFIG.to_dict() | {table: CONFIG.to_dict()[table] | setting})


RECIPES = sorted(Path(__file__).parents[2].glob("recipes/*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_phase_of_a_recipe_learns_at_the_rate_it_names(recipe):
    config = Config.from_toml(recipe)
    for steps in (150, 300, config.training.steps):  # of the phases in the script
        training = replace(config.training, steps=steps)
        rates = [learning_rate(step, training) for step in range(steps or 1000)]
        assert max(rates) > 0.9 * training.learning_rate
        assert steps or set(rates[training.warmup_steps :]) == {training.learning_rate}  # without end


def test_the_papers_recipe_is_what_the_defaults_are_before_pca_fc():
    paper = Config.from_toml(next(recipe for recipe in RECIPES if recipe.stem == "paper"))
    assert paper.differences(Config()) == ["network.feature_dim 128 -> None"]


def test_a_work_to_train_on_is_not_validated_on(corpus):
    with pytest.raises(TrainingError, match="composed-0: a work to train on and to validate on, 4 in all"):
        check_disjoint(corpus, corpus)


def test_what_is_true_of_some_weights_is_not_said_of_others(corpus, cache, tmp_path):
    facts = {"Scores": "MAP 0.9", "PCA-FC": "as fitted", "Trained on": "songs"}
    best = train(with_training(CONFIG, steps=1), corpus, cache, tmp_path, facts=facts, data_workers=0, device="cpu")
    assert load_checkpoint(best).facts == {"Trained on": "songs"}


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path):
    file = tmp_path / "some.toml"
    file.write_text("[network]\nstage_blocks = [2, 3, 4, 2]\n[training]\nsteps = 7\n")
    config = Config.from_toml(file, CONFIG)
    assert (config.network.stage_blocks, config.training.steps) == ((2, 3, 4, 2), 7)
    same = replace(config, network=CONFIG.network, training=replace(config.training, steps=CONFIG.training.steps))
    assert same == CONFIG


def test_settings_are_put_in_place_together():
    wide = Config().with_settings(['network.feature_dim="none"', "network.base_width=2"])  # 64 values, fewer than 128
    assert wide.network.embedding_dim == 64
    for wrong, why in (("training.phase=joint", "a word needs quotes"), ("steps=3", "training.steps=3")):
        with pytest.raises(ConfigError, match=why):
            Config().with_settings([wrong])


def test_bins_above_half_the_sample_rate_are_refused():
    with pytest.raises(ConfigError, match="half the sample rate"):
        FrontEnd(n_octaves=9)


def test_batches_depend_on_seed_and_step_alone(corpus, cache):
    config = with_training(CONFIG, mask_bins=12, noise=0.02, transpose=6, tempo=1.3, equaliser_db=9.0).training
    one, other = TrainingBatches(corpus, cache, config), TrainingBatches(corpus, cache, config)
    for step in (0, 7):
        torch.testing.assert_close(one[step], other[step], rtol=0, atol=0)
    assert not torch.equal(one[0][0][:, :, :10], one[1][0][:, :, :10])


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_batch_of_one_process(corpus, cache, ranks):
    config = with_training(CONFIG, mask_bins=12, noise=0.02, transpose=6, tempo=1.3, equaliser_db=9.0).training
    cqt, work = TrainingBatches(corpus, cache, config)[3]
    for rank in range(ranks):
        share, all_work = TrainingBatches(corpus, cache, config, rank, ranks)[3]
        assert torch.equal(share, cqt[rank::ranks]) and torch.equal(all_work, work)
    with pytest.raises(ConfigError, match="5 processes share batches of 4 works"):
        TrainingBatches(corpus, cache, config, 0, 5)


def test_an_epoch_shows_every_work_once_and_never_a_track_twice(corpus):
    sampler = WorkSampler(corpus, works_per_batch=2, tracks_per_work=4, seed=5)
    for epoch in range(3):
        steps = [sampler.tracks(epoch * 2 + batch) for batch in range(2)]
        assert sorted(work for step in steps for work, _ in step) == [0, 0, 1, 1, 2, 2, 3, 3]
        for step in steps:
            assert len({track.track_id for _, track in step}) == len(step)


@pytest.mark.parametrize(("hearings", "held"), [(1.0, 2), (3.0, 2), (2.0, 5)])
def test_a_track_is_replaced_after_its_hearings(hearings, held):
    """Two tracks of each of three works are heard in an epoch, of the two or five that there are at a time."""
    corpus = Corpus.of_songs([compose(seed) for seed in range(3)], arrangements=held)
    sampler = WorkSampler(corpus, works_per_batch=3, tracks_per_work=2, seed=5, hearings=hearings)
    heard = Counter((work, track.source.seed) for step in range(60) for work, track in sampler.tracks(step))
    replaced = int(59 * 2 / hearings)
    assert {seed for _, seed in heard} <= set(range(replaced + held))
    whole = range(held, replaced)  # these came after the first epoch and went before the last
    assert np.mean([heard[work, seed] for work in range(3) for seed in whole]) == pytest.approx(hearings, abs=0.1)
    if held == 2:  # as many as are heard in an epoch
        assert {heard[work, seed] for work in range(3) for seed in whole} == {int(hearings)}


def test_versions_of_a_work_share_its_hearings():
    songs = [replace(compose(seed), version_of=f"work {seed // 3}") for seed in range(6)]  # two works in three versions
    sampler = WorkSampler(Corpus.of_songs(songs, 2), works_per_batch=2, tracks_per_work=6, seed=0, hearings=4.0)
    heard = Counter(
        (track.source.song.song_id, track.source.seed) for step in range(30) for _, track in sampler.tracks(step)
    )
    assert {heard[song.song_id, seed] for song in songs for seed in range(2, 12)} == {4}


def test_schedule_warms_up_and_ends_low():
    training = Training(steps=100, warmup_steps=10, learning_rate=1.0, final_rate=0.01)
    rates = [learning_rate(step, training) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9]
    assert 0.01 < rates[-1] < 0.02


def test_single_tracks_are_no_works_to_learn_from(tmp_path):
    with pytest.raises(TrainingError, match="two tracks"):
        Corpus.of_manifest([Track(tmp_path / "a.wav", "a", "one"), Track(tmp_path / "b.wav", "b", "two")])


def test_workers_fill_the_cache_and_this_process_keeps_its_threads(corpus, cache, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        filled = FeatureCache(tmp_path, CONFIG.front_end)
        assert list(filled.fill(corpus, workers=1)) == [Prepared(track.track_id) for _, track in corpus.tracks()]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    for _, track in corpus.tracks():
        np.testing.assert_array_equal(filled.load(track), cache.load(track))


def test_two_works_of_one_name_are_refused_not_merged(corpus):
    with pytest.raises(SongError, match="composed-0: the id of two songs"):
        Corpus.of_songs([compose(0), compose(1), compose(0)], arrangements=2)
    with pytest.raises(ManifestError, match="composed-0: a work of the songs and of the manifest"):
        corpus + corpus


def torchrun(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine's CPU, from start to end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def pca(bytecover, corpus, cache) -> Checkpoint:
    return insert_pca_fc(bytecover, pooled_embeddings(bytecover.network, bytecover.config, corpus, cache), 6)


@pytest.fixture(scope="module")
def frozen(pca) -> Checkpoint:
    """Only the triplet loss on features, which no batch statistics reach: ranks and one process must agree."""
    terms = {"triplet_weight": 1.0, "cross_entropy_weight": 0.0, "tracks_per_work": 3}
    return replace(pca, config=with_training(pca.config, phase="frozen", steps=5, **terms))


@pytest.fixture(scope="module")
def folder(pca, frozen, cache, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    pca.save(folder / "pca.safetensors")
    frozen.save(folder / "frozen.safetensors")
    torchrun(Path(__file__).parents[1] / "two_ranks.py", folder, cache.folder)
    return folder


class TestTwoRanks:
    """What two processes do together, against one process alone."""

    def test_loss_and_gradients_are_those_of_one_process(self, folder, pca, cache, tmp_path):
        alone = gradients(launch("cpu", "32-true", tmp_path), pca, uneven_corpus(), cache)
        ranks = [load_file(folder / f"gradients{rank}.safetensors") for rank in (0, 1)]
        assert ranks[0].keys() == ranks[1].keys() == alone.keys()
        for name, expected in alone.items():
            scale = expected.abs().max().item()
            assert scale > 0, name
            for rank in ranks:
                torch.testing.assert_close(rank[name], expected, rtol=0, atol=1e-4 * scale, msg=name)

    def test_a_run_without_batch_statistics_is_that_of_one_process(self, folder, pca, frozen, cache, tmp_path):
        best = train(frozen.config, uneven_corpus(), cache, tmp_path, init=pca, data_workers=0, device="cpu")
        alone = load_checkpoint(best).network.pca_fc.weight
        together = load_checkpoint(folder / "frozen" / "best.safetensors").network.pca_fc.weight
        moved = (alone - pca.network.pca_fc.weight).abs().max().item()
        assert moved > 1e-3
        torch.testing.assert_close(together, alone, rtol=0, atol=0.01 * moved)

    def test_both_ranks_end_with_the_same_weights(self, folder):
        ranks = [load_file(folder / f"learned{rank}.safetensors") for rank in (0, 1)]
        for name, value in ranks[0].items():
            assert torch.equal(value, ranks[1][name]), name

    def test_a_run_cut_off_and_resumed_is_the_run_in_one_go(self, folder):
        whole, parts = (load_checkpoint(folder / run / "last.safetensors") for run in ("whole", "parts"))
        assert whole.step == parts.step == 6
        for name, value in whole.network.state_dict().items():
            assert torch.equal(value, parts.network.state_dict()[name]), name

    def test_the_command_writes_and_prints_once(self, cache, tmp_path):
        settings = ["training.crop_s=[20.0]", 'network.feature_dim="none"', "network.base_width=8"]
        settings += ["network.stage_blocks=[1,1,1,1]", "front_end.time_pooling=40", "training.steps=2"]
        settings += ["training.works_per_batch=4", "training.tracks_per_work=2"]
        sources = ["--songs", "composed@0-4", "--arrangements", "2", "--cache", cache.folder, "--workers", "1"]
        sets = [word for setting in settings for word in ("--set", setting)]
        command = ["-m", "bytecover2_milvus", "train", *sources, *sets, "--device", "cpu", "--json"]
        printed = torchrun(*command, "--out", tmp_path / "run").stdout.splitlines()
        assert [json.loads(line)["steps"] for line in printed] == [2]
        files = sorted(path.name for path in (tmp_path / "run").iterdir())
        assert files == ["best.safetensors", "last.safetensors", "tensorboard"]
        assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


class TestCheckpoint:
    def test_comes_back_as_it_was(self, bytecover, tmp_path):
        path = tmp_path / "a.safetensors"
        bytecover.save(path)
        again = load_checkpoint(path)
        assert again.config == bytecover.config
        for name, value in bytecover.network.state_dict().items():
            assert torch.equal(value, again.network.state_dict()[name])

    def test_missing_foreign_and_truncated_files_are_refused(self, bytecover, tmp_path):
        with pytest.raises(CheckpointError, match="no such checkpoint"):
            load_checkpoint(tmp_path / "none.safetensors")
        foreign = tmp_path / "foreign.safetensors"
        foreign.write_bytes(b"not a checkpoint at all")
        with pytest.raises(CheckpointError, match="not a readable"):
            load_checkpoint(foreign)
        bytecover.save(tmp_path / "whole.safetensors")
        foreign.write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-1000])
        with pytest.raises(CheckpointError, match="not a readable"):
            load_checkpoint(foreign)

    def test_an_unwritable_place_leaves_nothing_behind(self, bytecover, tmp_path):
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(OutputError, match="cannot be written"):
            bytecover.save(tmp_path / "file" / "a.safetensors")
