"""What the models of a recipe cost, measured on models of its sizes."""

from dataclasses import dataclass, replace
from pathlib import Path

import keras

from keras_deit._checks import check
from keras_deit.models.complexity import count_macs
from keras_deit.models.reorganization import with_keep_rate
from keras_deit.models.variants import VARIANTS
from keras_deit.training.model_costs import (
    Activations,
    ModelCosts,
    activations,
    model_costs,
)
from keras_deit.training.precision import in_precision, make_student
from keras_deit.training.recipe import Recipe
from keras_deit.training.schedules import keep_rate_stages
from keras_deit.weights.create import create_model
from keras_deit.weights.loader import load_model


@dataclass(frozen=True)
class Workload:
    """What the models of a recipe cost.

    Attributes:
        student: Its weights, and the multiply-adds of an image, on average over the
            epochs if it drops tokens.
        student_activations: Of an image, with all tokens that an epoch has.
        teacher: The same of the teacher, of all members of an ensemble together; None
            if no teacher is named.
        teacher_activations: Of an image, in the largest member; None without a teacher.
    """

    student: ModelCosts
    student_activations: Activations
    teacher: ModelCosts | None = None
    teacher_activations: Activations | None = None


def workload_of(recipe: Recipe, num_classes: int) -> Workload:
    """Builds the models of a recipe with random weights and measures them.

    Args:
        recipe: Names student and teacher.
        num_classes: Number of classes of the dataset.

    Returns:
        What they cost.

    Raises:
        ValueError: If a teacher is neither a variant nor a `.keras` file, or a model
            has layers whose arithmetic is not known.
        FileNotFoundError: If there is no such file.
    """
    names = recipe.teacher or ()
    names = names if isinstance(names, tuple) else (names,)
    members = [_teacher(recipe, name, num_classes) for name in names]
    workload = Workload(*_student(recipe, num_classes))
    if not members:
        return workload
    trained = recipe.train_teacher is True  # a head alone keeps next to nothing
    in_use = [activations(member, training=trained) for member in members]
    return replace(
        workload,
        teacher=_together([model_costs(member) for member in members]),
        teacher_activations=max(in_use, key=lambda a: (a.kept, a.largest)),
    )


def _student(recipe: Recipe, num_classes: int) -> tuple[ModelCosts, Activations]:
    # What is computed again follows from the model that does not.
    recipe = replace(recipe, weights=None, gradient_checkpointing=False)
    model = make_student(recipe, num_classes)
    costs = model_costs(model)
    keep_rate = _keep_rate(model)
    stages = keep_rate_stages(recipe, keep_rate)
    if len(stages) == 1:
        return costs, activations(model)
    ends = [first for first, _ in stages[1:]] + [recipe.epochs]
    outside = costs.macs - costs.block_macs
    macs = sum(
        count_macs(with_keep_rate(model, rate)) * (end - first)
        for (first, rate), end in zip(stages, ends, strict=True)
    )
    macs = round(macs / recipe.epochs)
    overrides = {**recipe.model_overrides, "keep_rate": stages[0][1]}
    widest = make_student(replace(recipe, model_overrides=overrides), num_classes)
    return replace(costs, macs=macs, block_macs=macs - outside), activations(widest)


def _keep_rate(model: keras.Model) -> float:
    """Share of the tokens that a model keeps at each reorganization; 1 without any."""
    rates = (getattr(layer, "keep_rate", None) for layer in model.layers)
    return min((rate for rate in rates if rate is not None), default=1.0)


def _teacher(recipe: Recipe, name: str, num_classes: int) -> keras.Model:
    if name in VARIANTS:
        classes = num_classes if recipe.train_teacher else 1000
        model = create_model(name, classes, recipe.teacher_image_size)
    else:
        check(
            name.endswith(".keras"),
            "To be planned, `teacher` must be the name of a variant or a .keras file.",
            teacher=name,
        )
        model = load_model(Path(name).expanduser())
    if recipe.teacher_precision is None:
        return model
    return in_precision(model, recipe.teacher_precision)


def _together(costs: list[ModelCosts]) -> ModelCosts:
    return ModelCosts(*(sum(column) for column in zip(*map(_row, costs), strict=True)))


def _row(costs: ModelCosts) -> tuple:
    return tuple(vars(costs).values())
