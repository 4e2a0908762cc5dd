"""The Vision Transformer, plain or with a distillation token."""

from dataclasses import dataclass

import keras

from keras_deit.layers.patch_embedding import PatchEmbedding
from keras_deit.models.encoder import EncoderConfig, encode
from keras_deit.models.preprocessing import (
    IMAGENET,
    Preprocessing,
    normalize_pixels,
)


@dataclass(frozen=True)
class ViTConfig:
    """The numbers of a Vision Transformer.

    Attributes:
        encoder: The numbers of everything behind the patches.
        patch_size: Side of a patch, in pixels.
        image_size: Height and width of the input, in pixels.
        preprocessing: What the pixels go through.
        dtype: Dtype policy of the layers, for instance "mixed_bfloat16"; the heads stay
            in float32. None takes Keras' global policy.
    """

    encoder: EncoderConfig
    patch_size: int = 16
    image_size: tuple[int, int] = (224, 224)
    preprocessing: Preprocessing = IMAGENET
    dtype: str | None = None


def vision_transformer(config: ViTConfig, name: str | None = None) -> keras.Model:
    """Builds the model: pixels (B, H, W, 3) in [0, 255] in, logits (B, Y) out.

    A plain model returns the logits of its class head; a distilled one always returns
    `{"class": logits, "distillation": logits}`.

    Args:
        config: The numbers of the model.
        name: Name of the model.

    Returns:
        A functional `keras.Model`, freshly initialized.

    Raises:
        ValueError: If `image_size` is not a multiple of `patch_size`, `embed_dim` not
            of `num_heads`, or `reorganize_at` names a block that is not there.

    Reference:
        Dosovitskiy et al., ViT (arXiv:2010.11929), section 3.1; Touvron et al., DeiT
        (arXiv:2012.12877), section 4; official code `models.py`, which averages the
        heads in inference: here `inference_model` does.
    """
    image = keras.Input((*config.image_size, 3), name="image", dtype="float32")
    x = normalize_pixels(config.preprocessing, config.dtype)(image)  # (B, H, W, 3)
    x = PatchEmbedding(
        config.encoder.embed_dim,
        config.patch_size,
        dtype=config.dtype,
        name="patch_embedding",
    )(x)  # (B, N, D)
    return keras.Model(image, encode(x, config.encoder, config.dtype), name=name)
