"""Data sets from a folder to their metrics: manifest, ingest into Milvus Lite, evaluate, with rendered covers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from bytecover2_milvus.audio.load import load_audio
from bytecover2_milvus.cli import main
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.manifest import read_manifest
from bytecover2_milvus.songs.arrange.arrangement import arrange
from bytecover2_milvus.songs.compose.composer import compose
from bytecover2_milvus.songs.render.renderer import render

WORKS, VERSIONS = 3, 3
DURATION_S = 12


@pytest.fixture(scope="module")
def covers(tmp_path_factory) -> list[list[Path]]:
    """Three arrangements of three songs, twelve seconds of each."""
    folder = tmp_path_factory.mktemp("covers")
    files = [[folder / f"{work}-{version}.flac" for version in range(VERSIONS)] for work in range(WORKS)]
    for work, paths in enumerate(files):
        song = compose(work)
        for version, path in enumerate(paths):
            soundfile.write(path, render(arrange(song, version), DURATION_S), SAMPLE_RATE)
    return files


@pytest.fixture(scope="module")
def lite(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("lite") / "covers.db")


def place(folder: Path, **files: Path | str) -> Path:
    """`folder` with audio files and lists, under the names given."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            os.link(content, path)
    return folder


def call(*arguments: object) -> Result:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def measured(data_set: str, folder: Path, bundle: Path, uri: str, split: str = "", *options: str) -> tuple[dict, str]:
    """The metrics of `evaluate` by the manifest of a data set, and what `manifest` said."""
    out = folder / "covers.csv"
    made = call("manifest", data_set, folder, "--out", out, *options)
    assert made.exit_code == 0, made.stderr
    store = ("--uri", uri, "--collection", folder.name.replace("-", "_"))
    ingested = call("ingest", "--manifest", out, *store, "--bundle", bundle, "--workers", 0)
    assert ingested.exit_code == 0, ingested.stderr
    evaluated = call("evaluate", *store, "--manifest", f"{out}{split}", "--json")
    assert evaluated.exit_code == 0, evaluated.stderr
    return json.loads(evaluated.stdout), made.stderr


def reference(manifest: str, bundle: Path) -> tuple[float, float, int]:
    """MAP, MR1 and the number of queries of a manifest, by its definition: sort, and count."""
    tracks = sorted(read_manifest(manifest), key=lambda track: track.track_id)
    embedder = Embedder(bundle)
    rows = np.stack([embedder.embed(load_audio(track.path)) for track in tracks]).astype(np.float64)
    precisions, firsts = [], []
    for query, row in zip(tracks, rows, strict=True):
        if query.role == "gallery":
            continue
        candidates = [i for i, track in enumerate(tracks) if track is not query and track.role != "query"]
        candidates.sort(key=lambda i: -np.float32(rows[i] @ row))
        ranks = [rank for rank, i in enumerate(candidates, start=1) if tracks[i].work_id == query.work_id]
        if ranks:
            precisions.append(np.mean([found / rank for found, rank in enumerate(ranks, start=1)]))
            firsts.append(ranks[0])
    return float(np.mean(precisions)), float(np.mean(firsts)), len(firsts)


def agrees(metrics: dict, manifest: str, bundle: Path) -> None:
    expected = reference(manifest, bundle)
    assert (metrics["map"], metrics["mr1"]) == pytest.approx(expected[:2], abs=1e-6)
    assert metrics["queries"] == expected[2]


def test_covers80_by_its_two_protocols(covers, tiny_bundle, lite, tmp_path):
    audio = {f"covers32k/Work_{w}/{v}.flac": covers[w][v] for w in range(WORKS) for v in range(VERSIONS)}
    lists = {f"list{v + 1}.list": "".join(f"Work_{w}/{v}\n" for w in range(WORKS)) for v in range(2)}
    folder = place(tmp_path / "covers80", **audio, **lists)
    metrics, said = measured("covers80", folder, tiny_bundle, lite)
    assert "all: 6 of 6 tracks, 3 of 3 works, 6 queries" in said
    assert "6 tracks of 3 works; the published ones 160 of 80" in said
    assert (metrics["tracks"], metrics["queries"]) == (6, 6)
    agrees(metrics, f"{folder}/covers.csv", tiny_bundle)
    halves, said = measured("covers80", folder, tiny_bundle, lite, "", "--protocol", "80x80")
    assert (halves["tracks"], halves["queries"]) == (6, 3)
    agrees(halves, f"{folder}/covers.csv", tiny_bundle)
    everything, said = measured("covers80", folder, tiny_bundle, lite, "", "--protocol", "all")
    assert (everything["tracks"], everything["queries"]) == (9, 9)
    agrees(everything, f"{folder}/covers.csv", tiny_bundle)


def test_shs100k_by_split_with_a_file_that_is_missing(covers, tiny_bundle, lite, tmp_path):
    audio = {f"{w}/{w}_{v}.flac": covers[w][v] for w in range(WORKS) for v in range(VERSIONS)}
    test = "".join(f"{w}\t{v}\n" for w in (1, 2) for v in range(VERSIONS + 1))
    folder = place(tmp_path / "shs", **audio, **{"SHS100K-TRAIN": "0\t0\n0\t1\n", "SHS100K-TEST": test})
    metrics, said = measured("shs100k", folder, tiny_bundle, lite, "@test")
    assert "test: 6 of 8 tracks, 2 of 2 works, 6 queries" in said
    assert "missing: 2 of 10 tracks, such as 1_3" in said
    assert (metrics["tracks"], metrics["works"]) == (6, 2)
    agrees(metrics, f"{folder}/covers.csv@test", tiny_bundle)


def test_datacos_ranks_singletons_and_does_not_ask_with_them(covers, tiny_bundle, lite, tmp_path):
    works = {f"W_{w}": {f"P_{w}{v}": {} for v in range(VERSIONS if w else 1)} for w in range(WORKS)}
    audio = {f"P_{w}{v}.flac": covers[w][v] for w in range(WORKS) for v in range(VERSIONS)}
    folder = place(tmp_path / "datacos", **audio, **{"da-tacos_benchmark_subset_metadata.json": json.dumps(works)})
    metrics, said = measured("datacos", folder, tiny_bundle, lite)
    assert "2 works with covers, 1 tracks without; the published benchmark has 15000" in said
    assert (metrics["tracks"], metrics["queries"]) == (7, 6)
    assert [track.role for track in read_manifest(folder / "covers.csv")] == ["gallery"] + [""] * 6
    agrees(metrics, f"{folder}/covers.csv", tiny_bundle)


def test_discogs_vi_by_videos(covers, tiny_bundle, lite, tmp_path):
    def part(*works: int) -> str:
        return json.dumps(
            {f"C-{w}": [{"version_id": f"V-{w}-{v}", "youtube_id": f"video{w}{v}"} for v in range(2)] for w in works}
        )

    audio = {f"vi/video{w}{v}.flac": covers[w][v] for w in range(WORKS) for v in range(2)}
    lists = {"Discogs-VI-YT-light.json.train": part(0), "Discogs-VI-YT-light.json.test": part(1, 2)}
    folder = place(tmp_path / "discogs", **audio, **lists)
    metrics, said = measured("discogs-vi", folder, tiny_bundle, lite, "@test")
    assert "test: 4 of 4 tracks, 2 of 2 works, 4 queries" in said
    agrees(metrics, f"{folder}/covers.csv@test", tiny_bundle)


def test_a_loader_of_mirdata(covers, tiny_bundle, lite, tmp_path, monkeypatch):
    core = pytest.importorskip("mirdata.core", reason="the extra mirdata")
    tracks = {f"benchmark#W_{w}#P_{w}{v}": {} for w in range(WORKS) for v in range(2)}
    parts = ("cens", "crema", "hpcp", "key", "madmom", "mfcc", "tags")
    index = {"version": "1.1", "tracks": {name: {part: [None, None] for part in parts} for name in tracks}}
    (tmp_path / "index.json").write_text(json.dumps(index), encoding="utf-8")
    monkeypatch.setattr(core.Index, "get_path", lambda self: str(tmp_path / "index.json"))  # else it is downloaded
    folder = place(tmp_path / "mir", **{f"P_{w}{v}.flac": covers[w][v] for w in range(WORKS) for v in range(2)})
    metrics, said = measured("mirdata:da_tacos", folder, tiny_bundle, lite)
    assert "all: 6 of 6 tracks, 3 of 3 works, 6 queries" in said
    agrees(metrics, f"{folder}/covers.csv", tiny_bundle)
    refused = call("manifest", "mirdata:tinysol", folder, "--out", tmp_path / "none.csv")
    assert refused.exit_code == 1 and len(refused.stderr.splitlines()) == 1
    unknown = call("manifest", "mirdata:nothing", folder, "--out", tmp_path / "none.csv")
    assert unknown.exit_code == 1 and "mirdata:nothing" in unknown.stderr and len(unknown.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"SHS100K-TEST": "1\t2\n"}, "no lists of covers80; it looks like shs100k"),
        ({"list1.list": "A/one\n", "list2.list": "A/two\n"}, "no audio file of any of the 2 tracks"),
        ({"covers80.csv": "a,b\n", "x/covers80.csv": "a,b\n"}, "2 versions of the list of Covers80"),
    ],
)
def test_what_cannot_be_made_leaves_the_manifest_as_it_was(tmp_path, files, words):
    folder = place(tmp_path / "music", **files)
    out = tmp_path / "covers.csv"
    out.write_text("before", encoding="utf-8")
    refused = call("manifest", "covers80", folder, "--out", out)
    assert refused.exit_code == 1 and words in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert out.read_text() == "before" and sorted(tmp_path.iterdir()) == [out, folder]
