"""The flags that `train` and `train_teacher` share, and what they come to."""

import json
from dataclasses import asdict

from absl import flags


def define_recipe_flags(values: flags.FlagValues, default_recipe: str) -> None:
    """Defines the flags that choose a recipe, change it, and say where it goes."""
    flags.DEFINE_string(
        "recipe",
        default_recipe,
        "Name of a recipe in trainers/recipes, or path of a .json file, for instance "
        "the recipe.json of an earlier run.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "output", None, "Folder of the run; required.", flag_values=values
    )
    flags.mark_flag_as_required("output", flag_values=values)
    flags.DEFINE_string(
        "dataset",
        None,
        "In place of the recipe's: 'digits', a folder of class folders (or of train/ "
        "and val/), or a name of TensorFlow Datasets.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "epochs",
        None,
        "In place of the recipe's; the warm-up keeps its share.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "set",
        [],
        "Any field of the recipe, as field=value, the value in JSON; may be repeated: "
        "--set=batch_size=32 --set='crop_area=[0.5, 1]'.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "overwrite", False, "Replace a finished run in --output.", flag_values=values
    )
    flags.DEFINE_bool(
        "download",
        False,
        "Allow a dataset of TensorFlow Datasets to be downloaded.",
        flag_values=values,
    )


def effective_recipe(values: flags.FlagValues, **changes):
    """The recipe that was asked for, with all changes; those that are None are none."""
    from keras_deit._checks import check
    from keras_deit.training.recipe import recipe_from_dict
    from trainers.recipes import find_recipe

    recipe = find_recipe(values.recipe)
    if values.epochs is not None:
        check(values.epochs >= 1, "`epochs` must be at least 1.", epochs=values.epochs)
        recipe = recipe.over(values.epochs)
    changes |= {"dataset": values.dataset}
    changes = {name: value for name, value in changes.items() if value is not None}
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
