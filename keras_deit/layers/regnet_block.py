"""The bottleneck of RegNetY."""

import keras
from keras import ops

from keras_deit._checks import check
from keras_deit.layers.conv_norm import ConvNorm, strided_shape
from keras_deit.layers.squeeze_excite import SqueezeExcite


@keras.saving.register_keras_serializable(package="keras_deit")
class RegNetBlock(keras.layers.Layer):
    """RegNetY's residual bottleneck, `relu(shortcut(x) + f(x))`.

    f is a 1 x 1 convolution, a grouped 3 x 3 convolution with the stride,
    squeeze-excite, and a 1 x 1 convolution, each convolution normalized, the first two
    with a ReLU. The shortcut is the identity, or a 1 x 1 convolution with the stride
    where width or stride changes.

    Args:
        width: Number of output channels, a multiple of `group_width`.
        strides: Step of the 3 x 3 convolution, in pixels.
        group_width: Channels of one group of the 3 x 3 convolution.
        squeeze_ratio: Width of squeeze-excite over the channels that *enter the block*
            (not over its own width).

    Call arguments:
        features: Feature map, shape (B, H, W, C).
        training: Whether batch normalization uses the statistics of this batch.

    Returns:
        Feature map, shape (B, ceil(H / strides), ceil(W / strides), width).

    Raises:
        ValueError: If `width` is not a multiple of `group_width`.

    Example:
    >>> tuple(RegNetBlock(16, strides=2, group_width=8)(ops.ones((1, 8, 8, 4))).shape)
    (1, 4, 4, 16)

    Reference:
        Radosavovic et al., RegNet (arXiv:2003.13678), figure 4 and section 5 (Y adds
        squeeze-excite); timm `regnet.py`, `Bottleneck`.
    """

    def __init__(self, width, strides, group_width, squeeze_ratio=0.25, **kwargs):
        super().__init__(**kwargs)
        check(
            width % group_width == 0,
            "`width` must be a multiple of `group_width`.",
            width=width,
            group_width=group_width,
        )
        self.width = width
        self.strides = strides
        self.group_width = group_width
        self.squeeze_ratio = squeeze_ratio

    def build(self, input_shape):
        width, dtype = self.width, self.dtype_policy
        channels = input_shape[-1]
        output_shape = self.compute_output_shape(input_shape)
        self.conv1 = ConvNorm(width, 1, dtype=dtype, name="conv1")
        self.conv2 = ConvNorm(
            width, 3, self.strides, width // self.group_width, dtype=dtype, name="conv2"
        )
        self.squeeze_excite = SqueezeExcite(
            round(self.squeeze_ratio * channels), dtype=dtype, name="squeeze_excite"
        )
        self.conv3 = ConvNorm(
            width, 1, use_relu=False, zero_scale=True, dtype=dtype, name="conv3"
        )
        self.shortcut = None
        if channels != width or self.strides != 1:
            self.shortcut = ConvNorm(
                width, 1, self.strides, use_relu=False, dtype=dtype, name="shortcut"
            )
            self.shortcut.build(input_shape)
        self.conv1.build(input_shape)
        self.conv2.build((*input_shape[:-1], width))
        self.squeeze_excite.build(output_shape)
        self.conv3.build(output_shape)

    def call(self, features, training=None):
        x = self.conv1(features, training=training)
        x = self.squeeze_excite(self.conv2(x, training=training))
        x = self.conv3(x, training=training)
        if self.shortcut is not None:
            features = self.shortcut(features, training=training)
        return ops.relu(features + x)

    def compute_output_shape(self, input_shape):
        return strided_shape(input_shape, self.strides, self.width)

    def get_config(self):
        return {
            **super().get_config(),
            "width": self.width,
            "strides": self.strides,
            "group_width": self.group_width,
            "squeeze_ratio": self.squeeze_ratio,
        }
