"""What a training view goes through."""

from dataclasses import dataclass

import tensorflow as tf

from keras_deit._checks import check
from keras_deit.data.geometry import resize
from keras_deit.data.views import draw_crop, draw_flip


@dataclass(frozen=True)
class Augmentation:
    """Random resized crop and flip, with the papers' defaults.

    Attributes:
        crop_area: Smallest and largest share of the image's area, in (0, 1].
        crop_aspect_ratio: Smallest and largest width over height of the crop.
        flip: Whether half of the views are mirrored left to right.

    Raises:
        ValueError: If a range is empty or out of bounds.
    """

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True

    def __post_init__(self):
        """Checks the ranges."""
        low, high = self.crop_area
        rule = "`crop_area` must be (smallest, largest), both in (0, 1]."
        check(0 < low <= high <= 1, rule, crop_area=self.crop_area)
        low, high = self.crop_aspect_ratio
        rule = "`crop_aspect_ratio` must be (smallest, largest), both positive."
        check(0 < low <= high, rule, crop_aspect_ratio=self.crop_aspect_ratio)


def training_view(image, key, image_size: tuple[int, int], augmentation: Augmentation):
    """Makes one random view of an image.

    Args:
        image: Pixels, uint8, shape (rows, columns, 3).
        key: Key of the view, from `views.view_key`.
        image_size: Height and width of the view, in pixels.
        augmentation: What the view goes through.

    Returns:
        Pixels, uint8, shape (height, width, 3).
    """
    shape = tf.shape(image)
    top, left, height, width = tf.unstack(
        draw_crop(
            key,
            shape[0],
            shape[1],
            augmentation.crop_area,
            augmentation.crop_aspect_ratio,
        )
    )
    image = image[top : top + height, left : left + width]
    image = tf.ensure_shape(resize(image, *image_size), (*image_size, 3))
    if augmentation.flip:
        image = tf.where(draw_flip(key), image[:, ::-1], image)
    return image
