import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_deit.data.keras_cv_engine import FILL, keras_cv_operations
from keras_deit.data.rand_augment import OPERATIONS

BICUBIC = Image.Resampling.BICUBIC
COLOR = tuple(int(level) for level in FILL)


@pytest.fixture(scope="module")
def operations():
    return keras_cv_operations()


@pytest.fixture(scope="module")
def photograph(photographs):
    with Image.open(photographs[0]) as image:
        return image.convert("RGB").crop((100, 60, 360, 300))  # 240 x 260


def run(operation, image, argument=0.0):
    return operation(tf.constant(np.asarray(image)), tf.constant(argument, tf.float32))


def greys(*levels):
    return np.repeat(np.array(levels, np.uint8)[..., None], 3, axis=-1)


def posterized(image, bits):
    return ImageOps.posterize(image, bits) if bits else Image.new("RGB", image.size)


def affine(image, *numbers):
    transform = Image.Transform.AFFINE
    return image.transform(image.size, transform, numbers, BICUBIC, fillcolor=COLOR)


def rotated(image, degrees):
    return image.rotate(degrees, BICUBIC, fillcolor=COLOR)


COLORS = {
    "AutoContrast": (lambda image, _: ImageOps.autocontrast(image), [0]),
    "Equalize": (lambda image, _: ImageOps.equalize(image), [0]),
    "Invert": (lambda image, _: ImageOps.invert(image), [0]),
    "PosterizeIncreasing": (posterized, [0, 1, 3, 4, 8]),
    "SolarizeIncreasing": (ImageOps.solarize, [0, 26, 128, 256]),
    "ColorIncreasing": (lambda i, x: ImageEnhance.Color(i).enhance(x), [0.1, 1, 1.9]),
    "SharpnessIncreasing": (
        lambda i, x: ImageEnhance.Sharpness(i).enhance(x),
        [0.1, 1, 1.9],
    ),
}
PLACES = {
    "Rotate": (rotated, [-27, 8, 30]),
    "ShearX": (lambda i, x: affine(i, 1, x, 0, 0, 1, 0), [-0.27, 0.3]),
    "ShearY": (lambda i, x: affine(i, 1, 0, 0, x, 1, 0), [-0.27, 0.3]),
    "TranslateXRel": (lambda i, x: affine(i, 1, 0, x * 260, 0, 1, 0), [-0.4, 0.15]),
    "TranslateYRel": (lambda i, x: affine(i, 1, 0, 0, 0, 1, x * 240), [-0.4, 0.15]),
}
ARGUMENTS = {
    **{name: values[-1] for name, (_, values) in (COLORS | PLACES).items()},
    "ContrastIncreasing": 0.3,
}


def test_colors_by_hand(operations):
    image = greys([0, 100, 200, 255])
    expected = {
        ("Invert", 0): [255, 155, 55, 0],
        ("SolarizeIncreasing", 200): [0, 100, 55, 0],
        ("PosterizeIncreasing", 1): [0, 0, 128, 128],
        ("PosterizeIncreasing", 0): [0, 0, 0, 0],
    }
    for (name, argument), levels in expected.items():
        np.testing.assert_array_equal(
            run(operations[name], image, argument)[0, :, 0], levels
        )
    stretched = run(operations["AutoContrast"], greys([50, 60, 100]))
    assert stretched[0, :, 0].numpy().tolist() == [0, 51, 255]
    # Half the color of (100, 0, 0), whose grey is 29.89, and 1.5 times of it.
    red = np.array([[[100, 0, 0]]], np.uint8)
    half = run(operations["ColorIncreasing"], red, 0.5)
    assert half.numpy().tolist() == [[[65, 15, 15]]]
    more = run(operations["ColorIncreasing"], red, 1.5)
    assert more.numpy().tolist() == [[[135, 0, 0]]]


def test_contrast_is_that_of_each_channel_about_its_own_mean(operations):
    image = np.array([[[0, 10, 90], [100, 30, 90]]], np.uint8)  # means 50, 20, 90
    half = run(operations["ContrastIncreasing"], image, 0.5)
    assert half.numpy().tolist() == [[[25, 15, 90], [75, 25, 90]]]
    double = run(operations["ContrastIncreasing"], image, 2.0)
    assert double.numpy().tolist() == [[[0, 0, 90], [150, 40, 90]]]


def test_places_by_hand(operations):
    # timm's signs: what is a quarter of the side further on comes here.
    image = greys([1, 2, 3, 4])
    moved = run(operations["TranslateXRel"], image, 0.25).numpy()
    assert moved[0, :3].tolist() == greys(2, 3, 4).tolist()
    assert moved[0, 3].tolist() == list(FILL)
    moved = run(operations["TranslateYRel"], image.transpose(1, 0, 2), -0.5).numpy()
    assert moved[2:, 0].tolist() == greys(1, 2).tolist()
    assert moved[:2, 0].tolist() == [list(FILL)] * 2
    # A quarter turn, counterclockwise.
    image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    turned = run(operations["Rotate"], image, 90.0)
    np.testing.assert_array_equal(turned, np.rot90(image))
    # Each row is moved by its number.
    sheared = run(operations["ShearX"], image, 1.0).numpy()
    assert sheared[1, :2].tolist() == image[1, 1:].tolist()
    assert sheared[2].tolist() == [image[2, 2].tolist(), list(FILL), list(FILL)]
    sheared = run(operations["ShearY"], image, -1.0).numpy()
    assert sheared[1:, 1].tolist() == image[:2, 1].tolist()
    assert sheared[:2, 2].tolist() == [list(FILL)] * 2


@pytest.mark.parametrize("name", COLORS)
def test_colors_are_those_of_pillow_within_2_levels(operations, photograph, name):
    theirs, arguments = COLORS[name]
    pale = Image.fromarray(np.asarray(photograph) // 3 + np.uint8([40, 50, 60]))
    for image in (photograph, pale):
        for argument in arguments:
            ours = run(operations[name], image, argument).numpy().astype(int)
            assert ours.shape == (240, 260, 3)
            expected = np.asarray(theirs(image, argument), int)
            assert np.abs(ours - expected).max() <= 2


@pytest.mark.parametrize("name", PLACES)
def test_places_are_those_of_pillow_but_for_the_interpolation(
    operations, photograph, name
):
    # A smooth image, which the interpolation leaves alone, and in it a border or two.
    small = photograph.resize((13, 12), BICUBIC)
    image = small.resize((260, 240), BICUBIC)
    theirs, arguments = PLACES[name]
    for argument in arguments:
        ours = run(operations[name], image, argument).numpy().astype(int)
        difference = np.abs(ours - np.asarray(theirs(image, argument), int))
        assert np.quantile(difference, 0.97) <= 2
        assert difference.mean() < 1.5


def test_what_no_layer_does_is_left_out(operations):
    left_out = {"SolarizeAdd", "BrightnessIncreasing"}
    assert set(operations) == set(OPERATIONS) - left_out
    assert list(operations) == [name for name in OPERATIONS if name not in left_out]
    assert set(ARGUMENTS) == set(operations)


@pytest.mark.slow
def test_an_operation_is_pure_inside_tf_data(operations, photograph):
    images = [np.asarray(photograph)[:40, x : x + 50] for x in range(12)]

    @tf.function  # traced once for all of them
    def all_of(image):
        return {
            name: operation(image, tf.constant(ARGUMENTS[name], tf.float32))
            for name, operation in operations.items()
        }

    def bytes_of(num_parallel_calls):
        dataset = tf.data.Dataset.from_tensor_slices(np.stack(images))
        dataset = dataset.map(all_of, num_parallel_calls=num_parallel_calls)
        assert dataset.element_spec["Rotate"] == tf.TensorSpec((40, 50, 3), tf.uint8)
        return [{k: v.numpy().tobytes() for k, v in views.items()} for views in dataset]

    one, eight = bytes_of(1), bytes_of(8)
    assert one == eight
    for name, outside in all_of(images[3]).items():
        assert outside.numpy().tobytes() == one[3][name]


def test_building_the_operations_draws_nothing():
    before = random.getstate(), np.random.get_state()[1].copy()
    first, second = keras_cv_operations(), keras_cv_operations()
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    image = greys([0, 9, 100], [7, 80, 30], [6, 1, 250])
    for name, operation in first.items():
        argument = ARGUMENTS[name]
        np.testing.assert_array_equal(
            run(operation, image, argument), run(second[name], image, argument)
        )


def test_a_mixed_policy_does_not_coarsen_the_operations(operations):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = keras_cv_operations()
    finally:
        keras.config.set_dtype_policy(before)
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    for name in ("AutoContrast", "ColorIncreasing", "SharpnessIncreasing", "Rotate"):
        expected = run(operations[name], image, 0.7)
        np.testing.assert_array_equal(run(mixed[name], image, 0.7), expected)
