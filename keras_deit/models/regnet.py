"""RegNetY, the convolutional teacher: a generator of widths, and a network for them."""

import math
from collections import Counter
from dataclasses import dataclass

import keras

from keras_deit._checks import check
from keras_deit.layers.conv_norm import ConvNorm
from keras_deit.layers.regnet_block import RegNetBlock
from keras_deit.models.preprocessing import (
    IMAGENET,
    Preprocessing,
    normalize_pixels,
)

WIDTH_QUANTUM = 8


@dataclass(frozen=True)
class RegNetConfig:
    """The numbers of a RegNetY, in the letters of the paper.

    Attributes:
        initial_width: w_0, width of the first block.
        width_slope: w_a, growth of the width from block to block.
        width_multiplier: w_m, ratio of the widths of neighboring stages; above 1.
        depth: d, number of blocks.
        group_width: g, channels of one group of the 3 x 3 convolutions.
        image_size: Height and width of the input, in pixels.
        num_classes: Y, number of classes.
        squeeze_ratio: Width of squeeze-excite over the channels entering a block.
        stem_width: Number of channels after the stem.
        stem_strides: Step of the stem, in pixels; 1 suits images of 32 pixels.
        preprocessing: What the pixels go through.
        dtype: Dtype policy of the layers; the head stays in float32. None takes Keras'
            global policy.
    """

    initial_width: int
    width_slope: float
    width_multiplier: float
    depth: int
    group_width: int
    image_size: tuple[int, int] = (224, 224)
    num_classes: int = 1000
    squeeze_ratio: float = 0.25
    stem_width: int = 32
    stem_strides: int = 2
    preprocessing: Preprocessing = IMAGENET
    dtype: str | None = None


@dataclass(frozen=True)
class Stage:
    """Blocks of one width: how many, how wide, and the width of a group."""

    depth: int
    width: int
    group_width: int


def regnet_stages(
    initial_width: int,
    width_slope: float,
    width_multiplier: float,
    depth: int,
    group_width: int,
) -> list[Stage]:
    """Computes the stages of a RegNet from its five numbers.

    The width of block j is `u_j = w_0 + w_a j`, snapped to the nearest power
    `w_0 w_m^s`, rounded to a multiple of 8, then to a multiple of the group width.

    Args:
        initial_width: w_0.
        width_slope: w_a.
        width_multiplier: w_m, above 1.
        depth: d, number of blocks.
        group_width: g.

    Returns:
        The stages, from the image to the head.

    Raises:
        ValueError: If `width_multiplier` is not above 1, or `initial_width` below 8.

    Example:
    >>> [(s.depth, s.width) for s in regnet_stages(200, 106.23, 2.48, 18, 112)]
    [(2, 224), (4, 448), (11, 1232), (1, 3024)]

    Reference:
        Radosavovic et al., RegNet (arXiv:2003.13678), section 3.3, equations 2 to 4;
        pycls `regnet.py`, `generate_regnet`.
    """
    check(
        width_multiplier > 1 and initial_width >= WIDTH_QUANTUM,
        f"`width_multiplier` must be > 1, `initial_width` at least {WIDTH_QUANTUM}.",
        width_multiplier=width_multiplier,
        initial_width=initial_width,
    )
    widths = []
    for index in range(depth):
        width = initial_width + width_slope * index
        power = round(math.log(width / initial_width) / math.log(width_multiplier))
        width = initial_width * width_multiplier**power
        widths.append(round(width / WIDTH_QUANTUM) * WIDTH_QUANTUM)
    stages = []
    for width, blocks in Counter(widths).items():  # in order of appearance
        group = min(group_width, width)
        stages.append(Stage(blocks, round(width / group) * group, group))
    return stages


def regnet(config: RegNetConfig, name: str | None = None) -> keras.Model:
    """Builds the model: pixels (B, H, W, 3) in [0, 255] in, logits (B, Y) out.

    Stem, stages (the first block of each has stride 2), mean over the image, head.

    Args:
        config: The numbers of the model.
        name: Name of the model.

    Returns:
        A functional `keras.Model`, freshly initialized.

    Reference:
        Radosavovic et al., RegNet (arXiv:2003.13678); timm `regnet.py`.
    """
    dtype = config.dtype
    stages = regnet_stages(
        config.initial_width,
        config.width_slope,
        config.width_multiplier,
        config.depth,
        config.group_width,
    )
    image = keras.Input((*config.image_size, 3), name="image", dtype="float32")
    x = normalize_pixels(config.preprocessing, dtype)(image)
    x = ConvNorm(config.stem_width, 3, config.stem_strides, dtype=dtype, name="stem")(x)
    for stage_index, stage in enumerate(stages, start=1):
        for block_index in range(stage.depth):
            x = RegNetBlock(
                stage.width,
                strides=2 if block_index == 0 else 1,
                group_width=stage.group_width,
                squeeze_ratio=config.squeeze_ratio,
                dtype=dtype,
                name=f"stage_{stage_index}_block_{block_index}",
            )(x)
    pool = keras.layers.GlobalAveragePooling2D(
        "channels_last", dtype=dtype, name="pool"
    )
    x = pool(x)  # (B, width)
    logits = keras.layers.Dense(
        config.num_classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        dtype="float32",
        name="class_head",
    )(x)
    return keras.Model(image, logits, name=name)
