"""The one table of variants: their numbers, their size, and where these come from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from keras_deit.models.preprocessing import WHOLE_IMAGE
from keras_deit.models.regnet import RegNetConfig, regnet
from keras_deit.models.vision_transformer import ViTConfig, vision_transformer


@dataclass(frozen=True)
class Variant:
    """A published size under its published name, or a size of our own.

    Attributes:
        build: The function that turns `config` into a model.
        config: The numbers of the model, with 1000 classes.
        num_parameters: Parameters with 1000 classes, as the papers count them.
        gmacs: Multiply-adds of one image with 1000 classes, in billions; None where
            nobody published them.
        source: Where the numbers come from.
    """

    build: Callable
    config: ViTConfig | RegNetConfig
    num_parameters: int
    gmacs: float | None
    source: str


DEIT = "DeiT, arXiv:2012.12877, table 1"
DISTILLED = "DeiT, arXiv:2012.12877, section 4: with a distillation token"
REGNET = "RegNetY, arXiv:2003.13678, and timm regnet.py"
OURS = "our own, for images of 32 pixels on a CPU"

TINY = ViTConfig(embed_dim=192, num_heads=3)
SMALL = ViTConfig(embed_dim=384, num_heads=6)
BASE = ViTConfig(embed_dim=768, num_heads=12)
BASE_384 = replace(BASE, image_size=(384, 384))
MICRO = ViTConfig(
    embed_dim=64,
    num_heads=4,
    depth=4,
    patch_size=4,
    image_size=(32, 32),
    preprocessing=WHOLE_IMAGE,
)
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
    config: ViTConfig, num_parameters: int, gmacs: float | None, source: str
) -> Variant:
    return Variant(vision_transformer, config, num_parameters, gmacs, source)


def _distilled(
    config: ViTConfig, num_parameters: int, gmacs: float | None, source: str = DISTILLED
) -> Variant:
    return _vit(replace(config, distilled=True), num_parameters, gmacs, source)


def _regnet(
    numbers: tuple, num_parameters: int, gmacs: float | None, source: str = REGNET
) -> Variant:
    """A published RegNetY by its (w_0, w_a, w_m, d, g)."""
    return Variant(regnet, RegNetConfig(*numbers), num_parameters, gmacs, source)


VARIANTS: dict[str, Variant] = {
    "deit_tiny_patch16_224": _vit(TINY, 5_717_416, 1.254, DEIT),
    "deit_small_patch16_224": _vit(SMALL, 22_050_664, 4.599, DEIT),
    "deit_base_patch16_224": _vit(BASE, 86_567_656, 17.564, DEIT),
    "deit_base_patch16_384": _vit(BASE_384, 86_859_496, 55.484, DEIT),
    "deit_tiny_distilled_patch16_224": _distilled(TINY, 5_910_800, 1.261),
    "deit_small_distilled_patch16_224": _distilled(SMALL, 22_436_432, 4.624),
    "deit_base_distilled_patch16_224": _distilled(BASE, 87_338_192, 17.657),
    "deit_base_distilled_patch16_384": _distilled(BASE_384, 87_630_032, 55.591),
    "deit_micro_patch4_32": _vit(MICRO, 272_424, 0.0152, OURS),
    "deit_micro_distilled_patch4_32": _distilled(MICRO, 337_552, 0.0155, OURS),
    "regnety_002": _regnet((24, 36.44, 2.49, 13, 8), 3_162_996, 0.1995),
    "regnety_004": _regnet((48, 27.89, 2.09, 16, 8), 4_344_144, 0.4018),
    "regnety_006": _regnet((48, 32.54, 2.32, 15, 16), 6_055_160, 0.6012),
    "regnety_008": _regnet((56, 38.84, 2.4, 14, 16), 6_263_168, 0.7972),
    "regnety_016": _regnet((48, 20.71, 2.65, 27, 24), 11_202_430, None),
    "regnety_032": _regnet((80, 42.63, 2.66, 21, 24), 19_436_338, None),
    "regnety_040": _regnet((96, 31.41, 2.24, 22, 64), 20_646_656, 3.973),
    "regnety_080": _regnet((192, 76.82, 2.19, 17, 56), 39_180_068, 7.963),
    "regnety_120": _regnet((168, 73.36, 2.37, 19, 112), 51_822_544, 12.092),
    "regnety_160": _regnet((200, 106.23, 2.48, 18, 112), 83_590_140, 15.912),
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
