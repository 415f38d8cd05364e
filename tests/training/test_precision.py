"""A precision is chosen by what a few steps of it take and give here."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from bytecover2_milvus.config import PRECISIONS, Config, FrontEnd, Network, Training
from bytecover2_milvus.errors import ConfigError
from bytecover2_milvus.training.precision import TRIED, Trial, choose_precision, chosen, try_precision

SMALL = Config(
    front_end=FrontEnd(time_pooling=40),
    network=Network(feature_dim=None, stage_blocks=(1, 1, 1, 1), base_width=4),
    training=Training(works_per_batch=2, tracks_per_work=2, crop_s=(20.0,), precision="auto"),
)


@pytest.mark.parametrize(
    ("float32", "bfloat16", "expected"),
    [
        (Trial(1.0, True), Trial(0.5, True), "bf16-mixed"),
        (Trial(1.0, True), Trial(0.97, True), "32-true"),  # no faster by the clock
        (Trial(1.0, True), Trial(0.5, False), "32-true"),  # a loss that is no number
        (Trial(1.0, True), Trial(), "32-true"),  # it crashed
        (Trial(1.0, False), Trial(2.0, True), "bf16-mixed"),
        (Trial(1.0, False), Trial(), "32-true"),  # the training will say so
    ],
)
def test_the_fastest_that_gives_numbers_is_chosen(float32, bfloat16, expected):
    assert chosen({"32-true": float32, "bf16-mixed": bfloat16}) == expected


def test_a_choice_is_made_by_trials_and_kept_for_the_machine(tmp_path):
    first = choose_precision(SMALL, "cpu", tmp_path)
    assert list(first.trials) == list(PRECISIONS) and first.precision == chosen(first.trials)
    assert first.trials["32-true"].finite and first.trials["32-true"].step_s > 0
    record = json.loads((tmp_path / TRIED).read_text())
    assert record["precision"] == first.precision
    record["trials"]["32-true"]["step_s"] = 1234.5
    (tmp_path / TRIED).write_text(json.dumps(record))
    assert choose_precision(SMALL, "cpu", tmp_path).trials["32-true"].step_s == 1234.5  # not tried again
    (tmp_path / TRIED).write_text(json.dumps(record | {"machine": "another"}))
    assert choose_precision(SMALL, "cpu", tmp_path).trials["32-true"].step_s != 1234.5


def test_a_trial_that_kills_its_process_is_survived(tmp_path):
    """A configuration for which no memory is enough stands for an instruction that a processor lacks."""
    huge = replace(SMALL, training=replace(SMALL.training, works_per_batch=4096, tracks_per_work=256, crop_s=(3600.0,)))
    choice = choose_precision(huge, "cpu", tmp_path)
    assert choice.precision == "32-true" and set(choice.trials.values()) == {Trial()}
    assert str(choice) == "precision 32-true: 32-true crashed, bf16-mixed crashed"


def test_a_loss_that_is_no_number_is_told():
    wild = replace(SMALL, training=replace(SMALL.training, precision="32-true", learning_rate=1e30))
    assert not Trial(**try_precision(wild.to_dict(), "cpu", torch.get_num_threads())).finite


def test_the_note_map_names_its_precision(tmp_path):
    notes = replace(SMALL, training=replace(SMALL.training, phase="notes"))
    with pytest.raises(ConfigError, match="name one"):
        choose_precision(notes, "cpu", tmp_path)
