import keras
import numpy as np
import pytest

from keras_deit.training.checkpoints import Checkpoints, sweep


class Run:
    """A run of three steps an epoch, whose whole state is one number and a mean."""

    def __init__(self, folder, every=2, keep=2):
        self.weight = keras.Variable([0.0, 0.0], name="weight")
        self.seed = keras.Variable(7, dtype="uint32", trainable=False, name="seed")
        self.mean = keras.Variable(0.0, name="mean")
        state = {"student": [self.weight, self.seed], "means": [self.mean]}
        self.checkpoints = Checkpoints(folder, lambda: state, 3, every, keep)

    def epoch(self, number, steps=range(3)):
        self.mean.assign(0.0)  # as `fit` does
        self.checkpoints.on_epoch_begin(number)
        for index, step in enumerate(steps):
            self.weight.assign([number, step])
            self.seed.assign(self.seed + 1)
            self.mean.assign(self.mean + 1)
            self.checkpoints.on_train_batch_end(index)
        if steps[-1] == 2:
            self.checkpoints.on_epoch_end(number)

    def values(self):
        return [*np.asarray(self.weight), int(self.seed), float(self.mean)]


def names_in(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_checkpoints_are_made_at_every_second_step_and_each_end_by_hand(tmp_path):
    # Steps 1 2 3 | 4 5 6 | 7: after 2, 4, 6 steps; the third and sixth end an epoch.
    run = Run(tmp_path, keep=9)
    run.epoch(0)
    run.epoch(1)
    run.epoch(2, [0])
    assert names_in(tmp_path) == [
        "epoch-00000-step-0000002.safetensors",
        "epoch-00001-step-0000000.safetensors",
        "epoch-00001-step-0000001.safetensors",
        "epoch-00002-step-0000000.safetensors",
    ]


def test_the_last_ones_stay(tmp_path):
    run = Run(tmp_path, every=1, keep=2)
    run.epoch(0)
    assert names_in(tmp_path) == [
        "epoch-00000-step-0000002.safetensors",
        "epoch-00001-step-0000000.safetensors",
    ]


def test_another_process_goes_on_where_the_last_checkpoint_was_made(tmp_path):
    run = Run(tmp_path)
    run.epoch(0)
    run.epoch(1, [0, 1])
    other = Run(tmp_path)
    assert other.checkpoints.latest() == (1, 1)
    # The fourth step of the run was the first of epoch 1.
    assert other.values() == [1.0, 0.0, 7 + 4, 1.0]
    assert other.seed.dtype == "uint32"


def test_the_means_of_a_begun_epoch_outlive_the_reset_by_fit(tmp_path):
    run = Run(tmp_path)
    run.epoch(0, [0, 1])
    other = Run(tmp_path)
    other.checkpoints.latest()
    other.epoch(0, [2])
    assert float(other.mean) == 3
    other.epoch(1)  # but not into the next epoch
    assert float(other.mean) == 3


def test_the_means_of_an_epoch_that_ended_are_not_those_of_the_next(tmp_path):
    run = Run(tmp_path)
    run.epoch(0)
    other = Run(tmp_path)
    assert other.checkpoints.latest() == (1, 0)
    other.epoch(1)
    assert float(other.mean) == 3


def test_steps_are_counted_from_the_beginning_of_the_epoch_after_a_resume(tmp_path):
    Run(tmp_path, every=2).epoch(0, [0, 1])
    other = Run(tmp_path, every=2, keep=9)
    other.checkpoints.latest()
    other.epoch(0, [2])
    other.epoch(1)
    assert names_in(tmp_path) == [
        "epoch-00000-step-0000002.safetensors",
        "epoch-00001-step-0000000.safetensors",
        "epoch-00001-step-0000001.safetensors",
        "epoch-00002-step-0000000.safetensors",
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_not_saved(tmp_path, value):
    run = Run(tmp_path, every=1)
    run.epoch(0, [0])
    run.weight.assign([value, 0.0])
    run.checkpoints.on_train_batch_end(1)
    assert names_in(tmp_path) == ["epoch-00000-step-0000001.safetensors"]


def test_without_a_checkpoint_there_is_nothing_to_go_on_with(tmp_path):
    assert Run(tmp_path).checkpoints.latest() is None


def test_a_damaged_checkpoint_is_left_aside_for_the_one_before(tmp_path, capsys):
    run = Run(tmp_path)
    run.epoch(0)
    run.epoch(1, [0])
    newest = tmp_path / "checkpoints" / names_in(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:-4])
    other = Run(tmp_path)
    assert other.checkpoints.latest() == (1, 0)
    assert f"{newest} is left aside: " in capsys.readouterr().err


@pytest.mark.parametrize("difference", ["one more", "another shape"])
def test_a_checkpoint_of_another_model_is_refused(tmp_path, difference):
    Run(tmp_path).epoch(0)
    weight = keras.Variable([0.0, 0.0])
    others = {
        "one more": [weight, keras.Variable(7, dtype="uint32"), weight],
        "another shape": [keras.Variable([0.0] * 3), keras.Variable(7, dtype="uint32")],
    }
    state = {"student": others[difference], "means": [keras.Variable(0.0)]}
    rule = r"must hold the variables of this model and optimizer, but [12] entries"
    with pytest.raises(ValueError, match=rule):
        Checkpoints(tmp_path, lambda: state, 3, 2).latest()


def test_what_a_killed_process_left_half_written_is_swept_away(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    whole = [tmp_path / "last.keras", tmp_path / "checkpoints" / "epoch.safetensors"]
    for path in whole:
        path.write_text("whole")
        path.with_name(f".partial-{path.name}").write_text("half")
    sweep(tmp_path)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(whole)
