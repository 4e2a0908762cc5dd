"""Any recipe, shrunk to seconds."""

from collections import Counter
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import keras
import tensorflow as tf

from keras_deit.data.sources import load_source
from keras_deit.models.applications import PREFIX
from keras_deit.models.factory import variant_config
from keras_deit.models.regnet import RegNetConfig
from keras_deit.models.t2t_vit import T2TViTConfig
from keras_deit.models.variants import VARIANTS
from keras_deit.models.vision_transformer import ViTConfig
from keras_deit.training.recipe import Recipe
from keras_deit.weights.create import create_model

EPOCHS = 3
IMAGES_OF_A_CLASS = 20  # a fifth of them is held out
BATCH_SIZE = 48  # three steps an epoch
IMAGE_SIZE = 32
OTHER_IMAGE_SIZE = 40  # in place of a size that is not the variant's own

# The smallest variant of each family, by the class of its config.
SMALLEST = {
    ViTConfig: "deit_micro_patch4_32",
    T2TViTConfig: "t2t_vit_micro_32",
    RegNetConfig: "regnety_micro_32",
}
DEPTH = 2  # blocks of it
SMALLEST_APPLICATION = f"{PREFIX}MobileNet"
TEACHER = "regnety_micro_32"

# What a model does, as opposed to how large it is.
FEATURES = (
    "distilled",
    "drop_rate",
    "drop_path_rate",
    "keep_rate",
    "fuse",
    "attention",
    "dtype",
    "gradient_checkpointing",
)

# Phases of a run; one that a recipe has lasts an epoch at most.
PHASES = (
    "head_epochs",
    "warmup_epochs",
    "cooldown_epochs",
    "keep_rate_start_epoch",
    "keep_rate_ramp_epochs",
)


def smoke(recipe: Recipe, folder: str | Path) -> Recipe:
    """Shrinks a recipe to seconds, with everything that it does.

    The model becomes the smallest of its family, with two blocks; the dataset 200 of
    the embedded digits at 32 pixels (40 where the recipe has another size than its
    variant); the run 3 epochs of 3 steps, each phase that the recipe has an epoch. What
    the model does, the augmentation, the losses, the optimizer and its peak learning
    rate stay.

    Args:
        recipe: What to shrink.
        folder: Folder for what the recipe reads: the images; if it starts from weights,
            random ones for another number of classes; and if it learns from teachers,
            also from a cache of theirs, untrained ones. It is made if need be, and must
            be there while the recipe runs.

    Returns:
        The shrunk recipe. The same recipe and folder give the same one, and the same
        files but for their dates.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(recipe.seed)
    variant, overrides = _smallest(recipe.variant, recipe.model_overrides)
    has_teacher = recipe.kind != "none" or recipe.teacher is not None
    return replace(
        recipe,
        variant=variant,
        model_overrides=overrides,
        dataset=_dataset(folder / "digits"),
        image_size=_image_size(recipe),
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        accumulate_steps=min(2, recipe.accumulate_steps),  # must divide the batch
        learning_rate=recipe.peak_learning_rate,
        learning_rate_batch=None,
        weights=None if recipe.weights is None else _weights(recipe.variant, folder),
        teacher=_teacher(recipe, folder) if has_teacher else None,
        teacher_weights=None,
        teacher_image_size=recipe.teacher_image_size and OTHER_IMAGE_SIZE,
        teacher_cache=None,
        teacher_classes=recipe.teacher_classes and tuple(range(10)),
        **{phase: min(1, getattr(recipe, phase)) for phase in PHASES},
    )


def _smallest(variant: str, overrides: dict) -> tuple[str, dict]:
    """The smallest variant of a family, and what makes it do the same."""
    if variant.startswith(PREFIX):
        return SMALLEST_APPLICATION, overrides
    config = variant_config(variant, **overrides)
    name = SMALLEST[type(config)]
    wanted, own = _values(config), _values(VARIANTS[name].config)
    features = {f: wanted[f] for f in FEATURES if f in own and wanted[f] != own[f]}
    return name, {"depth": DEPTH, **features}


def _values(config) -> dict:
    """The values of a config and of the configs in it, by their names."""
    values = {}
    for field in fields(config):
        value = getattr(config, field.name)
        values |= _values(value) if is_dataclass(value) else {field.name: value}
    return values


def _image_size(recipe: Recipe) -> int:
    if recipe.image_size is None:
        return IMAGE_SIZE
    own = (224, 224)  # of the networks of `keras.applications`
    if recipe.variant in VARIANTS:
        own = VARIANTS[recipe.variant].config.image_size
    return IMAGE_SIZE if (recipe.image_size,) * 2 == own else OTHER_IMAGE_SIZE


def _dataset(folder: Path) -> str:
    """Writes a few of the digits, a folder for each class."""
    written = Counter()
    for example in load_source("digits", "all").in_order().as_numpy_iterator():
        label = int(example["label"])
        if written[label] < IMAGES_OF_A_CLASS:
            path = folder / str(label) / f"{written[label]:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(example["image"]).numpy())
            written[label] += 1
        if written.total() == 10 * IMAGES_OF_A_CLASS:
            break
    return str(folder)


def _weights(variant: str, folder: Path) -> str:
    """Random weights of a variant as it is in the table, with another head."""
    name, overrides = _smallest(variant, {})
    return _saved(folder / "start.keras", name, 20, **overrides)


def _teacher(recipe: Recipe, folder: Path) -> str | tuple[str, ...]:
    num_classes = 10 if recipe.teacher_classes is None else 12
    if not isinstance(recipe.teacher, tuple):
        return _saved(folder / "teacher.keras", TEACHER, num_classes)
    return tuple(
        _saved(folder / f"teacher_{number}.keras", TEACHER, num_classes)
        for number in range(len(recipe.teacher))
    )


def _saved(path: Path, name: str, num_classes: int, **overrides) -> str:
    create_model(name, num_classes, (IMAGE_SIZE, IMAGE_SIZE), **overrides).save(path)
    return str(path)
