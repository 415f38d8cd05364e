"""Results in a notebook: tables of pandas, and HTML with players."""

from __future__ import annotations

import base64
import io
import sys
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import soundfile
from IPython.core.formatters import DisplayFormatter
from written_tune import played, tune

import bytecover2_milvus
from bytecover2_milvus import Match, listen, to_dataframe
from bytecover2_milvus.config import SAMPLE_RATE
from bytecover2_milvus.errors import BytecoverError
from bytecover2_milvus.groups.find import Groups
from bytecover2_milvus.groups.group import Group, GroupedTrack
from bytecover2_milvus.metrics import evaluate
from bytecover2_milvus.second_stage.answer import Answer

NASTY = '</td><script>alert("1")</script><img src=x onerror="alert(2)">'


class Elements(HTMLParser):
    """Elements of a text, each with its attributes, and the text without them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.elements}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("music") / "cover.wav"
    soundfile.write(path, played(tune(1, 20)), SAMPLE_RATE)
    return path


@pytest.fixture(scope="module")
def answer(recording: Path) -> Answer:
    judged = {"score": 2.6, "probability": 0.93, "transposition": 2, "tempo_ratio": 0.8}
    place = {"start_s": 7, "end_s": 18, "query_start_s": 2, "query_end_s": 12.4}
    matches = [
        Match(1, "a", NASTY, NASTY, NASTY, str(recording), 0.4, duration_s=20.0, **place, **judged),
        Match(2, "b", "", "", "", "/gone/" + NASTY, 0.3, start_s=0, end_s=22, duration_s=22),
    ]
    return Answer(matches, judged=True, note="a <note>")


def shown(result: object) -> Elements:
    """What IPython would send to a notebook."""
    (data, _) = DisplayFormatter().format(result, include={"text/html"})
    return Elements(data["text/html"])


def test_a_notebook_shows_verdict_and_evidence_of_each_match_and_names_as_text(answer):
    page = shown(answer)
    assert page.names <= {"table", "thead", "tbody", "tr", "th", "td", "b", "br", "span", "p"}
    assert page.text.count(NASTY) >= 3 and "a <note>" in page.text
    assert "0:02–0:12 of the query runs as 0:07–0:18 of the track, which is 2 semitones higher" in page.text
    assert "93\N{NO-BREAK SPACE}%" in page.text and "score +2.6" in page.text and "similarity 0.30" in page.text


def test_where_nothing_is_found_it_says_so(answer):
    nearest = answer.matches[0]
    assert "No cover found; the nearest is" in shown(Answer([], judged=True, nearest=nearest)).text
    assert shown(Answer([])).text == "No track found."


def test_players_begin_where_both_run_alike(answer, recording):
    page = shown(listen(answer, recording, seconds=3))
    sources = [attributes["src"] for name, attributes in page.elements if name == "audio"]
    assert len(sources) == 2 and page.names <= {*shown(answer).names, "audio"}
    waveform = played(tune(1, 20))
    for source, start_s in zip(sources, (2, 7), strict=True):
        kind, _, data = source.partition(",")
        assert kind == "data:audio/mpeg;base64"
        clip = decoded(base64.b64decode(data))
        expected = waveform[int(start_s * SAMPLE_RATE) :][: 3 * SAMPLE_RATE]
        assert abs(len(clip) - len(expected)) < 0.2 * SAMPLE_RATE
        # MP3 delays the sound a little: the best of some delays.
        likeness = max(np.corrcoef(clip[lag : lag + 40_000], expected[:40_000])[0, 1] for lag in range(0, 2500))
        assert likeness > 0.95
    assert "/gone/" in page.text and len(str(sources)) < 100_000


def decoded(mp3: bytes) -> np.ndarray:
    with av.open(io.BytesIO(mp3)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def test_matches_are_a_table_of_pandas(answer):
    table = to_dataframe(answer.matches)
    assert table.equals(answer.to_dataframe())
    assert table.columns[0] == "rank" and table["probability"].isna().tolist() == [False, True]
    assert table.loc[0, "title"] == NASTY and table["similarity"].tolist() == [0.4, 0.3]
    empty = Answer([]).to_dataframe()
    assert isinstance(empty, pd.DataFrame) and list(empty.columns) == list(table.columns) and empty.empty


def test_groups_and_evaluations_are_too():
    tracks = [GroupedTrack(name, f"{name}.wav", 10.0) for name in "abc"]
    found = Groups(2, 3, 3, 3, 0, _groups=lambda: iter([Group(tracks[:2], []), Group(tracks[2:], [])]))
    assert found.to_dataframe()[["group", "track_id"]].values.tolist() == [[1, "a"], [1, "b"], [2, "c"]]
    evaluation = evaluate(np.eye(3), ["w", "", "w"], ["z", "y", "x"])
    table = evaluation.to_dataframe()
    assert table["track_id"].tolist() == ["x", "z"] and table["work_id"].tolist() == ["w", "w"]
    assert table["average_precision"].mean() == evaluation.map and table["first_rank"].mean() == evaluation.mr1


def test_what_is_no_record_is_refused():
    with pytest.raises(TypeError, match="int: neither a dataclass nor a mapping"):
        to_dataframe([1])


def test_without_pandas_the_error_says_what_to_install(answer, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(BytecoverError, match=r'a table: pandas .*pip install "pandas'):
        answer.to_dataframe()


def test_both_are_names_of_the_package():
    assert {"listen", "to_dataframe"} <= set(bytecover2_milvus.__all__)
