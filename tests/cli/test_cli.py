"""The command line as a user and a script meet it, on real audio and a real bundle, on Milvus Lite and on a server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import click
import jsonschema
import numpy as np
import pytest
import soundfile
from audio_files import write_tone
from click.testing import CliRunner
from command_tree import commands

from bytecover2_milvus.cli import main
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.bundle import write_sums
from bytecover2_milvus.export import exporter
from bytecover2_milvus.manifest import write_manifest
from bytecover2_milvus.milvus.alias import drop_collection, has_collection
from bytecover2_milvus.milvus.connection import close, connect
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.tracks import render_tracks
from bytecover2_milvus.training.checkpoint import load_checkpoint

README = Path(__file__).parents[2] / "README.md"
RECIPE = Path(__file__).parents[2] / "recipes" / "bytecover2-128.sh"


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bytecover2_milvus", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """As `run`, in this process, which need not import all of it again."""
    done = CliRunner().invoke(main, list(map(str, arguments)), env=environment)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def lines(process: subprocess.CompletedProcess[str], schema: str) -> list[dict]:
    """The JSON lines on stdout, each valid against its schema."""
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    form = json.loads(files("bytecover2_milvus.schemas").joinpath(f"{schema}.schema.json").read_text(encoding="utf-8"))
    for row in rows:
        jsonschema.validate(row, form)
    return rows


def refused(process: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 1 and one line on stderr that holds the words; nothing on stdout."""
    assert process.returncode == 1, process.stderr
    assert process.stdout == ""
    assert len(process.stderr.splitlines()) == 1, process.stderr
    for word in words:
        assert word in process.stderr


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory) -> Path:
    """Two arrangements of four songs as FLAC, with their manifest."""
    folder = tmp_path_factory.mktemp("catalogue")
    tracks = list(render_tracks([compose(seed) for seed in range(4)], range(2), folder / "audio", workers=1))
    write_manifest(tracks, folder / "manifest.csv")
    return folder


@contextmanager
def new_collection(uri: str) -> Iterator[tuple[str, ...]]:
    """Options that name a collection which is not there yet; it is gone afterwards."""
    name = f"covers_{uuid.uuid4().hex}"
    yield ("--uri", uri, "--collection", name)
    client = connect(uri)
    if has_collection(client, name):
        drop_collection(client, name)
    close(client)


@pytest.fixture
def empty(milvus_uri) -> Iterator[tuple[str, ...]]:
    with new_collection(milvus_uri) as options:
        yield options


@pytest.fixture(scope="module")
def store(catalogue, tiny_bundle, milvus_uri) -> Iterator[tuple[str, ...]]:
    """Options that name a filled collection."""
    with new_collection(milvus_uri) as options:
        command = ("ingest", "--manifest", catalogue / "manifest.csv", *options, "--bundle", tiny_bundle)
        process = call(*command, "--workers", 1, "--json")
        assert process.returncode == 0, process.stderr
        assert [record["status"] for record in lines(process, "ingest_record")] == ["added"] * 8
        yield options


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_has_help_with_an_example_and_stands_in_the_readme(name, command):
    assert command.help and "Example:" in command.help
    assert f"bytecover2-milvus {name}" in command.help
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or parameter.help, f"{name} {parameter.name} lacks help"
    assert f"`{name}`" in README.read_text(encoding="utf-8")


def test_help_is_instant_because_nothing_heavy_is_imported():
    code = (
        "import sys; from bytecover2_milvus.cli import main; "
        "heavy = {'torch', 'onnxruntime', 'pymilvus', 'librosa', 'av', 'rich'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_second_ingest_skips_everything(catalogue, store, tiny_bundle):
    process = call("ingest", "--manifest", catalogue / "manifest.csv", *store, "--bundle", tiny_bundle, "--workers", 1)
    assert process.returncode == 0
    assert f"8 skipped; 8 rows in {store[-1]} at {store[1]}" in process.stderr


def test_a_stored_track_finds_itself_first(catalogue, store, tiny_bundle):
    track = catalogue / "audio" / "composed-2" / "1.flac"
    process = call("query", track, *store, "--bundle", tiny_bundle, "--limit", 3, "--json")
    assert process.returncode == 0, process.stderr
    matches = lines(process, "match")
    assert [match["rank"] for match in matches] == [1, 2, 3]
    assert matches[0]["track_id"] == "composed-2/1" and matches[0]["work_id"] == "composed-2"
    assert matches[0]["similarity"] == pytest.approx(1, abs=1e-4)
    assert matches[0]["query"] == str(track)


def test_group_by_work_gives_each_work_once_and_filter_restricts(catalogue, store, tiny_bundle):
    track = catalogue / "audio" / "composed-2" / "1.flac"
    options = (*store, "--bundle", tiny_bundle, "--json")
    by_work = lines(call("query", track, *options, "--group-by", "work"), "match")
    assert sorted(match["work_id"] for match in by_work) == [f"composed-{seed}" for seed in range(4)]
    filtered = lines(call("query", track, *options, "--filter", 'work_id == "composed-0"'), "match")
    assert {match["work_id"] for match in filtered} == {"composed-0"} and len(filtered) == 2


def test_a_table_for_people_shows_every_match(catalogue, store, tiny_bundle):
    track = catalogue / "audio" / "composed-2" / "1.flac"
    process = call("query", track, *store, "--bundle", tiny_bundle, "--limit", 2, COLUMNS="200")
    assert process.returncode == 0
    assert "similarity" in process.stdout and "Composed 2" in process.stdout and "1.0000" in process.stdout


def test_evaluate_counts_and_manifest_restricts(catalogue, store, tmp_path):
    (whole,) = lines(call("evaluate", *store, "--json"), "evaluation")
    assert whole["queries"] == 8 and whole["tracks"] == 8 and whole["works"] == 4
    assert 0 < whole["map"] <= 1 and whole["precision_at_10"] == pytest.approx(0.1)  # one relevant track each
    manifest = tmp_path / "part.csv"
    rows = (catalogue / "manifest.csv").read_text(encoding="utf-8").splitlines()
    manifest.write_text("\n".join(rows[:5]) + "\n", encoding="utf-8")
    (part,) = lines(call("evaluate", *store, "--manifest", manifest, "--json"), "evaluation")
    assert part["queries"] == 4 and part["works"] == 2


def test_embed_writes_one_unit_vector_per_file(catalogue, tiny_bundle, tmp_path):
    out = tmp_path / "vectors.npz"
    process = call("embed", catalogue / "audio" / "composed-0", "--out", out, "--bundle", tiny_bundle)
    assert process.returncode == 0, process.stderr
    vectors = np.load(out)
    assert vectors["embeddings"].shape == (2, 128) and vectors["embeddings"].dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors["embeddings"], axis=1), 1, atol=1e-5)
    assert [Path(path).name for path in vectors["paths"]] == ["0.flac", "1.flac"]


def test_limits_are_options_wherever_audio_is_read(empty, tiny_bundle, tmp_path):
    folder = tmp_path / "music"
    folder.mkdir()
    write_tone(folder / "good.flac", 0, duration_s=6)
    soundfile.write(folder / "slow.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 9_000), 3_000)

    def tried(command: str, *options: object) -> tuple[int, str]:
        arguments = [command, folder, "--bundle", tiny_bundle, *options]
        done = CliRunner().invoke(main, list(map(str, arguments)))
        return done.exit_code, " ".join(done.output.split())

    npz, parquet = (("--out", tmp_path / f"x.{suffix}") for suffix in ("npz", "parquet"))
    code, said = tried("embed", *npz)
    assert code == 1 and "slow.wav: states 3000 Hz, and 4000 to 2822400 are read" in said and "good" not in said
    both = ("--rates", 3_000, 48_000)
    assert tried("embed", *npz, *both)[0] == 0
    code, said = tried("embed", *npz, *both, "--maximum-gib", 0.0001)
    assert code == 1 and "good.flac: a file of" in said and "slow" not in said
    short = (*both, "--maximum-hours", 0.001)
    for command, *options in (("embed", *parquet), ("ingest", *empty, "--workers", 0), ("query", *empty)):
        code, said = tried(command, *options, *short)
        assert code == 1 and "good.flac: longer than 0.001 hours; split it, or raise --maximum-hours" in said
        assert "slow.wav: " not in said
    for wrong in (("--rates", 9, 8), ("--maximum-hours", 0), ("--maximum-gib", "nan")):
        assert tried("ingest", *empty, *wrong)[0] == 2


def test_one_bad_file_is_reported_and_the_rest_goes_in(catalogue, empty, tiny_bundle, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "broken.mp3").write_bytes(b"this is no audio" * 100)
    soundfile.write(folder / "silent.wav", np.zeros(5 * SAMPLE_RATE), SAMPLE_RATE)
    (folder / "good.flac").write_bytes((catalogue / "audio" / "composed-0" / "0.flac").read_bytes())
    process = call("ingest", folder, *empty, "--bundle", tiny_bundle, "--workers", 1, "--json")
    assert process.returncode == 1
    statuses = {Path(record["path"]).name: record["status"] for record in lines(process, "ingest_record")}
    assert statuses == {"broken.mp3": "failed", "silent.wav": "failed", "good.flac": "added"}
    assert "broken.mp3" in process.stderr and "silent.wav" in process.stderr
    assert "1 added, 2 failed; 1 rows" in process.stderr


def test_collections_are_listed_described_and_dropped_only_when_confirmed(catalogue, tiny_bundle, tmp_path):
    uri = tmp_path / "c.db"
    track = catalogue / "audio" / "composed-0" / "0.flac"
    assert call("ingest", track, "--uri", uri, "--bundle", tiny_bundle, "--workers", 1).returncode == 0
    (listed,) = lines(call("collections", "list", "--uri", uri, "--json"), "collection")
    assert listed["aliases"] == ["tracks"] and listed["rows"] == 1
    (described,) = lines(call("collections", "describe", "tracks", "--uri", uri, "--json"), "collection")
    assert described["dim"] == 128 and described["index_type"] == "FLAT"
    unconfirmed = CliRunner().invoke(main, ["collections", "drop", "tracks", "--uri", str(uri)], input="n\n")
    assert unconfirmed.exit_code == 1 and "1 rows" in unconfirmed.stderr
    assert call("collections", "describe", "tracks", "--uri", uri).returncode == 0
    assert call("collections", "drop", "tracks", "--uri", uri, "--yes").returncode == 0
    refused(call("collections", "describe", "tracks", "--uri", uri), "tracks", "no collection")


def test_doctor_says_what_fits(store, tiny_bundle):
    process = call("doctor", *store, "--bundle", tiny_bundle, "--json")
    checks = {line["check"]: line for line in lines(process, "check")}
    assert process.returncode == 0, process.stdout
    assert checks["milvus"]["status"] == checks["bundle"]["status"] == checks["cpu"]["status"] == "ok"
    assert "8 rows" in checks["collection"]["detail"]


def test_doctor_says_what_does_not_fit(store, tiny_bundle, tmp_path):
    process = call("doctor", "--uri", "http://127.0.0.1:9", "--bundle", tmp_path, "--json")
    checks = {line["check"]: line for line in lines(process, "check")}
    assert process.returncode == 1
    assert checks["milvus"]["status"] == checks["bundle"]["status"] == "failed"
    process = call("doctor", *store, "--bundle", tmp_path, "--json")
    assert sum(line["status"] == "failed" and "SHA256SUMS" in line["detail"] for line in lines(process, "check")) == 1
    process = call("doctor", "--uri", tmp_path / "later.db", "--bundle", tiny_bundle, "--json")
    assert process.returncode == 0  # what ingest will make is no fault
    statuses = {line["check"]: line["status"] for line in lines(process, "check")}
    assert (statuses["milvus"], statuses["collection"]) == ("ok", "skipped") and not (tmp_path / "later.db").exists()


class TestRefusals:
    """One line that says what, where and what to do; exit code 1; the collection as it was."""

    def test_missing_bundle(self, catalogue, tmp_path):
        track = catalogue / "audio" / "composed-0" / "0.flac"
        refused(call("ingest", track, "--uri", tmp_path / "x.db", "--bundle", tmp_path / "none"), "none", "no such")
        assert not (tmp_path / "x.db").exists()

    def test_changed_bundle_file(self, catalogue, tiny_bundle, tmp_path):
        copy = tmp_path / "bundle"
        copy.mkdir()
        for file in tiny_bundle.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        model = copy / "model.onnx"
        model.write_bytes(model.read_bytes()[:-1] + b"!")
        track = catalogue / "audio" / "composed-0" / "0.flac"
        refused(call("query", track, "--bundle", copy), "model.onnx", "changed")

    def test_milvus_that_does_not_answer_fails_in_seconds(self, catalogue, tiny_bundle):
        track = catalogue / "audio" / "composed-0" / "0.flac"
        start = time.monotonic()
        refused(call("query", track, "--uri", "http://127.0.0.1:9", "--bundle", tiny_bundle), "127.0.0.1:9")
        assert time.monotonic() - start < 30

    def test_a_folder_that_was_never_made(self, tmp_path):
        refused(call("evaluate", "--uri", tmp_path / "none.db"), "none.db", "ingest makes it")
        assert not (tmp_path / "none.db").exists()

    def test_manifest_without_its_columns(self, tiny_bundle, tmp_path):
        manifest = tmp_path / "m.csv"
        manifest.write_text("file,title\na.wav,A\n", encoding="utf-8")
        refused(call("ingest", "--manifest", manifest, "--bundle", tiny_bundle), "m.csv", "path", "work_id")

    def test_manifest_with_a_missing_file_fails_that_track_only(self, catalogue, empty, tiny_bundle, tmp_path):
        manifest = tmp_path / "m.csv"
        good = catalogue / "audio" / "composed-0" / "0.flac"
        manifest.write_text(f"path,work_id\n{good},a\ngone.wav,b\n", encoding="utf-8")
        process = call("ingest", "--manifest", manifest, *empty, "--bundle", tiny_bundle, "--workers", 1)
        assert process.returncode == 1
        assert "gone.wav" in process.stderr and "1 added, 1 failed; 1 rows" in process.stderr

    def test_manifest_of_other_tracks_cannot_be_evaluated(self, store, tmp_path):
        manifest = tmp_path / "m.csv"
        manifest.write_text("path,work_id\nother.wav,w\n", encoding="utf-8")
        refused(call("evaluate", *store, "--manifest", manifest), "m.csv", store[-1])

    def test_a_folder_without_audio_is_no_query(self, tmp_path):
        refused(call("query", tmp_path), f"{tmp_path}: no audio files there")

    def test_a_name_that_is_not_utf8_is_printed_all_the_same(self, catalogue, store, tiny_bundle, tmp_path):
        name = os.fsdecode(tmp_path / "caf") + "\udce9.flac"  # Latin-1
        Path(name).write_bytes((catalogue / "audio" / "composed-0" / "0.flac").read_bytes())
        process = run("query", name, *store, "--bundle", tiny_bundle, "--json", PYTHONIOENCODING="utf-8:strict")
        assert process.returncode == 0, process.stderr
        assert json.loads(process.stdout.splitlines()[0])["query"] == name

    def test_a_filter_that_is_no_filter(self, catalogue, store, tiny_bundle):
        track = catalogue / "audio" / "composed-0" / "0.flac"
        command = ["query", track, *store, "--bundle", tiny_bundle, "--rerank", "0", "--filter", "((("]
        refused(call(*command), "(((", "is missing")

    def test_nothing_to_ingest_is_an_error_and_makes_nothing(self, tmp_path):
        (tmp_path / "empty").mkdir()
        refused(call("ingest", tmp_path / "empty", "--uri", tmp_path / "x.db"), "empty: no audio files there")
        assert not (tmp_path / "x.db").exists()

    def test_files_that_are_all_missing_make_no_milvus_lite(self, tiny_bundle, tmp_path):
        process = call("ingest", "--uri", tmp_path / "x.db", "--bundle", tiny_bundle, "--json", "--", "-x.mp3", "gone")
        assert [json.loads(line)["status"] for line in process.stdout.splitlines()] == ["failed", "failed"]
        assert (
            process.returncode == 1 and f"0 rows in tracks at {tmp_path / 'x.db'}, which was not made" in process.stderr
        )
        assert not (tmp_path / "x.db").exists()

    def test_a_name_that_is_too_long_makes_no_milvus_lite(self, catalogue, tiny_bundle, tmp_path):
        options = ("--uri", tmp_path / "x.db", "--bundle", tiny_bundle, "--collection", "a" * 250)
        refused(call("ingest", catalogue, *options), "a name of 250 letters is too long")
        assert not (tmp_path / "x.db").exists()

    def test_who_closes_stdout_has_seen_enough(self, catalogue, tiny_bundle, tmp_path):
        command = [sys.executable, "-m", "bytecover2_milvus", "ingest", catalogue, "--uri", tmp_path / "x.db", "--json"]
        process = subprocess.Popen(
            [*command, "--bundle", tiny_bundle], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 1 and "Traceback" not in errors

    def test_a_command_of_a_group_is_named_where_it_is_missed(self):
        process = call("list")
        assert process.returncode == 2 and "it is collections list" in process.stderr

    def test_wrong_usage_is_exit_code_two(self, tmp_path):
        assert call("ingest", "--uri", tmp_path / "x.db").returncode == 2
        assert call("query").returncode == 2
        assert "must end in .npz or .parquet" in call("embed", tmp_path, "--out", tmp_path / "vectors.csv").stderr
        assert call("train", "--out", tmp_path / "run").returncode == 2

    @pytest.mark.parametrize("package", ["torch", "lightning_fabric", "safetensors"])
    def test_missing_package_names_the_command_that_installs_it(self, package, tmp_path):
        code = f"import sys; sys.modules[{package!r}] = None; from bytecover2_milvus.cli import main; main()"
        arguments = ["train", "--songs", "composed@0-2", "--out", str(tmp_path)]
        process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        refused(process, f"{package} is not installed: pip install", '"torch==2.13.*"', '"safetensors>=')

    @pytest.mark.parametrize("folder", ["--out", "--cache"])
    def test_folder_of_a_training_that_cannot_be_made(self, folder, tmp_path):
        (tmp_path / "file").write_text("in the way")
        places = {"--out": tmp_path / "run", "--cache": tmp_path / "cache", folder: tmp_path / "file" / "folder"}
        options = [text for option in places.items() for text in option]
        command = ("train", "--songs", "composed@0-2", "--arrangements", 2, "--set", 'network.feature_dim="none"')
        refused(call(*command, *options), "file/folder")

    def test_ctrl_c_is_one_word_and_no_traceback_of_any_process(self, tmp_path):
        command = [sys.executable, "-m", "bytecover2_milvus", "train", "--songs", "composed@0-500"]
        command += ["--set", 'network.feature_dim="none"']
        process = subprocess.Popen(
            [*command, "--out", tmp_path / "run", "--cache", tmp_path / "cache"],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while not list(tmp_path.glob("cache/*/*")):  # until the workers are at work
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all processes
        assert process.communicate(timeout=60)[1].split() == ["Aborted!"]
        assert process.returncode == 1

    def test_unknown_setting_of_the_training(self, tmp_path):
        process = call("train", "--songs", "composed@0-2", "--out", tmp_path, "--set", "training.learning_speed=1")
        refused(process, "learning_speed", "learning_rate")

    def test_what_cannot_be_trained_or_reduced_is_refused_before_anything_is_rendered(self, tiny_bundle, tmp_path):
        place = ("--songs", "composed@0-1000000", "--cache", tmp_path / "cache", "--out", tmp_path / "run")
        refused(call("train", *place), 'phase "bytecover" has no PCA-FC', "network.feature_dim")
        refused(call("fit-pca", tiny_bundle, *place), "has a PCA-FC to 128 dimensions already")
        wide = tmp_path / "wide.toml"
        wide.write_text("[network]\nbase_width = 64\n")
        refused(call("train", *place, "--init", tiny_bundle, "--config", wide), "network.base_width 8 -> 64")

    def test_cuda_asked_for_and_not_there(self, catalogue, tiny_bundle):
        track = catalogue / "audio" / "composed-0" / "0.flac"
        process = run("query", track, "--bundle", tiny_bundle, "--device", "cuda", CUDA_VISIBLE_DEVICES="")
        refused(process, "CUDA", "pip install", "onnxruntime-gpu[cuda,cudnn]")


def test_the_recipe_from_songs_to_a_bundle_that_embeds(catalogue, tone_folder, tmp_path):
    """The script of the recipe, on a network and a number of steps so small that it learns nothing."""
    config = tmp_path / "tiny.toml"
    config.write_text(
        '[front_end]\ntime_pooling = 40\n[network]\nfeature_dim = "none"\nbase_width = 8\nstage_blocks = [1, 1, 1, 1]\n'
        "[training]\nsteps = 2\nworks_per_batch = 2\ntracks_per_work = 2\ncrop_s = [20.0]\nvalidate_every = 2\n"
    )
    shutil.copytree(tone_folder, tmp_path / "run" / "cache")  # else they would be measured again
    small = {"SONGS": "composed@0-3", "HELD_OUT": "traditional@0-2 composed@8-9", "ARRANGEMENTS": "2", "DIM": "4"}
    small |= {"FROZEN_STEPS": "2", "JOINT_STEPS": "2", "WORKERS": "1", "PYTHON": sys.executable}
    bare = {name: value for name, value in os.environ.items() if name not in ("INIT", "SOUND_FONT", "COMPOSED")}
    command = [RECIPE, tmp_path / "no scores", tmp_path / "run", config]
    done = subprocess.run(command, capture_output=True, text=True, env=bare | small, check=False)
    assert done.returncode == 0, done.stderr
    place = ("--songs", "composed@0-3", "--arrangements", 2, "--cache", tmp_path / "run" / "cache")
    settled = tmp_path / "run" / "settled" / "best.safetensors"
    refused(call("fit-pca", settled, *place, "--dim", 6, "--out", tmp_path / "pca"), "6 tracks tell no 6 axes")
    joint, bundle = tmp_path / "run" / "joint-4", tmp_path / "bundle"
    with pytest.MonkeyPatch.context() as patch:  # the script has had torch trace this graph
        patch.setattr(exporter, "export_onnx", lambda shipped, metadata: (joint / "model.onnx").read_bytes())
        exported = call("export", joint, "--out", bundle, "--fact", "Limits=untrained")
    assert exported.returncode == 0, exported.stderr
    assert "no second stage" in exported.stderr and "export again with --note-map" in exported.stderr
    assert (bundle / "checkpoint.safetensors").is_file()
    assert "| Limits | untrained |" in (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert run("verify", bundle).returncode == 0
    out = tmp_path / "v.npz"
    assert call("embed", catalogue / "audio" / "composed-0", "--bundle", bundle, "--out", out).returncode == 0
    assert np.load(out)["embeddings"].shape == (2, 4)


def test_a_bundle_adapts_to_recordings_without_labels(catalogue, tiny_bundle, tmp_path):
    """Two steps on a folder with a broken file and one that the manifest names, which is a track of its work there."""
    music = tmp_path / "music"
    music.mkdir()
    (music / "broken.mp3").write_bytes(b"this is no audio" * 100)
    soundfile.write(music / "short.wav", 0.1 * np.random.default_rng(0).standard_normal(6 * SAMPLE_RATE), SAMPLE_RATE)
    command = ["train", "--unlabelled", music, "--unlabelled", catalogue / "audio", "--variants", 1]
    command += ["--manifest", catalogue / "manifest.csv", "--degradation", "codec", "--degradation", "room"]
    command += ["--init", tiny_bundle, "--set", 'training.phase="joint"', "--set", "training.steps=2"]
    command += ["--set", "training.crop_s=[5.0]", "--out", tmp_path / "run", "--cache", tmp_path / "cache", "--json"]
    process = call(*command, "--device", "cpu")
    assert process.returncode == 0, process.stderr
    (line,) = lines(process, "training_run")
    warning, extent = process.stderr.splitlines()  # once, not once for every copy
    assert warning.startswith("left out: ") and "broken.mp3" in warning
    assert extent == "training on 5 works with 10 tracks"
    trained = load_checkpoint(line["checkpoint"])
    assert trained.facts["Trained on"] == "nothing, it is for tests; then manifest.csv, music, audio"
    assert trained.facts["Works"] == "5" and trained.facts["Tracks"] == "10"  # four labelled with two, one with a copy


def test_a_bundle_without_checkpoint_cannot_be_trained_on(tiny_bundle, tmp_path):
    small = Path(shutil.copytree(tiny_bundle, tmp_path / "small"))
    (small / "checkpoint.safetensors").unlink()
    write_sums(small)
    options = ("--songs", "composed@0-2", "--out", tmp_path / "run", "--cache", tmp_path / "cache")
    refused(call("train", "--init", small, *options), "small: exported without checkpoint.safetensors")
    refused(call("train", "--init", tmp_path, *options), "not a bundle", "SHA256SUMS")


def test_the_demo_finds_songs_far_above_chance(tmp_path):
    """Two tracks of 16 are right for each query: one that guesses finds one of 8 songs."""
    process = run("demo", "--out", tmp_path / "my demo", "--songs", 8, "--arrangements", 3)
    assert process.returncode == 0, process.stderr
    found = re.search(r"(\d+) of (\d+) held-out arrangements found their song first", process.stdout)
    assert int(found[2]) == 8 and int(found[1]) > 4
    assert "MAP" in process.stdout and "my demo" in process.stdout
