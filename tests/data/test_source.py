import hashlib
import random
import time
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.source import (
    damage_of,
    digest_of,
    indexed_source,
    split_indices,
)
from tests.data.order_contract import hold_source_to_its_order, ids


@pytest.fixture
def greys():
    """Thirty images of one pixel; the grey of each is its number."""
    pixels = tf.reshape(tf.range(30, dtype=tf.int32), (30, 1, 1, 1))
    images = tf.cast(tf.repeat(pixels, 3, axis=-1), tf.uint8)
    labels = [index % 2 for index in range(30)]
    paths = [f"{index}.png" for index in range(30)]
    return indexed_source(
        "greys", ["even", "odd"], labels, lambda i: tf.gather(images, i), "x", paths
    )


def test_a_source_says_what_is_in_it(greys):
    assert (greys.name, greys.class_names) == ("greys", ("even", "odd"))
    assert greys.num_examples == 30
    assert greys.paths[:2] == ("0.png", "1.png")
    assert indexed_source("none", "ab", [0, 1], lambda i: i, "").paths == ()


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


def test_an_epoch_can_be_entered_anywhere(greys):
    hold_source_to_its_order(greys, window=10)


def test_an_example_may_have_an_id_of_its_own():
    pixels = tf.zeros((3, 1, 1, 3), tf.uint8)
    source = indexed_source(
        "three", "ab", [0, 1, 0], lambda i: pixels[i], "", ids=[7, 2**40, 1]
    )
    pairs = {(int(e["id"]), int(e["label"])) for e in source.shuffled(0, 0)}
    assert pairs == {(7, 0), (2**40, 1), (1, 0)}


def test_an_encoded_image_is_decoded_for_those_who_want_pixels():
    png = tf.io.encode_png(tf.fill((2, 3, 3), tf.constant(9, tf.uint8)))
    source = indexed_source("one", "ab", [1], lambda i: png, "")
    (record,) = source.natural()
    assert source.read(record)["image"].dtype == tf.string
    (example,) = source.in_order()
    assert (example["image"].numpy() == np.full((2, 3, 3), 9)).all()


def digest(names="ab", labels=(0, 1), of_images="x"):
    return indexed_source("name", names, labels, lambda i: i, of_images).digest


def test_a_digest_tells_datasets_apart():
    assert digest() == digest()
    others = {digest("ac"), digest(labels=(1, 0)), digest(of_images="y")}
    assert len({digest(), *others}) == 4


def test_a_digest_is_that_of_each_part_with_its_length():
    # SHA-256 of 01 00.. 61 02 00.. 62 63: "a" and "bc" are not "ab" and "c".
    by_hand = b"\1" + bytes(7) + b"a" + b"\2" + bytes(7) + b"bc"
    assert digest_of("a", b"bc") == hashlib.sha256(by_hand).hexdigest()
    assert digest_of("a", "bc") != digest_of("ab", "c")
    assert digest_of("\udcff") == digest_of(b"\xff")  # of a file name, as Python has it


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        ("{{node X}} corrupted record at 12 [Op:X]", "corrupted record at 12"),
        ("Graph ...\ntruncated record at 3' failed", "truncated record at 3"),
        (
            "Input dataset was expected to contain 5 elements but contained only 4 el.",
            "expected to contain 5 elements but contained only 4",
        ),
        ("an iterator was not initialized", None),
    ],
)
def test_damage_is_what_tensorflow_says_of_a_record_file(message, damage):
    assert damage_of(tf.errors.DataLossError(None, None, message)) == damage


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


def test_the_split_of_many_classes_is_that_of_one_after_the_other():
    labels = np.random.default_rng(0).integers(0, 7, 1000)
    order = np.array(random.Random(0).sample(range(1000), 1000))
    held_out = []
    for label in range(7):
        members = order[labels[order] == label]
        held_out += members[: round(len(members) / 5)].tolist()
    assert split_indices(labels, "validation").tolist() == sorted(held_out)


def test_ten_thousand_classes_are_split_at_once():
    labels = np.repeat(np.arange(10_000), 5)
    start = time.perf_counter()
    held_out = split_indices(labels, "validation")
    assert time.perf_counter() - start < 5  # a loop over the classes takes longer
    assert labels[held_out].tolist() == list(range(10_000))


def test_all_images_are_taken_in_their_order():
    assert split_indices([1, 0, 0, 1, 0], "all").tolist() == [0, 1, 2, 3, 4]
