from dataclasses import fields
from pathlib import Path

import pytest

from keras_deit.training.recipe import Recipe
from keras_deit.training.report_record import (
    FILES,
    ClassAccuracy,
    default_values,
    flat,
    read_run,
    run_names,
)
from tests.training.report_runs import (
    DISTILLED,
    FACTS,
    PLAIN,
    RESULT,
    make_run,
)


def test_reads_what_a_run_left(tmp_path):
    run = read_run(make_run(tmp_path / "run", epochs=7))
    assert run.path == (tmp_path / "run").resolve()
    assert run.recipe["epochs"] == 7
    assert run.history == PLAIN
    assert run.epochs == [1, 2, 3]
    assert (run.facts, run.result) == (FACTS, RESULT)
    assert run.classes == [
        ClassAccuracy("cat", 4, 0.75, "dog"),
        ClassAccuracy("dog", 4, 1.0, ""),
    ]
    assert run.views == (tmp_path / "run" / "views.png").read_bytes()
    assert run.missing == []
    assert run.scores == RESULT["scores"]
    assert run.average_scores == {}


def test_a_run_that_has_just_begun_lacks_everything_but_its_recipe(tmp_path):
    folder = make_run(tmp_path / "run", None, None, None, None)
    assert [path.name for path in folder.iterdir()] == ["recipe.json"]
    run = read_run(folder)
    assert run.missing == list(FILES)
    assert (run.history, run.facts, run.result, run.classes) == ({}, {}, {}, [])
    assert (run.views, run.epochs, run.scores) == (None, [], {})


@pytest.mark.parametrize("name", sorted(FILES))
def test_says_which_file_is_missing(tmp_path, name):
    folder = make_run(tmp_path / "run")
    (folder / name).unlink()
    assert read_run(folder).missing == [name]


def test_before_the_end_the_scores_are_those_of_the_last_epoch(tmp_path):
    run = read_run(make_run(tmp_path / "plain", PLAIN, result=None))
    assert run.scores == {"class": {"top1": 0.625}}
    assert run.average_scores == {}
    history = DISTILLED | {"val_average_fused_accuracy": ["", 0.9375, ""]}
    run = read_run(make_run(tmp_path / "distilled", history, result=None))
    assert run.scores == {
        "class": {"top1": 0.5},
        "distillation": {"top1": 0.5},
        "fused": {"top1": 0.875},
    }
    assert run.average_scores == {"fused": {"top1": 0.9375}}
    averaged = PLAIN | {"val_average_accuracy": [0.1, 0.2, 0.3]}
    run = read_run(make_run(tmp_path / "averaged", averaged, result=None))
    assert run.average_scores == {"class": {"top1": 0.3}}


def test_a_class_without_images_has_no_accuracy(tmp_path):
    folder = make_run(tmp_path / "run", class_names=("cat", "dog", "eel, the"))
    assert read_run(folder).classes[2] == ClassAccuracy("eel, the", 0, None, "")


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["/a/plain"], ["plain"]),
        (["/a/plain", "/b/plain"], ["a/plain", "b/plain"]),
        (["/a/x/run", "/b/x/run", "/b/other"], ["a/x/run", "b/x/run", "other"]),
        (["/run", "/a/run"], ["/run", "a/run"]),
        (["/a/run", "/b/a/run"], ["/a/run", "b/a/run"]),
    ],
)
def test_runs_are_named_by_as_much_of_the_path_as_it_takes(folders, expected):
    assert run_names([Path(folder) for folder in folders]) == expected


def test_the_defaults_of_a_recipe_are_those_of_its_fields():
    defaults = default_values()
    assert defaults["epochs"] == 300
    assert defaults["crop_area"] == [0.08, 1.0]  # JSON has no tuples
    assert defaults["model_overrides"] == {}
    assert defaults["teacher"] is None
    assert {f.name for f in fields(Recipe)} - defaults.keys() == {"variant", "dataset"}


def test_nested_facts_are_named_in_words():
    assert flat({"a_b": {"c": {"d": 1}}, "e": {}}) == {"a b c d": 1}


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder '.*gone'"):
        read_run(tmp_path / "gone")
    with pytest.raises(ValueError, match="must be a folder with a recipe.json. Rec"):
        read_run(tmp_path)
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="There is no folder '.*recipe.json'"):
        read_run(tmp_path / "recipe.json")


@pytest.mark.parametrize("name", ["recipe.json", "run.json", "result.json"])
@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b'{"a": ', "must be JSON: "),
        (b"\xff\xfe\x00", "must be JSON: "),
        (b"[1]", "must hold a JSON object"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused_by_name(
    tmp_path, name, content, rule
):
    folder = make_run(tmp_path / "run")
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rule) as refused:
        read_run(folder)
    assert str(folder / name) in str(refused.value)


@pytest.mark.parametrize(
    "content",
    ["class,top1\na,1\n", "class,images,top1,mistaken_for\na,many,1,\n", "x\n\xff\n"],
)
def test_a_table_of_classes_that_is_none_is_refused_by_name(tmp_path, content):
    folder = make_run(tmp_path / "run")
    (folder / "per_class.csv").write_text(content, encoding="latin-1")
    rule = "per_class.csv must have the columns class, images, top1, mistaken_for: "
    with pytest.raises(ValueError, match=rule):
        read_run(folder)
