"""Channels weighed by what the whole image shows."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_deit")
class SqueezeExcite(keras.layers.Layer):
    """Scales each channel by a gate computed from the means of all channels.

    `output = x * sigmoid(fc2(relu(fc1(mean(x)))))`, the mean over rows and columns.

    Args:
        squeeze_dim: Width between the two dense layers.

    Call arguments:
        features: Feature map, shape (B, H, W, C).

    Returns:
        Feature map, shape (B, H, W, C).

    Example:
    >>> tuple(SqueezeExcite(squeeze_dim=2)(ops.ones((1, 4, 4, 8))).shape)
    (1, 4, 4, 8)

    Reference:
        Hu et al. (arXiv:1709.01507), section 3. `fc1` and `fc2` are the checkpoints'
        1 x 1 convolutions; on one pixel a dense layer is the same. Kernels start normal
        with variance 2 / fan_out, as timm's.
    """

    def __init__(self, squeeze_dim, **kwargs):
        super().__init__(**kwargs)
        self.squeeze_dim = squeeze_dim

    def build(self, input_shape):
        channels = input_shape[-1]
        initializer = keras.initializers.VarianceScaling(
            scale=2.0, mode="fan_out", distribution="untruncated_normal"
        )
        self.fc1 = keras.layers.Dense(
            self.squeeze_dim,
            activation="relu",
            kernel_initializer=initializer,
            dtype=self.dtype_policy,
            name="fc1",
        )
        self.fc2 = keras.layers.Dense(
            channels,
            activation="sigmoid",
            kernel_initializer=initializer.clone(),
            dtype=self.dtype_policy,
            name="fc2",
        )
        self.fc1.build((None, channels))
        self.fc2.build((None, self.squeeze_dim))

    def call(self, features):
        gate = self.fc2(self.fc1(ops.mean(features, axis=(1, 2))))  # (B, C)
        return features * gate[:, None, None, :]

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "squeeze_dim": self.squeeze_dim}
