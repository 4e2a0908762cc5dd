import csv
import json
import math

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_deit.training.history import History, best_row, read_rows


def history_of(folder, first_epoch=0):
    return History(folder, first_epoch, lambda epoch: {"learning_rate": 0.1 * epoch})


@pytest.fixture
def history(tmp_path):
    """Three epochs."""
    history = history_of(tmp_path)
    for epoch, accuracy in enumerate((0.25, 1 / 3, 0.125)):
        history.on_epoch_end(epoch, {"loss": 2.0 - epoch, "val_accuracy": accuracy})
    return history


def test_each_epoch_is_a_row_of_csv_and_of_json(tmp_path, history):
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "loss", "val_accuracy", "learning_rate"]
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history.rows == read_rows(tmp_path)
    assert history.rows[1] == {
        "epoch": 1,
        "loss": 1.0,
        "val_accuracy": 1 / 3,
        "learning_rate": 0.1,
    }
    assert float(rows[1]["val_accuracy"]) == 1 / 3  # no digit is lost


def scalars(folder):
    events = EventAccumulator(str(folder / "tensorboard"), {"tensors": 0})
    events.Reload()
    return {
        tag: [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in found]
        for tag in events.Tags()["tensors"]
        if (found := events.Tensors(tag))
    }


def test_tensorboard_has_training_and_validation_of_a_number_together(
    tmp_path, history
):
    found = scalars(tmp_path)
    assert sorted(found) == [
        "accuracy/validation",
        "learning_rate/train",
        "loss/train",
    ]
    assert found["loss/train"] == [(0, 2.0), (1, 1.0), (2, 0.0)]


def test_going_on_drops_what_is_said_of_the_epoch_that_is_repeated(tmp_path, history):
    again = history_of(tmp_path, first_epoch=1)
    assert again.rows == history.rows[:1] == read_rows(tmp_path)
    again.on_epoch_end(1, {"loss": 1.0, "val_accuracy": 1 / 3})
    again.on_epoch_end(2, {"loss": 0.0, "val_accuracy": 0.125})
    assert again.rows == history.rows == read_rows(tmp_path)


def test_a_new_number_in_a_later_epoch_has_a_column(tmp_path):
    history = history_of(tmp_path)
    history.on_epoch_end(0, {"loss": 1.0})
    history.on_epoch_end(1, {"loss": 1.0, "keep_rate": 0.7})
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["keep_rate"] for row in rows] == ["", "0.7"]


def test_a_folder_without_a_history_has_no_rows(tmp_path):
    assert read_rows(tmp_path) == []


def test_the_best_is_the_first_of_the_largest():
    rows = [{"epoch": e, "a": a} for e, a in enumerate((0.1, 0.4, math.nan, 0.4))]
    assert best_row(rows, "a")["epoch"] == 1
    assert best_row([], "a") is None
    assert best_row(rows[2:3], "a") is None
