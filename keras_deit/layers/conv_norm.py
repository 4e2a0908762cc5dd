"""Convolution and batch normalization, as RegNet has them."""

import keras
from keras import ops

from keras_deit._checks import check


def strided_shape(input_shape, strides: int, filters: int) -> tuple:
    """Shape after a symmetrically padded convolution: sides divided, rounded up."""
    batch, height, width, _ = input_shape
    rows, columns = (side and -(-side // strides) for side in (height, width))
    return (batch, rows, columns, filters)


@keras.saving.register_keras_serializable(package="keras_deit")
class GroupedConv2D(keras.layers.Layer):
    """A convolution without bias whose channels fall into independent groups.

    Padding is symmetric, `(kernel_size - 1) / 2` on each side at any stride, as in the
    official code; Keras' "same" shifts the grid at stride 2.

    The groups are separate convolutions, concatenated. `keras.layers.Conv2D` means the
    same by `groups=...`, but on TensorFlow Keras sends that through XLA, whose gradient
    is slow on a CPU.

    Args:
        filters: Number of output channels, a multiple of `groups`.
        kernel_size: Side of the kernel; odd.
        strides: Step of the kernel, in pixels.
        groups: Number of groups; must divide the input channels.

    Call arguments:
        features: Feature map, shape (B, H, W, C).

    Returns:
        Feature map, shape (B, ceil(H / strides), ceil(W / strides), filters).

    Raises:
        ValueError: If `kernel_size` is even, or `groups` does not divide the channels.

    Example:
    >>> tuple(GroupedConv2D(8, 3, strides=2, groups=2)(ops.ones((1, 5, 5, 4))).shape)
    (1, 3, 3, 8)

    Reference:
        Xie et al., ResNeXt (arXiv:1611.05431), section 3.3. The kernel is stored as in
        `keras.layers.Conv2D`, (kernel, kernel, C / groups, filters), and starts normal
        with variance 2 / fan_out, fan_out counted within a group.
    """

    def __init__(self, filters, kernel_size, strides=1, groups=1, **kwargs):
        super().__init__(**kwargs)
        check(
            kernel_size % 2 == 1,
            "`kernel_size` must be odd, so that padding is symmetric.",
            kernel_size=kernel_size,
        )
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.groups = groups

    def build(self, input_shape):
        channels = input_shape[-1]
        check(
            channels % self.groups == 0 and self.filters % self.groups == 0,
            "`groups` must divide the input channels and `filters`.",
            groups=self.groups,
            channels=channels,
            filters=self.filters,
        )
        fan_out = self.kernel_size**2 * self.filters // self.groups
        self.kernel = self.add_weight(
            shape=(*[self.kernel_size] * 2, channels // self.groups, self.filters),
            initializer=keras.initializers.RandomNormal(stddev=(2 / fan_out) ** 0.5),
            name="kernel",
        )

    def call(self, features):
        pad = self.kernel_size // 2
        if pad:
            features = ops.pad(features, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        kernel = ops.cast(self.kernel, self.compute_dtype)
        pairs = zip(
            ops.split(features, self.groups, axis=-1),
            ops.split(kernel, self.groups, axis=-1),
            strict=True,
        )
        outputs = [
            ops.conv(x, k, self.strides, "valid", "channels_last") for x, k in pairs
        ]
        return ops.concatenate(outputs, axis=-1) if self.groups > 1 else outputs[0]

    def compute_output_shape(self, input_shape):
        return strided_shape(input_shape, self.strides, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "groups": self.groups,
        }


@keras.saving.register_keras_serializable(package="keras_deit")
class ConvNorm(keras.layers.Layer):
    """A convolution without bias, batch normalization, and perhaps a ReLU.

    Args:
        filters: Number of output channels.
        kernel_size: Side of the kernel; odd.
        strides: Step of the kernel, in pixels.
        groups: Number of groups; must divide the input channels.
        use_relu: Whether a ReLU follows.
        zero_scale: Whether the normalization's scale starts at zero, so that a residual
            branch that ends here starts as nothing.

    Call arguments:
        features: Feature map, shape (B, H, W, C).
        training: Whether batch normalization uses the statistics of this batch.

    Returns:
        Feature map, shape (B, ceil(H / strides), ceil(W / strides), filters).

    Example:
    >>> tuple(ConvNorm(8, 3)(ops.ones((1, 5, 5, 4))).shape)
    (1, 5, 5, 8)

    Reference:
        pycls and timm `regnet.py`. Epsilon 1e-5; the running statistics keep 0.9 of
        their value at each step (0.1 in PyTorch's terms).
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        groups=1,
        use_relu=True,
        zero_scale=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.groups = groups
        self.use_relu = use_relu
        self.zero_scale = zero_scale

    def build(self, input_shape):
        self.conv = GroupedConv2D(
            self.filters,
            self.kernel_size,
            self.strides,
            self.groups,
            dtype=self.dtype_policy,
            name="conv",
        )
        self.norm = keras.layers.BatchNormalization(
            momentum=0.9,
            epsilon=1e-5,
            gamma_initializer="zeros" if self.zero_scale else "ones",
            dtype=self.dtype_policy,
            name="norm",
        )
        self.conv.build(input_shape)
        self.norm.build(self.conv.compute_output_shape(input_shape))

    def call(self, features, training=None):
        x = self.norm(self.conv(features), training=training)
        return ops.relu(x) if self.use_relu else x

    def compute_output_shape(self, input_shape):
        return strided_shape(input_shape, self.strides, self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "groups": self.groups,
            "use_relu": self.use_relu,
            "zero_scale": self.zero_scale,
        }
