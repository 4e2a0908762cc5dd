import importlib
import json
from dataclasses import replace

import pytest

from keras_deit.training.recipe import Recipe
from keras_deit.training.schedules import learning_rate_schedule
from trainers.recipes import find_recipe, list_recipes
from trainers.recipes.digits_plain import RECIPE as PLAIN


def test_lists_the_recipes_of_the_digits():
    assert {"digits_teacher", "digits_plain", "digits_distilled"} <= set(list_recipes())
    assert list_recipes() == sorted(list_recipes())


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_says_how_it_is_run_and_what_to_expect(name):
    module = importlib.import_module(f"trainers.recipes.{name}")
    assert isinstance(module.RECIPE, Recipe)
    assert find_recipe(name) is module.RECIPE
    summary, empty, *lines = module.__doc__.splitlines()
    assert summary.endswith(".")
    assert empty == ""
    heads = [line.partition(":")[0] for line in lines if line and line[0] != " "]
    assert heads == ["Run", "Try", "Expect", "Done"]
    program = "train_teacher" if "teacher" in name else "train"
    assert f"python -m trainers {program} --recipe={name}" in module.__doc__


def test_a_student_with_a_teacher_differs_from_the_plain_one_in_that_alone():
    distilled = find_recipe("digits_distilled")
    assert (distilled.kind, PLAIN.kind) == ("hard", "none")
    assert replace(distilled, variant=PLAIN.variant, kind="none") == PLAIN


def test_reads_a_recipe_from_a_file(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(PLAIN.over(3).to_json())
    assert find_recipe(str(path)) == PLAIN.over(3)


def test_an_unknown_recipe_is_refused():
    message = r"`recipe` must be one of .*Did you mean 'digits_plain'\? Received: recip"
    with pytest.raises(ValueError, match=message):
        find_recipe("digits_plan")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"recipe\.json"):
        find_recipe(str(tmp_path / "recipe.json"))


def test_a_file_without_a_recipe_is_refused(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"variant": PLAIN.variant, "datset": "digits"}))
    with pytest.raises(ValueError, match="no field 'datset'. Did you mean 'dataset'"):
        find_recipe(str(path))


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_can_be_tried_for_one_epoch(name):
    schedule = learning_rate_schedule(find_recipe(name).over(1), 44)
    assert float(schedule(0)) < float(schedule(10))


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "bin.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bin\.json: 'utf-8' codec"):
        find_recipe(str(tmp_path / "bin.json"))
