"""Mixup and CutMix: a batch is blended with itself, read backwards.

One draw holds for a whole batch, and the partner of position p is position b - 1 - p.
So a part of a batch that owns whole pairs, in an order in which its own reversal gives
the partner, is mixed with the same key to the very same bytes.
"""

from dataclasses import dataclass

import tensorflow as tf

from keras_deit._checks import check, check_share
from keras_deit.data.views import fold, uniform

UNCHANGED, MIXUP, CUTMIX = range(3)

# What a key is folded with; two draws never share their random bits.
_APPLY, _SWITCH, _SHARE, _BOX = range(4)


@dataclass(frozen=True)
class Mixing:
    """Whether and how strongly batches are mixed, with the papers' defaults.

    Attributes:
        mixup: alpha of Mixup, whose lam is drawn from Beta(alpha, alpha); 0 leaves
            Mixup out.
        cutmix: alpha of CutMix; 0 leaves CutMix out.
        probability: Share of the batches that are mixed, in [0, 1].
        switch_probability: Share of CutMix among the mixed batches, in [0, 1], where
            neither is left out.

    Raises:
        ValueError: If a value is out of bounds, or both kinds are left out.

    Reference:
        Zhang et al., "mixup", arXiv 1710.09412; Yun et al., "CutMix", arXiv 1905.04899,
        section 3.1; timm `data/mixup.py`, `FastCollateMixup` in the mode "batch", with
        the arguments of the official DeiT `main.py`.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    probability: float = 1.0
    switch_probability: float = 0.5

    def __post_init__(self):
        """Checks the values."""
        for name in ("mixup", "cutmix"):
            alpha = getattr(self, name)
            rule = f"`{name}` must be finite, and not below 0."
            check(0 <= alpha < float("inf"), rule, **{name: alpha})
        rule = "`mixup` or `cutmix` must be above 0; to mix nothing, give no `Mixing`."
        used = self.mixup > 0 or self.cutmix > 0
        check(used, rule, mixup=self.mixup, cutmix=self.cutmix)
        check_share("probability", self.probability)
        check_share("switch_probability", self.switch_probability)


def draw_kind(key, mixing: Mixing):
    """Draws what is done to a batch: UNCHANGED, MIXUP or CUTMIX, int32, shape ()."""
    if mixing.mixup and mixing.cutmix:
        cutmix_share = mixing.switch_probability
    else:
        cutmix_share = float(mixing.cutmix > 0)
    kind = tf.where(uniform(fold(key, _SWITCH), ()) < cutmix_share, CUTMIX, MIXUP)
    return tf.where(
        uniform(fold(key, _APPLY), ()) < mixing.probability, kind, UNCHANGED
    )


def draw_share(key, alpha: float):
    """Draws lam, the share that an image keeps, from Beta(alpha, alpha).

    lam = g / (g + h), where g and h are two draws from Gamma(alpha). They are made of
    draws from Gamma(alpha + 1) and kept as logarithms, because a Gamma of a small alpha
    is too often too close to 0 for a float.

    Args:
        key: Key of the batch, from `views.mix_key`.
        alpha: Of the distribution, above 0.

    Returns:
        lam, in [0, 1], float32, shape ().
    """
    key = fold(key, _SHARE)
    gammas = tf.random.stateless_gamma((2,), fold(key, 0), alpha + 1.0)
    uniforms = uniform(fold(key, 1), (2,))
    logarithms = tf.math.log(gammas) + tf.math.log(1 - uniforms) / alpha
    return tf.sigmoid(logarithms[0] - logarithms[1])


def draw_box(key, lam, height: int, width: int):
    """Draws the box that CutMix replaces, clipped at the borders.

    Its sides are int(sqrt(1 - lam) * side) before they are clipped, and its center is
    any pixel; as in timm, an odd side loses a pixel.

    Args:
        key: Key of the batch, from `views.mix_key`.
        lam: Share that an image keeps, before the box is clipped.
        height: Height of the images, in pixels.
        width: Width of the images, in pixels.

    Returns:
        (top, left, bottom, right), the last two just outside, int32, shape (4,).
    """
    sides = tf.constant([height, width], tf.float32)
    halves = tf.floor(tf.sqrt(1 - lam) * sides) // 2
    center = tf.floor(uniform(fold(key, _BOX), (2,)) * sides)
    begin, end = tf.maximum(center - halves, 0), tf.minimum(center + halves, sides)
    return tf.cast(tf.concat([begin, end], axis=0), tf.int32)


def mixup(images, labels, lam):
    """Blends each image with its partner, lam of it and 1 - lam of the partner.

    Args:
        images: Pixels, uint8, shape (B, H, W, 3).
        labels: Shares of the classes, float32, shape (B, Y).
        lam: Share that an image keeps, float32, shape ().

    Returns:
        Pixels, uint8, rounded to whole grey levels, and labels.
    """
    pixels = tf.cast(images, tf.float32)
    pixels = tf.round(pixels * lam + tf.reverse(pixels, [0]) * (1 - lam))
    return tf.cast(pixels, tf.uint8), _mixed_labels(labels, lam)


def cutmix(images, labels, box):
    """Replaces a box of each image by that of its partner; lam is the share left.

    Args:
        images: Pixels, uint8, shape (B, H, W, 3); H and W are known.
        labels: Shares of the classes, float32, shape (B, Y).
        box: (top, left, bottom, right), the last two just outside, int32.

    Returns:
        Pixels, uint8, and labels.
    """
    top, left, bottom, right = tf.unstack(box)
    rows = images[:, top:bottom]
    patch = tf.reverse(rows[:, :, left:right], [0])
    rows = tf.concat([rows[:, :, :left], patch, rows[:, :, right:]], axis=2)
    mixed = tf.concat([images[:, :top], rows, images[:, bottom:]], axis=1)
    height, width = images.shape[1:3]
    lam = tf.cast(1 - (bottom - top) * (right - left) / (height * width), tf.float32)
    return tf.ensure_shape(mixed, images.shape), _mixed_labels(labels, lam)


def mix_batch(images, labels, key, mixing: Mixing):
    """Mixes a batch with itself, read backwards; the middle of an odd one stays.

    Args:
        images: Pixels, uint8, shape (B, H, W, 3); H and W are known.
        labels: Shares of the classes, smoothed or not, float32, shape (B, Y).
        key: Key of the batch, from `views.mix_key`.
        mixing: Whether and how strongly.

    Returns:
        Pixels, uint8, shape (B, H, W, 3), and labels, float32, shape (B, Y).
    """

    def mixed_up():
        return mixup(images, labels, draw_share(key, mixing.mixup))

    def cut_and_mixed():
        box = draw_box(key, draw_share(key, mixing.cutmix), *images.shape[1:3])
        return cutmix(images, labels, box)

    def unchanged():
        return tf.identity(images), tf.identity(labels)

    # In the order of the kinds; only the branch that was drawn runs.
    branches = [unchanged, mixed_up, cut_and_mixed]
    return tf.switch_case(draw_kind(key, mixing), branches)


def _mixed_labels(labels, lam):
    return labels * lam + tf.reverse(labels, [0]) * (1 - lam)
