"""All randomness of a view, as a pure function of (seed, epoch, example id, repeat).

Nothing here keeps a state (decision D9): the same arguments draw the same numbers, in
any order, in any process, under any parallelism. Raise `VIEW_FORMAT` whenever a change
makes the same arguments draw something else.
"""

import math

import tensorflow as tf

VIEW_FORMAT = 1
TRIES = 10  # of a crop, before the center is taken

# What a key is for; two purposes never share their random bits.
_ORDER, _VIEW, _START = range(3)
_CROP, _FLIP = range(2)


def _fold(key, *numbers):
    for number in numbers:
        key = tf.random.experimental.stateless_fold_in(
            key, tf.cast(number, tf.int64), alg="philox"
        )
    return key


def _key(seed, purpose: int):
    return tf.stack([tf.cast(seed, tf.int64), tf.constant(purpose, tf.int64)])


def _uniform(key, shape, low=0.0, high=1.0):
    return tf.random.stateless_uniform(shape, key, low, high, alg="philox")


def epoch_order(seed, epoch, num_examples, window=0):
    """Draws the order of the examples in one epoch.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        num_examples: How many examples there are.
        window: Number of the part that is ordered, from 0, where a source that cannot
            be read in any order is shuffled part by part.

    Returns:
        A permutation of the numbers below `num_examples`, int64, (num_examples,).
    """
    key = _fold(_key(seed, _ORDER), epoch, window)
    ids = tf.range(num_examples, dtype=tf.int64)
    return tf.random.experimental.stateless_shuffle(ids, key, alg="philox")


def epoch_start(seed, epoch, num_examples: int):
    """Draws the example that an epoch of a stream begins with, int64, shape ()."""
    key = _fold(_key(seed, _START), epoch)
    return tf.random.stateless_uniform((), key, 0, num_examples, tf.int64, alg="philox")


def view_key(seed, epoch, example_id, repeat=0):
    """Derives the key of one view, from which all its draws follow.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        example_id: Number of the example in its source.
        repeat: Which of several views of the example in this epoch, from 0.

    Returns:
        The key, int64, shape (2,).
    """
    return _fold(_key(seed, _VIEW), epoch, example_id, repeat)


def draw_crop(key, height, width, area, aspect_ratio):
    """Draws the box of a random resized crop.

    Up to ten boxes are drawn, their share of the image's area uniform in `area`, their
    width over height log-uniform in `aspect_ratio`; the first that fits is taken, its
    place uniform. If none fits, it is the largest box in the center whose aspect ratio
    is in the range.

    Args:
        key: Key of the view.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        area: Smallest and largest share of the area, in (0, 1].
        aspect_ratio: Smallest and largest width over height.

    Returns:
        (top, left, height, width) of the box in pixels, int32, shape (4,).

    Reference:
        torchvision `RandomResizedCrop.get_params`, which DeiT uses through timm.
    """
    key = _fold(key, _CROP)
    image_height, image_width = (tf.cast(side, tf.float32) for side in (height, width))
    draws = _uniform(key, (TRIES, 4))
    share = area[0] + (area[1] - area[0]) * draws[:, 0]
    low, high = (math.log(ratio) for ratio in aspect_ratio)
    ratio = tf.exp(low + (high - low) * draws[:, 1])
    pixels = share * image_height * image_width
    heights = tf.round(tf.sqrt(pixels / ratio))
    widths = tf.round(tf.sqrt(pixels * ratio))
    fits = (
        (heights >= 1)
        & (widths >= 1)
        & (heights <= image_height)
        & (widths <= image_width)
    )
    tops = tf.floor(draws[:, 2] * (image_height - heights + 1))
    lefts = tf.floor(draws[:, 3] * (image_width - widths + 1))

    center_height = tf.minimum(image_height, tf.round(image_width / aspect_ratio[0]))
    center_width = tf.minimum(image_width, tf.round(image_height * aspect_ratio[1]))
    center = tf.stack(
        [
            tf.floor((image_height - center_height) / 2),
            tf.floor((image_width - center_width) / 2),
            center_height,
            center_width,
        ]
    )
    boxes = tf.stack([tops, lefts, heights, widths], axis=1)  # (TRIES, 4)
    boxes = tf.concat([boxes, center[None]], axis=0)
    first = tf.argmax(tf.concat([fits, [True]], axis=0))
    return tf.cast(boxes[first], tf.int32)


def draw_flip(key):
    """Draws whether a view is mirrored left to right, with probability 1/2."""
    return _uniform(_fold(key, _FLIP), ()) < 0.5
