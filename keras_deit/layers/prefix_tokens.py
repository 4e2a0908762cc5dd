"""The tokens that are no patches: class and distillation."""

import keras
from keras import ops

from keras_deit._checks import check

PREFIX_TOKENS = ("class", "distillation")


@keras.saving.register_keras_serializable(package="keras_deit")
class PrefixTokens(keras.layers.Layer):
    """Puts a learned class token, and a distillation token, in front of the patches.

    The order is [class, distillation, patch 0, ..., patch N - 1].

    Args:
        num_tokens: P, 1 for the class token alone, 2 with the distillation token.

    Call arguments:
        tokens: Patch tokens, shape (B, N, D).

    Returns:
        Tokens, shape (B, P + N, D).

    Raises:
        ValueError: If `num_tokens` is neither 1 nor 2.

    Example:
    >>> tuple(PrefixTokens(num_tokens=2)(ops.ones((4, 9, 8))).shape)
    (4, 11, 8)

    Reference:
        Touvron et al., DeiT (arXiv:2012.12877), section 4, figure 2; official code
        `models.py`, `DistilledVisionTransformer.forward_features`. The figure draws the
        distillation token last; the code, the checkpoints and this layer put it at
        index 1. Both tokens start normal with standard deviation 0.02.
    """

    def __init__(self, num_tokens=1, **kwargs):
        super().__init__(**kwargs)
        check(
            num_tokens in (1, 2),
            "`num_tokens` must be 1 (class) or 2 (class and distillation).",
            num_tokens=num_tokens,
        )
        self.num_tokens = num_tokens

    def build(self, input_shape):
        self.prefix = [
            self.add_weight(
                shape=(1, 1, input_shape[-1]),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
                name=f"{token}_token",
            )
            for token in PREFIX_TOKENS[: self.num_tokens]
        ]

    def call(self, tokens):
        batch = ops.shape(tokens)[0]
        prefix = [
            ops.broadcast_to(
                ops.cast(token, self.compute_dtype), (batch, 1, token.shape[-1])
            )
            for token in self.prefix
        ]
        return ops.concatenate([*prefix, tokens], axis=1)

    def compute_output_shape(self, input_shape):
        batch, num_patches, dim = input_shape
        return (batch, self.num_tokens + num_patches, dim)

    def get_config(self):
        return {**super().get_config(), "num_tokens": self.num_tokens}
