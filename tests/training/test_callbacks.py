import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.training.callbacks import (
    AverageWeights,
    Phases,
    Progress,
    SaveModels,
    StopEarly,
    StopIfNotFinite,
    duration,
    save_model,
)


@pytest.fixture
def student():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def bias_in(path):
    """The one bias of the model in a file: which epoch it was saved in."""
    model = keras.models.load_model(path)
    return float(np.asarray(model.get_weights()[1])[0])


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def rows_of(accuracies):
    return [{"epoch": e, "val_accuracy": a} for e, a in enumerate(accuracies)]


def end_of_epochs(saver, accuracies):
    """Epochs, at the end of which the bias is the number of the epoch."""
    for epoch in range(len(accuracies)):
        saver.history.rows = rows_of(accuracies[: epoch + 1])
        saver.model.student.set_weights([np.zeros((2, 1)), np.full(1, epoch)])
        saver.on_epoch_end(epoch)


@pytest.fixture
def saver(tmp_path, student):
    saver = SaveModels(tmp_path, SimpleNamespace(rows=[]), "val_accuracy", {})
    saver.set_model(SimpleNamespace(student=student))
    return saver


def test_the_last_epoch_and_the_best_are_saved(tmp_path, saver):
    end_of_epochs(saver, [0.2, 0.8, 0.8, 0.5])
    assert bias_in(tmp_path / "last.keras") == 3
    assert bias_in(tmp_path / "best.keras") == 1  # the first of two that are equal
    assert names_in(tmp_path) == ["best.keras", "last.keras"]


def test_the_first_epoch_is_the_best_so_far_even_if_all_is_wrong(tmp_path, saver):
    end_of_epochs(saver, [0.0])
    assert bias_in(tmp_path / "best.keras") == 0


def test_the_averaged_weights_are_saved_beside_them(tmp_path, saver, student):
    average = keras.models.clone_model(student)
    average.set_weights([np.zeros((2, 1)), np.full(1, 0.5)])
    saver.others = {"average.keras": average}
    end_of_epochs(saver, [0.1])
    assert bias_in(tmp_path / "average.keras") == 0.5


def averaged_over(student, decay, biases):
    """The averages after steps at the end of which the bias has these values."""
    average = AverageWeights(student, decay, None, "val_average_accuracy")
    found = []
    for bias in biases:
        student.set_weights([np.zeros((2, 1)), np.full(1, bias)])
        average.on_train_batch_end(0)
        found.append(float(average.average.get_weights()[1][0]))
    return found


def test_the_moving_average_is_worked_out_by_hand(student):
    # d is 1/10, 2/11, 3/12, ... until it reaches the decay, from 0:
    # 0.1 * 0 + 0.9 * 1 = 0.9; 2/11 * 0.9 + 9/11 * 2 = 1.8; 0.2 * 1.8 + 0.8 * 3 = 2.76.
    assert averaged_over(student, 0.2, [1.0, 2.0, 3.0]) == pytest.approx(
        [0.9, 1.8, 2.76]
    )


def test_a_decay_of_0_is_no_average(student):
    assert averaged_over(student, 0.0, [1.0, 5.0]) == [1.0, 5.0]


def test_an_average_goes_on_from_its_variables(student):
    whole = averaged_over(student, 0.99, [1.0, 2.0, 3.0])
    student.set_weights([np.zeros((2, 1)), np.zeros(1)])
    first = AverageWeights(student, 0.99, None, "a")
    for bias in (1.0, 2.0):
        student.set_weights([np.zeros((2, 1)), np.full(1, bias)])
        first.on_train_batch_end(0)
    second = AverageWeights(student, 0.99, None, "a")
    for variable, value in zip(second.variables, first.variables, strict=True):
        variable.assign(value)
    student.set_weights([np.zeros((2, 1)), np.full(1, 3.0)])
    second.on_train_batch_end(0)
    assert float(second.average.get_weights()[1][0]) == pytest.approx(whole[-1])


def test_the_accuracy_of_the_average_is_among_the_numbers_of_the_epoch():
    student = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    student.set_weights([np.eye(2), np.zeros(2)])
    pixels, labels = tf.eye(2), tf.one_hot([0, 0], 2)
    batches = tf.data.Dataset.from_tensors((pixels, labels, tf.ones(2)))
    average = AverageWeights(student, 0.9, batches, "val_average_accuracy")
    student.set_weights([-np.eye(2), np.zeros(2)])  # not yet in the average
    logs = {}
    average.on_epoch_end(0, logs)
    assert logs == {"val_average_accuracy": 0.5}


class Trained:
    """Stands for a distiller: notes how it is told to train."""

    def __init__(self, student):
        self.student, self.told = student, []

    def train_with(self, model, training, heads_only):
        self.told.append((model, training, heads_only))


def phases_of(student, *arguments, epochs=6):
    phases = Phases(*arguments)
    phases.set_model(Trained(student))
    for epoch in range(epochs):
        phases.on_epoch_begin(epoch)
    return phases


def test_first_the_heads_in_inference_mode_then_all(capsys):
    told = phases_of("student", 2, True, []).model.told
    assert told == [("student", False, True), ("student", True, False)]
    printed = capsys.readouterr().out
    assert "Epoch 1: training the heads alone\nEpoch 3: training all weights" in printed


def test_without_training_mode_all_weights_are_trained_in_inference_mode(capsys):
    told = phases_of("student", 0, False, []).model.told
    assert told == [("student", False, False)]
    assert capsys.readouterr().out == ""


def test_keep_rates_follow_each_other_and_the_last_is_the_students_own(monkeypatch):
    made = []

    def with_keep_rate(student, rate):
        made.append(rate)
        return f"{student} at {rate}"

    monkeypatch.setattr("keras_deit.training.callbacks.with_keep_rate", with_keep_rate)
    phases = phases_of("student", 0, True, [(0, 1.0), (2, 0.85), (4, 0.7)])
    assert [model for model, _, _ in phases.model.told] == [
        "student at 1.0",
        "student at 0.85",
        "student",
    ]
    assert made == [1.0, 0.85]
    assert [phases.keep_rate(e) for e in range(6)] == [1.0, 1.0, 0.85, 0.85, 0.7, 0.7]


def test_a_run_that_goes_on_begins_in_its_phase():
    phases = Phases(2, True, [(0, 0.7)])
    phases.set_model(Trained("student"))
    phases.on_epoch_begin(3)
    assert phases.model.told == [("student", True, False)]


def test_it_stops_when_the_best_lies_too_far_back(capsys):
    history = SimpleNamespace(rows=[])
    stop = StopEarly(history, "val_accuracy", patience=2)
    stop.set_model(SimpleNamespace(stop_training=False))
    stopped = []
    for count in range(1, 6):
        history.rows = rows_of([0.1, 0.3, 0.3, 0.2, 0.1][:count])
        stop.on_epoch_end(count - 1)
        stopped.append(stop.model.stop_training)
    assert stopped == [False, False, False, True, True]  # epoch 1 was the best
    assert "Stopped early: 2 epochs without a better one." in capsys.readouterr().out


def test_a_run_without_epochs_is_not_over():
    assert not StopEarly(SimpleNamespace(rows=[]), "val_accuracy", 1).is_over()


def test_a_save_that_fails_leaves_the_old_file_whole(tmp_path, student):
    save_model(student, tmp_path / "last.keras")
    before = (tmp_path / "last.keras").read_bytes()

    def save_half(path):
        path.write_bytes(before[:100])
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        save_model(SimpleNamespace(save=save_half), tmp_path / "last.keras")
    assert (tmp_path / "last.keras").read_bytes() == before


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path, student):
    seen = []

    def save(path):
        seen.extend(names_in(tmp_path))
        student.save(path)
        seen.extend(names_in(tmp_path))

    save_model(SimpleNamespace(save=save), tmp_path / "last.keras")
    assert "last.keras" not in seen
    assert names_in(tmp_path) == ["last.keras"]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(tmp_path, student, loss):
    stop = StopIfNotFinite(tmp_path, 10, lambda epoch, step: [epoch, step, *range(9)])
    stop.set_model(SimpleNamespace(student=student))
    stop.on_epoch_begin(2)
    stop.on_train_batch_end(0, {"loss": 1.5})
    message = (
        rf"The loss is {loss} in epoch 3, step 15, on examples "
        r"2, 14, 0, 1, 2, 3, 4, 5, \.\.\. \(all of them in .*not_finite\.json"
    )
    with pytest.raises(RuntimeError, match=message):
        stop.on_train_batch_end(4, {"loss": loss})
    assert names_in(tmp_path) == ["not_finite.json", "not_finite.keras"]
    record = json.loads((tmp_path / "not_finite.json").read_text())
    assert record == {
        "epoch": 2,
        "step": 14,
        "ids": [2, 14, *range(9)],
        "loss": str(loss),
    }


def test_the_epoch_after_a_resume_counts_its_steps_from_the_first(tmp_path, student):
    stop = StopIfNotFinite(tmp_path, 10, lambda epoch, step: [step])
    stop.set_model(SimpleNamespace(student=student))
    stop.on_epoch_end(2)
    stop.on_epoch_begin(3)
    with pytest.raises(RuntimeError, match="in epoch 4, step 2, on examples 1 "):
        stop.on_train_batch_end(1, {"loss": float("nan")})


def test_each_epoch_has_a_line_with_the_time_that_is_left(capsys, monkeypatch):
    times = iter([0.0, 60.0, 100.0, 120.0, 200.0, 230.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    progress = Progress(3, ("loss", "accuracy", None))
    for epoch in range(3):
        progress.on_epoch_begin(epoch)
        progress.on_epoch_end(epoch, {"loss": 0.12345, "other": 1.0})
    # The first epoch, which traces the graph, is not typical of the others.
    assert capsys.readouterr().out == (
        "Epoch 1/3 - loss 0.1235 - 60 s, 2 min left\n"
        "Epoch 2/3 - loss 0.1235 - 20 s, 20 s left\n"
        "Epoch 3/3 - loss 0.1235 - 30 s\n"
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (99.4, "99 s"),
        (100, "2 min"),
        (5969, "99 min"),
        (6000, "1 h 40 min"),
        (86400, "24 h 0 min"),
    ],
)
def test_a_time_is_written_for_people(seconds, words):
    assert duration(seconds) == words


def test_a_save_that_fails_leaves_no_partial_file(tmp_path):
    def save_half(path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        save_model(SimpleNamespace(save=save_half), tmp_path / "last.keras")
    assert list(tmp_path.iterdir()) == []
