import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.color import invert
from keras_deit.data.rand_augment import (
    OPERATIONS,
    Policy,
    argument_of,
    parse_policy,
    rand_augment,
)
from keras_deit.data.views import draw_operations, view_key
from tests.data.pictures import noise, smooth

ENHANCE = ("Color", "Contrast", "Brightness", "Sharpness")


def argument(name, magnitude, sign=1.0):
    return float(argument_of(name, tf.constant(magnitude, tf.float32), sign))


def recording(calls):
    """Operations that only note who was called with what."""

    def of(name):
        def operation(image, argument):
            calls.append((name, float(argument)))
            return image

        return operation

    return {name: of(name) for name in OPERATIONS}


def test_the_official_policy_is_read():
    policy = parse_policy("rand-m9-mstd0.5-inc1")
    assert policy == Policy(9, 0.5, num_operations=2, probability=0.5)


def test_every_part_is_read_in_any_order():
    assert parse_policy("rand-inc1-p0.25-n3-mstd2-m7") == Policy(7, 2.0, 3, 0.25)
    assert parse_policy("rand-inc1") == Policy(10, 0.0, 2, 0.5)
    assert parse_policy("rand-inc1-m0-p1") == Policy(0, 0.0, 2, 1.0)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("augmix-m3-inc1", 'begin with "rand"'),
        ("", 'begin with "rand"'),
        ("rand-m9-mstd0.5", "have the part inc1: no other operations are there"),
        ("rand-m9-inc0", "have the part inc1"),
        ("rand-m9-w0-inc1", "have parts m, mstd, n, p and inc alone, each with a"),
        ("rand-m9-mmax20-inc1", "have parts m, mstd, n, p and inc alone"),
        ("rand-m-inc1", "have parts m, mstd, n, p and inc alone"),
        ("rand-m9-inc1-", "have parts m, mstd, n, p and inc alone"),
        ("rand-m-1-inc1", "have parts m, mstd, n, p and inc alone"),
        ("rand-m9-m9-inc1", "have each part once"),
        ("rand-m9.5-inc1", "have whole numbers as m and n"),
        ("rand-n2.5-inc1", "have whole numbers as m and n"),
        ("rand-m11-inc1", r"have a magnitude m in \[0, 10\]"),
        ("rand-mstd101-inc1", r"have a standard deviation mstd in \[0, 100\]"),
        ("rand-n0-inc1", "have a number of operations n of at least 1"),
        ("rand-p1.5-inc1", r"have a probability p in \[0, 1\]"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(text, rule):
    received = rf"`rand_augment` must {rule}.*\. Received: rand_augment='{text}'\."
    with pytest.raises(ValueError, match=received):
        parse_policy(text)


def test_the_operations_are_the_fifteen_of_increasing_severity():
    assert len(OPERATIONS) == 15
    for name in OPERATIONS:
        assert np.isfinite(argument(name, 9.0))


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "Invert"])
def test_some_operations_have_no_argument(name):
    assert {argument(name, m, s) for m in (0.0, 9.0) for s in (1.0, -1.0)} == {0.0}


@pytest.mark.parametrize(
    ("name", "at_0", "at_2_5", "at_9", "at_10"),
    [
        ("Rotate", 0, 7.5, 27, 30),  # degrees
        ("ShearX", 0, 0.075, 0.27, 0.3),
        ("ShearY", 0, 0.075, 0.27, 0.3),
        ("TranslateXRel", 0, 0.1125, 0.405, 0.45),  # of the side
        ("TranslateYRel", 0, 0.1125, 0.405, 0.45),
    ],
)
def test_a_move_goes_both_ways(name, at_0, at_2_5, at_9, at_10):
    for magnitude, expected in ((0, at_0), (2.5, at_2_5), (9, at_9), (10, at_10)):
        assert argument(name, magnitude) == pytest.approx(expected)
        assert argument(name, magnitude, -1.0) == pytest.approx(-expected)


@pytest.mark.parametrize("kind", ENHANCE)
def test_a_factor_leaves_one_both_ways_down_to_a_tenth(kind):
    name = f"{kind}Increasing"
    for magnitude, up, down in (
        (0, 1, 1),
        (2.5, 1.225, 0.775),
        (9, 1.81, 0.19),
        (10, 1.9, 0.1),
    ):
        assert argument(name, magnitude) == pytest.approx(up)
        assert argument(name, magnitude, -1.0) == pytest.approx(down)
        assert argument(name, magnitude, -1.0) >= np.float32(0.1)


@pytest.mark.parametrize(
    ("name", "at_0", "at_2_5", "at_9", "at_9_9", "at_10"),
    [
        ("PosterizeIncreasing", 4, 3, 1, 1, 0),  # 4 - int(3.96)
        ("SolarizeIncreasing", 256, 192, 26, 3, 0),  # 256 - int(230.4), - int(253.44)
        ("SolarizeAdd", 0, 27, 99, 108, 110),  # int(27.5), int(108.9)
    ],
)
def test_bits_thresholds_and_addends_are_cut_to_whole_numbers(
    name, at_0, at_2_5, at_9, at_9_9, at_10
):
    expected = {0: at_0, 2.5: at_2_5, 9: at_9, 9.9: at_9_9, 10: at_10}
    for sign in (1.0, -1.0):
        assert {m: argument(name, m, sign) for m in expected} == expected


def test_whole_magnitudes_give_what_python_gives():
    for m in range(11):
        assert argument("PosterizeIncreasing", m) == 4 - int(m / 10 * 4)
        assert argument("SolarizeIncreasing", m) == 256 - int(m / 10 * 256)
        assert argument("SolarizeAdd", m) == int(m / 10 * 110)


def test_the_operations_that_the_key_draws_are_carried_out_in_a_row():
    calls = []
    policy = Policy(9, 0.5, num_operations=3, probability=1.0)
    for example_id in range(4):
        key = view_key(0, 0, example_id)
        image = noise(8, 8)
        rand_augment(tf.constant(image), key, policy, recording(calls))
    expected = []
    for example_id in range(4):
        drawn = draw_operations(view_key(0, 0, example_id), 3, 15, 1.0, 9, 0.5)
        for number, magnitude, sign in zip(*drawn, strict=True):
            name = list(OPERATIONS)[number]
            expected.append((name, float(argument_of(name, magnitude, sign))))
    assert calls == expected
    assert len({name for name, _ in calls}) > 5


def test_each_operation_gets_what_the_one_before_made():
    image, policy = smooth(24, 24), Policy(9, 0.0, num_operations=2, probability=1.0)
    operations = {"Invert": OPERATIONS["Invert"], "ShearX": OPERATIONS["ShearX"]}
    outcomes = {"i": 0, "s": 0}
    for example_id in range(4):
        key = view_key(0, 0, example_id)
        expected = tf.constant(image)
        drawn = draw_operations(key, 2, 2, 1.0, 9, 0.0)
        for number, magnitude, sign in zip(*drawn, strict=True):
            name = list(operations)[number]
            outcomes[name[0].lower()] += 1
            argument = argument_of(name, magnitude, sign)
            expected = operations[name](expected, argument)
        result = rand_augment(tf.constant(image), key, policy, operations)
        np.testing.assert_array_equal(result, expected)
    assert min(outcomes.values()) > 0


def test_a_probability_of_zero_leaves_the_image_alone():
    image, policy = noise(8, 8), parse_policy("rand-inc1-p0")
    for example_id in range(4):
        result = rand_augment(tf.constant(image), view_key(0, 0, example_id), policy)
        np.testing.assert_array_equal(result, image)


def test_the_policy_draws_among_the_operations_that_are_there():
    image, policy = noise(8, 8), Policy(9, 0.5, num_operations=1, probability=1.0)
    only = {"Invert": OPERATIONS["Invert"]}
    for example_id in range(2):
        key = view_key(0, 0, example_id)
        result = rand_augment(tf.constant(image), key, policy, only)
        np.testing.assert_array_equal(result, invert(tf.constant(image)))


def augmented(example_id):
    policy = parse_policy("rand-m9-mstd0.5-inc1-p1")
    return rand_augment(tf.constant(smooth(32, 40)), view_key(0, 0, example_id), policy)


def test_one_key_gives_the_same_bytes_eagerly_and_inside_tf_data():
    views = tf.data.Dataset.range(6).map(augmented, num_parallel_calls=8)
    eagerly = [augmented(example_id) for example_id in range(6)]
    np.testing.assert_array_equal(list(views), eagerly)
    assert len({view.numpy().tobytes() for view in eagerly}) == 6


@pytest.mark.slow
def test_one_key_gives_the_same_bytes_under_any_parallelism():
    ids = tf.data.Dataset.range(96)
    alone = [view.numpy() for view in ids.map(augmented, num_parallel_calls=1)]
    together = [view.numpy() for view in ids.map(augmented, num_parallel_calls=8)]
    np.testing.assert_array_equal(alone, together)
    eagerly = [augmented(example_id) for example_id in range(96)]
    np.testing.assert_array_equal(alone, eagerly)
    assert len({view.tobytes() for view in alone}) > 90


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_gives_the_same_bytes_in_a_graph(name):
    # The optimizer of graphs must not change a rounding.
    image, strong = smooth(32, 40), [argument(name, 9.3), argument(name, 4.1, -1.0)]
    arguments = tf.data.Dataset.from_tensor_slices(np.float32(strong))
    in_graph = arguments.map(lambda a: OPERATIONS[name](tf.constant(image), a))
    for value, result in zip(strong, in_graph, strict=True):
        assert tuple(result.shape) == (32, 40, 3)
        eagerly = OPERATIONS[name](tf.constant(image), tf.constant(value))
        np.testing.assert_array_equal(result, eagerly)
