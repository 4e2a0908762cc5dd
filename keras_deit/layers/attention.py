"""Every token looks at every token."""

import keras
from keras import ops

from keras_deit._checks import check


def class_attention(attention, num_prefix_tokens: int):
    """Averages how much the prefix tokens attend to each patch.

    Args:
        attention: Attention of every head, shape (B, h, P + N, P + N).
        num_prefix_tokens: P, 1 or 2; with 2 the rows of the class and of the
            distillation token are averaged (decision D7).

    Returns:
        Mean over heads and prefix rows, shape (B, N).
    """
    rows = attention[:, :, :num_prefix_tokens, num_prefix_tokens:]  # (B, h, P, N)
    return ops.mean(rows, axis=(1, 2))


@keras.saving.register_keras_serializable(package="keras_deit")
class MultiHeadSelfAttention(keras.layers.Layer):
    """Multi-head self-attention with one fused projection for query, key and value.

    `softmax(q k^T / sqrt(D / h)) v` for each head. The softmax is computed in float32.

    Args:
        num_heads: h; must divide the token width D.
        qkv_bias: Whether the fused projection has a bias.
        num_prefix_tokens: P, how many leading tokens are not patches; only used for
            the class attention.

    Call arguments:
        tokens: Tokens, shape (B, P + N, D). N must be known when the layer is built.
        return_class_attention: Whether to return the class attention as well.
        return_attention: Whether to return the whole attention as well, last.

    Returns:
        Tokens of shape (B, P + N, D); with `return_class_attention` a pair of them and
        of the attention of the prefix tokens to each patch, averaged over heads and
        prefix tokens, float32, shape (B, N). With `return_attention` a tuple of the
        same and of the attention, float32, shape (B, h, P + N, P + N): row i says how
        much token i attends to each token, and sums to 1.

    Raises:
        ValueError: If D is not a multiple of `num_heads`.

    Example:
    >>> layer = MultiHeadSelfAttention(num_heads=2)
    >>> output, row = layer(ops.ones((1, 5, 8)), return_class_attention=True)
    >>> tuple(output.shape), tuple(row.shape), round(float(row[0, 0]), 4)
    ((1, 5, 8), (1, 4), 0.2)

    Reference:
        Vaswani et al. (arXiv:1706.03762), section 3.2. The columns of the fused
        projection are [q | k | v], each head after head, as the checkpoints have them;
        the class attention is EViT's (arXiv:2202.07800, section 3.2).
    """

    def __init__(self, num_heads, qkv_bias=True, num_prefix_tokens=1, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.qkv_bias = qkv_bias
        self.num_prefix_tokens = num_prefix_tokens

    def build(self, input_shape):
        dim = input_shape[-1]
        check(
            dim % self.num_heads == 0,
            "`embed_dim` must be a multiple of `num_heads`.",
            embed_dim=dim,
            num_heads=self.num_heads,
        )
        normal = keras.initializers.RandomNormal(stddev=0.02)
        self.qkv = keras.layers.Dense(
            3 * dim,
            use_bias=self.qkv_bias,
            kernel_initializer=normal,
            dtype=self.dtype_policy,
            name="qkv",
        )
        self.projection = keras.layers.Dense(
            dim,
            kernel_initializer=normal.clone(),
            dtype=self.dtype_policy,
            name="projection",
        )
        self.qkv.build((None, dim))
        self.projection.build((None, dim))

    def call(self, tokens, return_class_attention=False, return_attention=False):
        _, length, dim = tokens.shape
        head_dim = dim // self.num_heads
        qkv = self.qkv(ops.reshape(tokens, (-1, dim)))  # (B (P + N), 3 D)
        qkv = ops.reshape(qkv, (-1, length, 3, self.num_heads, head_dim))
        q, k, v = ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)))  # (B, h, P + N, d)
        scores = ops.matmul(q * head_dim**-0.5, ops.transpose(k, (0, 1, 3, 2)))
        attention = ops.softmax(ops.cast(scores, "float32"))  # (B, h, P + N, P + N)
        x = ops.matmul(ops.cast(attention, self.compute_dtype), v)
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, dim))  # (B (P + N), D)
        x = ops.reshape(self.projection(x), (-1, length, dim))
        outputs = [x]
        if return_class_attention:
            outputs.append(class_attention(attention, self.num_prefix_tokens))
        if return_attention:
            outputs.append(attention)
        return tuple(outputs) if len(outputs) > 1 else x

    def compute_output_spec(
        self, tokens, return_class_attention=False, return_attention=False
    ):
        output = keras.KerasTensor(tokens.shape, dtype=self.compute_dtype)
        batch, length, _ = tokens.shape
        shapes = []
        if return_class_attention:
            shapes.append((batch, length - self.num_prefix_tokens))
        if return_attention:
            shapes.append((batch, self.num_heads, length, length))
        others = [keras.KerasTensor(shape, dtype="float32") for shape in shapes]
        return (output, *others) if others else output

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "qkv_bias": self.qkv_bias,
            "num_prefix_tokens": self.num_prefix_tokens,
        }
