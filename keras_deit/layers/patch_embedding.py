"""An image in, one token for each patch out."""

import keras
from keras import ops

from keras_deit._checks import check


@keras.saving.register_keras_serializable(package="keras_deit")
class PatchEmbedding(keras.layers.Layer):
    """Cuts the image into square patches and projects each one to a token.

    A convolution with kernel and stride `patch_size` and no padding; the grid is
    flattened row by row. Kernel and bias start uniform in +-1/sqrt(fan_in).

    Args:
        embed_dim: D, width of a token.
        patch_size: Side of a patch, in pixels.

    Call arguments:
        pixels: Normalized pixels, shape (B, H, W, 3).

    Returns:
        Patch tokens, shape (B, N, D) with N = (H / patch_size) * (W / patch_size).

    Raises:
        ValueError: If the image is not a whole number of patches high and wide.

    Example:
    >>> tuple(PatchEmbedding(embed_dim=8, patch_size=4)(ops.ones((1, 8, 16, 3))).shape)
    (1, 8, 8)

    Reference:
        Dosovitskiy et al., ViT (arXiv:2010.11929), equation 1. The initial values are
        those of the official DeiT, which leaves PyTorch's default for a convolution.
    """

    def __init__(self, embed_dim, patch_size, **kwargs):
        super().__init__(**kwargs)
        self.embed_dim = embed_dim
        self.patch_size = patch_size

    def build(self, input_shape):
        _, height, width, channels = input_shape
        check(
            bool(height and width)
            and height % self.patch_size == 0
            and width % self.patch_size == 0,
            "`image_size` must be a multiple of `patch_size`.",
            image_size=(height, width),
            patch_size=self.patch_size,
        )
        self.grid = (height // self.patch_size, width // self.patch_size)
        limit = (channels * self.patch_size**2) ** -0.5
        self.projection = keras.layers.Conv2D(
            self.embed_dim,
            self.patch_size,
            strides=self.patch_size,
            data_format="channels_last",
            kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
            bias_initializer=keras.initializers.RandomUniform(-limit, limit),
            dtype=self.dtype_policy,
            name="projection",
        )
        self.projection.build(input_shape)

    def call(self, pixels):
        x = self.projection(pixels)  # (B, H / patch, W / patch, D)
        return ops.reshape(x, (-1, self.grid[0] * self.grid[1], self.embed_dim))

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        num_patches = (height // self.patch_size) * (width // self.patch_size)
        return (batch, num_patches, self.embed_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "embed_dim": self.embed_dim,
            "patch_size": self.patch_size,
        }
