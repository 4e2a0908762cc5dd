import keras
import numpy as np
import pytest
from keras import ops

from keras_deit import Teacher, create_model, inference_model


def classifier(size=8, classes=5, activation=None):
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, activation=activation),
        ]
    )


def pixels(size=8, count=3):
    return np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype("f4")


def test_gives_the_logits_of_the_model():
    model = classifier()
    np.testing.assert_array_equal(Teacher(model)(pixels()), model(pixels()))


def test_takes_uint8_pixels():
    model = classifier()
    whole = pixels().astype("uint8")
    np.testing.assert_array_equal(Teacher(model)(whole), model(whole.astype("f4")))


def test_resizes_to_the_input_of_the_model():
    # A flat picture stays flat whatever its size.
    model = classifier(size=8)
    flat = np.full((1, 20, 20, 3), 7.0, "f4")
    np.testing.assert_allclose(
        Teacher(model)(flat), model(flat[:, :8, :8]), rtol=1e-4, atol=1e-4
    )


def test_preprocesses_the_resized_pixels():
    model = classifier()
    teacher = Teacher(model, preprocess=lambda x: x / 127.5 - 1)
    np.testing.assert_allclose(
        teacher(pixels()), model(pixels() / 127.5 - 1), rtol=1e-5, atol=1e-5
    )


def test_probabilities_become_logits():
    model = classifier(activation="softmax")
    logits = Teacher(model, from_logits=False)(pixels() / 255)
    np.testing.assert_allclose(
        ops.softmax(logits), model(pixels() / 255), rtol=1e-5, atol=1e-6
    )


def test_classes_are_chosen_and_ordered():
    model = classifier(classes=5)
    teacher = Teacher(model, classes=[4, 0])
    assert teacher.num_classes == 2
    np.testing.assert_array_equal(
        teacher(pixels()), np.array(model(pixels()))[:, [4, 0]]
    )


@pytest.mark.parametrize("classes", [[], [0, 5], [-1]])
def test_refuses_classes_that_it_lacks(classes):
    with pytest.raises(ValueError, match="must be indices of the teacher's 5 classes"):
        Teacher(classifier(classes=5), classes=classes)


def test_a_distilled_model_teaches_with_both_heads():
    model = create_model("deit_micro_distilled_patch4_32", num_classes=5)
    np.testing.assert_allclose(
        Teacher(model)(pixels(32)), inference_model(model)(pixels(32)), atol=1e-6
    )


def test_batch_normalization_is_in_inference_mode():
    model = create_model("regnety_micro_32", num_classes=5)
    before = model.get_weights()
    Teacher(model)(pixels(32))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_half_precision_gives_float32():
    model = create_model("regnety_micro_32", num_classes=5, dtype="mixed_bfloat16")
    assert Teacher(model)(pixels(32)).dtype == "float32"


def test_reads_a_keras_file(tmp_path):
    model = classifier()
    model.save(tmp_path / "teacher.keras")
    np.testing.assert_allclose(
        Teacher(tmp_path / "teacher.keras")(pixels()), model(pixels()), rtol=1e-6
    )


def test_refuses_what_is_no_classifier():
    with pytest.raises(ValueError, match="`model` must be a Keras model, the path of"):
        Teacher(42)
    image = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match=r"one output of shape \(B, Y\)"):
        Teacher(keras.Model(image, keras.layers.ReLU()(image)))


def test_refuses_a_model_that_does_not_know_its_input():
    with pytest.raises(ValueError, match="must know its input.*'unbuilt'"):
        Teacher(keras.Sequential([keras.layers.Dense(3)], name="unbuilt"))


@pytest.mark.parametrize("layer", [None, keras.layers.Softmax()])
def test_refuses_a_softmax_taken_for_logits(layer):
    model = classifier(activation=None if layer else "softmax")
    if layer:
        model.add(layer)
    with pytest.raises(ValueError, match="ends in a softmax: pass `from_logits=False`"):
        Teacher(model)


@pytest.mark.parametrize(
    ("model", "option", "message"),
    [
        (classifier, {"signature": "a"}, "`signature` has no meaning.*SavedModel"),
        (classifier, {"weights": "a.pth"}, "`weights` has no meaning.*but for variant"),
        (classifier, {"shares": [1]}, "`shares` has no meaning.*but for ensemble"),
        (lambda: [classifier()], {"image_size": 8}, "`image_size` has no meaning"),
        (lambda: [classifier()], {"from_logits": False}, "`from_logits` has no mean"),
    ],
)
def test_refuses_an_option_of_another_kind(model, option, message):
    with pytest.raises(ValueError, match=message):
        Teacher(model(), **option)


def test_refuses_a_folder_of_something_else(tmp_path):
    with pytest.raises(ValueError, match="must be a SavedModel or a teacher cache"):
        Teacher(tmp_path)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.keras"):
        Teacher(tmp_path / "none.keras")


def test_refuses_a_teacher_that_takes_no_rgb_images():
    grey = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    with pytest.raises(ValueError, match=r"RGB images.*input_shape=\(None, 8, 8, 1\)"):
        Teacher(grey)
