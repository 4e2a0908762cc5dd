"""The rules one by one; what a recipe makes of them is in `test_recipe.py`."""

from dataclasses import MISSING, fields

import pytest

from keras_deit.training.recipe import Recipe
from keras_deit.training.recipe_rules import RULES


def default(field):
    return field.default if field.default is not MISSING else field.default_factory()


@pytest.mark.parametrize(
    "field",
    [f for f in fields(Recipe) if f.name not in ("variant", "dataset")],
    ids=lambda field: field.name,
)
def test_a_default_holds_its_own_rule(field):
    _, holds = RULES[field.name]
    assert holds(default(field))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("momentum", [0, 0.99]),
        ("layer_decay", [1, 0.01]),
        ("ema_decay", [0, 0.99996, None]),
        ("clip_norm", [1e-9, 5, None]),
        ("teacher_classes", [(0, 3), ("cat", "dog"), None]),
        ("keep_rate_stages", [1, 20]),
        ("seed", [0, 2**32 - 1]),
        ("image_size", [None, 32]),
        ("weights", [None, "pretrained", "a.pth"]),
        ("crop_area", [(1, 1), (0.001, 1.0)]),
    ],
)
def test_values_at_the_limits_are_taken(name, values):
    _, holds = RULES[name]
    assert all(holds(value) for value in values)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("momentum", [-0.1, 1]),
        ("layer_decay", [0, 1.01]),
        ("seed", [-1, 2**32, True]),
        ("image_size", [0, True, 32.0]),
        ("crop_area", [(0.5,), 0.5, ("a", "b"), (True, 1)]),
    ],
)
def test_values_beyond_the_limits_are_not(name, values):
    _, holds = RULES[name]
    for value in values:
        try:
            held = holds(value)
        except TypeError:
            held = False
        assert not held
