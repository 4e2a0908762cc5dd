"""The flags that programs with a recipe share, and what they come to."""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from absl import flags

from trainers._strategy_flags import define_strategy_flags, strategy_of

# Fields of a recipe that have a flag of their own.
OWN_FLAGS = (
    "variant",
    "dataset",
    "weights",
    "precision",
    "jit_compile",
    "accumulate_steps",
    "gradient_checkpointing",
)


def define_recipe_flags(
    values: flags.FlagValues, default_recipe: str, output: str
) -> None:
    """Defines the flags that choose a recipe, change it, and say where it goes.

    Args:
        values: The flags of a program.
        default_recipe: Name of the recipe that is taken if none is given.
        output: What `--output` is.
    """
    define_choice_flags(values, default_recipe)
    flags.DEFINE_string("output", None, f"{output}; required.", flag_values=values)
    flags.mark_flag_as_required("output", flag_values=values)
    flags.DEFINE_bool(
        "download",
        False,
        "Allow a dataset of TensorFlow Datasets to be downloaded.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "unreadable",
        "refuse",
        ["refuse", "skip"],
        "What to do with image files that cannot be decoded: end with an error, or "
        "look for them before the run and leave them out.",
        flag_values=values,
    )


def define_choice_flags(values: flags.FlagValues, default_recipe: str) -> None:
    """Defines the flags that choose a recipe and change it; see above."""
    flags.DEFINE_string(
        "recipe",
        default_recipe,
        "Name of a recipe in trainers/recipes, or path of a .json file, for instance "
        "the recipe.json of an earlier run.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "variant",
        None,
        "In place of the recipe's: a name that `python -m trainers variants` lists, or "
        "keras:NAME for a network of keras.applications.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "dataset",
        None,
        "In place of the recipe's: 'digits', a folder of class folders (or of train/ "
        "and val/), or a name of TensorFlow Datasets.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "set",
        [],
        "Any field of the recipe, as field=value, the value in JSON; may be repeated: "
        "--set=batch_size=32 --set='crop_area=[0.5, 1]'.",
        flag_values=values,
    )


def define_teacher_flags(values: flags.FlagValues) -> None:
    """Defines the flags that name a teacher."""
    flags.DEFINE_multi_string(
        "teacher",
        None,
        "The teacher: a .keras file, the folder of a SavedModel, or the name of a "
        "variant, with its published weights; given several times, an ensemble.",
        flag_values=values,
    )


def teacher_of(values: flags.FlagValues) -> str | tuple[str, ...] | None:
    """What --teacher came to: one, several, or None."""
    paths = [str(Path(name).expanduser()) for name in values.teacher or ()]
    return tuple(paths) if len(paths) > 1 else next(iter(paths), None)


def define_run_flags(values: flags.FlagValues) -> None:
    """Defines the flags that say how a recipe is carried out."""
    flags.DEFINE_string(
        "weights",
        None,
        "In place of the recipe's: what the model starts from, 'pretrained' or a file.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "epochs",
        None,
        "In place of the recipe's; the warm-up keeps its share.",
        flag_values=values,
    )
    define_computing_flags(values)
    define_strategy_flags(values)
    flags.DEFINE_bool(
        "smoke",
        False,
        "Shrink the recipe to seconds: the smallest model of its family, on the "
        "embedded digits, with everything else that it does.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Replace an earlier run in --output, also one that could go on: to go on, give "
        "the command without it.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "checkpoint_steps",
        500,
        "Steps from one checkpoint to the next. A run that was interrupted goes on "
        "from its last one when the same command is given again.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "force_resume",
        False,
        "Go on with an interrupted run even if recipe, dataset or teacher changed.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "verify_resume",
        False,
        "Instead of training, prove in minutes that the recipe, shrunk as by --smoke, "
        "ends with the same weights, bit for bit, when it is killed and started again.",
        flag_values=values,
    )


def define_computing_flags(values: flags.FlagValues) -> None:
    """Defines the flags that say how the steps are computed."""
    flags.DEFINE_enum(
        "precision",
        None,
        ["float32", "mixed_bfloat16", "mixed_float16"],
        "In place of the recipe's: what the student computes in.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "jit_compile",
        None,
        "In place of the recipe's: whether XLA compiles the step.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "accumulate_steps",
        None,
        "In place of the recipe's: micro-batches of a step, for less memory.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "gradient_checkpointing",
        None,
        "In place of the recipe's: whether the blocks are computed again for the "
        "gradient, for less memory.",
        flag_values=values,
    )


def carry_out(values: flags.FlagValues, recipe) -> None:
    """Trains what the flags came to, or proves that it can be interrupted."""
    strategy = strategy_of(values)  # before TensorFlow does anything
    from keras_deit._checks import check
    from keras_deit.distillation.keras_fit import num_workers
    from keras_deit.training.run import train
    from keras_deit.training.smoke import smoke
    from trainers._verify_resume import verify_resume

    check(
        not (values.smoke and num_workers(strategy) > 1)
        and not (values.verify_resume and strategy.num_replicas_in_sync > 1),
        "--smoke is for one process, and --verify_resume for one device: give "
        "--strategy=none.",
        strategy=values.strategy,
    )
    if recipe.teacher_cache is not None and (values.smoke or values.verify_resume):
        print("The shrunk run asks an untrained teacher in place of the cache.")
    if values.verify_resume:
        with TemporaryDirectory(prefix="verify-resume-") as folder:
            verify_resume(smoke(recipe, folder), Path(folder))
        return
    output = Path(values.output).expanduser().absolute()
    if values.smoke:
        recipe = smoke(recipe, output.with_name(f"{output.name}-smoke"))
    train(
        recipe,
        Path(values.output).expanduser(),
        overwrite=values.overwrite,
        download=values.download,
        unreadable=values.unreadable,
        checkpoint_steps=values.checkpoint_steps,
        force_resume=values.force_resume,
        strategy=strategy,
    )


def effective_recipe(values: flags.FlagValues, epochs: int | None = None, **changes):
    """The recipe that was asked for, with all changes; those that are None are none."""
    from keras_deit._checks import check
    from keras_deit.training.recipe import recipe_from_dict
    from trainers.recipes import find_recipe

    recipe = find_recipe(values.recipe)
    if epochs is not None:
        check(epochs >= 1, "`epochs` must be at least 1.", epochs=epochs)
        recipe = recipe.over(epochs)
    for name in OWN_FLAGS:
        changes[name] = values[name].value if name in values else None
    changes = {name: value for name, value in changes.items() if value is not None}
    for name in changes.keys() & {"teacher_cache", "weights"}:
        changes[name] = str(Path(changes[name]).expanduser())
    if changes.get("kind", "soft") != "soft":  # what is for soft distillation alone
        changes |= {"temperature": 1.0, "reduction": "batchmean"}
    for item in values["set"].value:
        name, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"--set needs field=value. Received: --set={item}")
        changes[name] = _json_or_text(text)
    return recipe_from_dict(asdict(recipe) | changes)


def _json_or_text(text: str):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
