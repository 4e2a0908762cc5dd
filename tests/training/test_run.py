import csv
import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from PIL import Image

from keras_deit.training.recipe import Recipe, recipe_from_json
from keras_deit.training.run import Result, train

TINY = Recipe(
    variant="deit_micro_patch4_32",
    dataset="digits",
    flip=False,
    rand_augment=None,
    erasing=0.0,
    mixup=0.0,
    cutmix=0.0,
    model_overrides={"depth": 1, "embed_dim": 16, "num_heads": 2},
    epochs=1,
    batch_size=256,
    learning_rate=3e-3,
    learning_rate_batch=None,
    warmup_epochs=0,
)


def classifier(path, num_classes):
    """Saves a teacher of one dense layer."""
    teacher = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(num_classes),
        ]
    )
    teacher.save(path)
    return str(path)


def history_in(folder):
    with (folder / "history.csv").open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run in the folder of one that did not come to its end, and what it said."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    folder.mkdir()
    (folder / "recipe.json").write_text("{}")
    (folder / "history.csv").write_text("epoch,loss\n0,1\n1,1\n2,1\n")
    return train(TINY, folder)


def test_the_result_has_the_model_and_its_scores(finished):
    assert isinstance(finished, Result)
    assert isinstance(finished.model, keras.Model)
    assert not isinstance(finished.directory, str)
    assert finished.scores.keys() == {"class"}
    scores = finished.scores["class"]
    assert 0 <= scores["top1"] <= scores["top5"] <= 1


def test_leaves_the_files_of_the_record(finished):
    names = {path.name for path in finished.directory.iterdir()}
    assert names == {
        "recipe.json",
        "run.json",
        "labels.txt",
        "history.csv",
        "history.jsonl",
        "tensorboard",
        "views.png",
        "curves.png",
        "per_class.csv",
        "report.html",
        "last.keras",
        "best.keras",
        "result.json",
    }
    assert any((finished.directory / "tensorboard").rglob("events.*"))
    for name in ("curves.png", "views.png"):
        with Image.open(finished.directory / name) as image:
            assert image.format == "PNG"
    assert "deit_micro_patch4_32" in (finished.directory / "report.html").read_text()


def test_the_recipe_can_be_read_again(finished):
    text = (finished.directory / "recipe.json").read_text()
    assert recipe_from_json(text) == TINY


def test_the_labels_are_the_names_of_the_classes(finished):
    text = (finished.directory / "labels.txt").read_text()
    assert text == "".join(f"{digit}\n" for digit in range(10))


def test_the_result_is_on_file(finished):
    record = json.loads((finished.directory / "result.json").read_text())
    assert record["scores"] == finished.scores
    assert record["best_epoch"] == 1
    (row,) = history_in(finished.directory)
    assert record["best_accuracy"] == pytest.approx(row["val_accuracy"])


def test_the_scores_are_those_that_fit_reports(finished):
    (row,) = history_in(finished.directory)
    assert finished.scores["class"]["top1"] == pytest.approx(row["val_accuracy"])


def test_the_saved_model_is_the_trained_one_without_a_distiller(finished):
    for name in ("last.keras", "best.keras"):
        loaded = keras.models.load_model(finished.directory / name)
        assert loaded.name == TINY.variant
        pairs = zip(loaded.get_weights(), finished.model.get_weights(), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)


def test_a_finished_run_is_kept_and_replaced_only_when_asked(finished, capsys):
    folder = finished.directory
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    message = (
        r"`output` holds a run that came to its end: choose another folder, or pass "
        r"--overwrite \(overwrite=True\)\. Received: output='.*plain'\."
    )
    with pytest.raises(ValueError, match=message):
        train(TINY, folder)
    assert all(path.read_bytes() == content for path, content in before.items())

    # With the same seed the second run is the first one again.
    (first,) = history_in(folder)
    stamp = (folder / "last.keras").stat().st_mtime_ns
    again = train(TINY, str(folder), overwrite=True)
    (second,) = history_in(folder)
    assert second == pytest.approx(first, abs=1e-6)
    assert again.scores["class"] == pytest.approx(finished.scores["class"])
    assert (folder / "last.keras").stat().st_mtime_ns > stamp

    printed = capsys.readouterr().out
    assert "deit_micro_patch4_32: 5,322 parameters" in printed
    assert "digits: 1,438 training and 359 validation images, 10 classes" in printed
    assert "1 epochs of 5 steps of 256 views: 5 steps, 1,280 distinct" in printed
    assert "adamw: peak learning rate 0.003 after 0 epochs, schedule cosine" in printed
    assert "Epoch 1/1 - loss " in printed
    assert "The training step was traced 1 times." in printed
    assert "last.keras (best.keras: epoch 1)" in printed


def test_a_loss_that_is_no_number_ends_the_run_without_a_result(tmp_path):
    recipe = replace(TINY, learning_rate=1e30)
    message = r"The loss is nan in epoch 1, step 2, on examples \d+, \d+, "
    with pytest.raises(RuntimeError, match=message):
        train(recipe, tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert "result.json" not in left
    assert {"not_finite.json", "not_finite.keras", "recipe.json"} <= left


def test_an_unreadable_image_is_named(tmp_path, monkeypatch):
    for name in ("cat", "dog"):
        for index in range(5):
            path = tmp_path / "pets" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(path)
    path.write_text("hello")
    pets = str(tmp_path / "pets")
    recipe = replace(TINY, dataset=pets, batch_size=8)

    # What `fit` does until it meets the image, without the cost of `fit`.
    def fit(self, batches, validation_data, steps_per_epoch, **arguments):
        list(batches.take(steps_per_epoch))
        list(validation_data)

    monkeypatch.setattr("keras_deit.distillation.distiller.Distiller.fit", fit)
    message = r"1 of 10 images cannot be decoded; remove, repair or .*dog/4\.png$"
    with pytest.raises(ValueError, match=message):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear reader")
    message = (
        r"`output` must be a new or empty folder, or an earlier run\. Received: output="
    )
    with pytest.raises(ValueError, match=message):
        train(TINY, tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("output", ["file", "file/run", "file/runs/run"])
def test_an_output_that_cannot_be_written_is_refused(tmp_path, output):
    (tmp_path / "file").write_text("dear reader")
    message = r"`output` must be a folder that can be written: .*file is not\."
    with pytest.raises(OSError, match=message):
        train(TINY, tmp_path / output)
    assert (tmp_path / "file").read_text() == "dear reader"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"kind": "hard"},
            ValueError,
            r"`teacher` or `teacher_cache` must be there unless `kind` is 'none' .* "
            r"Received: teacher=None, kind='hard'\.",
        ),
        (
            {"kind": "hard", "teacher": "missing.keras"},
            FileNotFoundError,
            r"There is no file 'missing\.keras'\.",
        ),
        ({"dataset": "missing"}, FileNotFoundError, r"There is no folder 'missing'"),
        (
            {"batch_size": 2000},
            ValueError,
            r"`batch_size` must be between 1 and the 1438 images of 'digits'\.",
        ),
        (
            {"image_size": 30},
            ValueError,
            r"`image_size` must be a multiple of `patch_size`\. Received: "
            r"image_size=\(30, 30\), patch_size=4\.",
        ),
        (
            {"warmup_epochs": 1},
            ValueError,
            r"`warmup_epochs` must be less than `epochs`\.",
        ),
        (
            {"model_overrides": {"dept": 1}},
            ValueError,
            r"Did you mean 'depth'\? Received: override='dept'\.",
        ),
        (
            {"temperature": 2.0},
            ValueError,
            r"`temperature` has a meaning for `kind` 'soft' only\.",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_before_a_folder_is_made(
    tmp_path, changes, error, message
):
    with pytest.raises(error, match=message):
        train(replace(TINY, **changes), tmp_path / "runs" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_of_other_classes_is_refused_before_a_folder_is_made(tmp_path):
    teacher = classifier(tmp_path / "teacher.keras", num_classes=7)
    message = r"teacher.* 7 .*10|teacher_classes"
    with pytest.raises(ValueError, match=message):
        train(replace(TINY, kind="soft", teacher=teacher), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_that_is_replaced_is_not_finished_until_the_new_one_is(
    tmp_path, monkeypatch
):
    for name in ("recipe.json", "result.json", "history.csv"):
        (tmp_path / name).write_text("{}")

    def fit(self, *arguments, **more_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_deit.distillation.distiller.Distiller.fit", fit)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, tmp_path, overwrite=True)
    assert recipe_from_json((tmp_path / "recipe.json").read_text()) == TINY
    assert not (tmp_path / "result.json").exists()
    assert not (tmp_path / "history.csv").exists()
