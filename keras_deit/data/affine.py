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

from keras_deit.models.preprocessing import IMAGENET

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

    def places(right):
        """Where pixels are looked up, of their distances from the center."""
        x, y = cos * right - sin * down, sin * right + cos * down
        return x + width / 2, y + height / 2

    right = _centers(width) - width / 2
    x, y = places(right)  # (H, W)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    # The first of 4 x 4 pixels; of those from `outside` on, all are the fill.
    pixels, row_size, outside = _bordered(image)
    first = _floor(y - 0.5) * row_size + _floor(x - 0.5) + (row_size + 1)
    first = tf.where(inside, first, outside)

    def pixel(row, column):
        gathered = tf.gather(pixels, first + (row * row_size + column))
        return tf.cast(tf.reshape(gathered, (height, -1)), tf.float64)

    x, y = places(tf.repeat(right, 3))  # one for each byte
    x_fraction, y_fraction = (place - 0.5 - tf.floor(place - 0.5) for place in (x, y))
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


def _rows_moved(image, distances):
    """Moves each row left by its distance in pixels, float64, (H,)."""
    height, width, _ = image.shape
    distances = distances[:, None]
    columns = tf.range(-1, width + 2) + _floor(distances)
    columns = tf.clip_by_value(columns, 0, width - 1) + width * _range(height)
    pixels = tf.gather(tf.reshape(image, (-1, 3)), columns)  # (H, W + 3, 3)
    pixels = tf.cast(tf.reshape(pixels, (height, -1)), tf.float64)
    neighbors = (pixels[:, 3 * k : 3 * (k + width)] for k in range(4))
    moved = _bicubic(*neighbors, distances - tf.floor(distances))
    x = tf.repeat(_centers(width), 3) + distances
    return _filled(moved, (x >= 0) & (x < width), image.shape)


def _columns_moved(image, distances):
    """Moves each column up by its distance in pixels, float64, (W,)."""
    height, width, _ = image.shape
    rows = tf.clip_by_value(_range(-1, height + 2) + _floor(distances), 0, height - 1)
    places = rows * width + tf.range(width)
    pixels = tf.gather(tf.reshape(image, (-1, 3)), places)  # (H + 3, W, 3)
    pixels = tf.cast(tf.reshape(pixels, (height + 3, -1)), tf.float64)
    neighbors = (pixels[k : k + height] for k in range(4))
    distances = tf.repeat(distances, 3)
    moved = _bicubic(*neighbors, distances - tf.floor(distances))
    y = _centers(height)[:, None] + distances
    return _filled(moved, (y >= 0) & (y < height), image.shape)


def _range(*limits: int):
    """Whole numbers, one below the other."""
    return tf.range(*limits)[:, None]


def _centers(count: int):
    return tf.range(count, dtype=tf.float64) + 0.5


def _floor(places):
    return tf.cast(tf.floor(places), tf.int32)


def _bicubic(before, this, after, second, fraction):
    """Interpolates between `this` (fraction 0) and `after` (fraction 1)."""
    first_step, last_step = before - this, second - after
    cubic = fraction * (last_step - first_step)
    quadratic = fraction * (2 * first_step - last_step + cubic)
    return this + fraction * (after - before + quadratic)


def _filled(pixels, inside, shape):
    """Makes an image of rows of bytes, float64, (H, 3 W), where they are inside."""
    fill = tf.tile(tf.constant(FILL, tf.float64), [shape[1]])
    return _as_bytes(tf.where(inside, pixels, fill), shape)


def _as_bytes(pixels, shape):
    # In one pass; `tf.clip_by_value` takes two.
    low, high = tf.constant(0.0, tf.float64), tf.constant(255.0, tf.float64)
    pixels = tf.raw_ops.ClipByValue(t=pixels, clip_value_min=low, clip_value_max=high)
    return tf.reshape(tf.cast(pixels, tf.uint8), shape)
