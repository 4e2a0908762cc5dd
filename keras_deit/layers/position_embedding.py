"""Where a token stands."""

import keras
import numpy as np
from keras import ops


def sinusoids(num_tokens: int, embed_dim: int) -> np.ndarray:
    """Computes the table of sine and cosine waves that stands for positions.

    Entry (p, j) is the sine (j even) or the cosine (j odd) of
    `p / 10000^(2 (j // 2) / D)`, computed in float64.

    Args:
        num_tokens: P + N; position 0 belongs to the first prefix token.
        embed_dim: D, width of a token.

    Returns:
        The table, float32, shape (1, P + N, D).

    Example:
    >>> [round(float(x), 4) for x in sinusoids(2, 4)[0, 1]]
    [0.8415, 0.5403, 0.01, 0.9999]

    Reference:
        Vaswani et al. (arXiv:1706.03762), section 3.5; official T2T-ViT code
        `transformer_block.py`, `get_sinusoid_encoding`.
    """
    j = np.arange(embed_dim)
    angles = np.arange(num_tokens)[:, None] / 10000.0 ** (2 * (j // 2) / embed_dim)
    table = np.where(j % 2 == 0, np.sin(angles), np.cos(angles))
    return table[None].astype("float32")


@keras.saving.register_keras_serializable(package="keras_deit")
class PositionEmbedding(keras.layers.Layer):
    """Adds a vector to each token, prefix tokens included.

    Args:
        sinusoidal: Whether the vectors are the frozen table of `sinusoids`; by default
            they are learned.

    Call arguments:
        tokens: Tokens, shape (B, P + N, D).

    Returns:
        Tokens, shape (B, P + N, D).

    Example:
    >>> tuple(PositionEmbedding()(ops.ones((2, 5, 8))).shape)
    (2, 5, 8)

    Reference:
        Dosovitskiy et al., ViT (arXiv:2010.11929), equation 1. Learned vectors start
        normal with standard deviation 0.02: the official cut at +-2 is absolute, so 100
        sigma. T2T-ViT (arXiv:2101.11986) has the frozen table, a part of its
        checkpoints all the same.
    """

    def __init__(self, sinusoidal=False, **kwargs):
        super().__init__(**kwargs)
        self.sinusoidal = sinusoidal

    def build(self, input_shape):
        self.embedding = self.add_weight(
            shape=(1, *input_shape[1:]),
            initializer=self._table
            if self.sinusoidal
            else keras.initializers.RandomNormal(stddev=0.02),
            trainable=not self.sinusoidal,
            name="embedding",
        )

    def _table(self, shape, dtype=None):
        return ops.cast(sinusoids(*shape[1:]), dtype)

    def call(self, tokens):
        return tokens + ops.cast(self.embedding, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "sinusoidal": self.sinusoidal}
