"""The note map: what it is by construction, what it is taught, and that training it resumes exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import lively_note_map, with_statistics

from bytecover2_milvus.alignment.score import Background, Calibration
from bytecover2_milvus.alignment.verdict import Verdict
from bytecover2_milvus.cli import main
from bytecover2_milvus.config import Config, FrontEnd, Network, Notes, Training
from bytecover2_milvus.embedding.bundle import open_bundle
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.errors import CheckpointError, ConfigError, TrainingError
from bytecover2_milvus.export import exporter
from bytecover2_milvus.manifest import Track
from bytecover2_milvus.model.network import ByteCover2
from bytecover2_milvus.model.note_map import NOTE_POOLING, NoteMap, note_input
from bytecover2_milvus.songs.arrange.arrangement import Arrangement, Part, arrange
from bytecover2_milvus.songs.arrange.performance import NOTE_DTYPE
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.training.checkpoint import LAST, Checkpoint, load_checkpoint
from bytecover2_milvus.training.data.corpus import Corpus
from bytecover2_milvus.training.data.feature_cache import FeatureCache
from bytecover2_milvus.training.data.note_batches import NoteBatches, load_note_track, note_rolls
from bytecover2_milvus.training.start import check_start
from bytecover2_milvus.training.train import train
from bytecover2_milvus.training.train_notes import alignment_map, cell_average_precision, train_notes, validate_notes
from bytecover2_milvus.verify import verify

CONFIG = Config(
    FrontEnd(time_pooling=40, scale="sqrt"),
    Network(feature_dim=None, stage_blocks=(1, 1, 1, 1), base_width=4),
    notes=Notes(width=8, blocks=1),
    training=Training(
        phase="notes",
        steps=4,
        works_per_batch=2,
        tracks_per_work=2,
        crop_s=(15.0,),
        learning_rate=3e-3,
        final_rate=1.0,
        averaging=0.5,
        transpose=3,
        tempo=1.0,
        save_every=2,
        validate_every=4,
    ),
)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.of_songs([compose(seed) for seed in range(3)], arrangements=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> FeatureCache:
    return FeatureCache(tmp_path_factory.mktemp("notes"), CONFIG.front_end, NOTE_POOLING)


def with_training(**changes: object) -> Config:
    return replace(CONFIG, training=replace(CONFIG.training, **changes))


def part(role: str, notes: list[tuple[float, float, float, float]], gain: float = 1.0) -> Part:
    rows = np.array([(*note, 0.0) for note in notes], dtype=NOTE_DTYPE)
    return Part(role, "piano", "", rows, gain)


def arrangement_of(*parts: Part) -> Arrangement:
    return replace(arrange(compose(0), 0), parts=parts)


def test_transposing_a_track_moves_the_map_and_changes_nothing_else():
    note_map = lively_note_map(Notes(width=8, blocks=1))
    cqt = torch.zeros(1, 84, 32)
    cqt[:, 40:44] = torch.rand(1, 4, 32)  # far from both borders
    moved = torch.roll(cqt, 3, dims=1)
    with torch.inference_mode():
        before, after = note_map(note_input(cqt)), note_map(note_input(moved))
    reach = 2 * 12 + 1 + 2 + 1  # bins that a bin is heard from: two octaves, and the kernels of 3, 5 and 3 bins
    inner = slice(reach, 84 - reach - 3)
    torch.testing.assert_close(after[:, :, inner.start + 3 : inner.stop + 3], before[:, :, inner], atol=1e-5, rtol=0)
    assert (before[:, :, inner].amax() - before[:, :, inner].amin()) > 0.01


@pytest.mark.parametrize(("n_frames", "n_map"), [(32, 8), (35, 8), (36, 9)])
def test_a_frame_of_the_map_is_four_input_frames(n_frames, n_map):
    assert NoteMap(Notes(width=4, blocks=1))(note_input(torch.rand(2, 84, n_frames))).shape == (2, 2, 84, n_map)


def test_the_level_of_a_recording_does_not_matter():
    cqt = torch.rand(2, 84, 16)
    torch.testing.assert_close(note_input(cqt), note_input(1e-3 * cqt))


def test_rolls_are_one_where_a_note_sounds():
    lead = part("lead", [(1.0, 1.0, 60.2, 1.0), (2.0, 1.0, 64.0, 0.05)])  # MIDI 60 is bin 36; the second is too soft
    bass = part("bass", [(0.0, 2.5, 36.0, 1.0), (0.0, 1.0, 20.0, 1.0)])  # MIDI 20 lies below the CQT
    hidden = part("backing", [(0.0, 3.0, 72.0, 1.0)], gain=0.01)
    rolls = note_rolls(arrangement_of(lead, bass, hidden), n_bins=84, n_frames=6, frame_s=0.5)
    expected = np.zeros((2, 84, 6), dtype=np.float32)
    expected[:, 36, 2:4] = 1
    expected[0, 12, 0:5] = 1
    np.testing.assert_array_equal(rolls, expected)


def test_a_note_is_loud_in_the_cqt_where_its_roll_is_one(corpus, cache):
    """Notes are where the CQT has more than elsewhere: times and bins of both agree."""
    track = load_note_track(next(track for _, track in corpus.tracks()), cache)
    sounding = track.rolls[0] > 0
    assert np.median(track.cqt[sounding]) > 3 * np.median(track.cqt[~sounding])


def test_a_batch_is_a_function_of_seed_and_step(corpus, cache):
    first, again = (NoteBatches(corpus, cache, CONFIG.training)[1] for _ in range(2))
    other = NoteBatches(corpus, cache, with_training(seed=1).training)[1]
    assert first[0].shape == (4, 84, 128) and first[1].shape == (4, 2, 84, 32)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert first[1].min() >= 0 and first[1].max() == 1


def test_a_recording_has_no_known_notes(tmp_path, cache):
    tracks = [Track(tmp_path / f"{i}.wav", f"{i}", "work") for i in range(2)]
    with pytest.raises(TrainingError, match='a recording; phase "notes" learns from songs'):
        load_note_track(next(track for _, track in Corpus.of_manifest(tracks).tracks()), cache)


def test_average_precision_by_hand():
    # Ranked: true, false, true, true. Precision at the true ones: 1, 2/3, 3/4.
    score, truth = np.array([0.1, 0.9, 0.5, 0.7], dtype=np.float32), np.array([True, True, True, False])
    assert cell_average_precision(score, truth) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert cell_average_precision(score, np.zeros(4, dtype=bool)) == 0


def test_alignment_finds_tracks_of_one_work():
    rng = np.random.default_rng(0)
    tunes = [np.tile(np.eye(12, dtype=np.float32)[np.repeat(rng.integers(0, 12, 40), 2)], 2) for _ in range(3)]
    tracks = [tune[start:] for tune in tunes for start in (0, 10)]
    assert alignment_map(tracks, list("AABBCC")) == 1
    assert alignment_map(tracks, list("ABCABC")) < 0.5


def test_training_hears_notes_better_than_before(corpus, cache, tmp_path):
    config = with_training(steps=30, averaging=0.8, works_per_batch=3, noise=0.0, equaliser_db=0.0)
    torch.manual_seed(0)  # of the weights of the untrained one
    untrained = validate_notes(NoteMap(config.notes), corpus, cache)
    best = load_checkpoint(train_notes(config, corpus, cache, tmp_path, device="cpu", data_workers=0))
    assert sum(validate_notes(best.note_map, corpus, cache).average_precision.values()) > 2 * sum(
        untrained.average_precision.values()
    )


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(corpus, cache, tmp_path):
    def run(folder: str, stop_after: int | None = None) -> dict[str, torch.Tensor]:
        def report(progress) -> None:
            if progress.step == stop_after:
                raise KeyboardInterrupt

        try:
            train_notes(CONFIG, corpus, cache, tmp_path / folder, device="cpu", data_workers=0, report=report)
        except KeyboardInterrupt:
            return {}
        return load_checkpoint(tmp_path / folder / LAST).note_map.state_dict()

    whole = run("whole")
    run("cut", stop_after=3)  # after the save of step 2
    resumed = run("cut")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_the_note_map_goes_with_the_network(corpus, cache, tmp_path):
    """Training the vector later keeps the note map as it was."""
    notes = load_checkpoint(train_notes(CONFIG, corpus, cache, tmp_path / "notes", device="cpu", data_workers=0))
    config = with_training(phase="bytecover", steps=1)
    features = FeatureCache(tmp_path / "cqt", config.front_end)
    after = load_checkpoint(
        train(config, corpus, features, tmp_path / "vector", init=notes, device="cpu", data_workers=0)
    )
    for name, value in notes.note_map.state_dict().items():
        torch.testing.assert_close(after.note_map.state_dict()[name], value, atol=0, rtol=0)


def test_phases_and_note_maps_that_do_not_fit_are_refused(tmp_path):
    without = replace(CONFIG, notes=Notes())
    with pytest.raises(ConfigError, match=r"notes\.width"):
        check_start(without, None)
    with pytest.raises(ConfigError, match='only phase "notes" trains a note map'):
        check_start(with_training(phase="bytecover"), None)
    Checkpoint(CONFIG, lively_network(), NoteMap(Notes(width=4, blocks=1))).save(tmp_path / "wrong.safetensors")
    with pytest.raises(CheckpointError, match="do not fit their configuration"):
        load_checkpoint(tmp_path / "wrong.safetensors")


def lively_network() -> ByteCover2:
    """A network whose layers differ, as those of a trained one do: the exporter stores what is equal once."""
    torch.manual_seed(1)
    return with_statistics(ByteCover2(CONFIG.network))


def test_a_bundle_with_a_note_map_gives_chroma_beside_the_same_embedding(tiny_bundle, tiny_notes_bundle):
    assert {found.status for found in verify(tiny_notes_bundle, "cpu")} <= {"ok", "skipped"}
    first, second = (Embedder(each, "cpu", 1) for each in (tiny_bundle, tiny_notes_bundle))
    waveform = (0.1 * np.random.default_rng(0).standard_normal(2 * 22_050 * 30)).astype(np.float32)
    assert (first.model_id, first.contract_version, first.chroma_id) == (second.model_id, 1, "")
    assert (second.contract_version, second.chroma_channels, len(second.chroma_id)) == (2, 24, 32)
    alone, heard = first.hear(waveform), second.hear(waveform)
    np.testing.assert_allclose(heard.embedding, alone.embedding, atol=1e-6)
    assert alone.chroma is None and heard.chroma.shape == (len(waveform) // 10_240, 24)
    assert heard.chroma.min() >= 0 and heard.chroma.max() <= 1
    short = second.hear(waveform[:30_000])  # repeated before it is embedded
    assert short.chroma.shape == (2, 24)


def test_a_bundle_carries_its_calibration(tiny_notes_bundle, tmp_path):
    verdict = Verdict(
        {"vector": Background(0.0, 0.1), "notes": Background(1.0, 0.3), "lead": Background(1.0, 0.4)},
        Calibration((0.5, 0.6), -8.0),
        Calibration((0.9,), -7.0),
        "pairs of a test",
    )
    (tmp_path / "mine.json").write_text(verdict.to_json())
    with pytest.MonkeyPatch.context() as patch:  # the graph is there already, and torch takes long
        model = (tiny_notes_bundle / "model.onnx").read_bytes()
        patch.setattr(exporter, "export_onnx", lambda shipped, metadata: model)
        command = ["export", str(tiny_notes_bundle), "--out", str(tmp_path / "bundle")]
        done = CliRunner().invoke(main, [*command, "--calibration", str(tmp_path / "mine.json")])
        assert done.exit_code == 0 and "warning" not in done.stderr, done.output
        lacking = CliRunner().invoke(main, [*command[:-1], str(tmp_path / "lacking")])
        assert lacking.exit_code == 0 and "calibration.json; export again with --calibration" in lacking.stderr
        again = ["export", str(tmp_path / "bundle"), "--out", str(tmp_path / "again")]
        assert CliRunner().invoke(main, again).exit_code == 0  # keeps it
    assert open_bundle(tmp_path / "bundle").calibration == open_bundle(tmp_path / "again").calibration == verdict
    (tmp_path / "mine.json").write_text("{}")
    refused = CliRunner().invoke(main, [*command, "--calibration", str(tmp_path / "mine.json")])
    assert refused.exit_code == 1 and "mine.json" in refused.output
