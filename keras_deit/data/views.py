"""All randomness of a view, as a pure function of (seed, epoch, example id, repeat).

What is drawn for a whole batch is a function of (seed, epoch, step). Nothing here keeps
a state (decision D9): the same arguments draw the same numbers, in any order, in any
process, under any parallelism. Raise `VIEW_FORMAT` whenever a change makes the same
arguments draw something else.
"""

import math

import tensorflow as tf

VIEW_FORMAT = 2
TRIES = 10  # of a box, before the center is cropped or nothing is erased
ERASED_AREA = (0.02, 1 / 3)  # shares of the area of a view
ERASED_ASPECT_RATIO = (0.3, 1 / 0.3)  # height over width

# What a key is for; two purposes never share their random bits.
_ORDER, _VIEW, _MIX = range(3)
_CROP, _FLIP, _OPERATIONS, _MAGNITUDES, _JITTER, _ERASING, _BOX, _NOISE = range(8)
_PHILOX = 1  # TensorFlow's number of the generator


def fold(key, *numbers):
    """Derives a key of its own for each sequence of numbers.

    Args:
        key: A key, int64, shape (2,).
        numbers: Integers; what the key is for comes first.

    Returns:
        The key, int64, shape (2,).
    """
    for number in numbers:
        key = tf.random.experimental.stateless_fold_in(
            key, tf.cast(number, tf.int64), alg="philox"
        )
    return key


def uniform(key, shape):
    """Draws uniform numbers in [0, 1), float32."""
    # As `tf.random.stateless_uniform` does, which then scales; each of a view's many
    # small operations counts.
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=key)
    return tf.raw_ops.StatelessRandomUniformV2(
        shape=shape, key=key, counter=counter, alg=_PHILOX
    )


def _normal(key, shape):
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=key)
    return tf.raw_ops.StatelessRandomNormalV2(
        shape=shape, key=key, counter=counter, alg=_PHILOX
    )


def _key(seed, purpose: int, epoch, number=0, repeat=0):
    """Hashes the arguments to a key: of one seed, no two have the same key.

    Philox is a cipher of counters of 128 bits, under the seed. The counter is, from its
    highest bits on, the number (64), the epoch (32), the repeat (24), the purpose (8).
    """
    seed, epoch, number, repeat = (
        tf.cast(x, tf.int64) for x in (seed, epoch, number, repeat)
    )
    counter = tf.stack([(epoch * 2**24 + repeat) * 2**8 + purpose, number])
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=(2,),
        key=tf.bitcast(seed[None], tf.uint64),
        counter=tf.bitcast(counter, tf.uint64),
        alg=_PHILOX,
        dtype=tf.int64,
    )


def _for(key, purpose: int):
    """The key of one draw of a view: a neighbor in the 128 bits, hashed when used."""
    return key + tf.constant([0, purpose], tf.int64)


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
    key = _key(seed, _ORDER, epoch, window)
    ids = tf.range(num_examples, dtype=tf.int64)
    return tf.random.experimental.stateless_shuffle(ids, key, alg="philox")


def view_key(seed, epoch, example_id, repeat=0):
    """Derives the key of one view, from which all its draws follow.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch, in [0, 2**31).
        example_id: Number of the example in its source, in [0, 2**63).
        repeat: Which of several views of the example in this epoch, in [0, 2**24).

    Returns:
        The key, int64, shape (2,). Of one seed, no two views have the same.
    """
    return _key(seed, _VIEW, epoch, example_id, repeat)


def mix_key(seed, epoch, step):
    """Derives the key of what is drawn for a whole batch.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        step: Number of the batch in the epoch, from 0.

    Returns:
        The key, int64, shape (2,).
    """
    return _key(seed, _MIX, epoch, step)


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
    draws = uniform(_for(key, _CROP), (TRIES, 4))
    sides = tf.cast(tf.stack([height, width]), tf.float32)
    boxes = _boxes(draws, sides, area, aspect_ratio)
    fits = tf.reduce_all((boxes[:, 2:] >= 1) & (boxes[:, 2:] <= sides), axis=1)

    ratios = tf.constant([1 / aspect_ratio[0], aspect_ratio[1]])
    center = tf.minimum(sides, tf.round(sides[::-1] * ratios))
    center = tf.concat([tf.floor((sides - center) / 2), center], axis=0)
    boxes = tf.concat([boxes, center[None]], axis=0)
    first = tf.argmax(tf.concat([fits, [True]], axis=0))
    return tf.cast(boxes[first], tf.int32)


def _boxes(draws, sides, area, aspect_ratio):
    """Makes boxes of four uniform draws each: area, width over height, place.

    Returns:
        (top, left, height, width) in pixels, whole, float32, shape (TRIES, 4). Boxes
        may be empty, and larger than the image.
    """
    low, high = area
    pixels = (low + (high - low) * draws[:, :1]) * tf.reduce_prod(sides)
    low, high = (math.log(limit) for limit in aspect_ratio)
    ratios = tf.exp((low + (high - low) * draws[:, 1:2]) * [-1.0, 1.0])
    lengths = tf.round(tf.sqrt(pixels * ratios))  # heights, widths
    begins = tf.floor(draws[:, 2:] * (sides - lengths + 1))
    return tf.concat([begins, lengths], axis=1)


def draw_flip(key):
    """Draws whether a view is mirrored left to right, with probability 1/2."""
    return uniform(_for(key, _FLIP), ()) < 0.5


def draw_operations(
    key, length: int, num_operations: int, probability, magnitude, magnitude_std
):
    """Draws the operations of RandAugment.

    Args:
        key: Key of the view.
        length: n, how many are drawn, one after the other, with replacement.
        num_operations: How many operations there are to choose from.
        probability: How often an operation is applied, in [0, 1].
        magnitude: Mean of its magnitude, in [0, 10].
        magnitude_std: Standard deviation of its magnitude.

    Returns:
        Three arrays of shape (n,): number of the operation, int32, or `num_operations`
        for none; its magnitude in [0, 10], float32; its sign, 1 or -1, float32.

    Reference:
        timm `auto_augment.py`, `RandAugment` and `AugmentOp`: uniform with replacement,
        Gaussian magnitude, clipped.
    """
    draws = uniform(_for(key, _OPERATIONS), (3, length))
    chosen = tf.cast(draws[1] * num_operations, tf.int32)
    numbers = tf.where(draws[0] < probability, chosen, num_operations)
    noise = _normal(_for(key, _MAGNITUDES), (length,))
    magnitudes = tf.clip_by_value(magnitude + magnitude_std * noise, 0.0, 10.0)
    return numbers, magnitudes, tf.where(draws[2] < 0.5, 1.0, -1.0)


def draw_jitter(key, num_factors: int, strength: float):
    """Draws the factors of a color jitter and the order in which they are applied.

    Args:
        key: Key of the view.
        num_factors: How many factors there are.
        strength: s, at least 0; factors are uniform in [max(0, 1 - s), 1 + s).

    Returns:
        The order, a permutation of the numbers below `num_factors`, int32, and the
        factors, float32, both of shape (num_factors,).
    """
    ranks, shares = tf.unstack(uniform(_for(key, _JITTER), (2, num_factors)))
    low, high = max(0.0, 1 - strength), 1 + strength
    return tf.argsort(ranks), low + (high - low) * shares


def draw_erasing(key, probability: float):
    """Draws whether a box of a view is erased, with a probability in [0, 1]."""
    return uniform(_for(key, _ERASING), ()) < probability


def draw_erased_box(key, height, width):
    """Draws the box that is erased.

    Up to ten boxes are drawn, their share of the area uniform in `ERASED_AREA`, their
    height over width log-uniform in `ERASED_ASPECT_RATIO`; the first that is lower and
    narrower than the view is taken, its place uniform.

    Args:
        key: Key of the view.
        height: Height of the view, in pixels.
        width: Width of the view, in pixels.

    Returns:
        (top, left, height, width) of the box in pixels, int32, shape (4,); all 0 if
        none fits.

    Reference:
        timm `RandomErasing`, which DeiT uses with one box.
    """
    draws = uniform(_for(key, _BOX), (TRIES, 4))
    sides = tf.cast(tf.stack([height, width]), tf.float32)
    low, high = ERASED_ASPECT_RATIO
    boxes = _boxes(draws, sides, ERASED_AREA, (1 / high, 1 / low))
    fits = tf.reduce_all(boxes[:, 2:] < sides, axis=1)
    box = tf.where(tf.reduce_any(fits), boxes[tf.argmax(fits)], 0.0)
    return tf.cast(box, tf.int32)


def draw_noise(key, shape):
    """Draws what an erased box is filled with, standard normal, float32."""
    return _normal(_for(key, _NOISE), shape)
