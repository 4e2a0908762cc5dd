import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_deit.data import color
from tests.data.pictures import PICTURES

FACTORS = (0.1, 0.19, 0.55, 1.0, 1.37, 1.81, 1.9)


def solarize_add(image, addend):
    """As timm has it."""
    table = [min(255, i + int(addend)) if i < 128 else i for i in range(256)]
    return image.point(table * 3)


def enhance(kind):
    return lambda image, factor: kind(image).enhance(factor)


# Our operation, PIL's, the arguments; how many grey levels they may differ: none.
CASES = {
    "autocontrast": (color.autocontrast, ImageOps.autocontrast, (), 0),
    "equalize": (color.equalize, ImageOps.equalize, (), 0),
    "invert": (color.invert, ImageOps.invert, (), 0),
    "posterize": (color.posterize, ImageOps.posterize, (1, 2, 3, 4, 8), 0),
    "solarize": (color.solarize, ImageOps.solarize, (0, 1, 26, 128, 255, 256), 0),
    "solarize_add": (color.solarize_add, solarize_add, (0, 1, 99, 110), 0),
    "color": (color.adjust_color, enhance(ImageEnhance.Color), FACTORS, 0),
    "contrast": (color.adjust_contrast, enhance(ImageEnhance.Contrast), FACTORS, 0),
    "brightness": (
        color.adjust_brightness,
        enhance(ImageEnhance.Brightness),
        FACTORS,
        0,
    ),
    "sharpness": (color.adjust_sharpness, enhance(ImageEnhance.Sharpness), FACTORS, 0),
}


def grey(*levels):
    """A row of grey pixels, (1, n, 3)."""
    return tf.constant([[[level] * 3 for level in levels]], tf.uint8)


def levels(image):
    """The first channel of one row."""
    return np.asarray(image)[0, :, 0].tolist()


def test_a_stretch_reaches_both_ends_of_each_channel():
    # (100 - 50) * 255 / (150 - 50) = 127.5, cut to 127.
    assert levels(color.autocontrast(grey(50, 100, 150))) == [0, 127, 255]
    image = np.stack([[[10, 20]], [[7, 7]], [[0, 255]]], axis=-1).astype(np.uint8)
    stretched = color.autocontrast(tf.constant(image)).numpy()
    assert stretched[0].T.tolist() == [[0, 255], [7, 7], [0, 255]]


def test_equal_shares_are_spread_over_all_levels():
    # 512 pixels: 256 of level 3, 256 of level 4. Those below the highest, 256, make
    # steps of 256 // 255 = 1: level 3 -> 0 pixels below, 4 -> 256, clipped to 255.
    image = tf.reshape(tf.repeat(grey(3, 4), 256, axis=1), (2, 256, 3))
    assert np.unique(color.equalize(image)).tolist() == [0, 255]


def test_too_few_pixels_to_spread_are_left_alone():
    # 2 pixels below the highest are no step of 1 pixel in 255.
    assert levels(color.equalize(grey(3, 4, 9))) == [3, 4, 9]


def test_levels_from_the_threshold_on_are_inverted():
    assert levels(color.solarize(grey(0, 127, 128, 255), 128)) == [0, 127, 127, 0]
    assert levels(color.solarize(grey(0, 254, 255), 256)) == [0, 254, 255]
    assert levels(color.solarize(grey(0, 254, 255), 0)) == [255, 1, 0]


def test_dark_levels_are_added_to():
    assert levels(color.solarize_add(grey(0, 127, 128, 255), 110)) == [
        110,
        237,
        128,
        255,
    ]


def test_the_highest_bits_are_kept_and_none_of_them_is_black():
    assert levels(color.posterize(grey(255, 130, 100), 2)) == [192, 128, 64]
    assert levels(color.posterize(grey(255, 130, 100), 0)) == [0, 0, 0]


def test_the_negative_of_the_negative_is_the_image():
    assert levels(color.invert(grey(0, 100, 255))) == [255, 155, 0]


def test_a_factor_moves_away_from_black_and_cuts_fractions_off():
    assert levels(color.adjust_brightness(grey(3, 101, 200), 1.5)) == [4, 151, 255]


def test_a_factor_moves_away_from_the_rounded_mean():
    # The mean of 0, 1, 100 is 33.67, rounded 34: 34 + 0.5 * (100 - 34) = 67.
    assert levels(color.adjust_contrast(grey(0, 1, 100), 0.5)) == [17, 17, 67]


def test_a_factor_moves_away_from_the_luma():
    # The luma of pure red is 255 * 0.299 = 76: 76 + 0.5 * (255 - 76) = 165.5.
    red = tf.constant([[[255, 0, 0]]], tf.uint8)
    assert color.adjust_color(red, 0.5).numpy().tolist() == [[[165, 38, 38]]]


def test_a_factor_moves_away_from_the_mean_of_the_neighbors_but_at_the_border():
    # A middle of 130 among zeros: 5 * 130 / 13 = 50 is smooth, 50 + 2 * 80 clipped.
    image = np.zeros((5, 5, 3), np.uint8)
    image[2, 2], image[0, 0] = 130, 130
    smooth = color.adjust_sharpness(tf.constant(image), 0.0).numpy()[..., 0]
    assert smooth.tolist() == [
        [130, 0, 0, 0, 0],
        [0, 20, 10, 10, 0],
        [0, 10, 50, 10, 0],
        [0, 10, 10, 10, 0],
        [0, 0, 0, 0, 0],
    ]
    sharp = color.adjust_sharpness(tf.constant(image), 2.0).numpy()[..., 0]
    assert (sharp[2, 2], sharp[0, 0], sharp[1, 2]) == (210, 130, 0)


@pytest.mark.parametrize("kind", ["color", "contrast", "brightness", "sharpness"])
def test_a_factor_of_one_changes_nothing(kind):
    for image in PICTURES.values():
        np.testing.assert_array_equal(CASES[kind][0](tf.constant(image), 1.0), image)


@pytest.mark.parametrize("kind", CASES)
def test_equals_pil(kind):
    ours, theirs, arguments, tolerance = CASES[kind]
    for name, image in PICTURES.items():
        for argument in arguments or (None,):
            given = [] if argument is None else [float(np.float32(argument))]
            integers = [int(a) if isinstance(argument, int) else a for a in given]
            expected = np.asarray(theirs(Image.fromarray(image), *integers), int)
            result = ours(tf.constant(image), *(tf.constant(a) for a in given))
            assert result.dtype == tf.uint8
            difference = np.abs(expected - result.numpy().astype(int)).max()
            assert difference <= tolerance, f"{name}, {argument=}: {difference}"
