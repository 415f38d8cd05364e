"""Learning from recordings whose works nobody has named: real audio files and degraded copies of them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.config import SAMPLE_RATE, Config, FrontEnd, Network, Training
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.errors import ConfigError, ManifestError, TrainingError
from bytecover2_milvus.manifest import Track
from bytecover2_milvus.model.cqt import WaveformToCQT
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.songs.arrange.arrangement import arrange
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.render.renderer import render
from bytecover2_milvus.training.checkpoint import Checkpoint, load_checkpoint
from bytecover2_milvus.training.data import corpus as corpus_module
from bytecover2_milvus.training.data.batches import TrainingBatches, WorkSampler
from bytecover2_milvus.training.data.corpus import Corpus, FileSource, same_files
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.start import check_disjoint, initial_network
from bytecover2_milvus.training.train import train
from bytecover2_milvus.training.validation import validate

N_RECORDINGS = 6
CONFIG = Config(
    front_end=FrontEnd(time_pooling=20, scale="sqrt"),
    network=Network(feature_dim=32, stage_blocks=(1, 1, 1, 1), base_width=8),
    training=Training(
        phase="joint",
        steps=60,
        works_per_batch=8,
        tracks_per_work=2,
        crop_s=(10.0,),
        learning_rate=3e-3,
        warmup_steps=5,
        cross_entropy_weight=0.2,
        contrastive_weight=1.0,
        transpose=1,
        tempo=1.1,
        validate_every=1000,
        save_every=20,
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six recordings of 15 s, one work each, of songs that no corpus here arranges."""
    folder = tmp_path_factory.mktemp("music")
    for seed in range(N_RECORDINGS):
        waveform = render(arrange(compose(100 + seed), seed=0), max_duration_s=15)
        soundfile.write(folder / f"{seed}.flac", waveform, SAMPLE_RATE)
    return folder


@pytest.fixture(scope="module")
def recordings(folder) -> Corpus:
    return Corpus.of_recordings(sorted(folder.glob("*.flac")), variants=3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> FeatureCache:
    return FeatureCache(tmp_path_factory.mktemp("cache"), CONFIG.front_end)


def start() -> Checkpoint:
    """An untrained network, which phase "joint" may start from."""
    torch.manual_seed(0)
    return Checkpoint(CONFIG, ByteCover2(CONFIG.network))


def test_every_recording_is_a_work_of_itself_and_its_copies(recordings, folder):
    assert len(recordings.works) == N_RECORDINGS and recordings.n_tracks == 4 * N_RECORDINGS
    assert len({track.track_id for _, track in recordings.tracks()}) == 4 * N_RECORDINGS
    original, *copies = (track.source.waveform() for track in recordings.works[f"recording/{folder.resolve()}/0.flac"])
    assert np.array_equal(original, FileSource(folder / "0.flac").waveform())
    for copy in copies:
        assert copy.shape != original.shape or not np.allclose(copy, original)


def test_copies_follow_the_content_and_the_variant_not_the_place(folder, tmp_path):
    moved = Path(shutil.copy(folder / "1.flac", tmp_path / "elsewhere.flac"))
    one, same = (FileSource(path, variant=2).waveform() for path in (folder / "1.flac", moved))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, FileSource(moved, variant=3).waveform())


def test_fingerprints_differ_by_file_variant_and_kinds(folder):
    sources = [
        FileSource(folder / "0.flac"),
        FileSource(folder / "1.flac"),
        FileSource(folder / "0.flac", 1, ("codec",)),
        FileSource(folder / "0.flac", 2, ("codec",)),
        FileSource(folder / "0.flac", 1, ("codec", "room")),
    ]
    assert len({source.fingerprint for source in sources}) == len(sources)
    assert FileSource(folder / "0.flac", 0, ("room",)).fingerprint == sources[0].fingerprint  # the file as it is


def test_copies_are_replaced_and_the_recording_stays(recordings):
    sampler = WorkSampler(recordings, works_per_batch=N_RECORDINGS, tracks_per_work=4, seed=0, hearings=4.0)
    for epoch in (0, 7):
        assert sorted({track.source.variant for _, track in sampler.tracks(epoch)}) == [0, *range(epoch + 1, epoch + 4)]


def test_a_cache_whose_tracks_are_replaced_does_not_grow_and_need_not_be_kept(folder, tmp_path):
    """Three works to a batch, so that each of four misses every fourth epoch."""
    copies = Corpus.of_recordings([folder / f"{n}.flac" for n in range(4)], variants=1, kinds=["noise"])
    training = replace(CONFIG.training, works_per_batch=3, hearings=2.0)
    rolling = TrainingBatches(copies, FeatureCache(tmp_path / "rolling", CONFIG.front_end), training)
    held = []
    for step in range(8):
        last = rolling[step]
        held.append(len(list((tmp_path / "rolling").rglob("*.npy"))))
    assert max(held[3:]) <= 2 * 4  # recordings and their copies
    again = TrainingBatches(copies, FeatureCache(tmp_path / "new", CONFIG.front_end), training)[7]
    assert all(torch.equal(one, other) for one, other in zip(last, again, strict=True))


def test_only_the_middle_of_a_long_file_is_used(folder, monkeypatch):
    whole = FileSource(folder / "0.flac").waveform()
    monkeypatch.setattr(corpus_module, "RECORDING_S", 5.0)
    middle = FileSource(folder / "0.flac").waveform()
    assert np.array_equal(middle, whole[5 * SAMPLE_RATE : 10 * SAMPLE_RATE])
    monkeypatch.setattr(corpus_module, "RECORDING_S", len(whole) / SAMPLE_RATE)
    assert np.array_equal(FileSource(folder / "0.flac").waveform(), whole)


def test_a_file_that_lies_there_twice_is_one_work(folder, tmp_path):
    shutil.copy(folder / "0.flac", tmp_path / "again.flac")
    paths = [folder / "0.flac", folder / "1.flac", tmp_path / "again.flac"]
    assert [Path(name).name for name in Corpus.of_recordings(paths, variants=1).works] == ["0.flac", "1.flac"]


def test_what_the_manifest_names_is_no_work_of_its_own_under_another_name_either(folder, tmp_path):
    tracks = [Track(folder / f"{number}.flac", str(number), work_id="labelled") for number in range(2)]
    known = Corpus.of_manifest(tracks).files
    shutil.copy(folder / "0.flac", tmp_path / "again.flac")
    paths = [tmp_path / "again.flac", folder / "1.flac", folder / "2.flac"]
    assert [Path(name).name for name in Corpus.of_recordings(paths, 1, known=known).works] == ["2.flac"]
    assert not Corpus.of_recordings(paths[:2], 1, known=known).works


def test_a_file_that_is_trained_on_cannot_choose_the_best_weights(folder, recordings, tmp_path):
    tracks = [Track(folder / f"{number}.flac", str(number), work_id="labelled") for number in range(2)]
    copies = [Track(Path(shutil.copy(track.path, tmp_path)), track.track_id, track.work_id) for track in tracks]
    for held_out in (tracks, copies):
        with pytest.raises(TrainingError, match=r"0\.flac: a file to train on and to validate on, 2 in all"):
            check_disjoint(recordings, Corpus.of_manifest(held_out))
    os.mkfifo(tmp_path / "pipe.wav")
    assert same_files([tmp_path / "pipe.wav"], [folder / "2.flac", tmp_path / "pipe.wav"]) == [tmp_path / "pipe.wav"]
    for pair in (copies, [*tracks, *copies]):  # that validation has a recording twice is its own business
        assert same_files([folder / "2.flac"], Corpus.of_manifest(pair).files) == []


def test_names_of_recordings_are_no_names_of_songs(folder, recordings):
    named_like_a_song = Corpus.of_recordings([shutil.copy(folder / "0.flac", folder.parent / "composed-0")], 1)
    songs = Corpus.of_songs([compose(0), compose(1)], arrangements=2)
    assert len((songs + named_like_a_song + recordings).works) == 3 + N_RECORDINGS
    assert not any("/" in name for name in songs.works)


def test_kinds_that_do_not_exist_and_folders_without_audio_are_refused(folder):
    with pytest.raises(ConfigError, match="degradations: reverb; choose from"):
        Corpus.of_recordings([folder / "0.flac"], 1, kinds=["reverb"])
    with pytest.raises(TrainingError, match="no recordings"):
        Corpus.of_recordings([], 1)


def test_a_bad_file_is_left_out_with_its_reason_and_the_rest_is_prepared(folder, cache, tmp_path):
    bad = tmp_path / "bad.mp3"
    bad.write_bytes(b"this is no audio" * 100)
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(3 * SAMPLE_RATE), SAMPLE_RATE)
    gone = tmp_path / "gone.wav"
    mixed = Corpus.of_recordings([bad, folder / "0.flac", silent, gone, folder / "1.flac"], variants=1)
    prepared = list(cache.fill(mixed, workers=1))
    assert [one.usable for one in prepared] == [False, False, True, True, False, False, False, False, True, True]
    assert str(bad) in prepared[0].warning and "silent" in prepared[4].warning and str(gone) in prepared[6].warning
    left = mixed.where([one.usable for one in prepared])
    assert [Path(name).name for name in left.works] == ["0.flac", "1.flac"]
    with pytest.raises(TrainingError, match="none of the 5 works has two usable tracks"):
        mixed.where([False] * 10)


def test_a_bad_file_of_a_manifest_takes_its_work_along_where_one_track_is_left(folder, tmp_path):
    tracks = [Track(folder / f"{i}.flac", f"t{i}", work) for i, work in enumerate(["a", "a", "b", "b", "b"])]
    labelled = Corpus.of_manifest(tracks)
    assert list(labelled.where([False, True, True, False, True]).works) == ["b"]
    with pytest.raises(ManifestError, match="rename it"):
        labelled + labelled


def test_adaptation_finds_degraded_copies_better_than_before(recordings, cache, tmp_path):
    """On copies of other seeds than those trained on, with a few songs beside, from an untrained network."""
    torch.set_num_threads(1)
    songs = Corpus.of_songs([compose(0), compose(1)], arrangements=2)
    unheard = Corpus(
        {
            name: tuple(
                type(track)(FileSource(track.source.path, 10 + variant, track.source.kinds), f"{name} {variant}")
                for variant, track in enumerate(tracks[:3])
            )
            for name, tracks in recordings.works.items()
        }
    )
    initial = start()
    before = validate(initial.network, CONFIG, unheard, cache).map
    adapted = load_checkpoint(
        train(CONFIG, recordings + songs, cache, tmp_path, init=initial, data_workers=0, device="cpu")
    )
    after = validate(adapted.network, CONFIG, unheard, cache).map
    assert after > before + 0.1


def test_an_adaptation_cut_off_and_resumed_is_the_adaptation_in_one_go(recordings, cache, tmp_path):
    class Cut(Exception):
        pass

    def cut(progress) -> None:
        if progress.step == 5:
            raise Cut

    changes = {"steps": 6, "save_every": 3}
    config = Config.from_dict(CONFIG.to_dict() | {"training": CONFIG.to_dict()["training"] | changes})
    arguments = {"init": start(), "data_workers": 0, "device": "cpu"}
    whole = load_checkpoint(train(config, recordings, cache, tmp_path / "whole", **arguments))
    with pytest.raises(Cut):
        train(config, recordings, cache, tmp_path / "parts", report=cut, **arguments)
    parts = load_checkpoint(train(config, recordings, cache, tmp_path / "parts", **arguments))
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, parts.network.state_dict()[name]), name


def test_a_run_from_a_bundle_starts_where_the_bundle_is(tiny_bundle, folder):
    """The network before step 1 gives the embedding of the bundle's ONNX file."""
    initial = load_checkpoint(tiny_bundle)
    network = initial_network(initial.config, initial)
    waveform = load_audio(folder / "0.flac")
    with torch.inference_mode():
        cqt = WaveformToCQT(initial.config.front_end)(torch.from_numpy(waveform)[None])
        similarity = network.embed(cqt)[0].numpy() @ Embedder(tiny_bundle, device="cpu").embed(waveform)
    assert similarity > 0.9999  # both are rounded to half precision, each at its own place
