"""Each token thinks for itself."""

import keras
from keras import ops

from keras_deit._checks import check_share
from keras_deit.layers.gelu import gelu


@keras.saving.register_keras_serializable(package="keras_deit")
class FeedForward(keras.layers.Layer):
    """Two dense layers with an exact GELU between them, for each token alone.

    `output = fc2(gelu(fc1(tokens)))`, with dropout after each dense layer.

    Args:
        hidden_dim: Width between the two layers.
        drop_rate: Dropout rate, in [0, 1]. The papers' recipes use 0.

    Call arguments:
        tokens: Tokens, shape (B, P + N, D).

    Returns:
        Tokens, shape (B, P + N, D).

    Raises:
        ValueError: If `drop_rate` is outside [0, 1].

    Example:
    >>> tuple(FeedForward(hidden_dim=32)(ops.ones((2, 5, 8))).shape)
    (2, 5, 8)

    Reference:
        Dosovitskiy et al., ViT (arXiv:2010.11929), equation 3. GELU by the error
        function, as in the official code, not by the hyperbolic tangent.
    """

    def __init__(self, hidden_dim, drop_rate=0.0, **kwargs):
        super().__init__(**kwargs)
        check_share("drop_rate", drop_rate)
        self.hidden_dim = hidden_dim
        self.drop_rate = drop_rate

    def build(self, input_shape):
        dim = input_shape[-1]
        normal = keras.initializers.RandomNormal(stddev=0.02)
        self.fc1 = keras.layers.Dense(
            self.hidden_dim,
            kernel_initializer=normal,
            dtype=self.dtype_policy,
            name="fc1",
        )
        self.fc2 = keras.layers.Dense(
            dim,
            kernel_initializer=normal.clone(),
            dtype=self.dtype_policy,
            name="fc2",
        )
        self.dropout = keras.layers.Dropout(self.drop_rate, dtype=self.dtype_policy)
        self.fc1.build((None, dim))
        self.fc2.build((None, self.hidden_dim))

    def call(self, tokens, training=None):
        _, length, dim = tokens.shape
        x = self.fc1(ops.reshape(tokens, (-1, dim)))  # (B (P + N), hidden_dim)
        x = gelu(x, training)
        x = self.dropout(x, training=training)
        x = self.dropout(self.fc2(x), training=training)
        return ops.reshape(x, (-1, length, dim))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "drop_rate": self.drop_rate,
        }
