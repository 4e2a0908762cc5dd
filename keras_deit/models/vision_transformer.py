"""The Vision Transformer, plain or with a distillation token."""

from dataclasses import dataclass

import keras
import numpy as np

from keras_deit.layers.encoder_block import EncoderBlock
from keras_deit.layers.patch_embedding import PatchEmbedding
from keras_deit.layers.position_embedding import PositionEmbedding
from keras_deit.layers.prefix_tokens import PREFIX_TOKENS, PrefixTokens
from keras_deit.models.preprocessing import (
    IMAGENET,
    Preprocessing,
    normalize_pixels,
)


@dataclass(frozen=True)
class ViTConfig:
    """The numbers of a Vision Transformer.

    Attributes:
        image_size: Height and width of the input, in pixels.
        num_classes: Y, number of classes.
        patch_size: Side of a patch, in pixels.
        embed_dim: D, width of a token.
        depth: Number of encoder blocks.
        num_heads: h; must divide `embed_dim`.
        mlp_ratio: Width of the MLP's hidden layer over D.
        distilled: Whether there are a distillation token and its head.
        qkv_bias: Whether query, key and value have a bias.
        norm_epsilon: Epsilon of the layer normalizations.
        drop_rate: Dropout rate after the positions and in the MLPs, in [0, 1].
        drop_path_rate: Rate of stochastic depth at the last block, in [0, 1]; it grows
            from 0 at the first block in equal steps.
        preprocessing: What the pixels go through.
        dtype: Dtype policy of the layers, for instance "mixed_bfloat16"; the heads stay
            in float32. None takes Keras' global policy.
    """

    embed_dim: int
    num_heads: int
    image_size: tuple[int, int] = (224, 224)
    num_classes: int = 1000
    patch_size: int = 16
    depth: int = 12
    mlp_ratio: float = 4.0
    distilled: bool = False
    qkv_bias: bool = True
    norm_epsilon: float = 1e-6
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    preprocessing: Preprocessing = IMAGENET
    dtype: str | None = None


def vision_transformer(config: ViTConfig, name: str | None = None) -> keras.Model:
    """Builds the model: pixels (B, H, W, 3) in [0, 255] in, logits (B, Y) out.

    A plain model returns the logits of its class head; a distilled one always returns
    `{"class": logits, "distillation": logits}`, in training and in inference (D5).

    Args:
        config: The numbers of the model.
        name: Name of the model.

    Returns:
        A functional `keras.Model`, freshly initialized.

    Raises:
        ValueError: If `image_size` is not a multiple of `patch_size`, or `embed_dim`
            not of `num_heads`.

    Reference:
        Dosovitskiy et al., ViT (arXiv:2010.11929), section 3.1; Touvron et al., DeiT
        (arXiv:2012.12877), section 4; official code `models.py`, which averages the
        heads in inference: here `inference_model` does.
    """
    num_prefix_tokens = 2 if config.distilled else 1
    dtype = config.dtype
    drop_path_rates = np.linspace(0.0, config.drop_path_rate, config.depth)

    image = keras.Input((*config.image_size, 3), name="image", dtype="float32")
    x = normalize_pixels(config.preprocessing, dtype)(image)  # (B, H, W, 3)
    x = PatchEmbedding(
        config.embed_dim, config.patch_size, dtype=dtype, name="patch_embedding"
    )(x)  # (B, N, D)
    x = PrefixTokens(num_prefix_tokens, dtype=dtype, name="prefix_tokens")(x)
    x = PositionEmbedding(dtype=dtype, name="position_embedding")(x)  # (B, P + N, D)
    x = keras.layers.Dropout(config.drop_rate, dtype=dtype, name="dropout")(x)
    for index, drop_path_rate in enumerate(drop_path_rates):
        x = EncoderBlock(
            config.num_heads,
            config.mlp_ratio,
            drop_rate=config.drop_rate,
            drop_path_rate=float(drop_path_rate),
            qkv_bias=config.qkv_bias,
            norm_epsilon=config.norm_epsilon,
            num_prefix_tokens=num_prefix_tokens,
            dtype=dtype,
            name=f"block_{index}",
        )(x)
    x = keras.layers.LayerNormalization(
        epsilon=config.norm_epsilon, dtype=dtype, name="norm"
    )(x)

    logits = {
        head: keras.layers.Dense(
            config.num_classes,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            dtype="float32",
            name=f"{head}_head",
        )(x[:, index])
        for index, head in enumerate(PREFIX_TOKENS[:num_prefix_tokens])
    }
    return keras.Model(
        image, logits if config.distilled else logits["class"], name=name
    )
