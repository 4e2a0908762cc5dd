"""What student and teacher compute in, and whether XLA compiles it."""

from contextlib import contextmanager

import keras
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.models.applications import PREFIX
from keras_deit.models.inference import float32_model, mixed_model
from keras_deit.training.recipe import Recipe
from keras_deit.weights.create import create_model


def make_student(recipe: Recipe, num_classes: int) -> keras.Model:
    """Creates the network that a recipe trains, in the recipe's precision.

    Args:
        recipe: Names the network.
        num_classes: Number of classes of the dataset.

    Returns:
        The model; its weights and its heads are float32 in each precision.

    Raises:
        ValueError: If the network has no such option.
        FileNotFoundError: If there is no such file of weights.
    """
    overrides = dict(recipe.model_overrides)
    if recipe.gradient_checkpointing:
        overrides["gradient_checkpointing"] = True
    if not recipe.variant.startswith(PREFIX):
        overrides.setdefault("dtype", recipe.precision)
    with _dtype_policy(recipe.precision):  # all that a network of Keras goes by
        return create_model(
            recipe.variant, num_classes, recipe.image_size, recipe.weights, **overrides
        )


@contextmanager
def _dtype_policy(policy: str):
    """Keras' own policy, for as long as something is built."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def in_precision(model: keras.Model, precision: str) -> keras.Model:
    """The same model in another precision, with a copy of the weights if it differs.

    Args:
        model: Any Keras model.
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
    """
    if precision == "float32":
        return float32_model(model)
    return mixed_model(model, precision)


def check_compiler(recipe: Recipe, student: keras.Model, teacher) -> None:
    """Refuses what XLA cannot compile on a processor, or makes slower there.

    Args:
        recipe: Says whether XLA is to compile the step.
        student: The model that is trained.
        teacher: A `Teacher` or None; it is compiled with the step.

    Raises:
        ValueError: If there are several replicas on processors, or one of the models
            computes in bfloat16 on one.
    """
    kinds = ("GPU", "TPU")
    if not recipe.jit_compile or any(map(tf.config.list_logical_devices, kinds)):
        return
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    check(
        replicas == 1,
        "`jit_compile` on processors needs a single replica: XLA does not know the "
        "variables of the others.",
        replicas=replicas,
    )
    models = [student, *([teacher.model] if teacher and teacher.model else [])]
    in_bfloat16 = [
        model.name
        for model in models
        if any(layer.compute_dtype == "bfloat16" for layer in model._flatten_layers())
    ]
    check(
        not in_bfloat16,
        "`jit_compile` on a processor needs float32: there, XLA has no fast product of "
        "bfloat16 and takes many times as long as without it.",
        in_bfloat16=in_bfloat16,
    )
