"""The works of a collection: synthetic tracks of which it is known which are one work, on Lite and a server."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from band_embedder import ChromaEmbedder
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from bytecover2_milvus.alignment.chroma import encode, to_levels
from bytecover2_milvus.alignment.qmax import ALIGNMENT
from bytecover2_milvus.alignment.score import Background, Calibration
from bytecover2_milvus.alignment.verdict import Verdict
from bytecover2_milvus.cli import main
from bytecover2_milvus.config import CHROMA_GROUPS
from bytecover2_milvus.embedding.bundle import write_sums
from bytecover2_milvus.embedding.embedder import Embedder
from bytecover2_milvus.errors import CollectionError, CollectionMismatch, OutputError
from bytecover2_milvus.groups.find import Groups, find_groups
from bytecover2_milvus.groups.group import Group, GroupedTrack, Link, in_order
from bytecover2_milvus.groups.linkage import groups_of, link_groups
from bytecover2_milvus.groups.pairs import Pairs, Sound
from bytecover2_milvus.groups.work_ids import Changes, count_changes, write_work_ids
from bytecover2_milvus.milvus.alias import drop_collection
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connected
from bytecover2_milvus.milvus.schema import Row, columns_of
from bytecover2_milvus.pages.group_files import WRITERS, lines_of, write_playlist

FRAME_S = 0.464
CHANNELS = ChromaEmbedder.chroma_channels
# Here tracks of different works have cosines of 0 +- 0.1 and alignments of 4.6 +- 0.65, those of one work 0.6 and 11.
BACKGROUNDS = {"vector": Background(0.0, 0.1), **dict.fromkeys(CHROMA_GROUPS, Background(4.6, 0.65))}
VERDICT = Verdict(BACKGROUNDS, Calibration((0.25, 0.5), -8.0), Calibration((0.5,), -4.0), "nothing, it is for tests")


@dataclasses.dataclass
class Tune:
    """A stored track to be: its chroma and its embedding."""

    track_id: str
    levels: NDArray[np.uint8]
    embedding: NDArray[np.float32]
    work_id: str = ""

    @property
    def row(self) -> Row:
        digest = hashlib.sha256(self.track_id.encode()).hexdigest()
        duration_s = (len(self.levels) + 0.5) * FRAME_S
        return Row(self.track_id, digest, duration_s, 0.0, duration_s, self.work_id, title=f"Title {self.track_id}")


def version(work: int, number: int, track_id: str, semitones: int = 0, tempo: float = 1.0) -> Tune:
    """A version of a work: its tune in another key and tempo between other notes, and an embedding near its work's."""
    rng, of_work = np.random.default_rng([work, number]), np.random.default_rng(work)
    notes = np.repeat(of_work.integers(0, 12, 60), of_work.integers(1, 5, 60))
    notes = notes[(np.arange(int(len(notes) / tempo)) * tempo).astype(int)]
    notes = np.concatenate([rng.integers(0, 12, 10), notes, rng.integers(0, 12, 10)])
    chroma = rng.random((len(notes), CHANNELS)) * 0.3
    for start in range(0, CHANNELS, 12):
        chroma[np.arange(len(notes)), start + (notes + semitones) % 12] = 1
    return Tune(track_id, to_levels(chroma), unit(of_work.normal(size=128) + 0.7 * rng.normal(size=128)))


def encoding_of(tune: Tune, track_id: str) -> Tune:
    """The same recording, a little changed, and a frame later."""
    rng = np.random.default_rng(7)
    changed = tune.levels + (rng.random(tune.levels.shape) < 0.1)
    levels = np.concatenate([tune.levels[:1], changed.clip(0, 15).astype(np.uint8)])
    return Tune(track_id, levels, unit(tune.embedding + 0.005 * rng.normal(size=128)))


def unit(vector: NDArray[np.floating]) -> NDArray[np.float32]:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def catalogue() -> list[Tune]:
    """Three works of three tracks, one of which is there in two encodings, and five tracks of a work of their own."""
    tunes = [
        version(work, number, f"{'abc'[work]}{number}", semitones=2 * number, tempo=(1.0, 0.9, 1.1)[number])
        for work in range(3)
        for number in range(3)
    ]
    return [*tunes, encoding_of(tunes[1], "a1-64k"), *(version(10 + i, 0, f"single{i}") for i in range(5))]


def store(collection: TrackCollection, tunes: Sequence[Tune]) -> None:
    """Without statistics: the backgrounds of the verdict stand for them."""
    rows, embeddings = [tune.row for tune in tunes], np.stack([tune.embedding for tune in tunes])
    collection.upsert(rows, embeddings, [encode(tune.levels) for tune in tunes])


@pytest.fixture(scope="module")
def stored(client) -> Iterator[TrackCollection]:
    """The catalogue."""
    collection = TrackCollection.create(client, f"test_{uuid.uuid4().hex}", ChromaEmbedder())
    store(collection, catalogue())
    yield collection
    drop_collection(client, collection.name)


@pytest.fixture
def own(client, name) -> TrackCollection:
    """The catalogue, to change."""
    collection = TrackCollection.create(client, name, ChromaEmbedder())
    store(collection, catalogue())
    return collection


def found_in(collection: TrackCollection, state: Path, **options: object) -> Groups:
    return find_groups(collection, VERDICT, FRAME_S, state, **options)


def told(groups: Groups) -> str:
    """All that is known of groups, to compare."""
    return "\n".join(json.dumps(line) for line in lines_of(groups))


def names(groups: Groups) -> list[list[str]]:
    return sorted(sorted(track.track_id for track in group.tracks) for group in groups)


WORKS = [["a0", "a1", "a1-64k", "a2"], ["b0", "b1", "b2"], ["c0", "c1", "c2"]]


def test_works_and_recordings_come_out_as_they_are(stored, tmp_path):
    with found_in(stored, tmp_path / "state") as groups:
        assert names(groups) == WORKS
        assert (groups.n_groups, groups.n_tracks, groups.compared) == (3, 10, 15)
        assert (groups.without_chroma, groups.too_short, groups.damaged) == (0, [], {})
        largest, *others = list(groups)
    assert [(track.track_id, track.recording) for track in largest.tracks] == [
        ("a0", 1), ("a1", 2), ("a1-64k", 2), ("a2", 3)
    ]  # fmt: skip
    assert [link for link in largest.links if link.same_recording] == [largest.links[0]]
    assert {largest.links[0].first, largest.links[0].second} == {"a1", "a1-64k"}
    assert not any(link.same_recording for group in others for link in group.links)
    assert all(link.probability >= 0.5 for group in (largest, *others) for link in group.links)
    (link,) = (link for group in others for link in group.links if {link.first, link.second} == {"b0", "b1"})
    semitones, ratio = (2, 0.9) if link.first == "b0" else (-2, 1 / 0.9)  # b1 is 2 semitones above b0, and slower
    assert link.stretch.transposition == semitones
    assert link.stretch.tempo_ratio == pytest.approx(ratio, abs=0.03)
    own_s = 10 * FRAME_S  # of notes that are not of the tune, at both ends
    starts = (link.stretch.query_start_s, link.stretch.start_s)
    assert max(starts) <= own_s + FRAME_S and link.stretch.query_end_s - starts[0] > 60


def test_a_group_has_the_work_id_of_most_of_its_tracks_or_a_new_one(client, name, tmp_path):
    tunes = catalogue()
    for tune, work_id in zip(tunes, ["x", "y", "y", "", "", "b"], strict=False):
        tune.work_id = work_id
    collection = TrackCollection.create(client, name, ChromaEmbedder())
    store(collection, tunes)
    with found_in(collection, tmp_path / "state") as groups:
        work_id_of = {group.tracks[0].track_id: group.work_id for group in groups}
    first = min(tune.row.id for tune in tunes if tune.track_id.startswith("c"))
    assert work_id_of == {"a0": "y", "b0": "b", "c0": f"work-{first[:12]}"}


def test_a_run_that_is_stopped_anywhere_goes_on_and_ends_the_same(stored, tmp_path, monkeypatch):
    with found_in(stored, tmp_path / "whole") as groups:
        whole = told(groups)
    for size in ("TRACKS_PER_COPY", "TRACKS_PER_SEARCH"):
        monkeypatch.setattr(f"bytecover2_milvus.groups.steps.{size}", 6)
    monkeypatch.setattr("bytecover2_milvus.groups.steps.PAIRS_PER_BATCH", 40)
    steps: list[tuple[str, int, int]] = []

    def stop(*step: object) -> None:
        if step not in steps:  # so every step is made once, and no step twice
            steps.append(step)
            raise KeyboardInterrupt

    for _ in range(20):
        try:
            with found_in(stored, tmp_path / "state", watch=stop) as groups:
                assert told(groups) == whole
            break
        except KeyboardInterrupt:
            pass
    copies, searches = ([("copy", n, 15) for n in (6, 12, 15)], [("search", n, 15) for n in (6, 12, 15)])
    assert steps[:6] == copies + searches
    assert steps[6:] == [
        *(("align", n, 105) for n in (40, 80, 105)), ("judge", 105, 105), ("group", 3, 3), ("explain", 12, 12)
    ]  # fmt: skip
    assert not any(tmp_path.glob("*-journal"))


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from test_groups import FRAME_S, VERDICT
from bytecover2_milvus.groups import find, steps
from bytecover2_milvus.milvus.collection import TrackCollection
from bytecover2_milvus.milvus.connection import connect

steps.PAIRS_PER_BATCH = 40

def kill(step, done, total):
    if step == "align" and done == 80:
        os.kill(os.getpid(), signal.SIGKILL)

collection = TrackCollection.open(connect(sys.argv[1]), "tracks")
find.find_groups(collection, VERDICT, FRAME_S, Path(sys.argv[2]), watch=kill)
"""


def test_a_process_that_is_killed_loses_a_batch_at_most(tmp_path):
    uri, state = str(tmp_path / "milvus.db"), tmp_path / "state"
    with connected(uri) as client:
        store(TrackCollection.create(client, "tracks", ChromaEmbedder()), catalogue())
    arguments = [sys.executable, "-c", KILLED, uri, str(state), *map(str, Path(__file__).parents[:2])]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    steps: list[tuple[str, int, int]] = []
    with connected(uri) as client:
        collection = TrackCollection.open(client, "tracks")
        with found_in(collection, state, watch=lambda *step: steps.append(step)) as groups:
            resumed = told(groups)
        with found_in(collection, tmp_path / "whole") as groups:
            assert told(groups) == resumed
    assert [step for step in steps if step[0] in ("copy", "search", "align")] == [("align", 105, 105)]  # the last 25


def test_a_later_run_compares_what_is_new_and_ends_as_a_first_one_would(own, tmp_path):
    with found_in(own, tmp_path / "state"):
        pass
    own.delete_tracks(["b1", "single0"])
    store(own, [version(1, 5, "b5", 3, 1.05), version(20, 0, "new")])
    steps: list[tuple[str, int, int]] = []
    with found_in(own, tmp_path / "state", watch=lambda *step: steps.append(step)) as groups:
        assert names(groups) == [WORKS[0], ["b0", "b2", "b5"], WORKS[2]]
        later = told(groups)
    assert ("copy", 15, 15) in steps
    assert ("align", 105, 105) in steps
    with found_in(own, tmp_path / "fresh") as groups:
        assert told(groups) == later
    with found_in(own, tmp_path / "state", candidates=3) as groups:  # fewer: others are not asked for any more
        few = told(groups)
        assert groups.pairs < 105
    with found_in(own, tmp_path / "other", candidates=3) as groups:
        assert told(groups) == few


def test_damage_is_named_and_the_others_are_grouped(own, tmp_path):
    ids = [tune.row.id for tune in catalogue()]
    rows = {row.track_id: row for row in own.rows_with(ids, fresh=True)}
    features = own.features_of(ids)
    chroma = features[rows["b1"].id].chroma
    other = "1" if chroma[40] == "0" else "0"
    for track_id, change in (
        ("b1", {"chroma": chroma[:40] + other + chroma[41:]}),
        ("c1", {"statistics": {"n": 3, "alignment": ALIGNMENT}}),
        ("single0", {"chroma": encode(np.zeros((3, CHANNELS), np.uint8))}),  # shorter than a window
    ):
        row = rows[track_id]
        own.upsert([row], *columns_of([dataclasses.replace(features[row.id], **change)]))
    embedding = unit(np.ones(128))[None]
    own.upsert([Row("mute", "0" * 64, 9.0, 0.0, 9.0)], embedding)
    with found_in(own, tmp_path / "state") as groups:
        assert names(groups) == [WORKS[0], ["b0", "b2"], ["c0", "c2"]]
        assert groups.damaged.keys() == {"b1", "c1"}
        assert groups.damaged["b1"].startswith("b1: its stored chroma is damaged")
        assert groups.damaged["c1"].startswith("c1: its stored statistics are damaged")
        assert (groups.too_short, groups.without_chroma, groups.compared) == (["single0"], 1, 12)


def test_a_collection_without_a_second_stage_says_what_to_do(scratch, tmp_path):
    with pytest.raises(
        CollectionError, match=r"no second stage.*`collections promote` with a bundle that has a note map"
    ):
        found_in(scratch, tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_track_that_resembles_everything_has_less_probable_links(own, tmp_path):
    with found_in(own, tmp_path / "state") as groups:
        before = {frozenset((link.first, link.second)): link.score for group in groups for link in group.links}
    row = own.rows_of(["b1"])[0]
    features = own.features_of([row.id])[row.id]
    # Means that are two standard deviations higher than the backgrounds.
    statistics = {
        "n": 40,
        "alignment": ALIGNMENT,
        "vector": [0.2, 0.1],
        **{group: [5.9, 0.65] for group in CHROMA_GROUPS},
    }
    own.upsert([row], *columns_of([dataclasses.replace(features, statistics=statistics)]))
    with found_in(own, tmp_path / "state") as groups:  # what was aligned is there, and is judged anew
        after = {frozenset((link.first, link.second)): link.score for group in groups for link in group.links}
    for pair, score in after.items():
        assert score == pytest.approx(before[pair] - (0.25 * 2 + 0.5 * 2 if "b1" in pair else 0))
    assert len(after) == len(before) == 12


def test_a_state_of_another_collection_or_of_something_else_is_refused(stored, tmp_path):
    Pairs(
        tmp_path / "state",
        {"collection": "songs", "model": "bands", "note map": "most", "alignment": str(ALIGNMENT)},
        CHANNELS,
    ).close()
    with pytest.raises(CollectionMismatch, match=r"its pairs are of collection 'songs', not 'test_.*--state"):
        found_in(stored, tmp_path / "state")
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(OutputError, match="text: file is not a database; it is damaged or something else"):
        found_in(stored, tmp_path / "text")
    with found_in(stored, tmp_path / "used"), pytest.raises(OutputError, match=r"used: .*; another run is using it"):
        found_in(stored, tmp_path / "used")


def by_hand(path: Path, probabilities: dict[str, float]) -> tuple[Pairs, dict[int, str]]:
    """Pairs of tracks a, b, ... with these probabilities, and their names by number."""
    letters = sorted({letter for pair in probabilities for letter in pair})
    pairs = Pairs(path, {"collection": "made by hand"}, 12)
    sounds = [Sound(x, x, np.zeros(2, np.float32), np.zeros((9, 12), np.uint8), np.zeros((3, 2))) for x in letters]
    pairs.see({sound.id: (sound.track_id, sound.statistics) for sound in sounds})
    pairs.add(sounds)
    number_of = pairs.numbers_of(letters)
    numbered = {tuple(sorted(number_of[x] for x in pair)): p for pair, p in probabilities.items()}
    pairs.want_candidates([], numbered)
    pairs.store_alignments([(pair, 0.5, np.ones(1, np.float32)) for pair in numbered])
    pairs.store_verdicts([(float(np.log(p / (1 - p))), p, *pair) for pair, p in numbered.items()])
    return pairs, {number: letter for letter, number in number_of.items()}


def grouped(path: Path, letters: str, probabilities: dict[str, float]) -> list[str]:
    """The groups of these tracks, if these pairs have these probabilities and all others 0.05."""
    others = dict.fromkeys(map("".join, combinations(letters, 2)), 0.05)
    pairs, names = by_hand(path, others | probabilities)
    pairs.want_tests(0.5)
    pairs.strike_links(0.5)
    link_groups(pairs, 0.5)
    found = ["".join(names[number] for number in members) for members in groups_of(pairs)]
    pairs.close()
    return found


def test_one_wrong_link_does_not_join_two_works(tmp_path):
    right = dict.fromkeys(["ab", "ac", "bc", "xy", "xz", "yz"], 0.9)
    assert grouped(tmp_path / "1", "abcxyz", right) == ["abc", "xyz"]
    # Weaker than the right ones: with 0.89 among nine pairs, both works have a mean of 0.14.
    assert grouped(tmp_path / "2", "abcxyz", right | {"ax": 0.89}) == ["abc", "xyz"]
    # The strongest of all: ay, az, bx and cx test it, and with them it counts for (0.95 + 4 * 0.05) / 5 = 0.23.
    assert grouped(tmp_path / "3", "abcxyz", right | {"ax": 0.95}) == ["abc", "xyz"]
    assert grouped(tmp_path / "4", "abcxyzu", right | {"au": 0.95, "ux": 0.95}) == ["abc", "xyz"]
    # A link with nothing to test it stands.
    assert grouped(tmp_path / "5", "abcxyzuv", right | {"uv": 0.6}) == ["abc", "xyz", "uv"]


def test_a_track_joins_a_group_that_it_is_near_on_average(tmp_path):
    right = dict.fromkeys(["ab", "ac", "bc"], 0.9)
    # (0.9 + 0.2 + 0.4) / 3 = 0.5
    assert grouped(tmp_path / "1", "abcd", right | {"ad": 0.2, "bd": 0.9, "cd": 0.4}) == ["abcd"]
    assert grouped(tmp_path / "2", "abcd", right | {"ad": 0.2, "bd": 0.88, "cd": 0.4}) == ["abc"]
    # e goes where it is nearer, though a was a link, too.
    works = right | dict.fromkeys(["xy", "xz", "yz"], 0.9)
    near = {"ae": 0.7, "be": 0.7, "ce": 0.7, "ex": 0.8, "ey": 0.8, "ez": 0.8}
    assert grouped(tmp_path / "3", "abcexyz", works | near) == ["exyz", "abc"]


def test_every_link_is_tested_by_those_closest_to_both_tracks(tmp_path):
    # a has five links, the weakest to x; b, c and d test that one.
    links = {"ab": 0.9, "ac": 0.8, "ad": 0.7, "ae": 0.6, "ax": 0.55}
    pairs, names = by_hand(tmp_path / "state", links)
    pairs.want_tests(0.5)
    wanted = {names[first] + names[second] for first, second in pairs.unaligned(100)}
    pairs.close()
    assert wanted == {"bc", "bd", "be", "bx", "cd", "ce", "cx", "de", "dx"}


def test_work_ids_are_written_and_what_is_beside_them_stays(own, tmp_path):
    row = own.rows_of(["c1"])[0]
    part = dataclasses.replace(row, end_s=30.0)  # a segment of the same track
    labelled = [dataclasses.replace(own.rows_of([name])[0], work_id="mine") for name in ("c0", "single1")]
    odd = dataclasses.replace(own.rows_of(["c2"])[0], work_id="odd")
    before = own.features_of([row.id, *(labelled_row.id for labelled_row in labelled), odd.id])
    own.upsert([part], before[row.id].embedding[None])
    own.upsert([*labelled, odd], *columns_of([before[stored.id] for stored in (*labelled, odd)]))
    with found_in(own, tmp_path / "state") as groups:
        # Work a: 4 tracks; b: 3; of c only c1 has none, in two rows. "mine" and "odd" are as frequent: the smaller.
        assert count_changes(own, groups) == Changes(tracks=8, rows=9, kept=1)
        assert write_work_ids(own, groups) == 9
        work_ids = {row.track_id: row.work_id for row in own.rows_of([tune.track_id for tune in catalogue()])}
        assert [work_ids[name] for name in ("c0", "c1", "c2", "single0", "single1")] == [
            "mine",
            "mine",
            "odd",
            "",
            "mine",
        ]
        assert len({work_ids[name] for name in WORKS[0]}) == 1 and len({work_ids[name] for name in WORKS[1]}) == 1
        assert {row.work_id for row in own.rows_of(["c1"])} == {"mine"} and len(own.rows_of(["c1"])) == 2
        after = own.features_of([row.id])[row.id]
        assert (after.chroma, after.statistics) == (before[row.id].chroma, before[row.id].statistics)
        assert write_work_ids(own, groups) == 0
        assert count_changes(own, groups, overwrite=True) == Changes(tracks=1, rows=1, kept=0)
        assert write_work_ids(own, groups, overwrite=True) == 1
        assert own.rows_of(["c2"])[0].work_id == "mine"
    (matches,) = own.search(before[row.id].embedding, 1)
    assert matches[0].work_id == "mine"


def test_files_say_what_was_found(stored, tmp_path):
    with found_in(stored, tmp_path / "state") as groups:
        for suffix, write in WRITERS.items():
            write(groups, tmp_path / f"works{suffix}", "tracks")
        lines = [json.loads(line) for line in told(groups).splitlines()]
    schema = json.loads(files("bytecover2_milvus.schemas").joinpath("group.schema.json").read_text(encoding="utf-8"))
    for line in lines:
        jsonschema.validate(line, schema, jsonschema.Draft202012Validator)
    assert [json.loads(line) for line in (tmp_path / "works.jsonl").read_text().splitlines()] == lines
    with open(tmp_path / "works.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["track_id"] for row in table if row["group"] == "1"] == [
        track.track_id for track, _ in in_order(next(iter_groups(stored, tmp_path)))
    ]
    second = table[1]  # the strongest link of all is of the two encodings
    assert (second["same_recording"], {second["track_id"], second["linked_to"]}) == ("yes", {"a1", "a1-64k"})
    assert table[0]["linked_to"] == "" and {row["work_id"] for row in table if row["group"] == "1"} == {
        lines[0]["work_id"]
    }
    playlist = (tmp_path / "works.m3u8").read_text(encoding="utf-8").splitlines()
    assert playlist[:2] == ["#EXTM3U", "#PLAYLIST:tracks"] and playlist[2].startswith("#EXTGRP:1 work-")
    assert [line for line in playlist if not line.startswith("#")] == [row["path"] for row in table]
    page = (tmp_path / "works.html").read_text(encoding="utf-8")
    assert "3 works with more than one track" in page and "Same recording" in page


def test_a_line_break_in_a_name_makes_no_line_of_a_playlist(tmp_path):
    tracks = [
        GroupedTrack("a", "/music/one\n/etc/passwd", 9.4, "Two\nlines"),
        GroupedTrack("b", "/music/b.wav", 8, "", "", "w"),
    ]
    group = Group(tracks, [Link("a", "b", 0.5, 0.9, 1.0)], work_id="w")
    write_playlist([group], tmp_path / "works.m3u8", "tracks")
    assert (tmp_path / "works.m3u8").read_text(encoding="utf-8").splitlines() == [
        "#EXTM3U",
        "#PLAYLIST:tracks",
        "#EXTGRP:1 w",
        "#EXTINF:9,Two\\nlines",
        "# left out, as there is a line break in its path: /music/one\\n/etc/passwd",
        "#EXTINF:8,b",
        "/music/b.wav",
    ]


def iter_groups(collection: TrackCollection, folder: Path) -> Iterator[Group]:
    with found_in(collection, folder / "state") as groups:
        yield from groups


@pytest.fixture(scope="module")
def catalogue_at(tiny_notes_bundle, tmp_path_factory) -> tuple[str, Path]:
    """The address of the catalogue in a Milvus Lite, and a bundle with a verdict that it fits."""
    folder = tmp_path_factory.mktemp("groups")
    bundle = folder / "bundle"
    shutil.copytree(tiny_notes_bundle, bundle)
    (bundle / "calibration.json").write_text(VERDICT.to_json(), encoding="utf-8")
    write_sums(bundle)
    with connected(str(folder / "milvus.db")) as client:
        embedder = Embedder(bundle, "cpu")
        store(TrackCollection.open_or_create(client, "tracks", embedder), catalogue())
    return str(folder / "milvus.db"), bundle


def run(*arguments: object, **options: object) -> Result:
    return CliRunner().invoke(main, ["groups", *map(str, arguments)], **options)


def test_the_command_writes_files_and_work_ids(catalogue_at, tmp_path):
    uri, bundle = catalogue_at
    place = ("--uri", uri, "--bundle", bundle)
    outs = [tmp_path / "found" / f"works{suffix}" for suffix in WRITERS]
    result = run(*place, *(argument for out in outs for argument in ("--out", out)), "--write-work-ids", input="n\n")
    assert result.exit_code == 1 and result.stdout == ""
    assert "15 tracks of tracks compared in 105 pairs" in result.stderr
    assert "3 works with 10 tracks" in result.stderr
    assert "Write work_ids into 10 rows of 10 tracks? [y/N]" in result.stderr and "Aborted" in result.stderr
    assert all(out.stat().st_size for out in outs) and (tmp_path / "found" / "tracks.groups.sqlite").exists()

    state = ("--state", outs[0].parent / "tracks.groups.sqlite")
    result = run(*place, *state, "--write-work-ids", "--yes", "--json")
    assert result.exit_code == 0 and "10 rows have a new work_id" in result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [len(line["tracks"]) for line in lines] == [4, 3, 3]
    with connected(uri) as client:
        rows = TrackCollection.open(client, "tracks").rows_of([tune.track_id for tune in catalogue()])
    stored = {row.track_id: row.work_id for row in rows}
    assert {track["track_id"]: line["work_id"] for line in lines for track in line["tracks"]} == {
        track_id: work_id for track_id, work_id in stored.items() if work_id
    }

    result = run(*place, *state)
    assert result.exit_code == 0 and re.search(r"1 +4 +3  work-", result.stdout)


def test_wrong_usage_and_a_bundle_without_a_second_stage_are_told(catalogue_at, tiny_bundle, tiny_notes_bundle):
    uri, _ = catalogue_at
    result = run("--uri", uri, "--out", "works.txt")
    assert result.exit_code == 2 and "its name must end in .jsonl, .csv, .m3u8, .html" in result.stderr
    result = run("--uri", uri, "--overwrite")
    assert result.exit_code == 2 and "--overwrite needs --write-work-ids" in result.stderr
    result = run("--uri", uri, "--bundle", tiny_bundle)
    assert result.exit_code == 1 and "it has no note map, and so no second stage" in result.stderr
    result = run("--uri", uri, "--bundle", tiny_notes_bundle)
    assert result.exit_code == 1 and "it has no calibration for this alignment, and so no verdict" in result.stderr
