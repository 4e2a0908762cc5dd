import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deit.data import affine
from keras_deit.data.affine import FILL
from tests.data.pictures import PICTURES

HOW = {"resample": Image.Resampling.BICUBIC, "fillcolor": FILL}


def transform(matrix):
    """PIL's way to an affine operation, as timm calls it."""

    def transformed(image, argument):
        data = matrix(argument, *image.size)
        return image.transform(image.size, Image.Transform.AFFINE, data, **HOW)

    return transformed


def turned(image, degrees):
    return image.rotate(degrees, **HOW)


SHEARS = (0.0, 0.01, 0.25, 0.27, -0.27, 0.3)
SHARES = (0.0, 0.01, 0.25, 0.405, -0.405, 0.45, -0.45)
DEGREES = (0.0, 0.001, 13.7, -27.0, 30.0, -30.0)

# Our operation, PIL's, the arguments; how many grey levels they may differ: none.
CASES = {
    "rotate": (affine.rotate, turned, DEGREES, 0),
    "shear_x": (
        affine.shear_x,
        transform(lambda a, w, h: (1, a, 0, 0, 1, 0)),
        SHEARS,
        0,
    ),
    "shear_y": (
        affine.shear_y,
        transform(lambda a, w, h: (1, 0, 0, a, 1, 0)),
        SHEARS,
        0,
    ),
    "translate_x": (
        affine.translate_x,
        transform(lambda a, w, h: (1, 0, a * w, 0, 1, 0)),
        SHARES,
        0,
    ),
    "translate_y": (
        affine.translate_y,
        transform(lambda a, w, h: (1, 0, 0, 0, 1, a * h)),
        SHARES,
        0,
    ),
}


def grey(rows):
    """Grey pixels, (H, W, 3)."""
    return tf.repeat(tf.constant(rows, tf.uint8)[..., None], 3, axis=2)


def reds(image):
    """The first channel; what lies outside is its fill, 124."""
    return np.asarray(image)[..., 0].tolist()


def test_the_fill_is_the_rounded_mean_of_imagenet():
    assert FILL == (124, 116, 104)


def test_a_share_of_the_width_moves_an_image_left_and_fills_its_right():
    image = grey([[1, 2, 3, 4], [5, 6, 7, 8]])
    moved = affine.translate_x(image, 0.25)
    assert reds(moved) == [[2, 3, 4, 124], [6, 7, 8, 124]]
    assert moved.numpy()[0, 3].tolist() == [124, 116, 104]
    moved = affine.translate_x(image, -0.5)
    assert reds(moved) == [[124, 124, 1, 2], [124, 124, 5, 6]]


def test_a_share_of_the_height_moves_an_image_up():
    image = grey([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert reds(affine.translate_y(image, 0.5)) == [[5, 6, 7, 8], [124] * 4]


def test_half_a_pixel_is_between_four():
    # Keys' kernel with a = -1 is -1/8, 5/8, 5/8, -1/8 in the middle. A step from 0 to
    # 80 gives (5 * 80 - 80) / 8 = 40 on it, -80 / 8 clipped to 0 before it, and
    # (5 * 80 + 5 * 80 - 80) / 8 = 90 after it; beyond the border it is repeated.
    image = grey([[0, 0, 0, 0, 80, 80, 80, 80]])
    moved = affine.translate_x(image, 1 / 16)
    assert reds(moved) == [[0, 0, 0, 40, 90, 80, 80, 124]]
    moved = affine.translate_x(image, -1 / 16)  # the left border is still inside
    assert reds(moved) == [[0, 0, 0, 0, 40, 90, 80, 80]]


def test_a_shear_moves_each_row_by_its_distance_from_the_top():
    # Rows 0.5, 1.5, 2.5 and 3.5 pixels from the top: 1, 3, 5 and 7 pixels.
    image = grey([[1, 2, 3, 4, 5, 6, 7, 8, 9]] * 4)
    f = 124
    assert reds(affine.shear_x(image, 2.0)) == [
        [2, 3, 4, 5, 6, 7, 8, 9, f],
        [4, 5, 6, 7, 8, 9, f, f, f],
        [6, 7, 8, 9, f, f, f, f, f],
        [8, 9, f, f, f, f, f, f, f],
    ]
    turned_image = tf.transpose(image, (1, 0, 2))
    np.testing.assert_array_equal(
        affine.shear_y(turned_image, 2.0),
        tf.transpose(affine.shear_x(image, 2.0), (1, 0, 2)),
    )


def test_a_turn_about_an_even_center_keeps_the_border_inside():
    # 90 degrees take centers of pixels to centers, all inside.
    image = grey(np.arange(16).reshape(4, 4) + 1)
    assert 124 not in np.ravel(reds(affine.rotate(image, 90.0)))


def test_a_turn_by_a_quarter_is_counterclockwise_about_the_center():
    # sin and cos of 90 degrees are off by 1e-16: so is an interpolated level, at most
    # one is cut off.
    image = grey([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    result = np.asarray(reds(affine.rotate(image, 90.0)))
    expected = np.rot90([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    assert np.all((expected - result >= 0) & (expected - result <= 1))


@pytest.mark.parametrize("kind", CASES)
def test_moving_by_nothing_changes_nothing(kind):
    for image in PICTURES.values():
        np.testing.assert_array_equal(CASES[kind][0](tf.constant(image), 0.0), image)


@pytest.mark.parametrize("kind", CASES)
def test_equals_pil(kind):
    ours, theirs, arguments, tolerance = CASES[kind]
    for name, image in PICTURES.items():
        for argument in arguments:
            given = np.float32(argument)
            expected = np.asarray(theirs(Image.fromarray(image), float(given)), int)
            result = ours(tf.constant(image), tf.constant(given))
            assert result.dtype == tf.uint8
            difference = np.abs(expected - result.numpy().astype(int)).max()
            assert difference <= tolerance, f"{name}, {argument=}: {difference}"


def test_equals_pil_at_the_size_of_training():
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    for ours, theirs, arguments, _ in CASES.values():
        given = np.float32(arguments[3])
        expected = theirs(Image.fromarray(image), float(given))
        np.testing.assert_array_equal(ours(tf.constant(image), given), expected)
