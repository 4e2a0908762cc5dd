"""What a transformer looked at: its attention, its rollout, the patches that stayed."""

import keras
from keras import ops

from keras_deit._checks import check
from keras_deit.layers.patch_embedding import PatchEmbedding
from keras_deit.layers.prefix_tokens import PrefixTokens
from keras_deit.layers.tokens_to_token import TokensToToken
from keras_deit.models.inference import head_logits, model_output
from keras_deit.models.reorganization import encoder_blocks, reconnected

TINY = 1e-12  # where all dropped tokens have an attention of 0, they count alike


def explanation_model(model: keras.Model) -> keras.Model:
    """Builds a model that shares the weights of `model` and shows what it looks at.

    Attention rollout follows the tokens through the blocks. With A, the attention of a
    block averaged over its heads, and R, whose row t says which share of token t comes
    from each of the first tokens (prefix tokens and patches; I before the first block):

        R = (A + I) / 2 @ R

    The rows of A sum to 1, and so do those of R. Where tokens are reorganized, a token
    that stays keeps its row; that of a fused token is the mean of the rows of those
    that melt into it, weighted by their class attention.

    A fused token is no patch of the image: the attention to it is left out of
    `attention`. In `rollout` it has its part in what its patches contribute.

    Args:
        model: A ViT, DeiT, EViT or T2T-ViT of this package, with one head or two, at
            any keep rate.

    Returns:
        A functional `keras.Model`: pixels (B, H, W, 3) in, a dict out. The patches have
        their places in the image's grid (in T2T-ViT the grid behind its T2T module).

        - `logits`: float32 (B, Y), of both heads the mean.
        - `attention`: float32 (B, depth, P, rows, columns), how much each prefix token
          attends to each patch, averaged over heads; 0 where a patch was dropped.
        - `rollout`: float32 (B, P, rows, columns), the share of each patch in each
          prefix token at the end.
        - `kept`: bool (B, stages, rows, columns), the patches that each reorganization
          left; only there if tokens are dropped.

    Raises:
        ValueError: If the model is none of this package's transformers, or has no
            blocks.

    Reference:
        Abnar and Zuidema, "Quantifying Attention Flow in Transformers"
        (arXiv:2005.00928), section 3, attention rollout. It knows no reorganized
        tokens (EViT, arXiv:2202.07800, no rollout): the rule for them is ours.
    """
    trail = _trail_of(model)
    attentions, kept_tokens = [], []

    def call(block, tokens, **kwargs):
        shown = WithAttention(block, dtype=block.dtype_policy, name=block.name)
        outputs = shown(tokens, **kwargs)
        attentions.append(outputs[-1])
        if block.reorganization is None:
            return outputs[0]
        tokens, kept, _ = outputs
        kept_tokens.append(kept)
        return tokens, kept

    rebuilt = reconnected(model, call)
    logits = head_logits(rebuilt.output, "fused")
    outputs = {"logits": logits, **trail((attentions, kept_tokens))}
    return keras.Model(rebuilt.inputs[0], outputs, name=f"{model.name}_explanation")


def _trail_of(model: keras.Model) -> "TokenTrail":
    """Makes the layer that follows the tokens of one of our transformers."""
    output = model_output(model)
    heads = set(output) if isinstance(output, dict) else {"class"}
    prefixes = [x for x in model.layers if isinstance(x, PrefixTokens)]
    tokens = [x for x in model.layers if isinstance(x, PatchEmbedding | TokensToToken)]
    blocks = encoder_blocks(model)
    check(
        len(prefixes) == len(tokens) == 1
        and bool(blocks)
        and not isinstance(output, list | tuple)
        and heads in ({"class"}, {"class", "distillation"}),
        "The model must be a ViT, DeiT, EViT or T2T-ViT of this package that returns "
        "logits.",
        model=model.name,
    )
    reorganize_at = [
        index for index, block in enumerate(blocks) if block.reorganization is not None
    ]
    return TokenTrail(
        prefixes[0].num_tokens,
        tokens[0].grid,
        reorganize_at,
        blocks[0].fuse,
        dtype="float32",
        name="token_trail",
    )


@keras.saving.register_keras_serializable(package="keras_deit")
class WithAttention(keras.layers.Wrapper):
    """An encoder block that always returns its attention as well.

    To ask the block itself would not do: in a functional model, a layer has never more
    outputs than at its first call.

    Args:
        layer: The `EncoderBlock`; the weights are its own.

    Call arguments:
        tokens: Tokens, shape (B, P + N, D).
        keep_rate: Rate of this call; None takes the block's.

    Returns:
        What the block returns with `return_attention`.
    """

    def call(self, tokens, keep_rate=None, training=None):
        return self.layer(
            tokens, keep_rate=keep_rate, return_attention=True, training=training
        )

    def compute_output_spec(self, tokens, keep_rate=None, training=None):
        return self.layer.compute_output_spec(tokens, keep_rate, return_attention=True)


@keras.saving.register_keras_serializable(package="keras_deit")
class TokenTrail(keras.layers.Layer):
    """Follows the tokens from block to block; see `explanation_model`.

    One layer, since in a model from a file the names of many small operations would
    clash with those that are there.

    Args:
        num_prefix_tokens: P, how many leading tokens are not patches.
        grid: Rows and columns of the patches.
        reorganize_at: Blocks that reorganize tokens, from 0, rising.
        fuse: Whether the dropped tokens leave a fused token behind.

    Call arguments:
        inputs: A pair: the attention of each block, float32, (B, h, T, T); and of each
            block that reorganizes which tokens it keeps, int32, (B, K).

    Returns:
        The dict of `explanation_model` without the logits.
    """

    def __init__(self, num_prefix_tokens, grid, reorganize_at=(), fuse=True, **kwargs):
        super().__init__(**kwargs)
        self.num_prefix_tokens = num_prefix_tokens
        self.grid = tuple(grid)
        self.reorganize_at = tuple(reorganize_at)
        self.fuse = fuse

    def call(self, inputs):
        attentions, kept_tokens = inputs
        kept_at = dict(zip(self.reorganize_at, kept_tokens, strict=True))
        prefix = self.num_prefix_tokens
        shares = ops.eye(attentions[0].shape[-1])[None]  # R, (1 or B, T, P + N)
        patches = shares[
            :, prefix:, prefix:
        ]  # 1 where a token is a patch, (., T - P, N)
        seen, left = [], []
        for index, attention in enumerate(attentions):
            mean = ops.mean(attention, axis=1)  # (B, T, T)
            shares = (shares + ops.matmul(mean, shares)) / 2
            rows = mean[:, :prefix, prefix:]  # (B, P, T - P)
            seen.append(ops.matmul(rows, patches))  # (B, P, N)
            kept = kept_at.get(index)
            if kept is not None and kept.shape[1] < rows.shape[-1]:  # else all stay
                stays, mixed = self._reorganized(rows, kept)
                patches = ops.matmul(stays, patches)
                left.append(ops.sum(patches, axis=1) > 0.5)  # (B, N)
                moved = ops.matmul(mixed, shares[:, prefix:])
                shares = ops.concatenate([shares[:, :prefix], moved], axis=1)
        outputs = {
            "attention": ops.stack(seen, axis=1),
            "rollout": shares[:, :prefix, prefix:],
        }
        if left:
            outputs["kept"] = ops.stack(left, axis=1)
        return {
            name: ops.reshape(x, (-1, *x.shape[1:-1], *self.grid))
            for name, x in outputs.items()
        }

    def _reorganized(self, rows, kept):
        """What each new token was and is made of, (B, K or K + 1, T - P) each."""
        stays = ops.one_hot(kept, rows.shape[-1], dtype="float32")  # (B, K, T - P)
        if not self.fuse:
            return stays, stays
        drops = 1 - ops.sum(stays, axis=1, keepdims=True)  # (B, 1, T - P)
        weights = (ops.mean(rows, axis=1, keepdims=True) + TINY) * drops
        fused = weights / ops.sum(weights, axis=-1, keepdims=True)
        nothing = ops.zeros_like(fused)  # a fused token is no patch
        return tuple(ops.concatenate([stays, x], axis=1) for x in (nothing, fused))

    def get_config(self):
        return {
            **super().get_config(),
            "num_prefix_tokens": self.num_prefix_tokens,
            "grid": self.grid,
            "reorganize_at": self.reorganize_at,
            "fuse": self.fuse,
        }
