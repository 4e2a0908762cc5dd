"""From a name to a model."""

from dataclasses import fields, replace

import keras

from keras_deit._checks import check, check_choice
from keras_deit.models.variants import VARIANTS


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


def _check_kind(name: str, value, example) -> None:
    """Refuses a value of another kind than the variant's own; None stands for text."""
    kind = str if example is None else type(example)
    kinds = (float, int) if kind is float else (kind,)
    check(
        type(value) in kinds or (value is None and example is None),
        f"`{name}` must be {' or '.join(k.__name__ for k in kinds)}.",
        **{name: value},
    )


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
        **overrides: Fields of the variant's config to change.

    Returns:
        A functional `keras.Model` under that name.

    Raises:
        ValueError: If there is no such variant, no such field, or a value is refused.
    """
    check_choice("name", name, VARIANTS)
    check(
        num_classes >= 2, "`num_classes` must be at least 2.", num_classes=num_classes
    )
    variant = VARIANTS[name]
    known = {field.name for field in fields(variant.config)}
    for override, value in overrides.items():
        check_choice("override", override, known)
        _check_kind(override, value, getattr(variant.config, override))
    if image_size is not None:
        overrides["image_size"] = image_height_and_width(image_size)
    config = replace(variant.config, num_classes=num_classes, **overrides)
    return variant.build(config, name=name)
