"""Where a token stands."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_deit")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector to each token, prefix tokens included.

    Call arguments:
        tokens: Tokens, shape (B, P + N, D).

    Returns:
        Tokens, shape (B, P + N, D).

    Example:
    >>> tuple(PositionEmbedding()(ops.ones((2, 5, 8))).shape)
    (2, 5, 8)

    Reference:
        Dosovitskiy et al., ViT (arXiv:2010.11929), equation 1. The vectors start normal
        with standard deviation 0.02: the official cut at +-2 is absolute, so 100 sigma.
    """

    def build(self, input_shape):
        self.embedding = self.add_weight(
            shape=(1, *input_shape[1:]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="embedding",
        )

    def call(self, tokens):
        return tokens + ops.cast(self.embedding, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)
