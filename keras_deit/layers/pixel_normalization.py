"""Pixels in, normalized pixels out: the first layer of every model."""

import keras
import numpy as np
from keras import ops

from keras_deit._checks import check


@keras.saving.register_keras_serializable(package="keras_deit")
class PixelNormalization(keras.layers.Layer):
    """Scales pixels to [0, 1], then standardizes each color channel.

    `output = (pixels / 255 - mean) / std`, computed in float32 whatever the dtype
    policy, because half precision cannot tell neighboring interpolated pixels apart.

    Args:
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1]; positive.
        crop_ratio: Side of the center crop over the shorter side of the resized image,
            in (0, 1]. The layer does not use it: it is what the model tells those who
            prepare pictures for it, in evaluation and in exported artifacts.

    Call arguments:
        pixels: RGB in [0, 255], integer or float, shape (B, H, W, 3), or as many
            channels as `mean` has.

    Returns:
        Normalized pixels in the compute dtype, shape (B, H, W, 3).

    Raises:
        ValueError: If `mean` and `std` differ in length, a `std` is not positive,
            `crop_ratio` is outside (0, 1], or pixels have another number of channels.

    Example:
    >>> layer = PixelNormalization(mean=[0.5] * 3, std=[0.5] * 3)
    >>> float(layer(ops.ones((1, 2, 2, 3)) * 255.0)[0, 0, 0, 0])
    1.0

    Reference:
        Official DeiT `datasets.py`, `build_transform`: `ToTensor`, then `Normalize`.
        Here it is part of the model, so that student, teacher and every exported
        artifact take the same picture (decision D4).
    """

    def __init__(self, mean, std, crop_ratio=1.0, **kwargs):
        super().__init__(autocast=False, **kwargs)
        check(
            len(mean) == len(std) and all(s > 0 for s in std),
            "`mean` and `std` must have one entry for each channel, `std` positive.",
            mean=mean,
            std=std,
        )
        rule = "`crop_ratio` must be in (0, 1]."
        check(0 < crop_ratio <= 1, rule, crop_ratio=crop_ratio)
        self.mean = tuple(float(m) for m in mean)
        self.std = tuple(float(s) for s in std)
        self.crop_ratio = crop_ratio
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: len(self.mean)})

    def call(self, pixels):
        x = ops.cast(pixels, "float32")
        # A whole row at once: to broadcast three numbers takes four times as long.
        width = pixels.shape[2] or 1  # 1 where it is not known
        x = ops.reshape(x, (-1, width * len(self.mean)))
        mean, std = (np.tile(np.float32(v), width) for v in (self.mean, self.std))
        x = (x / 255.0 - mean) / std
        return ops.cast(ops.reshape(x, ops.shape(pixels)), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "mean": self.mean,
            "std": self.std,
            "crop_ratio": self.crop_ratio,
        }
