"""From a name to a model."""

from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import get_args, get_origin, get_type_hints

import keras

from keras_deit._checks import check, check_choice
from keras_deit.models.regnet import RegNetConfig
from keras_deit.models.t2t_vit import T2TViTConfig
from keras_deit.models.variants import VARIANTS
from keras_deit.models.vision_transformer import ViTConfig


def image_height_and_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Reads `image_size`, one side or (height, width), as a pair.

    Raises:
        ValueError: If it is neither, or a side is below 1.
    """
    pair = image_size if isinstance(image_size, tuple | list) else (image_size,) * 2
    check(
        len(pair) == 2 and all(type(side) is int and side > 0 for side in pair),
        "`image_size` must be a positive number of pixels, or (height, width).",
        image_size=image_size,
    )
    return tuple(pair)


def _fits(value, hint) -> bool:
    """Whether a value is of the kind that the hint of a config's field names."""
    if isinstance(hint, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        if parts[-1] is ... and isinstance(value, tuple):
            parts = parts[:1] * len(value)
        return (
            isinstance(value, tuple)
            and len(value) == len(parts)
            and all(map(_fits, value, parts))
        )
    return type(value) in ((float, int) if hint is float else (hint,))


def _named(hint) -> str:
    """A hint in words."""
    if hint is float:
        return "float or int"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _as_tuple(value):
    """A list, as a JSON file has it, as a tuple; lists in it too."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list | tuple) else value


def options_of(config) -> dict[str, object]:
    """The fields of a config and of the configs in it, each with its hint."""
    hints = dict(get_type_hints(type(config)))
    for field in fields(config):
        if is_dataclass(getattr(config, field.name)):
            hints |= options_of(getattr(config, field.name))
    return hints


def _changed(config, options: dict):
    """A config with some of its fields, or of the configs in it, replaced."""
    changes = {}
    for field in fields(config):
        value = options.get(field.name, getattr(config, field.name))
        changes[field.name] = _changed(value, options) if is_dataclass(value) else value
    return replace(config, **changes)


def variant_config(
    name: str,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] | None = None,
    **overrides,
) -> ViTConfig | T2TViTConfig | RegNetConfig:
    """Reads the numbers of a variant, with some of them changed; see `build_model`."""
    check_choice("name", name, VARIANTS)
    check(
        type(num_classes) is int and num_classes >= 2,
        "`num_classes` must be at least 2.",
        num_classes=num_classes,
    )
    config = VARIANTS[name].config
    hints = options_of(config)
    options = {option: _as_tuple(value) for option, value in overrides.items()}
    for option, value in options.items():
        check_choice("override", option, hints)
        rule = f"`{option}` must be {_named(hints[option])}."
        check(_fits(value, hints[option]), rule, **{option: value})
        if hints[option] is int:  # a number of something
            least = 0 if option == "depth" else 1
            rule = f"`{option}` must be at least {least}."
            check(value >= least, rule, **{option: value})
    if image_size is not None:
        options["image_size"] = image_height_and_width(image_size)
    return _changed(config, {**options, "num_classes": num_classes})


def build_model(
    name: str,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] | None = None,
    **overrides,
) -> keras.Model:
    """Builds a variant of the table with fresh weights.

    Args:
        name: Name of the variant, one of `list_variants()`.
        num_classes: Y, number of classes; at least 2.
        image_size: Side of the image or (height, width), in pixels; None takes the
            variant's.
        **overrides: Fields to change of the variant's config and of the configs in it.

    Returns:
        A functional `keras.Model` under that name.

    Raises:
        ValueError: If there is no such variant, no such field, or a value is refused.
    """
    config = variant_config(name, num_classes, image_size, **overrides)
    return VARIANTS[name].build(config, name=name)
