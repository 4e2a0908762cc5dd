"""The one table of variants: their numbers, their size, and where these come from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from keras_deit.models.encoder import EncoderConfig
from keras_deit.models.preprocessing import IMAGENET, WHOLE_IMAGE, Preprocessing
from keras_deit.models.regnet import RegNetConfig, regnet
from keras_deit.models.t2t_vit import T2TViTConfig, t2t_vit
from keras_deit.models.vision_transformer import ViTConfig, vision_transformer


@dataclass(frozen=True)
class Variant:
    """A published size under its published name, or a size of our own.

    Attributes:
        build: The function that turns `config` into a model.
        config: The numbers of the model, with 1000 classes.
        num_parameters: Parameters with 1000 classes, as the papers count them.
        gmacs: Multiply-adds of one image with 1000 classes, in billions; None where
            there is no exact figure to compare with.
        source: Where the numbers come from.
    """

    build: Callable
    config: ViTConfig | T2TViTConfig | RegNetConfig
    num_parameters: int
    gmacs: float | None
    source: str


VIT = "ViT, arXiv:2010.11929, table 1, and timm vision_transformer.py"
DEIT = "DeiT, arXiv:2012.12877, table 1"
DISTILLED = "DeiT, arXiv:2012.12877, section 4: with a distillation token"
EVIT = "EViT, arXiv:2202.07800: keep rate 0.7, fused"
T2T = "T2T-ViT, arXiv:2101.11986, table 1"
T2T_BASELINE = "T2T-ViT, arXiv:2101.11986, table 1: its ViT-S/16"
REGNET = "RegNetY, arXiv:2003.13678, and timm regnet.py"
OURS = "our own, for images of 32 pixels on a CPU"

# The mean, deviation and crop that the published weights of a variant expect.
IMAGENET_90 = replace(IMAGENET, crop_ratio=0.9)
IMAGENET_95 = replace(IMAGENET, crop_ratio=0.95)
AUGREG = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, crop_ratio=0.9)

TINY = EncoderConfig(embed_dim=192, num_heads=3)
SMALL = EncoderConfig(embed_dim=384, num_heads=6)
BASE = EncoderConfig(embed_dim=768, num_heads=12)
LARGE = EncoderConfig(embed_dim=1024, num_heads=16, depth=24)
SMALL_DEPTH8 = EncoderConfig(
    768, num_heads=8, depth=8, mlp_ratio=3.0, qkv_bias=False, norm_epsilon=1e-5
)
MICRO = EncoderConfig(embed_dim=64, num_heads=4, depth=4)
REGNET_MICRO = RegNetConfig(
    32,
    32.0,
    2.0,
    depth=4,
    group_width=16,
    stem_width=16,
    stem_strides=1,
    image_size=(32, 32),
    preprocessing=WHOLE_IMAGE,
)


def _vit(
    encoder: EncoderConfig,
    num_parameters: int,
    gmacs: float | None,
    source: str = VIT,
    size: int = 224,
    **fields,
) -> Variant:
    config = ViTConfig(encoder, image_size=(size, size), **fields)
    return Variant(vision_transformer, config, num_parameters, gmacs, source)


def _augreg(
    encoder: EncoderConfig,
    patch_size: int,
    size: int,
    num_parameters: int,
    gmacs: float | None = None,
) -> Variant:
    """A ViT whose weights are timm's: images of 384 pixels are taken whole."""
    whole = replace(AUGREG, crop_ratio=1.0)
    return _vit(
        encoder,
        num_parameters,
        gmacs,
        size=size,
        patch_size=patch_size,
        preprocessing=whole if size == 384 else AUGREG,
    )


def _distilled(
    encoder: EncoderConfig,
    num_parameters: int,
    gmacs: float | None,
    source: str = DISTILLED,
    **fields,
) -> Variant:
    encoder = replace(encoder, distilled=True)
    return _vit(encoder, num_parameters, gmacs, source, **fields)


def _evit(encoder: EncoderConfig, num_parameters: int, gmacs: float | None) -> Variant:
    encoder = replace(encoder, keep_rate=0.7, reorganize_at=(3, 6, 9))
    return _vit(encoder, num_parameters, gmacs, EVIT)


def _t2t(
    numbers: tuple,
    num_parameters: int,
    gmacs: float,
    attention: str = "performer",
    source: str = T2T,
    preprocessing: Preprocessing = IMAGENET_90,
    **fields,
) -> Variant:
    """A T2T-ViT by its (D, depth, h, MLP ratio)."""
    embed_dim, depth, num_heads, mlp_ratio = numbers
    encoder = EncoderConfig(
        embed_dim,
        num_heads,
        depth,
        mlp_ratio,
        qkv_bias=False,
        norm_epsilon=1e-5,
        sinusoidal_positions=True,
    )
    config = T2TViTConfig(encoder, attention, preprocessing=preprocessing, **fields)
    return Variant(t2t_vit, config, num_parameters, gmacs, source)


def _regnet(
    numbers: tuple,
    num_parameters: int,
    gmacs: float | None,
    preprocessing: Preprocessing = IMAGENET,
) -> Variant:
    """A published RegNetY by its (w_0, w_a, w_m, d, g)."""
    config = RegNetConfig(*numbers, preprocessing=preprocessing)
    return Variant(regnet, config, num_parameters, gmacs, REGNET)


# How our own small variants see an image of 32 pixels.
MICRO_VIEW = {"size": 32, "patch_size": 4, "preprocessing": WHOLE_IMAGE}
MICRO_T2T_VIEW = {
    "image_size": (32, 32),
    "token_dim": 32,
    "splits": ((3, 2), (3, 2), (3, 1)),
    "preprocessing": WHOLE_IMAGE,
}

VARIANTS: dict[str, Variant] = {
    "deit_tiny_patch16_224": _vit(TINY, 5_717_416, 1.254, DEIT),
    "deit_small_patch16_224": _vit(SMALL, 22_050_664, 4.599, DEIT),
    "deit_base_patch16_224": _vit(BASE, 86_567_656, 17.564, DEIT),
    "deit_base_patch16_384": _vit(BASE, 86_859_496, 55.484, DEIT, size=384),
    "deit_tiny_distilled_patch16_224": _distilled(TINY, 5_910_800, 1.261),
    "deit_small_distilled_patch16_224": _distilled(SMALL, 22_436_432, 4.624),
    "deit_base_distilled_patch16_224": _distilled(BASE, 87_338_192, 17.657),
    "deit_base_distilled_patch16_384": _distilled(BASE, 87_630_032, 55.591, size=384),
    "deit_micro_patch4_32": _vit(MICRO, 272_424, 0.0152, OURS, **MICRO_VIEW),
    "deit_micro_distilled_patch4_32": _distilled(
        MICRO, 337_552, 0.0155, OURS, **MICRO_VIEW
    ),
    "evit_tiny_patch16_224": _evit(TINY, 5_717_416, None),
    "evit_small_patch16_224": _evit(SMALL, 22_050_664, 3.029),
    "evit_base_patch16_224": _evit(BASE, 86_567_656, 11.61),
    "t2t_vit_7": _t2t((256, 7, 4, 2.0), 4_310_222, 1.147),
    "t2t_vit_10": _t2t((256, 10, 4, 2.0), 5_889_230, 1.516),
    "t2t_vit_12": _t2t((256, 12, 4, 2.0), 6_941_902, 1.763),
    "t2t_vit_14": _t2t((384, 14, 6, 3.0), 21_545_550, 4.783),
    "t2t_vit_19": _t2t((448, 19, 7, 3.0), 39_177_422, 8.480),
    "t2t_vit_24": _t2t((512, 24, 8, 3.0), 64_105_934, 13.662),
    "t2t_vit_t_14": _t2t((384, 14, 6, 3.0), 21_541_070, 6.089, "transformer"),
    "t2t_vit_t_19": _t2t((448, 19, 7, 3.0), 39_172_942, 9.785, "transformer"),
    "t2t_vit_t_24": _t2t((512, 24, 8, 3.0), 64_101_454, 14.967, "transformer"),
    "t2t_vit_micro_32": _t2t(
        (64, 4, 4, 2.0), 259_518, 0.0160, source=OURS, **MICRO_T2T_VIEW
    ),
    "vit_tiny_patch16_224": _augreg(TINY, 16, 224, 5_717_416, 1.254),
    "vit_small_patch16_224": _augreg(SMALL, 16, 224, 22_050_664, 4.599),
    "vit_small_depth8_patch16_224": _vit(
        SMALL_DEPTH8, 48_754_408, None, T2T_BASELINE, preprocessing=IMAGENET_90
    ),
    "vit_base_patch16_224": _augreg(BASE, 16, 224, 86_567_656, 17.564),
    "vit_base_patch16_384": _augreg(BASE, 16, 384, 86_859_496, 55.484),
    "vit_base_patch32_224": _augreg(BASE, 32, 224, 88_224_232),
    "vit_base_patch32_384": _augreg(BASE, 32, 384, 88_297_192),
    "vit_large_patch16_224": _augreg(LARGE, 16, 224, 304_326_632),
    "vit_large_patch16_384": _augreg(LARGE, 16, 384, 304_715_752),
    "vit_large_patch32_224": _augreg(LARGE, 32, 224, 306_535_400),
    "vit_large_patch32_384": _augreg(LARGE, 32, 384, 306_632_680),
    "regnety_002": _regnet((24, 36.44, 2.49, 13, 8), 3_162_996, 0.1995),
    "regnety_004": _regnet((48, 27.89, 2.09, 16, 8), 4_344_144, 0.4018),
    "regnety_006": _regnet((48, 32.54, 2.32, 15, 16), 6_055_160, 0.6012),
    "regnety_008": _regnet((56, 38.84, 2.4, 14, 16), 6_263_168, 0.7972),
    "regnety_016": _regnet((48, 20.71, 2.65, 27, 24), 11_202_430, None),
    "regnety_032": _regnet((80, 42.63, 2.66, 21, 24), 19_436_338, None, IMAGENET_95),
    "regnety_040": _regnet((96, 31.41, 2.24, 22, 64), 20_646_656, 3.973, IMAGENET_95),
    "regnety_080": _regnet((192, 76.82, 2.19, 17, 56), 39_180_068, 7.963, IMAGENET_95),
    "regnety_120": _regnet((168, 73.36, 2.37, 19, 112), 51_822_544, 12.092),
    "regnety_160": _regnet(
        (200, 106.23, 2.48, 18, 112), 83_590_140, 15.912, IMAGENET_95
    ),
    "regnety_micro_32": Variant(regnet, REGNET_MICRO, 272_468, 0.0062, OURS),
}


def list_variants(pattern: str | None = None) -> list[str]:
    """Lists the names that `create_model` knows.

    Args:
        pattern: Shell pattern that the names must match, for instance "deit_*"; None
            lists all.

    Returns:
        The names, in alphabetical order.

    Example:
    >>> list_variants("deit_tiny_*")
    ['deit_tiny_distilled_patch16_224', 'deit_tiny_patch16_224']
    """
    return sorted(name for name in VARIANTS if fnmatchcase(name, pattern or "*"))
