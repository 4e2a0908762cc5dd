from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_deit.training.callbacks import SaveStudent, StopIfNotFinite, save_model


@pytest.fixture
def student():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def bias_in(path):
    """The one bias of the model in a file: which epoch it was saved in."""
    model = keras.models.load_model(path)
    return float(np.asarray(model.get_weights()[1])[0])


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def epoch(saver, number, accuracy):
    """An epoch, at the end of which the bias is the number of the epoch."""
    saver.model.student.set_weights([np.zeros((2, 1)), np.full(1, number)])
    saver.on_epoch_end(number, {"val_accuracy": accuracy, "loss": -number})


@pytest.fixture
def saver(tmp_path, student):
    saver = SaveStudent(tmp_path, "val_accuracy")
    saver.set_model(SimpleNamespace(student=student))
    return saver


def test_the_last_epoch_and_the_best_are_saved(tmp_path, saver):
    for number, accuracy in enumerate([0.2, 0.8, 0.8, 0.5]):
        epoch(saver, number, accuracy)
    assert bias_in(tmp_path / "last.keras") == 3
    assert bias_in(tmp_path / "best.keras") == 1  # the first of two that are equal
    assert (saver.best, saver.best_epoch) == (0.8, 1)
    assert names_in(tmp_path) == ["best.keras", "last.keras"]


def test_the_first_epoch_is_the_best_so_far_even_if_all_is_wrong(tmp_path, saver):
    epoch(saver, 0, 0.0)
    assert bias_in(tmp_path / "best.keras") == 0


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
def test_a_loss_that_is_no_number_ends_the_run(loss):
    stop = StopIfNotFinite()
    stop.on_epoch_begin(2)
    stop.on_train_batch_end(0, {"loss": 1.5})
    with pytest.raises(RuntimeError, match=rf"The loss is {loss} in epoch 3, step 5\."):
        stop.on_train_batch_end(4, {"loss": loss})


def test_a_save_that_fails_leaves_no_partial_file(tmp_path):
    def save_half(path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        save_model(SimpleNamespace(save=save_half), tmp_path / "last.keras")
    assert list(tmp_path.iterdir()) == []
