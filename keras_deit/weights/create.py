"""`create_model`: a name and perhaps weights in, a model out."""

import sys
from pathlib import Path

import keras

from keras_deit._checks import check
from keras_deit._files import existing_file
from keras_deit.models.applications import PREFIX, application_model
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
        name: Name of the variant, one of `list_variants()`; or "keras:NAME" for a
            network of `keras.applications`, for instance "keras:ResNet50".
        num_classes: Number of classes, at least 2. If the weights are for another
            number, the head is fresh, the rest is loaded, and a line on standard error
            says so.
        image_size: Side of the image or (height, width), in pixels; None takes the
            variant's, or 224 for a network of Keras.
        weights: None for fresh weights; "pretrained" for the published ones, which are
            downloaded once; or the path of a file: `.keras`, `.weights.h5`, or an
            official checkpoint, `.safetensors`, `.pth` or `.pth.tar`. For a network of
            Keras, its official checkpoints are "pretrained" and `..._notop.h5` files;
            they have no head, so it is fresh, and a line on standard error says so.
        **overrides: Fields of the variant's config to change, for instance
            `keep_rate=0.7`, `drop_path_rate=0.1`, `distilled=True`,
            `dtype="mixed_bfloat16"`, or `mean`, `std` and `crop_ratio` of the pixels.
            A network of Keras has none.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: If a name, an override or a value is refused, or the weights do not
            fit.
        FileNotFoundError: If there is no such file of weights, or Keras cannot
            download it.

    Example:
    >>> model = create_model("deit_micro_distilled_patch4_32", num_classes=10)
    >>> sorted(model.output)
    ['class', 'distillation']
    """
    if str(name).startswith(PREFIX):
        return _create_application(name, num_classes, image_size, weights, overrides)
    model = build_model(name, num_classes, image_size, **overrides)
    if weights == "pretrained":
        weights = pretrained_file(name)
    if weights is not None:
        _fill(model, weights)
    return model


def _create_application(
    name: str,
    num_classes: int,
    image_size: int | tuple[int, int] | None,
    weights: str | Path | None,
    overrides: dict,
) -> keras.Model:
    """Creates a network of `keras.applications`; see `create_model`."""
    check(
        not overrides,
        "A network of keras.applications has no fields to override; its dtype is that "
        "of keras.config.set_dtype_policy.",
        name=name,
        overrides=sorted(overrides),
    )
    file = str(weights)
    check(
        weights in (None, "pretrained") or file.endswith((".keras", ".h5")),
        "`weights` of a network of keras.applications must be 'pretrained', or a "
        ".keras, .weights.h5 or ..._notop.h5 file.",
        weights=file,
    )
    theirs = None  # what Keras reads, of its own
    if weights == "pretrained":
        theirs = "imagenet"
    elif weights is not None and not file.endswith((".keras", ".weights.h5")):
        theirs = existing_file(weights)
    model = application_model(name, num_classes, image_size, theirs)
    if theirs is not None:
        print(
            f"{name}: weights of {theirs} loaded; "
            "left fresh: class_head/kernel, class_head/bias",
            file=sys.stderr,
        )
    elif weights is not None:
        _fill(model, weights)
    return model


def _fill(model: keras.Model, weights: str | Path) -> None:
    """Loads a file, and says what else than loading became of a weight."""
    report = load_weights(model, weights)
    if report.fresh or report.resampled:
        print(report, file=sys.stderr)
