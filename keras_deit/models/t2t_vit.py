"""T2T-ViT: tokens that know their neighbors, before a deep and narrow encoder."""

from dataclasses import dataclass

import keras

from keras_deit.layers.tokens_to_token import OFFICIAL_SPLITS, TokensToToken
from keras_deit.models.encoder import EncoderConfig, encode
from keras_deit.models.preprocessing import (
    IMAGENET,
    Preprocessing,
    normalize_pixels,
)


@dataclass(frozen=True)
class T2TViTConfig:
    """The numbers of a T2T-ViT.

    Attributes:
        encoder: The numbers of everything behind the tokens-to-token module.
        attention: "performer" or "transformer", what is between the soft splits.
        token_dim: Width of the tokens between the soft splits.
        splits: (kernel_size, stride) of each soft split.
        image_size: Height and width of the input, in pixels.
        preprocessing: What the pixels go through.
        dtype: Dtype policy of the layers, for instance "mixed_bfloat16"; the heads and
            performers stay in float32. None takes Keras' global policy.
    """

    encoder: EncoderConfig
    attention: str = "performer"
    token_dim: int = 64
    splits: tuple[tuple[int, int], ...] = OFFICIAL_SPLITS
    image_size: tuple[int, int] = (224, 224)
    preprocessing: Preprocessing = IMAGENET
    dtype: str | None = None


def t2t_vit(config: T2TViTConfig, name: str | None = None) -> keras.Model:
    """Builds the model: pixels (B, H, W, 3) in [0, 255] in, logits (B, Y) out.

    Args:
        config: The numbers of the model.
        name: Name of the model.

    Returns:
        A functional `keras.Model`, freshly initialized, with the outputs of a
        `vision_transformer`.

    Raises:
        ValueError: If `image_size` is not a multiple of the product of the strides,
            `attention` another one, or the encoder is refused.

    Reference:
        Yuan et al., T2T-ViT (arXiv:2101.11986), section 3; official code `t2t_vit.py`.
        The scale of the encoder's attention is `head_dim**-0.5`: the other one in that
        code is on a path that is never taken.
    """
    image = keras.Input((*config.image_size, 3), name="image", dtype="float32")
    x = normalize_pixels(config.preprocessing, config.dtype)(image)  # (B, H, W, 3)
    x = TokensToToken(
        config.encoder.embed_dim,
        config.token_dim,
        config.attention,
        config.splits,
        dtype=config.dtype,
        name="tokens_to_token",
    )(x)  # (B, N, D)
    return keras.Model(image, encode(x, config.encoder, config.dtype), name=name)
