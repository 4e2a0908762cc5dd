import numpy as np
import pytest
import tensorflow as tf

from keras_deit.layers.soft_split import SoftSplit
from trainers._contestants import soft_splits, softsplit
from trainers._contestants.soft_splits import (
    STAGES,
    WAYS,
    checked_step,
    joined,
    made_up,
    split,
    task_name,
)

SMALL = "9x7x2, 3/2/1"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A stage of few places; TensorFlow's threads are counted already."""
    monkeypatch.setitem(STAGES, SMALL, (9, 7, 2, 3, 2))
    for name in ("intra", "inter"):
        setting = f"set_{name}_op_parallelism_threads"
        monkeypatch.setattr(tf.config.threading, setting, lambda number: None)


def test_a_grid_of_two_by_two_by_hand():
    # One channel [[1, 2], [3, 4]], padded by 1; patches of 3, step 2: one token.
    grid = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    tokens = split(grid, 3, 2)
    assert tokens.tolist() == [[[0, 0, 0, 0, 1, 2, 0, 3, 4]]]
    assert joined(10 * tokens, grid.shape, 3, 2).ravel().tolist() == [10, 20, 30, 40]


def test_what_overlaps_is_summed():
    # Four columns, patches of 3 at 0 and 2 of the padded row 0 a b c d (0): b is in
    # both, the zero at the end in none.
    grid = np.arange(1.0, 5.0).reshape(1, 1, 4, 1)
    tokens = split(grid, 3, 2).reshape(1, 2, 3, 3)
    assert tokens[0, :, 1].tolist() == [[0, 1, 2], [2, 3, 4]]
    ones = np.ones((1, 2, 9))
    assert joined(ones, grid.shape, 3, 2).ravel().tolist() == [1, 2, 1, 1]


@pytest.mark.parametrize(("kernel", "stride"), [(7, 4), (3, 2), (3, 1)])
def test_the_definition_is_the_layer(kernel, stride):
    grid = np.random.default_rng(0).normal(size=(2, 12, 8, 3)).astype(np.float32)
    ours = SoftSplit(kernel, stride)(grid)
    np.testing.assert_array_equal(split(grid, kernel, stride), ours)


@pytest.mark.parametrize("how", softsplit.SPLITS)
def test_every_way_gives_the_same_tokens_and_gradient(how):
    prepared = softsplit.tasks(how, batch_size=2, num_threads=1)
    assert len(prepared) == len(STAGES) * len(WAYS)
    for way in WAYS:
        assert prepared[task_name(SMALL, way)]()() == 2


def test_pytorch_gives_the_same():
    pytest.importorskip("torch", reason="pip install 'keras-deit[bench]'")
    from trainers._contestants import torch_softsplit

    prepared = torch_softsplit.tasks(batch_size=2, num_threads=1)
    for way in WAYS:
        assert prepared[task_name(SMALL, way)]()() == 2


def test_what_gives_something_else_is_not_timed():
    grid, coming_back = made_up(SMALL, 2)
    tokens = split(grid, 3, 2)
    gradient = joined(coming_back, grid.shape, 3, 2)
    forward, both = WAYS
    assert checked_step(lambda: tokens, SMALL, forward, 2)() == 2
    assert checked_step(lambda: (tokens, gradient), SMALL, both, 2)() == 2
    for run, way, what in (
        (lambda: tokens[:, ::-1], forward, "tokens are not those"),
        (lambda: tokens[:, :-1], forward, "tokens have the shape"),
        (lambda: tokens * np.nan, forward, "tokens are not those"),
        (lambda: (tokens, gradient + 1e-3), both, "gradient are not those"),
        (lambda: (tokens[:, ::-1], gradient), both, "tokens are not those"),
    ):
        with pytest.raises(ValueError, match=f"Its {what}"):
            checked_step(run, SMALL, way, 2)


def test_padding_is_that_of_the_layer():
    sides = [soft_splits.padding_of(*numbers) for numbers in ((7, 4), (3, 2), (3, 1))]
    assert sides == [2, 1, 1]
