"""Affine operations on an image, equal to PIL's byte for byte.

All take uint8 pixels of shape (H, W, 3), H and W known, and return the same. A pixel of
the result is looked up at a place of the image, bicubic over 4 x 4 pixels and in
float64, as in PIL; where that place lies outside, it is `FILL`.

Reference:
    Pillow `Geometry.c`, `bicubic_filter32RGB`: Keys' kernel with a = -1, pixels beyond
    the border repeat it, fractions are cut off.
"""

import math

import tensorflow as tf

from keras_deit.data.fused import fused, rounded
from keras_deit.models.preprocessing import IMAGENET

_STEPS = (-1, 0, 1, 2)  # to the four pixels that are interpolated between
FILL = tuple(round(255 * mean) for mean in IMAGENET.mean)  # (124, 116, 104)


def shear_x(image, factor):
    """Moves each row left by `factor` times its distance from the top."""
    return _rows_moved(image, tf.cast(factor, tf.float64) * _centers(image.shape[0]))


def shear_y(image, factor):
    """Moves each column up by `factor` times its distance from the left."""
    distances = tf.cast(factor, tf.float64) * _centers(image.shape[1])
    return _columns_moved(image, distances)


def translate_x(image, share):
    """Moves an image left by a share of its width."""
    rows, columns, _ = image.shape
    return _rows_moved(image, tf.repeat(tf.cast(share, tf.float64) * columns, rows))


def translate_y(image, share):
    """Moves an image up by a share of its height."""
    rows, columns, _ = image.shape
    return _columns_moved(image, tf.repeat(tf.cast(share, tf.float64) * rows, columns))


def rotate(image, degrees):
    """Turns an image counterclockwise about its center; see `Image.rotate`."""
    height, width, _ = image.shape
    angle = tf.cast(degrees, tf.float64) * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    down = _centers(height)[:, None] - height / 2
    right = _centers(width) - width / 2
    middle = tf.constant([width / 2, height / 2], tf.float64)
    return _turned(image, cos * right, sin * down, sin * right, cos * down, middle)


@fused
def _turned(image, x_right, x_down, y_right, y_down, middle):
    """Looks pixels up at `middle + (x_right - x_down, y_right + y_down)`."""
    height, width, _ = image.shape

    def places(count):
        """Where the `count` bytes of each pixel are looked up, two (H, count W)."""
        x = tf.repeat(x_right, count) - x_down
        y = tf.repeat(y_right, count) + y_down
        return x + middle[0], y + middle[1]

    x, y = places(1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    # The first of 4 x 4 pixels; of those from `outside` on, all are the fill.
    pixels, row_size, outside = _bordered(image)
    first = _floor(y - 0.5) * row_size + _floor(x - 0.5) + (row_size + 1)
    first = tf.where(inside, first, outside)

    def pixel(row, column):
        return _gathered(pixels, first + (row * row_size + column))

    x_fraction, y_fraction = (_fraction(place - 0.5) for place in places(3))
    rows = [
        _bicubic(*(pixel(row, column) for column in range(4)), x_fraction)
        for row in range(4)
    ]
    return _as_bytes(_bicubic(*rows, y_fraction), image.shape)


def _bordered(image):
    """Repeats the border twice on each side, and adds four rows of the fill below.

    Returns:
        Pixels, uint8, (n, 3); how many there are in a row; number of the first fill.
    """
    height, width, _ = image.shape
    left, right = image[:, :1], image[:, -1:]
    image = tf.concat([left, left, image, right, right], axis=1)
    fill = tf.broadcast_to(tf.constant(FILL, tf.uint8), (4, width + 4, 3))
    top, bottom = image[:1], image[-1:]
    image = tf.concat([top, top, image, bottom, bottom, fill], axis=0)
    return tf.reshape(image, (-1, 3)), width + 4, (height + 4) * (width + 4)


@fused
def _rows_moved(image, distances):
    """Moves each row left by its distance in pixels, float64, (H,)."""
    height, width, _ = image.shape
    distances = distances[:, None]
    this = tf.range(width) + _floor(distances)  # (H, W)
    neighbors = (
        tf.clip_by_value(this + step, 0, width - 1) + width * _range(height)
        for step in _STEPS
    )
    moved = _between(image, neighbors, _fraction(distances))
    x = tf.repeat(_centers(width), 3) + distances
    return _filled(moved, (x >= 0) & (x < width), image.shape)


@fused
def _columns_moved(image, distances):
    """Moves each column up by its distance in pixels, float64, (W,)."""
    height, width, _ = image.shape
    this = _range(height) + _floor(distances)  # (H, W)
    neighbors = (
        tf.clip_by_value(this + step, 0, height - 1) * width + tf.range(width)
        for step in _STEPS
    )
    distances = tf.repeat(distances, 3)
    moved = _between(image, neighbors, _fraction(distances))
    y = _centers(height)[:, None] + distances
    return _filled(moved, (y >= 0) & (y < height), image.shape)


def _between(image, neighbors, fraction):
    """Interpolates between four pixels each, given by their numbers, (H, W)."""
    pixels = tf.reshape(image, (-1, 3))
    return _bicubic(*(_gathered(pixels, places) for places in neighbors), fraction)


def _gathered(pixels, places):
    """Rows of bytes, float64, (H, 3 W), of numbers of pixels, (H, W)."""
    gathered = tf.reshape(tf.gather(pixels, places), (places.shape[0], -1))
    return tf.cast(gathered, tf.float64)


def _fraction(places):
    return places - tf.floor(places)


def _range(count: int):
    """Whole numbers, one below the other."""
    return tf.range(count)[:, None]


def _centers(count: int):
    return tf.range(count, dtype=tf.float64) + 0.5


def _floor(places):
    return tf.cast(tf.floor(places), tf.int32)


def _bicubic(before, this, after, second, fraction):
    """Interpolates between `this` (fraction 0) and `after` (fraction 1)."""
    first_step, last_step = before - this, second - after
    cubic = rounded(fraction * (last_step - first_step))
    quadratic = rounded(fraction * (2 * first_step - last_step + cubic))
    return this + rounded(fraction * (after - before + quadratic))


def _filled(pixels, inside, shape):
    """Makes an image of rows of bytes, float64, (H, 3 W), where they are inside."""
    fill = tf.tile(tf.constant(FILL, tf.float64), [shape[1]])
    return _as_bytes(tf.where(inside, pixels, fill), shape)


def _as_bytes(pixels, shape):
    # In one pass; `tf.clip_by_value` takes two.
    low, high = tf.constant(0.0, tf.float64), tf.constant(255.0, tf.float64)
    pixels = tf.raw_ops.ClipByValue(t=pixels, clip_value_min=low, clip_value_max=high)
    return tf.reshape(tf.cast(pixels, tf.uint8), shape)
