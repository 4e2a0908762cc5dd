"""Operations on the colors of an image, equal to PIL's byte for byte.

All take uint8 pixels of shape (H, W, 3), H and W known, and return the same.
"""

import tensorflow as tf

from keras_deit.data.fused import fused, rounded

# Rec. 601 luma in 65536ths: PIL's conversion of RGB to "L".
LUMA = (19595, 38470, 7471)


@fused
def autocontrast(image):
    """Stretches each channel to [0, 255]; see `ImageOps.autocontrast`."""
    rows, columns, _ = image.shape
    levels = tf.reshape(image, (rows, -1))  # rows of bytes: of many at once
    low, high = (
        tf.cast(reduce(tf.reshape(reduce(levels, 0), (columns, 3)), 0), tf.float64)
        for reduce in (tf.reduce_min, tf.reduce_max)
    )
    scale = tf.where(high > low, 255 / tf.maximum(high - low, 1), 1)
    offset = -rounded(tf.where(high > low, low, 0) * scale)
    stretched = rounded(tf.cast(levels, tf.float64) * tf.tile(scale, [columns]))
    stretched += tf.tile(offset, [columns])  # in [0, 255], or above by a rounding
    return tf.reshape(tf.cast(stretched, tf.uint8), image.shape)


def equalize(image):
    """Spreads the levels of each channel evenly; see `ImageOps.equalize`."""
    rows, columns, _ = image.shape
    # The levels, those of the second channel from 256, the third's from 512.
    levels = tf.cast(tf.reshape(image, (rows, -1)), tf.int32)
    levels += tf.tile([0, 256, 512], [columns])
    counts = tf.math.bincount(levels, minlength=768, maxlength=768)
    counts = tf.reshape(counts, (3, 256))
    below = tf.cumsum(counts, axis=1, exclusive=True)
    highest = tf.where(counts > 0, below, 0)
    step = tf.reduce_max(highest, axis=1, keepdims=True) // 255  # pixels to a level
    spread = tf.minimum((step // 2 + below) // tf.maximum(step, 1), 255)
    tables = tf.cast(tf.where(step > 0, spread, tf.range(256)), tf.uint8)
    return tf.reshape(tf.gather(tf.reshape(tables, [-1]), levels), image.shape)


def invert(image):
    """Makes the negative; see `ImageOps.invert`."""
    return 255 - image


def posterize(image, bits):
    """Keeps the highest bits, 0 to 8; see `ImageOps.posterize`."""
    dropped = tf.bitwise.left_shift(1, 8 - tf.cast(bits, tf.int32)) - 1
    return tf.bitwise.bitwise_and(image, tf.cast(255 - dropped, tf.uint8))


@fused
def solarize(image, threshold):
    """Inverts levels from a threshold on, 0 to 256; see `ImageOps.solarize`."""
    inverts = tf.cast(image, tf.int32) >= tf.cast(threshold, tf.int32)
    return tf.bitwise.bitwise_xor(image, 255 * tf.cast(inverts, tf.uint8))


@fused
def solarize_add(image, addend):
    """Adds 0 to 127 to levels below 128; see `solarize_add` of timm."""
    is_dark = 1 - tf.bitwise.right_shift(image, tf.constant(7, tf.uint8))
    return image + is_dark * tf.cast(addend, tf.uint8)


@fused
def adjust_color(image, factor):
    """Moves away from grey, 0 being grey; see `ImageEnhance.Color`."""
    return _blended(tf.repeat(_grey(image), 3, axis=2), image, factor)


def adjust_contrast(image, factor):
    """Moves away from the mean, 0 being all mean; see `ImageEnhance.Contrast`."""
    grey = tf.cast(_grey(image), tf.float64)
    return _blended(tf.floor(tf.reduce_mean(grey) + 0.5), image, factor)


@fused
def adjust_brightness(image, factor):
    """Moves away from black, 0 being black; see `ImageEnhance.Brightness`."""
    return _blended(0.0, image, factor)


def adjust_sharpness(image, factor):
    """Moves away from a smoothed image, 0 being that; see `ImageEnhance.Sharpness`.

    The smooth one is the mean of 3 x 3 pixels, of which the middle counts five times;
    pixels of the border are left alone.
    """
    pixels = tf.cast(image, tf.float32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    middle = pixels[1:-1, 1:-1]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * middle
    change = tf.floor((total + 6.5) / 13) - middle
    smooth = pixels + tf.pad(change, [(1, 1), (1, 1), (0, 0)])
    return _blended(smooth, image, factor)


def _grey(image):
    """Luma, int32, (H, W, 1)."""
    red, green, blue = tf.split(tf.cast(image, tf.int32), 3, axis=2)
    luma = red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]
    return tf.bitwise.right_shift(luma + 32768, 16)


def _blended(start, image, factor):
    """`start + factor * (image - start)`, clipped, fractions cut off; `Image.blend`."""
    start, pixels = tf.cast(start, tf.float32), tf.cast(image, tf.float32)
    blended = start + rounded(factor * (pixels - start))
    return tf.cast(tf.clip_by_value(blended, 0, 255), tf.uint8)
