"""From patch tokens to logits: what ViT, DeiT, EViT and T2T-ViT have in common."""

from dataclasses import dataclass

import keras
import numpy as np

from keras_deit._checks import check
from keras_deit.layers.encoder_block import EncoderBlock
from keras_deit.layers.layer_norm import LayerNormalization
from keras_deit.layers.position_embedding import PositionEmbedding
from keras_deit.layers.prefix_tokens import PREFIX_TOKENS, PrefixTokens


@dataclass(frozen=True)
class EncoderConfig:
    """The numbers of an encoder.

    Attributes:
        embed_dim: D, width of a token.
        num_heads: h; must divide `embed_dim`.
        depth: Number of encoder blocks.
        mlp_ratio: Width of the MLP's hidden layer over D.
        num_classes: Y, number of classes.
        distilled: Whether there are a distillation token and its head.
        qkv_bias: Whether query, key and value have a bias.
        norm_epsilon: Epsilon of the layer normalizations.
        sinusoidal_positions: Whether positions are a frozen table of waves; otherwise
            they are learned.
        drop_rate: Dropout rate after the positions and in the MLPs, in [0, 1].
        drop_path_rate: Rate of stochastic depth at the last block, in [0, 1]; it grows
            from 0 at the first block in equal steps.
        keep_rate: Share of the patch tokens that stay at each reorganization, in
            (0, 1]; at 1 nothing is reorganized.
        reorganize_at: Blocks that reorganize tokens, from 0, rising; None takes those
            at a quarter, a half and three quarters of the depth: 3, 6, 9 of 12.
        fuse: Whether the dropped tokens leave a fused token behind.
        gradient_checkpointing: Whether training keeps only what goes from block to
            block, and computes the blocks again for the gradient; `drop_rate` must be
            0 then.
    """

    embed_dim: int
    num_heads: int
    depth: int = 12
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    distilled: bool = False
    qkv_bias: bool = True
    norm_epsilon: float = 1e-6
    sinusoidal_positions: bool = False
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    keep_rate: float = 1.0
    reorganize_at: tuple[int, ...] | None = None
    fuse: bool = True
    gradient_checkpointing: bool = False


def reorganizing_blocks(config: EncoderConfig) -> tuple[int, ...]:
    """Names the blocks that reorganize tokens, from 0.

    Raises:
        ValueError: If `reorganize_at` does not rise, names a block that is not there,
            or names none with a keep rate below 1.

    Example:
    >>> reorganizing_blocks(EncoderConfig(embed_dim=8, num_heads=1, depth=14))
    (3, 7, 10)
    """
    depth, chosen = config.depth, config.reorganize_at
    if chosen is None:
        quarters = {depth * quarter // 4 for quarter in (1, 2, 3) if depth}
        chosen = tuple(sorted(quarters))
    check(
        list(chosen) == sorted(set(chosen)) and set(chosen) <= set(range(depth)),
        "`reorganize_at` must name blocks in rising order, each in [0, depth).",
        reorganize_at=chosen,
        depth=depth,
    )
    check(
        bool(chosen) or config.keep_rate == 1,
        "A `keep_rate` below 1 needs blocks that reorganize (`reorganize_at`).",
        keep_rate=config.keep_rate,
        reorganize_at=chosen,
    )
    return chosen


def encode(tokens, config: EncoderConfig, dtype: str | None):
    """Builds the encoder: patch tokens (B, N, D) in, logits (B, Y) out.

    Args:
        tokens: Patch tokens, a symbolic tensor.
        config: The numbers of the encoder.
        dtype: Dtype policy of the layers; the heads stay in float32.

    Returns:
        Logits of the class head, or, with a distillation token,
        `{"class": logits, "distillation": logits}`, in training and in inference (D5).
    """
    num_prefix_tokens = 2 if config.distilled else 1
    reorganize_at = reorganizing_blocks(config)
    drop_path_rates = np.linspace(0.0, config.drop_path_rate, config.depth)

    x = PrefixTokens(num_prefix_tokens, dtype=dtype, name="prefix_tokens")(tokens)
    x = PositionEmbedding(
        config.sinusoidal_positions, dtype=dtype, name="position_embedding"
    )(x)  # (B, P + N, D)
    x = keras.layers.Dropout(config.drop_rate, dtype=dtype, name="dropout")(x)
    for index, drop_path_rate in enumerate(drop_path_rates):
        block = EncoderBlock(
            config.num_heads,
            config.mlp_ratio,
            drop_rate=config.drop_rate,
            drop_path_rate=float(drop_path_rate),
            qkv_bias=config.qkv_bias,
            norm_epsilon=config.norm_epsilon,
            num_prefix_tokens=num_prefix_tokens,
            keep_rate=config.keep_rate if index in reorganize_at else None,
            fuse=config.fuse,
            gradient_checkpointing=config.gradient_checkpointing,
            dtype=dtype,
            name=f"block_{index}",
        )
        if index in reorganize_at:
            x, _ = block(x)  # N shrinks
        else:
            x = block(x)
    x = LayerNormalization(epsilon=config.norm_epsilon, dtype=dtype, name="norm")(x)

    logits = {
        head: keras.layers.Dense(
            config.num_classes,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            dtype="float32",
            name=f"{head}_head",
        )(x[:, index])
        for index, head in enumerate(PREFIX_TOKENS[:num_prefix_tokens])
    }
    return logits if config.distilled else logits["class"]
