"""One block of the encoder: tokens look at each other, then think alone."""

import keras
from keras import ops

from keras_deit._checks import check, check_share
from keras_deit.layers.attention import MultiHeadSelfAttention
from keras_deit.layers.feed_forward import FeedForward
from keras_deit.layers.layer_norm import LayerNormalization
from keras_deit.layers.token_reorganization import TokenReorganization


@keras.saving.register_keras_serializable(package="keras_deit")
class EncoderBlock(keras.layers.Layer):
    """A pre-norm transformer block: attention and MLP, each with a residual.

    `x += drop_path(attention(norm1(x)))`, then `x += drop_path(mlp(norm2(x)))`.
    Stochastic depth drops a branch for whole images, each image and each branch on its
    own, and divides the others by `1 - drop_path_rate`. With a keep rate the tokens are
    reorganized between the two: what follows sees fewer of them.

    Args:
        num_heads: h; must divide the token width D.
        mlp_ratio: Width of the MLP's hidden layer over D.
        drop_rate: Dropout rate in the MLP, in [0, 1].
        drop_path_rate: Rate of stochastic depth, in [0, 1].
        qkv_bias: Whether query, key and value have a bias.
        norm_epsilon: Epsilon of both layer normalizations.
        num_prefix_tokens: P, how many leading tokens are not patches.
        keep_rate: Share of the patch tokens that stay, in (0, 1]; None for a block
            that never reorganizes, whatever the rate of a call.
        fuse: Whether the dropped tokens leave a fused token behind.
        gradient_checkpointing: Whether a call in training keeps only its tokens, and is
            computed again for the gradient: less memory, more time, the same numbers.

    Call arguments:
        tokens: Tokens, shape (B, P + N, D).
        keep_rate: Rate of this call; None takes the block's.
        return_attention: Whether to return the attention as well, last.

    Returns:
        Tokens, shape (B, P + N, D). A block with a keep rate returns a pair: tokens,
        fewer of them unless the rate is 1, and the indices of those that stayed, int32,
        shape (B, K); see `TokenReorganization`. With `return_attention` a tuple of the
        same and of the attention between the tokens that came in, float32, shape
        (B, h, P + N, P + N).

    Raises:
        ValueError: If `drop_path_rate` is outside [0, 1], `keep_rate` outside (0, 1],
            D is not a multiple of `num_heads`, or there is dropout with
            `gradient_checkpointing`.

    Example:
    >>> tuple(EncoderBlock(num_heads=2)(keras.ops.ones((2, 5, 8))).shape)
    (2, 5, 8)

    Reference:
        Dosovitskiy et al., ViT (arXiv:2010.11929), equations 2 and 3; Huang et al.,
        stochastic depth (arXiv:1603.09382); Liang et al., EViT (arXiv:2202.07800),
        figure 1 for the place of the reorganization; Chen et al., sublinear memory
        (arXiv:1604.06174), section 4, for what is computed again.
    """

    def __init__(
        self,
        num_heads,
        mlp_ratio=4.0,
        drop_rate=0.0,
        drop_path_rate=0.0,
        qkv_bias=True,
        norm_epsilon=1e-6,
        num_prefix_tokens=1,
        keep_rate=None,
        fuse=True,
        gradient_checkpointing=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_share("drop_path_rate", drop_path_rate)
        check(
            not (gradient_checkpointing and drop_rate),
            "`gradient_checkpointing` needs a `drop_rate` of 0: to drop the same "
            "numbers again, they would have to be kept.",
            drop_rate=drop_rate,
        )
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.drop_rate = drop_rate
        self.drop_path_rate = drop_path_rate
        self.qkv_bias = qkv_bias
        self.norm_epsilon = norm_epsilon
        self.num_prefix_tokens = num_prefix_tokens
        self.keep_rate = keep_rate
        self.fuse = fuse
        self.gradient_checkpointing = gradient_checkpointing
        self.reorganization = None
        if keep_rate is not None:
            self.reorganization = TokenReorganization(
                keep_rate,
                num_prefix_tokens,
                fuse,
                dtype=self.dtype_policy,
                name="reorganization",
            )

    def build(self, input_shape):
        dtype = self.dtype_policy
        self.norm1 = LayerNormalization(
            epsilon=self.norm_epsilon, dtype=dtype, name="norm1"
        )
        self.attention = MultiHeadSelfAttention(
            self.num_heads,
            self.qkv_bias,
            self.num_prefix_tokens,
            dtype=dtype,
            name="attention",
        )
        self.norm2 = LayerNormalization(
            epsilon=self.norm_epsilon, dtype=dtype, name="norm2"
        )
        self.mlp = FeedForward(
            int(self.mlp_ratio * input_shape[-1]),
            self.drop_rate,
            dtype=dtype,
            name="mlp",
        )
        # A layer for each branch: they draw independently.
        self.drop_path1, self.drop_path2 = (
            keras.layers.Dropout(
                self.drop_path_rate, noise_shape=(None, 1, 1), dtype=dtype
            )
            for _ in range(2)
        )
        for layer in (self.norm1, self.attention, self.norm2, self.mlp):
            layer.build(input_shape)

    def call(self, tokens, keep_rate=None, return_attention=False, training=None):
        def run(tokens, *masks):
            return self._run(tokens, masks, keep_rate, return_attention, training)

        # Drawn out here: a block that is computed again must drop the same branches.
        masks = self._masks(tokens) if training and self.drop_path_rate else ()
        if training and self.gradient_checkpointing:
            run = keras.remat(run)
        return run(tokens, *masks)

    def _masks(self, tokens):
        """Of each branch what an image is multiplied by: 0, or 1 / (1 - rate)."""
        ones = ops.ones((ops.shape(tokens)[0], 1, 1), self.compute_dtype)
        drops = (self.drop_path1, self.drop_path2)
        return [drop(ones, training=True) for drop in drops]

    def _run(self, tokens, masks, keep_rate, return_attention, training):
        """The block, when it is known which branches are dropped; () for none."""
        x, row, *attention = self.attention(
            self.norm1(tokens, training=training),
            return_class_attention=True,
            return_attention=return_attention,
        )
        tokens = tokens + (x * masks[0] if masks else x)
        kept = []
        if self.reorganization is not None:
            tokens, *kept = self.reorganization(
                tokens, row, keep_rate=keep_rate, return_indices=True
            )
        x = self.mlp(self.norm2(tokens, training=training), training=training)
        tokens = tokens + (x * masks[1] if masks else x)
        others = (*kept, *attention)
        return (tokens, *others) if others else tokens

    def compute_output_spec(
        self, tokens, keep_rate=None, return_attention=False, training=None
    ):
        output = keras.KerasTensor(tokens.shape, dtype=self.compute_dtype)
        batch, length, _ = tokens.shape
        others = []
        if self.reorganization is not None:
            row = keras.KerasTensor((batch, length - self.num_prefix_tokens))
            output, *others = self.reorganization.compute_output_spec(
                output, row, keep_rate, return_indices=True
            )
        if return_attention:
            shape = (batch, self.num_heads, length, length)
            others.append(keras.KerasTensor(shape, dtype="float32"))
        return (output, *others) if others else output

    def compute_output_shape(self, input_shape):
        spec = self.compute_output_spec(keras.KerasTensor(input_shape))
        return keras.tree.map_structure(lambda x: tuple(x.shape), spec)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "drop_rate": self.drop_rate,
            "drop_path_rate": self.drop_path_rate,
            "qkv_bias": self.qkv_bias,
            "norm_epsilon": self.norm_epsilon,
            "num_prefix_tokens": self.num_prefix_tokens,
            "keep_rate": self.keep_rate,
            "fuse": self.fuse,
            "gradient_checkpointing": self.gradient_checkpointing,
        }
