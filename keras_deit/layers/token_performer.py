"""The T2T module's attention with a cost linear in the number of tokens."""

import math

import keras
from keras import ops

from keras_deit.layers.feed_forward import FeedForward
from keras_deit.layers.layer_norm import LayerNormalization

EPSILON = 1e-8
DROP_RATE = 0.1  # the official code has it, whatever the model's own rate


def random_features(x, projection):
    """Positive features whose products approximate the softmax kernel.

    `phi(x) = exp(W x - |x|^2 / 2) / sqrt(m)`, with neither a scale of the input nor a
    maximum taken off, as in the official code.

    Args:
        x: Queries or keys, float32, shape (B, T, d).
        projection: W, m directions, shape (m, d).

    Returns:
        Features, shape (B, T, m).
    """
    half_norm = ops.sum(ops.square(x), axis=-1, keepdims=True) / 2  # (B, T, 1)
    scores = ops.matmul(x, ops.transpose(projection))  # (B, T, m)
    return ops.exp(scores - half_norm) / math.sqrt(projection.shape[0])


def linear_attention(query, key, value):
    """Attention whose scores are products of features: linear in the number of tokens.

    `y_t = q_t sum_i(k_i v_i^T) / (q_t . sum_i(k_i) + 1e-8)`.

    Args:
        query: Features of the queries, shape (B, T, m).
        key: Features of the keys, shape (B, T, m).
        value: Values, shape (B, T, d).

    Returns:
        Tokens, shape (B, T, d).
    """
    summary = ops.matmul(ops.transpose(key, (0, 2, 1)), value)  # (B, m, d)
    total = ops.sum(key, axis=1, keepdims=True)  # (B, 1, m)
    normalizer = ops.sum(query * total, axis=-1, keepdims=True)  # (B, T, 1)
    return ops.matmul(query, summary) / (normalizer + EPSILON)


@keras.saving.register_keras_serializable(package="keras_deit")
class TokenPerformer(keras.layers.Layer):
    """Projects tokens to `token_dim` and lets them attend to each other, linearly.

    `k, q, v = kqv(norm1(tokens))`, `y = v + projection(attention(q, k, v))`,
    `output = y + mlp(norm2(y))`: the skip connection goes through the values, since
    the width changes. The random features are frozen weights: m orthogonal rows of
    length sqrt(m). Under a mixed dtype policy the layer computes in float32, because
    its exponentials and its epsilon do not fit half precision.

    Args:
        token_dim: d, width of the outgoing tokens.
        num_random_features: m; None takes half of `token_dim`.

    Call arguments:
        tokens: Tokens, shape (B, T, C).

    Returns:
        Tokens, shape (B, T, token_dim).

    Example:
    >>> tuple(TokenPerformer(token_dim=8)(ops.ones((2, 5, 12))).shape)
    (2, 5, 8)

    Reference:
        Choromanski et al., Performer (arXiv:2009.14794), section 2.3; Yuan et al.,
        T2T-ViT (arXiv:2101.11986), section 3.1; official code `token_performer.py`,
        with its order [k | q | v] and its fixed dropout of 0.1.
    """

    def __init__(self, token_dim, num_random_features=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.token_dim = token_dim
        self.num_random_features = num_random_features or token_dim // 2

    def build(self, input_shape):
        dtype = self.variable_dtype  # float32 under a mixed policy
        normal = keras.initializers.RandomNormal(stddev=0.02)
        self.norm1 = LayerNormalization(epsilon=1e-5, dtype=dtype, name="norm1")
        self.kqv = keras.layers.Dense(
            3 * self.token_dim, kernel_initializer=normal, dtype=dtype, name="kqv"
        )
        self.random_features = self.add_weight(
            shape=(self.num_random_features, self.token_dim),
            initializer=self._directions,
            trainable=False,
            autocast=False,
            name="random_features",
        )
        self.projection = keras.layers.Dense(
            self.token_dim,
            kernel_initializer=normal.clone(),
            dtype=dtype,
            name="projection",
        )
        self.norm2 = LayerNormalization(epsilon=1e-5, dtype=dtype, name="norm2")
        self.mlp = FeedForward(self.token_dim, dtype=dtype, name="mlp")
        self.dropout = keras.layers.Dropout(DROP_RATE, dtype=dtype)
        self.norm1.build(input_shape)
        self.kqv.build((None, input_shape[-1]))
        self.projection.build((None, self.token_dim))
        for layer in (self.norm2, self.mlp):
            layer.build(self.compute_output_shape(input_shape))

    def _directions(self, shape, dtype=None):
        # In float32 and then cast: there is no QR decomposition of bfloat16.
        orthogonal = keras.initializers.Orthogonal(gain=math.sqrt(shape[0]))
        return ops.cast(orthogonal(shape, "float32"), dtype)

    def call(self, tokens, training=None):
        length, dim = tokens.shape[1:]
        # LayerNormalization answers in the precision that it is given.
        x = self.norm1(ops.cast(tokens, self.variable_dtype))
        x = ops.reshape(x, (-1, dim))
        kqv = ops.cast(self.kqv(x), "float32")
        kqv = ops.reshape(kqv, (-1, length, 3 * self.token_dim))
        key, query, value = ops.split(kqv, 3, axis=-1)  # (B, T, d) each
        weights = ops.cast(self.random_features, "float32")
        y = linear_attention(
            random_features(query, weights), random_features(key, weights), value
        )
        y = self.projection(ops.reshape(y, (-1, self.token_dim)))
        y = ops.reshape(y, (-1, length, self.token_dim))
        y = ops.cast(value, y.dtype) + self.dropout(y, training=training)
        y = y + self.dropout(self.mlp(self.norm2(y)), training=training)
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.token_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "token_dim": self.token_dim,
            "num_random_features": self.num_random_features,
        }
