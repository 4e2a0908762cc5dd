import math

import keras
import numpy as np
import pytest

from keras_deit.export.trials import (
    LEAST_CALLS,
    MOST_CALLS,
    NUM_CHECK_IMAGES,
    CheckSet,
    check_set,
    compare,
    measure_speed,
    model_logits,
    try_signature,
)


def test_a_comparison_is_worked_out_by_hand():
    # Two images of two classes. The logits about their means: (1, -1) and (2, -2): the
    # root of the mean square is sqrt(2.5). Differences 0, 0, 0, 3: sqrt(9 / 4) = 1.5.
    # The second image leads by 4 and is best in the other class afterwards.
    expected, received = [[3.0, 1.0], [4.0, 0.0]], [[3.0, 1.0], [4.0, 5.0]]
    received[1][1] = 3.0
    comparison = compare(expected, received)
    assert comparison.num_images == 2
    assert comparison.max_difference == 3
    assert comparison.relative_difference == pytest.approx(1.5 / math.sqrt(2.5))
    assert (comparison.top1_agreement, comparison.flip_margin) == (1, 0)
    comparison = compare(expected, [[3.0, 1.0], [4.0, 4.5]])
    assert (comparison.top1_agreement, comparison.flip_margin) == (0.5, 4)


def test_a_difference_below_counts_as_one_above():
    assert compare(np.zeros((1, 2)), [[0.0, -1.0]]).max_difference == 1


def test_where_logits_are_all_alike_differences_are_absolute():
    assert compare([[1.0, 1.0]], [[1.0, 1.0]]).relative_difference == 0
    assert compare([[1.0, 1.0]], [[3.0, 3.0]]).relative_difference == 2


def test_probabilities_are_no_logits():
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(pixels)
    outputs = keras.layers.Dense(3, activation="softmax")(x)
    model = keras.Model(pixels, outputs, name="sure")
    message = r"The model must return logits: .* Received: model='sure'"
    with pytest.raises(ValueError, match=message):
        model_logits(model, np.zeros((2, 4, 4, 3), np.uint8))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_makes_no_difference_that_is_finite(wrong):
    assert not math.isfinite(compare([[1.0, 0.0]], [[1.0, wrong]]).max_difference)


def test_the_largest_margin_of_the_flipped_images_counts():
    expected = [[1.0, 0.0], [3.0, 0.0], [9.0, 0.0]]
    received = [[0.0, 1.0], [0.0, 1.0], [9.0, 0.0]]
    assert compare(expected, received).flip_margin == 3


def test_speed_is_that_of_one_and_of_a_batch():
    sizes = []

    def run(inputs):
        sizes.append(len(inputs))

    speed = measure_speed(run, np.zeros((2, 5)), batch_size=4)
    assert sizes == [1] * (1 + MOST_CALLS) + [4] * (1 + MOST_CALLS)
    assert 0 < speed.latency_p50 <= speed.latency_p95 < 100
    assert speed.throughput > 4
    assert speed.throughput_batch == 4


def test_a_slow_function_is_called_a_few_times_only(monkeypatch):
    monkeypatch.setattr("keras_deit.export.trials.MOST_SECONDS", 0.0)
    calls = []
    measure_speed(calls.append, np.zeros((1, 2)), batch_size=1)
    assert len(calls) == 1 + LEAST_CALLS  # one batch size, measured once


def test_a_signature_is_run_in_batches_and_compared(small_model, images):
    checked = CheckSet(images, np.array([0, 1, 2]))
    expected = small_model(checked.views(small_model), training=False).numpy()
    largest = 0

    def run(pixels):
        nonlocal largest
        assert pixels.dtype == np.uint8
        largest = max(largest, len(pixels))
        return small_model(pixels, training=False).numpy() + [[0.0, 0.0, 0.25]]

    trial = try_signature(small_model, run, checked, batch_size=2, keep_rate=0.5)
    assert largest == 2
    assert trial.comparison.max_difference == pytest.approx(0.25, abs=1e-4)
    assert trial.model_accuracy == np.mean(expected.argmax(-1) == [0, 1, 2])
    shifted = (expected + [[0.0, 0.0, 0.25]]).argmax(-1)
    assert trial.accuracy == np.mean(shifted == [0, 1, 2])
    assert (trial.keep_rate, trial.speed.throughput_batch) == (0.5, 2)


def test_without_labels_there_is_no_accuracy_and_inputs_may_be_anything(
    small_model, images
):
    logits = small_model(CheckSet(images).views(small_model), training=False).numpy()
    inputs = np.array([b"0", b"1", b"2"], object)

    def run(files):
        return logits[[int(file) for file in files]]

    trial = try_signature(
        small_model, run, CheckSet(images), inputs=inputs, timed=False
    )
    assert trial.speed is None
    assert trial.comparison.max_difference < 1e-5
    assert (trial.accuracy, trial.model_accuracy, trial.keep_rate) == (None, None, None)


def test_images_to_check_on_are_digits_unless_given():
    checked = check_set(10)
    assert len(checked.images) == NUM_CHECK_IMAGES == 32
    assert checked.labels is None
    assert {(image.shape, str(image.dtype)) for image in checked.images} == {
        ((32, 32, 3), "uint8")
    }
    assert len({image.tobytes() for image in checked.images}) == 32


def test_images_may_have_any_size_and_labels():
    given = [np.ones((2, 3, 3), np.uint8), np.ones((5, 4, 3), np.uint8)]
    checked = check_set(5, given, [4, 2])
    for ours, theirs in zip(checked.images, given, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert checked.labels.tolist() == [4, 2]
    assert len(check_set(5, np.ones((4, 2, 2, 3), np.uint8)).images) == 4


def test_no_image_is_refused():
    message = r"`images` must hold at least one image\. Received: images=\[\]\."
    with pytest.raises(ValueError, match=message):
        check_set(5, [])


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
        check_set(5, [np.ones((2, 2, 3), np.uint8), image])


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        ([1], r"shape=\(1,\), dtype='int64', images=2"),
        ([0.5, 1.0], r"shape=\(2,\), dtype='float64', images=2"),
    ],
)
def test_labels_that_do_not_fit_the_images_are_refused(labels, received):
    rule = r"`image_labels` must be one whole number for each image\. Received: "
    with pytest.raises(ValueError, match=rule + received):
        check_set(5, [np.ones((2, 2, 3), np.uint8)] * 2, labels)


@pytest.mark.parametrize("labels", [[-1, 0], [0, 5]])
def test_classes_that_the_model_has_not_are_refused(labels):
    message = r"`image_labels` must be classes of the model, from 0 on\. Received: sm"
    with pytest.raises(ValueError, match=message):
        check_set(5, [np.ones((2, 2, 3), np.uint8)] * 2, labels)


def test_labels_without_images_are_refused():
    with pytest.raises(ValueError, match=r"`image_labels` needs `images`\. Received"):
        check_set(5, None, [1])
