"""The schemas are schemas, ship with the package, and hold for what the library gives."""

from __future__ import annotations

import dataclasses
import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from bytecover2_milvus.groups.group import Group, GroupedTrack, Link
from bytecover2_milvus.ingest.batch import IngestRecord
from bytecover2_milvus.metrics import evaluate
from bytecover2_milvus.milvus.search import Match
from bytecover2_milvus.pages.group_files import lines_of
from bytecover2_milvus.second_stage.explain import Stretch

SCHEMAS = {
    entry.name: json.loads(entry.read_text(encoding="utf-8"))
    for entry in files("bytecover2_milvus.schemas").iterdir()
    if entry.name.endswith(".schema.json")
}
MATCH = {"query": "song.flac"} | dataclasses.asdict(
    Match(1, "t", "", "", "", "/music/t.flac", 0.5, 0.0, 200.0, 200.0, query_start_s=0.0, query_end_s=60.0)
)
RECORD = dataclasses.asdict(IngestRecord("t.flac", "t", "", "failed", "t.flac: no such file"))


def validate(instance: dict, name: str) -> None:
    jsonschema.validate(instance, SCHEMAS[name], jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["title"] and SCHEMAS[name]["description"]


def test_a_match_is_valid_and_a_broken_one_is_not() -> None:
    validate(MATCH, "match.schema.json")
    for broken in ({"rank": 0}, {"similarity": 1.5}, {"distance": 0.1}):
        with pytest.raises(jsonschema.ValidationError):
            validate(MATCH | broken, "match.schema.json")
    for name in MATCH:
        with pytest.raises(jsonschema.ValidationError, match=f"'{name}' is a required property"):
            validate({key: value for key, value in MATCH.items() if key != name}, "match.schema.json")


def test_a_record_is_valid_and_a_broken_one_is_not() -> None:
    validate(RECORD, "ingest_record.schema.json")
    validate(RECORD | {"status": "added", "reason": "", "duration_s": 200.0}, "ingest_record.schema.json")
    for broken in ({"status": "done"}, {"reason": ""}, {"duration_s": 0}):
        with pytest.raises(jsonschema.ValidationError):
            validate(RECORD | broken, "ingest_record.schema.json")


def test_a_group_is_valid_and_a_broken_one_is_not() -> None:
    link = Link("a", "b", 0.5, 0.9, 2.2, stretch=Stretch(1, 20, 0, 18, -2, 1.1))
    pair = [GroupedTrack("a", "/music/a.flac", 20.0), GroupedTrack("b", "/music/b.flac", 18.0, recording=2)]
    (line,) = lines_of([Group(pair, [link, Link("a", "b", 0.5, 0.9, 2.2)], "work-0")])
    validate(line, "group.schema.json")
    (track, _), (stretched, _) = line["tracks"], line["links"]
    for broken in (
        {"tracks": [track]},
        {"links": []},
        {"work_id": ""},
        {"tracks": [track, track | {"recording": 0}]},
        {"links": [stretched | {"probability": 1.1}]},
        {"links": [stretched | {"stretch": stretched["stretch"] | {"transposition": 7}}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            validate(line | broken, "group.schema.json")


def test_an_evaluation_is_valid() -> None:
    evaluation = evaluate(np.eye(4), ["w", "w", "v", "v"], ["a", "b", "c", "d"])
    line = {name: getattr(evaluation, name) for name in SCHEMAS["evaluation.schema.json"]["required"]}
    validate(line, "evaluation.schema.json")
    with pytest.raises(jsonschema.ValidationError):
        validate(line | {"map": 1.1}, "evaluation.schema.json")
