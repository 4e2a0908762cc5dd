"""The recipes by name: each module here holds one `RECIPE`."""

import pkgutil
from importlib import import_module
from pathlib import Path

from keras_deit._checks import check_choice
from keras_deit.training.recipe import Recipe, recipe_from_json


def list_recipes() -> list[str]:
    """Lists the names that `find_recipe` knows."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))


def find_recipe(name: str) -> Recipe:
    """Finds a recipe by its name, or reads it from a `.json` file.

    Raises:
        ValueError: If there is no such recipe, or the file holds none.
        FileNotFoundError: If there is no such file.
    """
    if name.endswith(".json"):
        try:
            return recipe_from_json(Path(name).expanduser().read_text())
        except ValueError as error:  # also a file that is no text
            raise ValueError(f"{name}: {error}") from error
    check_choice("recipe", name, list_recipes())
    return import_module(f"trainers.recipes.{name}").RECIPE
