"""RandAugment: a few operations in a row, drawn from a table, of random strength.

timm's variant, which DeiT, T2T-ViT and EViT use: its fifteen operations "of increasing
severity", its configuration string and its Gaussian noise on the magnitude.
"""

import functools
import re
from dataclasses import dataclass

import tensorflow as tf

from keras_deit._checks import check
from keras_deit.data import affine, color
from keras_deit.data.views import draw_operations


def _without_argument(operation):
    return lambda image, argument: operation(image)


# Each takes uint8 pixels (H, W, 3) and its argument, a float32 scalar.
OPERATIONS = {
    "AutoContrast": _without_argument(color.autocontrast),
    "Equalize": _without_argument(color.equalize),
    "Invert": _without_argument(color.invert),
    "Rotate": affine.rotate,
    "PosterizeIncreasing": color.posterize,
    "SolarizeIncreasing": color.solarize,
    "SolarizeAdd": color.solarize_add,
    "ColorIncreasing": color.adjust_color,
    "ContrastIncreasing": color.adjust_contrast,
    "BrightnessIncreasing": color.adjust_brightness,
    "SharpnessIncreasing": color.adjust_sharpness,
    "ShearX": affine.shear_x,
    "ShearY": affine.shear_y,
    "TranslateXRel": affine.translate_x,
    "TranslateYRel": affine.translate_y,
}


def _no_argument(strength, sign):
    return 0.0


def _signed(limit):
    return lambda strength, sign: sign * strength * limit


def _factor(strength, sign):
    return tf.maximum(0.1, 1 + sign * strength * 0.9)


# What an operation is called with, of its strength in [0, 1] and its sign.
_ARGUMENTS = {
    "AutoContrast": _no_argument,
    "Equalize": _no_argument,
    "Invert": _no_argument,
    "Rotate": _signed(30.0),  # degrees
    "PosterizeIncreasing": lambda strength, sign: 4 - tf.floor(strength * 4),  # bits
    "SolarizeIncreasing": lambda strength, sign: 256 - tf.floor(strength * 256),
    "SolarizeAdd": lambda strength, sign: tf.floor(strength * 110),
    "ColorIncreasing": _factor,
    "ContrastIncreasing": _factor,
    "BrightnessIncreasing": _factor,
    "SharpnessIncreasing": _factor,
    "ShearX": _signed(0.3),
    "ShearY": _signed(0.3),
    "TranslateXRel": _signed(0.45),  # of the width
    "TranslateYRel": _signed(0.45),  # of the height
}


@dataclass(frozen=True)
class Policy:
    """What is drawn for each view.

    Attributes:
        magnitude: Mean strength of an operation, in [0, 10].
        magnitude_std: Standard deviation of the strength, which is clipped to [0, 10].
        num_operations: How many operations are drawn, with replacement.
        probability: How often each of them is applied, in [0, 1].
    """

    magnitude: int = 10
    magnitude_std: float = 0.0
    num_operations: int = 2
    probability: float = 0.5


def parse_policy(rand_augment: str) -> Policy:
    """Reads timm's configuration string, such as "rand-m9-mstd0.5-inc1".

    Args:
        rand_augment: "rand", then parts in any order: `m` magnitude (10 if it is not
            there), `mstd` its standard deviation (0), `n` number of operations (2), `p`
            probability of each (0.5), and `inc1`, which must be there: the operations
            are those whose severity increases with the magnitude.

    Returns:
        The policy.

    Raises:
        ValueError: If a part is unknown, there twice, or out of range, or `inc1` is not
            there.

    Example:
    >>> parse_policy("rand-m9-mstd0.5-inc1")
    Policy(magnitude=9, magnitude_std=0.5, num_operations=2, probability=0.5)

    Reference:
        timm `auto_augment.py`, `rand_augment_transform`. Its `mmax`, `w`, and an `mstd`
        above 100, for a uniform magnitude, are refused.
    """

    def hold(holds, rule):
        check(holds, f"`rand_augment` must {rule}", rand_augment=rand_augment)

    first, *parts = rand_augment.split("-")
    hold(first == "rand", 'begin with "rand".')
    found = [re.fullmatch(r"(mstd|m|n|p|inc)(\d+(?:\.\d+)?)", part) for part in parts]
    hold(all(found), "have parts m, mstd, n, p and inc alone, each with a number.")
    values = dict(match.groups() for match in found)
    hold(len(values) == len(parts), "have each part once.")
    hold(values.get("inc") == "1", "have the part inc1: no other operations are there.")
    whole = all(values.get(key, "0").isdecimal() for key in ("m", "n"))
    hold(whole, "have whole numbers as m and n.")
    policy = Policy(
        magnitude=int(values.get("m", 10)),
        magnitude_std=float(values.get("mstd", 0)),
        num_operations=int(values.get("n", 2)),
        probability=float(values.get("p", 0.5)),
    )
    hold(policy.magnitude <= 10, "have a magnitude m in [0, 10].")
    hold(policy.magnitude_std <= 100, "have a standard deviation mstd in [0, 100].")
    hold(policy.num_operations >= 1, "have a number of operations n of at least 1.")
    hold(policy.probability <= 1, "have a probability p in [0, 1].")
    return policy


def argument_of(name: str, magnitude, sign):
    """Translates a magnitude to the argument of an operation.

    Args:
        name: Name of the operation, of `OPERATIONS`.
        magnitude: In [0, 10], float32.
        sign: 1 or -1, float32.

    Returns:
        The argument, float32: degrees, bits that are kept, a threshold, an addend, a
        factor, or a share of the side; 0 for operations without one.
    """
    argument = _ARGUMENTS[name](magnitude / 10, sign)
    return tf.convert_to_tensor(argument, tf.float32)


def rand_augment(image, key, policy: Policy, operations=OPERATIONS):
    """Applies the operations that the key draws.

    Args:
        image: Pixels, uint8, shape (H, W, 3), H and W known.
        key: Key of the view, from `views.view_key`.
        policy: How many, how strong and how often.
        operations: What there is to draw from: for names of `OPERATIONS`, functions of
            an image and an argument.

    Returns:
        Pixels, uint8, shape (H, W, 3).

    Reference:
        Cubuk et al., "RandAugment", arXiv 1909.13719, section 3; timm
        `auto_augment.py`, `RandAugment` and `AugmentOp`, with bicubic interpolation and
        the mean of ImageNet beyond the border. Pillow 13 refuses to keep 0 bits,
        which m = 10 asks of `PosterizeIncreasing`; here that is black, as before.
    """

    def applied(image, name, magnitude, sign):
        return operations[name](image, argument_of(name, magnitude, sign))

    numbers, magnitudes, signs = draw_operations(
        key,
        policy.num_operations,
        len(operations),
        policy.probability,
        policy.magnitude,
        policy.magnitude_std,
    )

    def next_one(slot, image):
        branches = [
            functools.partial(applied, image, name, magnitudes[slot], signs[slot])
            for name in operations
        ]
        nothing = functools.partial(tf.identity, image)
        # One branch runs. A loop, so that the fifteen are traced once.
        result = tf.switch_case(numbers[slot], [*branches, nothing])
        return slot + 1, tf.ensure_shape(result, image.shape)

    _, image = tf.while_loop(
        lambda slot, image: slot < policy.num_operations,
        next_one,
        (0, image),
        parallel_iterations=1,
    )
    return image
