"""The flags that name a model: a file of its own, or a variant and its weights."""

import sys
from difflib import get_close_matches
from pathlib import Path

from absl import flags

PUBLISHED = "pretrained"
HEADS = ("fused", "fused_softmax", "class", "distillation")


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    flags.DEFINE_string(
        "model",
        None,
        "A .keras file, or the name of a variant (python -m trainers variants lists "
        "them); required.",
        flag_values=values,
    )
    flags.mark_flag_as_required("model", flag_values=values)
    flags.DEFINE_string(
        "weights",
        PUBLISHED,
        "Weights of a variant: 'pretrained', which are downloaded once, or a file: "
        ".pth, .pth.tar, .safetensors or .weights.h5.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_classes", 1000, "Number of classes of a variant.", flag_values=values
    )
    flags.DEFINE_list(
        "image_size",
        None,
        "Side, or height and width, of a variant's input, in pixels. By default the "
        "variant's own.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "keep_rate",
        None,
        "Share of the patch tokens that stay at each reorganization, in (0, 1], of any "
        "transformer. By default the model's own.",
        flag_values=values,
    )


def define_head(values: flags.FlagValues) -> None:
    """Defines the flag that chooses the head."""
    flags.DEFINE_enum(
        "head",
        "fused",
        HEADS,
        "Which head answers; 'fused' takes the mean of the logits of both.",
        flag_values=values,
    )


def load(values: flags.FlagValues):
    """Loads the model that the flags name.

    Raises:
        ValueError: If flags of a variant come with a .keras file, or anything about the
            model is refused.
    """
    from keras_deit.layers.token_reorganization import num_kept_tokens
    from keras_deit.models.reorganization import with_keep_rate
    from keras_deit.weights.loader import load_model

    if values.keep_rate is not None:
        num_kept_tokens(1, values.keep_rate)  # refuses a wrong rate before any work
    if Path(values.model).suffix == ".keras":
        of_variant = ("weights", "num_classes", "image_size")
        given = [name for name in of_variant if values[name].present]
        if given:
            raise ValueError(
                f"A .keras file is whole: --{given[0]} is for the name of a variant. "
                f"Received: --model={values.model}."
            )
        model = load_model(values.model)
    else:
        model = _variant(values)
    return (
        model if values.keep_rate is None else with_keep_rate(model, values.keep_rate)
    )


def _variant(values: flags.FlagValues):
    from keras_deit._checks import check
    from keras_deit.models.variants import VARIANTS
    from keras_deit.weights.create import create_model
    from keras_deit.weights.loader import load_weights
    from keras_deit.weights.pretrained import PRETRAINED, pretrained_file

    name, size = values.model, values.image_size
    near = get_close_matches(name, VARIANTS, n=1)
    rule = (
        "`--model` must be a .keras file, or the name of a variant (python -m trainers "
        f"variants lists them).{f' Did you mean {near[0]!r}?' if near else ''}"
    )
    check(name in VARIANTS, rule, model=name)
    check(
        values.weights != PUBLISHED or name in PRETRAINED,
        "No weights of this variant are published: give a file, --weights=FILE.",
        model=name,
    )
    check(
        Path(values.weights).suffix != ".keras",
        "A .keras file is a model with options of its own: give it as --model.",
        weights=values.weights,
    )
    if size is not None:
        check(
            len(size) in (1, 2) and all(side.strip().isdecimal() for side in size),
            "`--image_size` must be a number of pixels, or height,width.",
            image_size=",".join(size),
        )
        size = tuple(int(side) for side in size * (3 - len(size)))
    model = create_model(name, values.num_classes, size)
    file = pretrained_file(name) if values.weights == PUBLISHED else values.weights
    report = load_weights(model, file)
    check(
        not any("_head/" in path for path in report.fresh),
        "The weights are for another number of classes: give it, --num_classes=N.",
        weights=str(file),
        num_classes=values.num_classes,
    )
    if report.resampled or report.fresh:
        print(report, file=sys.stderr)
    return model


def names_of_run(values: flags.FlagValues) -> list[str] | None:
    """Reads the names of the classes that a training run left beside its weights."""
    path = _labels_path(values)
    if path is None or not path.is_file():
        return None
    return path.read_text().splitlines()


def class_names(values: flags.FlagValues, num_classes: int) -> list[str]:
    """Names the classes of the model: of its run, of ImageNet, or by number.

    Raises:
        ValueError: If the run has names for another number of classes.
    """
    from keras_deit._checks import check
    from keras_deit.data.imagenet import NUM_CLASSES, imagenet_names

    names = names_of_run(values)
    if names is not None:
        rule = f"`{_labels_path(values)}` must have one name for each class."
        check(len(names) == num_classes, rule, names=len(names), classes=num_classes)
        return names
    if num_classes == NUM_CLASSES:
        return list(imagenet_names())
    return [str(label) for label in range(num_classes)]


def _labels_path(values: flags.FlagValues) -> Path | None:
    """Where a training run leaves the names of the classes: beside its model."""
    if Path(values.model).suffix == ".keras":
        return Path(values.model).with_name("labels.txt")
    if values.weights == PUBLISHED:
        return None
    return Path(values.weights).with_name("labels.txt")
