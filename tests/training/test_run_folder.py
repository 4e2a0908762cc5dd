import json
import os
from dataclasses import replace

import pytest

from keras_deit.data.source import indexed_source
from keras_deit.training.recipe import Recipe, recipe_from_json
from keras_deit.training.run_folder import (
    begin,
    can_go_on,
    check_output,
    facts_of,
    held,
)

RECIPE = Recipe("deit_micro_patch4_32", "digits", epochs=20, batch_size=32)


def source(count, digest="x"):
    return indexed_source(
        "noise", ("a", "b"), [i % 2 for i in range(count)], id, digest
    )


def facts(train=5, digest="x", teacher=None):
    return facts_of((source(train, digest), source(2)), teacher, 10, 100)


@pytest.fixture
def stopped(tmp_path):
    """The folder of a run that has a checkpoint and no end."""
    folder = tmp_path / "run"
    begin(folder, RECIPE, facts(), ("a", "b"))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "epoch-00000-step-0000002.safetensors").touch()
    return folder


def test_the_facts_of_a_run_are_on_file(stopped):
    found = json.loads((stopped / "run.json").read_text())
    assert found == facts()
    assert found["dataset"]["train_examples"] == 5
    assert found["dataset"]["validation_examples"] == 2
    assert (found["parameters"], found["macs"]) == (10, 100)
    assert set(found["versions"]) == {"keras_deit", "tensorflow", "keras", "numpy"}
    assert (stopped / "labels.txt").read_text() == "a\nb\n"


def test_the_same_command_goes_on(stopped):
    check_output(stopped, False, RECIPE)
    assert can_go_on(stopped, RECIPE, facts(), overwrite=False, force_resume=False)


def test_to_overwrite_is_to_begin_anew(stopped):
    assert not can_go_on(stopped, RECIPE, facts(), overwrite=True, force_resume=False)


def test_without_a_checkpoint_it_begins_anew(tmp_path):
    begin(tmp_path, RECIPE, facts(), ("a", "b"))
    assert not can_go_on(tmp_path, RECIPE, facts(), False, False)


def differences(stopped, recipe, facts):
    with pytest.raises(ValueError, match="a run that stopped, but of another") as error:
        can_go_on(stopped, recipe, facts, False, False)
    assert can_go_on(stopped, recipe, facts, overwrite=False, force_resume=True)
    return str(error.value).partition("What differs:\n")[2].splitlines()


def test_every_difference_of_the_recipe_is_named(stopped):
    recipe = replace(RECIPE, epochs=30, flip=False)
    assert differences(stopped, recipe, facts()) == [
        "flip: True, now False",
        "epochs: 20, now 30",
    ]


@pytest.mark.parametrize("change", [{"train": 6}, {"digest": "y"}])
def test_another_dataset_is_noticed(stopped, change):
    (difference,) = differences(stopped, RECIPE, facts(**change))
    assert difference.startswith("dataset: {'name': 'noise', 'digest': ")


def test_another_format_of_the_views_is_noticed(stopped, monkeypatch):
    before = facts()["view_format"]
    monkeypatch.setattr("keras_deit.training.run_folder.VIEW_FORMAT", before + 1)
    expected = [f"view_format: {before}, now {before + 1}"]
    assert differences(stopped, RECIPE, facts()) == expected


def test_another_teacher_in_the_same_file_is_noticed(tmp_path):
    recipe = replace(RECIPE, kind="hard", teacher="teacher.keras")
    folder = tmp_path / "run"
    begin(folder, recipe, facts(teacher="one"), ("a", "b"))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "epoch-00000-step-0000002.safetensors").touch()
    assert can_go_on(folder, recipe, facts(teacher="one"), False, False)
    (difference,) = differences(folder, recipe, facts(teacher="two"))
    assert difference == "teacher_digest: 'one', now 'two'"


def test_to_begin_removes_what_an_earlier_run_left_and_nothing_else(stopped):
    (stopped / "tensorboard").mkdir()
    for name in ("last.keras", "result.json", ".partial-best.keras", "notes.txt"):
        (stopped / name).touch()
    begin(stopped, RECIPE, facts(), ("a", "b"))
    left = {path.name for path in stopped.iterdir()}
    assert left == {"recipe.json", "run.json", "labels.txt", "notes.txt"}


def test_a_run_that_came_to_its_end_is_kept(stopped):
    (stopped / "last.keras").touch()
    check_output(stopped, False, RECIPE)  # without a result it is not at its end
    (stopped / "result.json").touch()
    with pytest.raises(ValueError, match="`output` holds a run that came to its end"):
        check_output(stopped, False, RECIPE)
    check_output(stopped, True, RECIPE)


@pytest.mark.parametrize("name", ["teacher", "teacher_cache", "weights"])
def test_what_a_recipe_reads_is_not_replaced(stopped, name):
    recipe = replace(RECIPE, **{name: str(stopped / "last.keras")})
    with pytest.raises(ValueError, match=f"`{name}` must lie outside of `output`"):
        check_output(stopped, True, recipe)


def test_a_run_that_goes_on_differently_says_so_in_its_record(stopped):
    recipe = replace(RECIPE, learning_rate=1e-3)
    assert can_go_on(stopped, recipe, facts(), overwrite=False, force_resume=True)
    assert recipe_from_json((stopped / "recipe.json").read_text()) == recipe
    record = json.loads((stopped / "run.json").read_text())
    assert record["changes"] == [["learning_rate: 0.0005, now 0.001"]]
    assert can_go_on(stopped, recipe, facts(), overwrite=False, force_resume=False)


def test_a_folder_is_that_of_a_run_from_the_first_moment_on(tmp_path, monkeypatch):
    def die(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_deit.training.run_folder.write_json", die)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path / "run", RECIPE, facts(), ("a", "b"))
    check_output(tmp_path / "run", False, RECIPE)


def test_a_name_that_is_no_text_is_written_as_its_bytes(tmp_path):
    begin(tmp_path, RECIPE, facts(), (os.fsdecode(b"caf\xe9"), "b"))
    assert (tmp_path / "labels.txt").read_bytes() == b"caf\xe9\nb\n"


def test_two_processes_do_not_run_in_one_folder(tmp_path):
    with held(tmp_path / "run"):
        message = "Another process is training in `output`. Received: output="
        with pytest.raises(ValueError, match=message), held(tmp_path / "run"):
            pass
    with held(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_the_lock_of_a_killed_process_is_no_run(tmp_path):
    (tmp_path / ".lock").touch()
    check_output(tmp_path, False, RECIPE)
