"""The T2T module's attention with a softmax over all pairs of tokens."""

import keras
from keras import ops

from keras_deit.layers.feed_forward import FeedForward
from keras_deit.layers.layer_norm import LayerNormalization


@keras.saving.register_keras_serializable(package="keras_deit")
class TokenTransformer(keras.layers.Layer):
    """Projects tokens to `token_dim` and lets them attend to each other, in one head.

    `q, k, v = qkv(norm1(tokens))`, `y = v + projection(softmax(q k^T / sqrt(C)) v)`,
    `output = y + mlp(norm2(y))`: the skip connection goes through the values, since
    the width changes. The softmax is computed in float32.

    Args:
        token_dim: d, width of the outgoing tokens.

    Call arguments:
        tokens: Tokens, shape (B, T, C).

    Returns:
        Tokens, shape (B, T, token_dim).

    Example:
    >>> tuple(TokenTransformer(token_dim=8)(ops.ones((2, 5, 12))).shape)
    (2, 5, 8)

    Reference:
        Yuan et al., T2T-ViT (arXiv:2101.11986), section 3.1; official code
        `token_transformer.py`. The scale comes from C, the incoming width, not from
        `token_dim`: the published weights need it.
    """

    def __init__(self, token_dim, **kwargs):
        super().__init__(**kwargs)
        self.token_dim = token_dim

    def build(self, input_shape):
        dtype = self.dtype_policy
        normal = keras.initializers.RandomNormal(stddev=0.02)
        self.norm1 = LayerNormalization(epsilon=1e-5, dtype=dtype, name="norm1")
        self.qkv = keras.layers.Dense(
            3 * self.token_dim,
            use_bias=False,
            kernel_initializer=normal,
            dtype=dtype,
            name="qkv",
        )
        self.projection = keras.layers.Dense(
            self.token_dim,
            kernel_initializer=normal.clone(),
            dtype=dtype,
            name="projection",
        )
        self.norm2 = LayerNormalization(epsilon=1e-5, dtype=dtype, name="norm2")
        self.mlp = FeedForward(self.token_dim, dtype=dtype, name="mlp")
        self.norm1.build(input_shape)
        self.qkv.build((None, input_shape[-1]))
        self.projection.build((None, self.token_dim))
        for layer in (self.norm2, self.mlp):
            layer.build(self.compute_output_shape(input_shape))

    def call(self, tokens, training=None):
        length, dim = tokens.shape[1:]
        qkv = self.qkv(ops.reshape(self.norm1(tokens), (-1, dim)))
        qkv = ops.reshape(qkv, (-1, length, 3 * self.token_dim))
        q, k, v = ops.split(qkv, 3, axis=-1)  # (B, T, d) each
        scores = ops.matmul(q * dim**-0.5, ops.transpose(k, (0, 2, 1)))  # (B, T, T)
        attention = ops.softmax(ops.cast(scores, "float32"))
        y = ops.matmul(ops.cast(attention, self.compute_dtype), v)
        y = self.projection(ops.reshape(y, (-1, self.token_dim)))
        y = v + ops.reshape(y, (-1, length, self.token_dim))
        return y + self.mlp(self.norm2(y), training=training)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.token_dim)

    def get_config(self):
        return {**super().get_config(), "token_dim": self.token_dim}
