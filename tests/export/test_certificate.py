import json
import math

import keras
import numpy as np
import pytest

from keras_deit.export.certificate import (
    NUM_CHECK_IMAGES,
    TOLERANCE,
    Comparison,
    certify,
    check_images,
    check_labels,
    compare,
)

EQUAL = Comparison(2, 0.0, 1.0, 1.0)


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="a_model")


def test_a_comparison_is_worked_out_by_hand():
    # Three images: the same, another best class by 1.5, and a lead of less than twice
    # the tolerance that is swapped. Two are decided, and one of these agrees.
    expected = [[2.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0001, 0.0, -1.0]]
    received = [[2.0, 1.0, 0.0], [1.0, 1.5, 0.0], [0.0, 0.0001, -1.0]]
    comparison = compare(expected, received)
    assert comparison.num_images == 3
    assert comparison.max_difference == pytest.approx(1.5)
    assert comparison.top1_agreement == pytest.approx(1 / 3)
    assert comparison.decided_agreement == pytest.approx(1 / 2)
    assert not comparison.passes


def test_equal_logits_pass():
    comparison = compare([[1.0, 2.0]], [[1.0, 2.0]])
    assert comparison == Comparison(1, 0.0, 1.0, 1.0)
    assert comparison.passes


def test_a_swap_of_two_classes_that_are_equal_but_for_rounding_passes():
    comparison = compare([[0.00002, 0.0]], [[0.0, 0.00002]])
    assert (comparison.top1_agreement, comparison.decided_agreement) == (0.0, 1.0)
    assert comparison.passes


@pytest.mark.parametrize(("difference", "passes"), [(0.9, True), (1.1, False)])
def test_the_largest_difference_may_be_the_tolerance(difference, passes):
    received = np.array([[1.0, 0.0], [0.0, 1.0 + difference * TOLERANCE]])
    comparison = compare(np.eye(2), received)
    assert comparison.top1_agreement == 1
    assert comparison.passes is passes


def test_a_difference_below_counts_as_one_above():
    assert compare(np.zeros((1, 2)), [[0.0, -1.0]]).max_difference == 1


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_does_not_pass(wrong):
    assert not compare([[1.0, 0.0]], [[1.0, wrong]]).passes


def test_a_model_that_gives_no_numbers_does_not_pass():
    assert not compare([[1.0, math.nan]], [[1.0, math.nan]]).passes


def test_another_best_class_does_not_pass_however_small_the_difference():
    assert not Comparison(9, TOLERANCE / 2, 0.9, 0.9).passes


def test_the_certificate_holds_the_comparisons_and_the_versions(tmp_path, model):
    path = tmp_path / "certificate.json"
    certify(path, model, {"pixels": EQUAL}, kind="SavedModel", bytes=3)
    certificate = json.loads(path.read_text())
    assert certificate["model"] == "a_model"
    assert certificate["tolerance"] == TOLERANCE == 1e-4
    assert certificate["comparisons"] == {
        "pixels": {
            "num_images": 2,
            "max_difference": 0.0,
            "top1_agreement": 1.0,
            "decided_agreement": 1.0,
        }
    }
    assert (certificate["kind"], certificate["bytes"]) == ("SavedModel", 3)
    assert certificate["versions"]["keras"] == keras.__version__
    assert set(certificate["versions"]) == {
        "keras_deit",
        "python",
        "keras",
        "tensorflow",
        "ai-edge-litert",
        "numpy",
    }


def test_the_digest_is_that_of_the_weights(tmp_path, model):
    def digest():
        certify(tmp_path / "certificate.json", model, {})
        return json.loads((tmp_path / "certificate.json").read_text())["weights_sha256"]

    first = digest()
    assert len(first) == 64
    assert digest() == first
    kernel = model.weights[0].numpy()
    model.weights[0].assign(kernel + np.float32(1e-3))
    assert digest() != first
    model.weights[0].assign(kernel)
    assert digest() == first


def test_an_artifact_that_differs_is_not_certified(tmp_path, model):
    path = tmp_path / "certificate.json"
    comparisons = {"serving_default": EQUAL, "pixels": Comparison(2, 0.5, 1.0, 1.0)}
    message = (
        r"The exported artifact differs from the model in 'pixels': .*"
        r"'max_difference': 0\.5.*; at most 0\.0001 is allowed; it is not kept\."
    )
    with pytest.raises(RuntimeError, match=message):
        certify(path, model, comparisons)
    assert not path.exists()


def test_images_to_check_on_are_digits_unless_given():
    images = check_images()
    assert len(images) == NUM_CHECK_IMAGES == 32
    assert {(image.shape, str(image.dtype)) for image in images} == {
        ((32, 32, 3), "uint8")
    }
    assert len({image.tobytes() for image in images}) == 32


def test_images_may_have_any_size():
    given = [np.ones((2, 3, 3), np.uint8), np.ones((5, 4, 3), np.uint8)]
    for ours, theirs in zip(check_images(given), given, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(check_images(np.ones((4, 2, 2, 3), np.uint8))) == 4


def test_no_image_is_refused():
    message = r"`images` must hold at least one image\. Received: images=\[\]\."
    with pytest.raises(ValueError, match=message):
        check_images([])


@pytest.mark.parametrize(
    ("image", "received"),
    [
        (np.ones((2, 2, 3), np.float32), r"dtype='float32', shape=\(2, 2, 3\)"),
        (np.ones((2, 2), np.uint8), r"dtype='uint8', shape=\(2, 2\)"),
        (np.ones((2, 2, 4), np.uint8), r"dtype='uint8', shape=\(2, 2, 4\)"),
        (np.ones((1, 2, 2, 3), np.uint8), r"dtype='uint8', shape=\(1, 2, 2, 3\)"),
    ],
)
def test_what_is_no_image_of_bytes_is_refused(image, received):
    rule = r"`images` must be uint8 RGB images, \(rows, columns, 3\)\. Received: "
    with pytest.raises(ValueError, match=rule + received):
        check_images([np.ones((2, 2, 3), np.uint8), image])


def test_labels_are_numbers_unless_given():
    assert check_labels(None, 3) == ["0", "1", "2"]
    assert check_labels(("cat", "dog"), 2) == ["cat", "dog"]


def test_labels_of_another_number_are_refused():
    message = (
        r"`labels` must have one name for each class\. Received: labels=1, classes=2\."
    )
    with pytest.raises(ValueError, match=message):
        check_labels(["cat"], 2)
