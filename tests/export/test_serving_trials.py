import numpy as np
import pytest
import tensorflow as tf

from keras_deit.export.serving_trials import Samples, check_outputs, try_out
from keras_deit.export.signatures import ServedModel
from keras_deit.export.trials import CheckSet

LABELS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def samples(images, small_model):
    return Samples(CheckSet(images), small_model)


@pytest.fixture(scope="module")
def served(tmp_path_factory, small_model):
    """`served(max_pixels)`: an artifact of the small model, and its signatures."""

    def write(max_pixels=2**20):
        place = tmp_path_factory.mktemp("served")
        (place / "labels.txt").write_text("".join(f"{x}\n" for x in LABELS))
        model = ServedModel(small_model, place / "labels.txt", 2, 2**20, max_pixels)
        answers = {"serving_default": lambda x: small_model(x, training=False)}
        return place / "saved", model.write(place / "saved", answers)

    return write


def test_files_and_pixels_are_of_the_same_images(samples, images):
    files = samples.of("keep_70")["image_bytes"]
    views = samples.of("pixels")["pixels"]
    floats = samples.of("float", 2)["pixels"]
    assert len(files) == len(views) == len(images)
    assert (views.dtype, floats.dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(floats, views[:2])
    assert [tf.io.is_jpeg(file).numpy() for file in files] == [True, False, True]


def test_an_artifact_is_tried_signature_after_signature(served, samples, small_model):
    artifact, names = served()
    models = {"serving_default": small_model}
    trials = try_out(artifact, models, samples, names, timed=False, progress=False)
    assert list(trials) == names == ["serving_default", "pixels", "float"]
    assert all(t.comparison.max_difference < 1e-4 for t in trials.values())
    check_outputs(artifact, samples, names, LABELS, None)


def test_labels_of_another_order_are_found(served, samples):
    artifact, names = served()
    message = "The artifact has another 'top_k_labels' in 'serving_default'"
    with pytest.raises(RuntimeError, match=message):
        check_outputs(artifact, samples, names, LABELS[::-1], None)


def test_an_image_that_the_artifact_refuses_is_said(served, samples):
    artifact, names = served(max_pixels=100)
    message = r"refuses an image .* 'serving_default' says \['too_many_pixels'\]"
    with pytest.raises(RuntimeError, match=message):
        check_outputs(artifact, samples, names, LABELS, None)
