"""Fewer tokens: the attentive ones stay, the others melt into one."""

import math
from numbers import Real

import keras
from keras import ops

from keras_deit._checks import check


def num_kept_tokens(num_patches: int, keep_rate: float) -> int:
    """K, the number of patch tokens that stay: `ceil(keep_rate * N)`, in doubles.

    Args:
        num_patches: N, patch tokens that enter, a fused one among them.
        keep_rate: Share that stays, in (0, 1].

    Returns:
        K, at least 1 and at most N.

    Raises:
        ValueError: If `keep_rate` is outside (0, 1].

    Example:
    >>> [num_kept_tokens(196, 0.7), num_kept_tokens(139, 0.7), num_kept_tokens(100, 1)]
    [138, 98, 100]
    """
    in_range = isinstance(keep_rate, Real) and 0 < keep_rate <= 1
    check(in_range, "`keep_rate` must be in (0, 1].", keep_rate=keep_rate)
    return math.ceil(float(keep_rate) * num_patches)


def gather_tokens(tokens, indices):
    """Takes the tokens (B, K, D) at `indices` (B, K) from `tokens` (B, N, D)."""
    _, length, dim = tokens.shape
    # One gather from flat tokens: many times faster than `ops.take_along_axis`.
    first = ops.arange(ops.shape(tokens)[0], dtype="int32")[:, None] * length  # (B, 1)
    places = ops.cast(indices, "int32") + first
    return ops.take(ops.reshape(tokens, (-1, dim)), places, axis=0)


@keras.saving.register_keras_serializable(package="keras_deit")
class TokenReorganization(keras.layers.Layer):
    """Keeps the patch tokens that the class token attends to most.

    The `K = ceil(keep_rate * N)` most attentive patch tokens stay, most attentive
    first. The others are summed into one fused token at the end, each weighted by its
    class attention as it is (not normalized). Prefix tokens are never dropped, ranked
    or moved.

    Args:
        keep_rate: Share of the patch tokens that stays, in (0, 1]. At 1 the layer is
            the identity.
        num_prefix_tokens: P, how many leading tokens are not patches: 1, or 2 with a
            distillation token.
        fuse: Whether the dropped tokens leave a fused token behind.

    Call arguments:
        tokens: Tokens after the residual of the attention, shape (B, P + N, D).
        class_attention: How much the prefix tokens attend to each patch, float32,
            shape (B, N).
        keep_rate: Rate of this call; None takes the layer's.
        return_indices: Whether to return which tokens stayed as well.

    Returns:
        Tokens of shape (B, P + K + 1, D), or (B, P + K, D) without fusing; with
        `return_indices` a pair of them and of the indices, among the N, of the tokens
        that stayed, most attentive first, int32, shape (B, K).

    Raises:
        ValueError: If `keep_rate` is outside (0, 1], or `num_prefix_tokens` below 1.

    Example:
    >>> layer = TokenReorganization(keep_rate=0.5)
    >>> tokens, attention = ops.ones((2, 1 + 8, 16)), ops.ones((2, 8)) / 9
    >>> tuple(layer(tokens, attention).shape)
    (2, 6, 16)

    Reference:
        Liang et al., EViT (arXiv:2202.07800), section 3.2; official code `evit.py`,
        `Attention.forward` and `Block.forward`. There a distillation token would count
        as a patch and could be dropped; here it is a prefix (decision D7).
    """

    def __init__(self, keep_rate=1.0, num_prefix_tokens=1, fuse=True, **kwargs):
        super().__init__(autocast=False, **kwargs)  # the ranking stays in float32
        num_kept_tokens(1, keep_rate)  # refuses a wrong rate here and not later
        check(
            num_prefix_tokens >= 1,
            "`num_prefix_tokens` must be at least 1: there is a class token.",
            num_prefix_tokens=num_prefix_tokens,
        )
        self.keep_rate = keep_rate
        self.num_prefix_tokens = num_prefix_tokens
        self.fuse = fuse

    def call(self, tokens, class_attention, keep_rate=None, return_indices=False):
        tokens = ops.cast(tokens, self.compute_dtype)
        prefix = tokens[:, : self.num_prefix_tokens]
        patches = tokens[:, self.num_prefix_tokens :]
        num_patches = patches.shape[1]
        num_kept = self.num_kept(num_patches, keep_rate)
        # Sort once, cut once: what stays and what melts lie on either side.
        weights, order = ops.top_k(class_attention, k=num_patches)  # (B, N) each
        indices = ops.cast(order[:, :num_kept], "int32")
        if num_kept < num_patches:
            patches = gather_tokens(patches, order if self.fuse else indices)
            parts = [prefix, patches[:, :num_kept]]
            if self.fuse:
                melting = ops.cast(patches[:, num_kept:], weights.dtype)
                fused = ops.matmul(weights[:, None, num_kept:], melting)  # (B, 1, D)
                parts.append(ops.cast(fused, self.compute_dtype))
            tokens = ops.concatenate(parts, axis=1)
        return (tokens, indices) if return_indices else tokens

    def num_kept(self, num_patches: int, keep_rate: float | None = None) -> int:
        """K for N patch tokens, at the rate of a call or else at the layer's."""
        rate = self.keep_rate if keep_rate is None else keep_rate
        return num_kept_tokens(num_patches, rate)

    def compute_output_spec(
        self, tokens, class_attention, keep_rate=None, return_indices=False
    ):
        batch, length, dim = tokens.shape
        num_patches = length - self.num_prefix_tokens
        num_kept = self.num_kept(num_patches, keep_rate)
        if num_kept < num_patches:
            length = self.num_prefix_tokens + num_kept + int(self.fuse)
        output = keras.KerasTensor((batch, length, dim), dtype=self.compute_dtype)
        if not return_indices:
            return output
        return output, keras.KerasTensor((batch, num_kept), dtype="int32")

    def compute_output_shape(self, tokens_shape, class_attention_shape):
        return tuple(
            self.compute_output_spec(
                keras.KerasTensor(tokens_shape),
                keras.KerasTensor(class_attention_shape),
            ).shape
        )

    def get_config(self):
        return {
            **super().get_config(),
            "keep_rate": self.keep_rate,
            "num_prefix_tokens": self.num_prefix_tokens,
            "fuse": self.fuse,
        }
