from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.source import indexed_source, split_indices


def ids(dataset):
    return [int(e["id"]) for e in dataset]


@pytest.fixture
def greys():
    """Thirty images of one pixel; the grey of each is its number."""
    pixels = tf.reshape(tf.range(30, dtype=tf.int32), (30, 1, 1, 1))
    images = tf.cast(tf.repeat(pixels, 3, axis=-1), tf.uint8)
    labels = [index % 2 for index in range(30)]
    paths = [f"{index}.png" for index in range(30)]
    return indexed_source(
        "greys", ["even", "odd"], labels, lambda i: tf.gather(images, i), paths
    )


def test_a_source_says_what_is_in_it(greys):
    assert (greys.name, greys.class_names) == ("greys", ("even", "odd"))
    assert greys.num_examples == 30
    assert greys.paths[:2] == ("0.png", "1.png")
    assert indexed_source("none", "ab", [0, 1], lambda i: i).paths == ()


def test_an_example_is_an_image_its_label_and_its_number(greys):
    first, second, *_ = greys.in_order()
    assert {*first} == {"image", "label", "id"}
    assert second["image"].numpy().tolist() == [[[1, 1, 1]]]
    assert (int(second["label"]), int(second["id"])) == (1, 1)
    assert [first[name].dtype for name in ("image", "label", "id")] == [
        tf.uint8,
        tf.int64,
        tf.int64,
    ]


def test_an_id_is_the_number_of_the_example_in_any_order(greys):
    assert ids(greys.in_order()) == list(range(30))
    for example in greys.shuffled(0, 3):
        index = int(example["id"])
        assert (example["image"].numpy() == index).all()
        assert int(example["label"]) == index % 2


def test_an_epoch_has_one_order_and_the_next_another(greys):
    order = ids(greys.shuffled(0, 1))
    assert sorted(order) == list(range(30))
    assert order == ids(greys.shuffled(0, 1))
    assert order != ids(greys.shuffled(0, 2))
    assert order != ids(greys.shuffled(1, 1))


def test_the_same_images_are_held_out_for_ever():
    # What `random.Random(0)` draws: a run of today compares with one of last year.
    labels = [0] * 10 + [1] * 10
    assert split_indices(labels, "validation").tolist() == [1, 8, 12, 13]
    assert split_indices(labels, "train").tolist() == [
        index for index in range(20) if index not in (1, 8, 12, 13)
    ]


def test_a_fifth_of_each_class_rounded_is_held_out():
    counts = {0: 10, 1: 23, 2: 2, 3: 3}
    labels = np.repeat(list(counts), list(counts.values()))
    labels = np.random.default_rng(0).permutation(labels)
    train, validation = (split_indices(labels, s) for s in ("train", "validation"))
    assert Counter(labels[validation].tolist()) == {0: 2, 1: 5, 3: 1}  # of 2 none
    assert sorted([*train, *validation]) == list(range(38))
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()


def test_all_images_are_taken_in_their_order():
    assert split_indices([1, 0, 0, 1, 0], "all").tolist() == [0, 1, 2, 3, 4]
