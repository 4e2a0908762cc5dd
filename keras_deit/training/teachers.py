"""The teacher that a recipe names, or the cache of what it said."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import keras
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.data.source import Source
from keras_deit.data.views import VIEW_FORMAT
from keras_deit.distillation.class_map import map_classes
from keras_deit.distillation.teacher import Teacher
from keras_deit.distillation.teacher_cache import TeacherCache
from keras_deit.models.applications import IMAGE_SIZE
from keras_deit.models.factory import image_height_and_width
from keras_deit.models.variants import VARIANTS
from keras_deit.training.precision import in_precision
from keras_deit.training.recipe import Recipe
from keras_deit.weights.create import create_model


def view_size(recipe: Recipe) -> tuple[int, int]:
    """Height and width of the training views of a recipe, in pixels."""
    if recipe.image_size is not None:
        return image_height_and_width(recipe.image_size)
    if recipe.variant in VARIANTS:
        return VARIANTS[recipe.variant].config.image_size
    return IMAGE_SIZE  # of a network of `keras.applications`


def views_of(recipe: Recipe) -> dict:
    """Everything that decides the views of a recipe and their order, in JSON's terms.

    Where nothing is mixed, how it would be mixed decides nothing.
    """
    mixing = {} if recipe.mixing is None else asdict(recipe.mixing)
    if not (recipe.mixup and recipe.cutmix):
        mixing.pop("switch_probability", None)
    views = {
        "view_format": VIEW_FORMAT,
        "seed": recipe.seed,
        "image_size": view_size(recipe),
        "batch_size": recipe.batch_size,
        "repeats": recipe.repeats,
        **asdict(recipe.augmentation),
        **{f"mixing {name}": value for name, value in mixing.items()},
    }
    return {k: list(v) if isinstance(v, tuple) else v for k, v in views.items()}


def load_teacher(
    recipe: Recipe,
    class_names: Sequence[str],
    strategy: tf.distribute.Strategy | None = None,
) -> Teacher:
    """Makes the teacher of a recipe, which answers in the student's classes.

    Args:
        recipe: Names the teacher.
        class_names: Name of each of the student's classes.
        strategy: In whose scope Keras models are made; None for the one that is.

    Returns:
        The teacher.

    Raises:
        ValueError: If it is no teacher, or its classes are not found.
        FileNotFoundError: If there is no such file.
    """
    strategy = strategy or tf.distribute.get_strategy()

    def member(name):
        # TensorFlow loads no SavedModel in the scope of a strategy.
        with nullcontext() if Path(name).is_dir() else strategy.scope():
            return _member(recipe, name, class_names)

    if isinstance(recipe.teacher, str):
        return member(recipe.teacher)
    members = [member(name) for name in recipe.teacher]
    return Teacher(members, shares=recipe.teacher_shares, mean=recipe.teacher_mean)


def _member(recipe: Recipe, name: str, class_names: Sequence[str]) -> Teacher:
    if recipe.train_teacher and name in VARIANTS:
        return Teacher(_untrained(recipe, name, class_names))
    is_variant = name in VARIANTS
    of_the_dataset = recipe.teacher_classes is None and recipe.teacher_weights not in (
        None,
        "pretrained",
    )
    teacher = Teacher(
        name,
        image_size=recipe.teacher_image_size,
        weights=recipe.teacher_weights,
        num_classes=len(class_names) if is_variant and of_the_dataset else None,
        from_logits=recipe.teacher_from_logits,
        signature=recipe.teacher_signature,
    )
    check(
        teacher.cache is None,
        "A folder that `cache_teacher` made is a `teacher_cache`, not a `teacher`.",
        teacher=name,
    )
    if recipe.teacher_precision is not None:
        teacher = _in_precision(recipe, teacher)
    table = recipe.teacher_classes
    labels = None if is_variant else _labels_of(Path(name))
    by_index = table is not None and all(isinstance(entry, int) for entry in table)
    names = None
    if labels is not None and not by_index:
        names = labels.read_text().splitlines()
    try:
        classes = map_classes(names, teacher.num_classes, class_names, table)
    except ValueError as error:
        where = f" (the teacher's names are those of {labels})" if names else ""
        raise ValueError(f"{error}{where}") from error
    return teacher if classes is None else teacher.of_classes(classes)


def _in_precision(recipe: Recipe, teacher: Teacher) -> Teacher:
    check(
        teacher.model is not None,
        "`teacher_precision` is for a teacher that is a Keras model: what a SavedModel "
        "computes in was decided when it was made.",
        teacher=recipe.teacher,
        teacher_precision=recipe.teacher_precision,
    )
    return Teacher(
        in_precision(teacher.model, recipe.teacher_precision),
        image_size=recipe.teacher_image_size,
        from_logits=recipe.teacher_from_logits,
    )


def _untrained(recipe: Recipe, name: str, class_names: Sequence[str]) -> keras.Model:
    """A network that has to learn the classes of this dataset."""
    weights = None if recipe.teacher_weights == "random" else recipe.teacher_weights
    if recipe.teacher_weights is None:
        weights = "pretrained"
    return create_model(
        name,
        len(class_names),
        recipe.teacher_image_size,
        weights,
        dtype=recipe.teacher_precision or "float32",
    )


def _labels_of(path: Path) -> Path | None:
    """The file with the names of a teacher's classes, if there is one."""
    places = (path.with_name("labels.txt"), path / "assets" / "labels.txt")
    return next((place for place in places if place.is_file()), None)


def load_cache(recipe: Recipe, source: Source, teacher: Teacher | None) -> Teacher:
    """Opens the cache of a recipe as a teacher.

    Args:
        recipe: Names the cache, and says what the views are.
        source: The training images.
        teacher: The one that the cache must be of; None if any will do.

    Returns:
        A teacher that is a cache.

    Raises:
        ValueError: If the cache is damaged, or of other views, images or classes, or
            another teacher; all differences are named.
        FileNotFoundError: If there is none.
    """
    cache = TeacherCache(recipe.teacher_cache)
    cache.check(
        views_of(recipe),
        source.digest,
        source.class_names,
        None if teacher is None else teacher.digest,
    )
    return Teacher(cache)
