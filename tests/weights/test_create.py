import keras
import numpy as np
import pytest

from keras_deit.weights.create import create_model

STUDENT = "deit_micro_distilled_patch4_32"


def create_student(**arguments):
    sizes = {"num_classes": 5, "depth": 1, "embed_dim": 24, "num_heads": 2}
    return create_model(STUDENT, **{**sizes, **arguments})


def some_images():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (2, 32, 32, 3)).astype("float32")


def save(model, path):
    if path.suffix == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
    return path


def test_without_weights_every_model_is_fresh():
    first, second = create_student(), create_student()
    assert np.any(first.get_weights()[0] != second.get_weights()[0])


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("as_type", [str, lambda path: path], ids=["str", "Path"])
def test_weights_come_back_from_a_file(suffix, as_type, tmp_path, capsys):
    model = create_student()
    path = save(model, tmp_path / f"student{suffix}")
    twin = create_student(weights=as_type(path))
    for head, logits in model(some_images()).items():
        np.testing.assert_array_equal(twin(some_images())[head], logits)
    assert capsys.readouterr().err == ""


def test_running_statistics_come_back_too(tmp_path):
    model = create_model("regnety_micro_32", num_classes=5)
    model(some_images(), training=True)
    path = save(model, tmp_path / "teacher.keras")
    twin = create_model("regnety_micro_32", num_classes=5, weights=path)
    np.testing.assert_array_equal(twin(some_images()), model(some_images()))


def test_weights_serve_a_model_of_another_precision(tmp_path):
    model = create_student()
    path = save(model, tmp_path / "student.keras")
    half = create_student(weights=path, dtype="mixed_bfloat16")
    for ours, theirs in zip(half.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_another_number_of_classes_leaves_the_heads_fresh_and_says_so(tmp_path, capsys):
    model = create_student()
    path = save(model, tmp_path / "student.keras")
    keras.utils.set_random_seed(0)
    fresh = create_student(num_classes=7)
    keras.utils.set_random_seed(0)
    twin = create_student(num_classes=7, weights=path)
    theirs = {w.path: w for w in model.weights}
    for ours, started in zip(twin.weights, fresh.weights, strict=True):
        expected = started if "_head/" in ours.path else theirs[ours.path]
        np.testing.assert_array_equal(ours, expected)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        f"{path}: {len(model.weights) - 4} weights loaded; left fresh: "
        "class_head/kernel, class_head/bias, "
        "distillation_head/kernel, distillation_head/bias\n"
    )


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
