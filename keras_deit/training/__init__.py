"""A recipe in, weights and a record out."""

from keras_deit.training.caching import cache_teacher
from keras_deit.training.evaluation import evaluate, images_per_second
from keras_deit.training.recipe import Recipe, recipe_from_dict, recipe_from_json
from keras_deit.training.run import Result, train

__all__ = [
    "Recipe",
    "Result",
    "cache_teacher",
    "evaluate",
    "images_per_second",
    "recipe_from_dict",
    "recipe_from_json",
    "train",
]
