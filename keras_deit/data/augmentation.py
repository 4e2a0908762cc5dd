"""What a training view goes through."""

import functools
from dataclasses import dataclass

import tensorflow as tf

from keras_deit._checks import check, check_choice, check_share
from keras_deit.data.color import adjust_brightness, adjust_color, adjust_contrast
from keras_deit.data.geometry import cropped, image_shape, resize
from keras_deit.data.keras_cv_engine import keras_cv_operations
from keras_deit.data.rand_augment import OPERATIONS, parse_policy, rand_augment
from keras_deit.data.views import (
    draw_crop,
    draw_erased_box,
    draw_erasing,
    draw_flip,
    draw_jitter,
    draw_noise,
)
from keras_deit.models.preprocessing import IMAGENET

ENGINES = ("own", "keras-cv")


@dataclass(frozen=True)
class Augmentation:
    """What a view goes through: random resized crop and flip, if nothing else is said.

    The papers' training adds `rand_augment="rand-m9-mstd0.5-inc1"` and `erasing=0.25`.

    Attributes:
        crop_area: Smallest and largest share of the image's area, in (0, 1].
        crop_aspect_ratio: Smallest and largest width over height of the crop.
        flip: Whether half of the views are mirrored left to right.
        rand_augment: RandAugment in timm's syntax, see `rand_augment.parse_policy`;
            None for none.
        color_jitter: s; brightness, contrast and saturation are multiplied, in random
            order, by factors uniform in [max(0, 1 - s), 1 + s]. 0 for none. timm
            ignores it beside RandAugment; here that is refused.
        erasing: How often a box is erased, in [0, 1].
        engine: Who carries out the operations of RandAugment. "own": this package, as
            PIL does, byte for byte. "keras-cv": KerasCV's layers, as far as they have
            the operations; the policy then draws among these alone.

    Raises:
        ValueError: If a value is out of bounds or unknown, or two of them exclude each
            other.

    Reference:
        Official DeiT `main.py` and `datasets.py`; timm `transforms_factory.py`,
        `transforms_imagenet_train`.
    """

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    rand_augment: str | None = None
    color_jitter: float = 0.0
    erasing: float = 0.0
    engine: str = "own"

    def __post_init__(self):
        """Checks the values."""
        low, high = self.crop_area
        rule = "`crop_area` must be (smallest, largest), both in (0, 1]."
        check(0 < low <= high <= 1, rule, crop_area=self.crop_area)
        low, high = self.crop_aspect_ratio
        rule = "`crop_aspect_ratio` must be (smallest, largest), both positive."
        check(0 < low <= high, rule, crop_aspect_ratio=self.crop_aspect_ratio)
        policy, jitter = self.rand_augment, self.color_jitter
        if policy is not None:
            parse_policy(policy)
        rule = "`color_jitter` must be finite, and not below 0."
        check(0 <= jitter < float("inf"), rule, color_jitter=jitter)
        rule = "`color_jitter` must be 0 beside `rand_augment`: one changes colors."
        check(not (policy and jitter), rule, color_jitter=jitter, rand_augment=policy)
        check_share("erasing", self.erasing)
        check_choice("engine", self.engine, ENGINES)
        rule = (
            "`engine` must be 'own' without `rand_augment`, which alone it carries out."
        )
        idle = policy is None and self.engine != "own"
        check(not idle, rule, engine=self.engine, rand_augment=policy)


def training_view(image, key, image_size: tuple[int, int], augmentation: Augmentation):
    """Makes one random view of an image.

    It is cropped and resized, mirrored, changed by RandAugment or in its colors, and a
    box of it is erased, in this order.

    Args:
        image: The encoded image, a scalar string, or its pixels, uint8, shape
            (rows, columns, 3).
        key: Key of the view, from `views.view_key`.
        image_size: Height and width of the view, in pixels.
        augmentation: What the view goes through.

    Returns:
        Pixels, uint8, shape (height, width, 3).
    """
    box = draw_crop(
        key,
        *image_shape(image),
        augmentation.crop_area,
        augmentation.crop_aspect_ratio,
    )
    view = resize(cropped(image, *tf.unstack(box)), *image_size)
    view = tf.ensure_shape(view, (*image_size, 3))
    if augmentation.flip:
        view = tf.cond(draw_flip(key), lambda: tf.reverse(view, [1]), lambda: view)
    if augmentation.rand_augment is not None:
        policy = parse_policy(augmentation.rand_augment)
        view = rand_augment(view, key, policy, operations_of(augmentation.engine))
    if augmentation.color_jitter:
        view = color_jitter(view, key, augmentation.color_jitter)
    if augmentation.erasing:
        view = erase(view, key, augmentation.erasing)
    return tf.ensure_shape(view, (*image_size, 3))


def operations_of(engine: str) -> dict:
    """Gives the operations of an engine, a name of `ENGINES`, by name."""
    if engine == "own":
        return OPERATIONS
    with tf.init_scope():  # the layers of KerasCV make variables
        return keras_cv_operations()


def color_jitter(image, key, strength: float):
    """Changes brightness, contrast and saturation in random order.

    Args:
        image: Pixels, uint8, shape (H, W, 3), H and W known.
        key: Key of the view.
        strength: s; the factors are uniform in [max(0, 1 - s), 1 + s].

    Returns:
        Pixels, uint8, shape (H, W, 3).

    Reference:
        torchvision `ColorJitter`, which timm gives three equal strengths and no hue.
    """
    adjustments = (adjust_brightness, adjust_contrast, adjust_color)
    order, factors = draw_jitter(key, len(adjustments), strength)
    for number in tf.unstack(order):
        branches = [
            functools.partial(adjust, image, factor)
            for adjust, factor in zip(adjustments, tf.unstack(factors), strict=True)
        ]
        image = tf.switch_case(number, branches)
    return image


def erase(image, key, probability: float):
    """Replaces a box by noise, with the mean and deviation of ImageNet's pixels.

    Args:
        image: Pixels, uint8, shape (H, W, 3).
        key: Key of the view; see `views.draw_erased_box` for the box.
        probability: How often there is a box, in [0, 1].

    Returns:
        Pixels, uint8, shape (H, W, 3).

    Reference:
        Zhong et al., "Random Erasing Data Augmentation", arXiv 1708.04896, algorithm 1;
        timm `random_erasing.py`, `RandomErasing` in the mode "pixel" with one box.
        There the noise is added as floats after normalization and has no bounds; here
        it is rounded to whole grey levels and clipped to [0, 255], as every pixel of a
        view. DeiT erases before Mixup, as here, T2T-ViT after it.
    """

    def erased():
        box = draw_erased_box(key, image.shape[0], image.shape[1])
        top, left, height, width = tf.unstack(box)
        below, right = top + height, left + width
        noise = draw_noise(key, (height, width, 3))
        # Whole rows at once: to broadcast three numbers takes several times as long.
        noise = tf.reshape(noise, (height, width * 3))
        mean, std = (tf.tile(x, [width]) for x in (IMAGENET.mean, IMAGENET.std))
        pixels = tf.round(255 * (mean + std * noise))
        pixels = tf.cast(tf.clip_by_value(pixels, 0, 255), tf.uint8)
        pixels = tf.reshape(pixels, (height, width, 3))
        rows = image[top:below]
        rows = tf.concat([rows[:, :left], pixels, rows[:, right:]], axis=1)
        return tf.concat([image[:top], rows, image[below:]], axis=0)

    return tf.cond(draw_erasing(key, probability), erased, lambda: image)
