"""Qmax: against a plain implementation of the paper and librosa, and what must be so for any two tracks."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from bytecover2_milvus.alignment.chroma import TOP, to_levels
from bytecover2_milvus.alignment.evidence import evidence
from bytecover2_milvus.alignment.qmax import ALIGNMENT, LONGEST_FRAMES, Qmax, qmax_maxima, qmax_scores, scores_of
from bytecover2_milvus.errors import ChromaError, ConfigError, ShortChroma

pytestmark = pytest.mark.filterwarnings("error")


# How often each pitch class occurs; uneven, as in a key, so that one transposition fits best.
KEY = np.array([6, 0, 3, 0, 4, 2, 0, 5, 0, 2, 0, 1]) / 23


def melody(n_frames: int, seed: int, groups: int = 1) -> np.ndarray:
    """Chroma (n_frames, 12 * groups) in C of notes that last some frames, above quieter other pitch classes."""
    rng = np.random.default_rng(seed)
    chroma = rng.random((n_frames, 12 * groups)) * 0.4
    for group in range(groups):
        notes = np.repeat(rng.choice(12, n_frames, p=KEY), rng.integers(1, 5, n_frames))[:n_frames]
        chroma[np.arange(n_frames), 12 * group + notes] = 1
    return chroma


def retimed(chroma: np.ndarray, ratio: float) -> np.ndarray:
    """Every frame `ratio` times as long."""
    return chroma[(np.arange(round(len(chroma) * ratio)) / ratio).astype(int)]


def transposed(chroma: np.ndarray, semitones: int) -> np.ndarray:
    return np.roll(chroma.reshape(len(chroma), -1, 12), semitones, axis=2).reshape(chroma.shape)


def plain_recurrence(query: np.ndarray, candidate: np.ndarray, parameters: Qmax, semitones: int) -> np.ndarray:
    """The recurrence matrix of twelve channels by sorting, as the paper writes it."""
    x, y = (np.rint(chroma * TOP).astype(int) for chroma in (transposed(query, semitones), candidate))
    windows = [
        sliding_window_view(a, parameters.embedding, axis=0).reshape(len(a) - parameters.embedding + 1, -1)
        for a in (x, y)
    ]
    squared = ((windows[0][:, None] - windows[1][None]) ** 2).sum(axis=2)  # (n, m)
    # How many windows are at most as far as this one, in its row and in its column; too many, and it is no neighbour.
    in_row = (squared[:, None, :] <= squared[:, :, None]).sum(axis=2)
    in_column = (squared[None] <= squared[:, None]).sum(axis=1)
    most = [max(1, int(parameters.kappa * side)) for side in squared.shape]
    return (in_row <= most[1]) & (in_column <= most[0])


def plain_transpositions(query: np.ndarray, candidate: np.ndarray) -> list[int]:
    """The two that give the largest products of mean chroma."""
    means = [to_levels(chroma).mean(axis=0) for chroma in (query, candidate)]
    products = [(transposed(means[0][None], semitones)[0] * means[1]).sum() for semitones in range(12)]
    return np.argsort(products)[::-1][:2].tolist()


def librosa_maximum(recurrence: np.ndarray, parameters: Qmax) -> float:
    """Of two rows and columns at least: with fewer, librosa writes beyond its arrays."""
    from librosa.sequence import rqa

    return rqa(
        recurrence.astype(np.float32), gap_onset=parameters.onset, gap_extend=parameters.extension, backtrack=False
    ).max()


@pytest.mark.parametrize(
    "parameters",
    [
        Qmax(),
        Qmax(onset=0.5, extension=0.25),
        Qmax(onset=2, extension=1),
        Qmax(embedding=1, kappa=0.3),
        Qmax(embedding=24),
    ],
    ids=str,
)
@pytest.mark.parametrize(("n_query", "n_candidate"), [(130, 97), (60, 110), (26, 40), (72, 136), (73, 71)])
def test_the_score_is_librosas_on_the_recurrence_of_the_paper(parameters, n_query, n_candidate):
    query, candidate = melody(n_query, 0), melody(n_candidate, 1)
    candidate[10:24] = transposed(query, 4)[5:19]
    maxima = [
        librosa_maximum(plain_recurrence(query, candidate, parameters, semitones), parameters)
        for semitones in plain_transpositions(query, candidate)
    ]
    (score,) = qmax_scores(query, [candidate], parameters)
    assert max(maxima) > 0
    assert score[0] == pytest.approx(max(maxima) / (n_query * n_candidate) ** 0.25, rel=1e-6)


@pytest.mark.parametrize("parameters", [Qmax(), Qmax(onset=0.75, extension=0.25)], ids=str)
def test_evidence_has_the_recurrence_and_the_score_of_the_batch(parameters):
    query, candidate = melody(150, 2), melody(120, 3)
    candidate[40:100] = transposed(query, 7)[20:80]
    found = evidence(query, candidate, parameters=parameters)
    assert found is not None and found.score == qmax_scores(query, [candidate], parameters)[0, 0]
    assert found.transposition == -5
    np.testing.assert_array_equal(found.recurrence, plain_recurrence(query, candidate, parameters, 7))


@pytest.mark.parametrize("seed", [14, 24])
def test_evidence_says_where_a_tune_runs_and_how_fast(seed):
    tune = melody(200, seed)
    query = np.concatenate([melody(50, seed + 1), tune, melody(30, seed + 2)])
    candidate = np.concatenate([melody(20, seed + 3), retimed(transposed(tune, 3), 1.25), melody(60, seed + 4)])
    found = evidence(query, candidate)
    assert found is not None
    assert (found.query_start, found.query_end) == (pytest.approx(50, abs=20), pytest.approx(250, abs=20))
    assert (found.candidate_start, found.candidate_end) == (pytest.approx(20, abs=20), pytest.approx(270, abs=20))
    assert found.transposition == 3
    assert found.tempo_ratio == pytest.approx(0.8, abs=0.03)
    steps = np.diff(found.path, axis=0)
    assert found.recurrence[found.path[:, 0], found.path[:, 1]].all() and (steps >= 1).all()
    assert found.path[0].tolist() == [found.query_start, found.candidate_start]


@pytest.mark.parametrize("semitones", range(1, 12))
def test_a_transposed_track_scores_the_same(semitones):
    query, candidate = melody(120, 9, groups=2), melody(100, 10, groups=2)
    candidate[30:80] = query[10:60]
    other = transposed(query, semitones)
    np.testing.assert_array_equal(qmax_scores(other, [candidate]), qmax_scores(query, [candidate]))
    before, after = evidence(query, candidate), evidence(other, candidate)
    assert before is not None and after is not None
    assert (before.transposition - after.transposition) % 12 == semitones
    np.testing.assert_array_equal(before.path, after.path)


def test_penalties_in_halves_and_others_are_counted_alike():
    """One kind is computed in 16 bits, the other in float32."""
    halves, others = Qmax(onset=1, extension=0.5), Qmax(onset=1 + 2**-20, extension=0.5 - 2**-20)
    assert halves.units().dtype == np.uint16 and others.units().dtype == np.float32
    query, candidate = melody(150, 14), melody(120, 15)
    candidate[30:100] = transposed(query, 2)[40:110]
    expected = qmax_scores(query, [candidate], others)
    np.testing.assert_allclose(qmax_scores(query, [candidate], halves), expected, rtol=1e-4)


def test_both_directions_score_the_same():
    tracks = [melody(90, 11), melody(140, 12), melody(33, 13)]
    scores = np.array([qmax_scores(track, tracks)[:, 0] for track in tracks])
    np.testing.assert_array_equal(scores, scores.T)


def test_a_track_is_closest_to_itself():
    tracks = [melody(n, seed) for seed, n in enumerate([90, 140, 120, 100, 130], start=20)]
    for i, track in enumerate(tracks):
        scores = qmax_scores(track, tracks)[:, 0]
        windows = len(track) - Qmax().embedding + 1
        assert scores.argmax() == i and scores[i] == pytest.approx(windows / len(track) ** 0.5)


def test_a_candidate_scores_the_same_alone_and_among_others_and_each_group_as_by_itself():
    query, others = melody(100, 30, groups=2), [melody(n, n, groups=2) for n in (80, 9, 120, 25)]
    together = qmax_scores(query, others)
    assert together.shape == (4, 2)
    for row, other in zip(together, others, strict=True):
        np.testing.assert_array_equal(row, qmax_scores(query, [other])[0])
    swapped = [np.roll(other, 12, axis=1) for other in others]
    np.testing.assert_array_equal(qmax_scores(np.roll(query, 12, axis=1), swapped), together[:, ::-1])


def test_levels_score_as_the_chroma_they_come_from_and_read_only_ones_too():
    query, candidate = melody(60, 40), melody(50, 41)
    levels = to_levels(candidate)
    levels.setflags(write=False)
    np.testing.assert_array_equal(qmax_scores(query, [candidate]), qmax_scores(to_levels(query), [levels]))


def test_all_groups_are_in_one_transposition():
    """The tune is there in one key and all notes in another: not both at once."""
    query, candidate = melody(200, 30, groups=2), melody(200, 31, groups=2)
    candidate[60:140, :12] = query[60:140, :12]
    candidate[60:140, 12:] = transposed(query[60:140, 12:], 7)
    apart = [qmax_scores(query, [candidate], groups=[group])[0, 0] for group in (0, 1)]
    notes, tune = qmax_scores(query, [candidate])[0]
    assert (notes == apart[0]) != (tune == apart[1]) and notes <= apart[0] and tune <= apart[1]
    for group, score in enumerate((notes, tune)):
        found = evidence(query, candidate, group)
        assert found is not None and found.score == score


def test_scores_are_those_of_this_version_of_the_alignment():
    """Other scores need another version: statistics and calibrations are of the scores of theirs."""
    query, candidate = melody(120, 70, groups=2), melody(100, 71, groups=2)
    candidate[20:70] = query[40:90]
    scores = {2: [5.0638466, 5.1593909]}
    assert qmax_scores(query, [candidate])[0].tolist() == pytest.approx(scores[ALIGNMENT], rel=1e-6), "raise ALIGNMENT"


def test_silence_and_a_held_chord_do_not_recur():
    tail = np.zeros((60, 12))
    chord = np.tile(melody(1, 50), (60, 1))
    for same in (tail, chord):
        assert qmax_scores(same, [same])[0, 0] == 0 and evidence(same, same) is None


def test_a_query_shorter_than_a_window_is_refused_and_such_a_candidate_scores_nothing():
    long, short = melody(60, 60), melody(3, 61)
    with pytest.raises(ShortChroma, match="3 frames of chroma, 4 are needed"):
        qmax_scores(short, [long])
    assert qmax_scores(long, [short, long[:0]]).tolist() == [[0], [0]] and evidence(long, short) is None
    assert qmax_scores(long, []).shape == (0, 1)


def test_chroma_that_cannot_be_aligned_is_refused():
    good = melody(60, 62)
    bad = good.copy()
    bad[3, 4] = np.nan
    with pytest.raises(ChromaError, match="query: chroma holds NaN"):
        qmax_scores(bad, [good])
    with pytest.raises(ChromaError, match="candidate 1: chroma holds NaN"):
        qmax_scores(good, [good, bad])
    with pytest.raises(ChromaError, match="candidate 0: 24 channels of chroma, the query has 12"):
        qmax_scores(good, [melody(60, 63, groups=2)])
    with pytest.raises(ChromaError, match=f"at most {LONGEST_FRAMES} can be aligned"):
        qmax_scores(good, [np.zeros((LONGEST_FRAMES + 1, 12), np.uint8)])


@pytest.mark.parametrize("wrong", [{"embedding": 0}, {"embedding": 25}, {"kappa": 0}, {"kappa": 1}, {"onset": -1}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Qmax(**wrong)


ALIGN = """
import sys
import numpy as np
from bytecover2_milvus.alignment.kernel.trace import trace
from pathlib import Path
n = 12
path, moves = np.empty((n, 2), np.int32), np.empty((n, n), np.uint8)
print(*trace(np.eye(n, dtype=bool), np.array([2, 1, 1], np.uint16), moves, path), "torch" in sys.modules)
"""


def test_a_damaged_cache_of_compiled_code_is_compiled_again(tmp_path):
    def run(folder: Path) -> str:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
        return subprocess.run(
            [sys.executable, "-c", ALIGN], env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert run(tmp_path) == "24 12 False\n"
    (code,) = tmp_path.rglob("*.trace-*.nbc")
    whole = code.read_bytes()
    (index,) = tmp_path.rglob("*.trace-*.nbi")
    code.write_bytes(whole[:1000] + bytes(len(whole) - 1000))
    assert run(tmp_path) == "24 12 False\n"
    assert code.read_bytes()[1000:].strip(b"\0")  # written anew
    index.write_bytes(b"")
    assert run(tmp_path) == "24 12 False\n"


def test_compiled_code_is_compiled_again_when_a_function_in_another_file_has_changed(tmp_path):
    """Numba by itself looks at the file of the function that is called from Python alone."""
    (tmp_path / "called.py").write_text(
        "from bytecover2_milvus.alignment.kernel.compiled import entry\nfrom inside import one\n\n\n"
        "@entry\ndef two():\n    return 2 * one()\n"
    )

    def run(one: int) -> str:
        (tmp_path / "inside.py").write_text(
            f"from bytecover2_milvus.alignment.kernel.compiled import inner\n\n\n@inner\ndef one():\n    return {one}\n"
        )
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        environment["NUMBA_CACHE_DIR"] = str(tmp_path / "cache")
        code = "from called import two; print(two())"
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert [run(1), run(1), run(3)] == ["2\n", "2\n", "6\n"]


def test_processes_compile_one_after_the_other(tmp_path):
    """Numba by itself mixes up the files of two that compile for different types at once."""
    (tmp_path / "called.py").write_text(
        "from bytecover2_milvus.alignment.kernel.compiled import entry\n\n\n@entry\ndef two(one):\n    return 2 * one\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run(code: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    with run("import called") as imported:
        assert imported.wait() == 0
    (lock,) = tmp_path.rglob("called.two.lock")
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = run("from called import two; print(two(3))")
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(4)  # in which it would have compiled
        assert not list(tmp_path.rglob("called.two-*"))
    with waiting:
        assert waiting.communicate()[0] == "6\n"
    assert list(tmp_path.rglob("called.two-*"))


def test_groups_that_are_aligned_one_after_the_other_are_those_aligned_together():
    rng = np.random.default_rng(5)
    query, *candidates = (rng.integers(0, 16, (n, 36)).astype(np.uint8) for n in (60, 50, 80, 2))
    parts = [qmax_maxima(query, candidates, groups=groups) for groups in ([1], [0, 2])]
    lengths = [len(candidate) for candidate in candidates]
    scores = scores_of(np.concatenate(parts, axis=1), len(query), lengths)
    np.testing.assert_array_equal(scores, qmax_scores(query, candidates, groups=[1, 0, 2]))
    assert (scores_of(parts[0], len(query), lengths)[:2] > 0).all() and not scores[2].any()


def test_some_groups_are_aligned_in_the_better_transposition_for_them():
    """There are two to choose from, those of all groups together."""
    rng = np.random.default_rng(3)
    query, *candidates = (rng.integers(0, 16, (n, 36)).astype(np.uint8) for n in (60, 50, 80))
    every = qmax_scores(query, candidates)
    for groups in ([2, 0, 1], [1, 2, 0], []):
        np.testing.assert_array_equal(qmax_scores(query, candidates, groups=groups), every[:, groups])
    for groups in ([0], [2, 1]):
        assert (qmax_scores(query, candidates, groups=groups).sum(axis=1) >= every[:, groups].sum(axis=1)).all()
