"""`create_model`: a name and perhaps weights in, a model out."""

import sys
from pathlib import Path

import keras

from keras_deit.models.factory import build_model
from keras_deit.weights.loader import load_weights
from keras_deit.weights.pretrained import pretrained_file


def create_model(
    name: str,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] | None = None,
    weights: str | Path | None = None,
    **overrides,
) -> keras.Model:
    """Creates a model by the name of its variant.

    The model takes RGB pixels in [0, 255], channels last, and normalizes them itself.
    It returns logits (B, num_classes), or, with a distillation token,
    `{"class": logits, "distillation": logits}`.

    Args:
        name: Name of the variant, one of `list_variants()`.
        num_classes: Number of classes, at least 2. If the weights are for another
            number, the head is fresh, the rest is loaded, and a line on standard error
            says so.
        image_size: Side of the image or (height, width), in pixels; None takes the
            variant's.
        weights: None for fresh weights; "pretrained" for the published ones, which are
            downloaded once; or the path of a file: `.keras`, `.weights.h5`, or an
            official checkpoint, `.safetensors`, `.pth` or `.pth.tar`.
        **overrides: Fields of the variant's config to change, for instance
            `keep_rate=0.7`, `drop_path_rate=0.1`, `distilled=True`,
            `dtype="mixed_bfloat16"`, or `mean`, `std` and `crop_ratio` of the pixels.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: If a name, an override or a value is refused, or the weights do not
            fit.
        FileNotFoundError: If there is no such file of weights.

    Example:
    >>> model = create_model("deit_micro_distilled_patch4_32", num_classes=10)
    >>> sorted(model.output)
    ['class', 'distillation']
    """
    model = build_model(name, num_classes, image_size, **overrides)
    if weights == "pretrained":
        weights = pretrained_file(name)
    if weights is not None:
        report = load_weights(model, weights)
        if report.fresh or report.resampled:
            print(report, file=sys.stderr)
    return model
