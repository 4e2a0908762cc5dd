from pathlib import Path

import keras
import numpy as np
import pytest

from keras_deit.models.preprocessing import preprocessing_of
from keras_deit.weights.create import create_model
from keras_deit.weights.saver import save_weights
from tests.weights.students import FILES, STUDENT, save_student


def create_student(**arguments):
    sizes = {"num_classes": 5, "depth": 1, "embed_dim": 24, "num_heads": 2}
    return create_model(STUDENT, **{**sizes, **arguments})


def some_images():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (2, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of one block and five classes, and the folder with all its files."""
    folder = tmp_path_factory.mktemp("weights")
    model = create_student()
    save_student(model, folder)
    return model, folder


def test_without_weights_every_model_is_fresh():
    first, second = create_student(), create_student()
    assert np.any(first.get_weights()[0] != second.get_weights()[0])


@pytest.mark.parametrize(
    ("file", "as_type"), [*((file, Path) for file in FILES), (FILES[0], str)]
)
def test_weights_come_back_from_a_file(file, as_type, saved, capsys):
    model, folder = saved
    twin = create_student(weights=as_type(folder / file))
    for head, logits in model(some_images()).items():
        np.testing.assert_array_equal(twin(some_images())[head], logits)
    assert capsys.readouterr() == ("", "")  # nothing is to be said


@pytest.mark.parametrize("suffix", [".keras", ".safetensors"])
def test_running_statistics_come_back_too(suffix, tmp_path):
    model = create_model("regnety_micro_32", num_classes=5, depth=1)
    model(some_images(), training=True)
    path = tmp_path / f"teacher{suffix}"
    model.save(path) if suffix == ".keras" else save_weights(model, path)
    twin = create_model("regnety_micro_32", num_classes=5, depth=1, weights=path)
    np.testing.assert_array_equal(twin(some_images()), model(some_images()))


def test_weights_serve_a_model_of_another_precision(saved):
    model, folder = saved
    path = folder / "student.keras"
    half = create_student(weights=path, dtype="mixed_bfloat16")
    for ours, theirs in zip(half.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("file", ["student.keras", "student.safetensors"])
def test_another_number_of_classes_leaves_the_heads_fresh_and_says_so(
    file, saved, capsys
):
    model, folder = saved
    keras.utils.set_random_seed(0)
    fresh = create_student(num_classes=7)
    keras.utils.set_random_seed(0)
    twin = create_student(num_classes=7, weights=folder / file)
    theirs = {w.path: w for w in model.weights}
    for ours, started in zip(twin.weights, fresh.weights, strict=True):
        expected = started if "_head/" in ours.path else theirs[ours.path]
        np.testing.assert_array_equal(ours, expected)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        f"{folder / file}: {len(model.weights) - 4} weights loaded; left fresh: "
        "class_head/kernel, class_head/bias, "
        "distillation_head/kernel, distillation_head/bias\n"
    )


def test_another_image_size_resamples_the_positions_and_says_so(saved, capsys):
    model, folder = saved
    path = folder / "student.pth"
    create_student(image_size=(48, 32), weights=path)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        f"{path}: {len(model.weights) - 1} weights loaded from 'model'; "
        "resampled: position_embedding/embedding; not read: epoch\n"
    )


def test_pretrained_weights_are_those_published_under_the_name(saved, monkeypatch):
    asked = []

    def pretrained_file(name):
        asked.append(name)
        return saved[1] / "student.pth"

    monkeypatch.setattr("keras_deit.weights.create.pretrained_file", pretrained_file)
    create_student()
    create_student(weights=saved[1] / "student.keras")
    assert asked == []
    model = create_student(weights="pretrained")
    assert asked == [STUDENT]
    for ours, theirs in zip(model.get_weights(), saved[0].get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_nothing_is_downloaded_for_a_model_that_is_refused(monkeypatch):
    monkeypatch.setattr("keras_deit.weights.create.pretrained_file", pytest.fail)
    with pytest.raises(ValueError, match="num_classes=1"):
        create_student(num_classes=1, weights="pretrained")


def test_says_where_there_are_no_pretrained_weights():
    with pytest.raises(ValueError, match="`name` must be one of .*'deit_tiny_patch16"):
        create_student(weights="pretrained")


def test_weights_are_strict(saved):
    with pytest.raises(ValueError, match="block_1/norm1/gamma .*: absent in the file"):
        create_student(depth=2, weights=saved[1] / "student.keras")


def test_mean_deviation_and_crop_can_be_others(saved):
    view = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_ratio": 0.9}
    model = create_student(weights=saved[1] / "student.keras", **view)
    seen = preprocessing_of(model)
    assert (seen.mean, seen.std, seen.crop_ratio) == tuple(view.values())
    # The same as other pixels for the model that takes (0.5, 0.5, 0.5) for both.
    mean, std = np.array(view["mean"]), np.array(view["std"])
    pixels = (((some_images() / 255 - mean) / std) * 0.5 + 0.5) * 255
    for head, logits in saved[0](pixels).items():
        np.testing.assert_allclose(model(some_images())[head], logits, atol=1e-5)


def test_takes_an_image_that_is_no_square():
    model = create_student(image_size=(32, 48))
    outputs = model(np.zeros((1, 32, 48, 3)))
    assert tuple(outputs["class"].shape) == (1, 5)
    assert model.get_layer("position_embedding").embedding.shape == (1, 2 + 8 * 12, 24)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file '.*none.keras'"):
        create_student(weights=tmp_path / "none.keras")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "deit_mikro_patch4_32"}, "Did you mean 'deit_micro_patch4_32'"),
        ({"name": STUDENT, "num_classes": 1}, "Received: num_classes=1"),
        ({"name": STUDENT, "image_size": 30}, r"image_size=\(30, 30\), patch_size=4"),
        ({"name": STUDENT, "droprate": 0.1}, "Did you mean 'drop_rate'"),
    ],
)
def test_refuses_what_the_factory_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(**arguments)
