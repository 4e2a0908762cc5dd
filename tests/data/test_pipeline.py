import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.augmentation import Augmentation, training_view
from keras_deit.data.geometry import evaluation_view
from keras_deit.data.pipeline import evaluation_batches, load, training_batches
from keras_deit.data.source import indexed_source
from keras_deit.data.views import epoch_order, view_key

SIZE = (8, 6)
WHOLE = Augmentation((1.0, 1.0), (1.0, 1.0), flip=False)


@pytest.fixture(scope="module")
def images():
    """Seven noisy images, each of another size."""
    random = np.random.default_rng(0)
    shapes = [(9 + index, 14 - index, 3) for index in range(7)]
    return [random.integers(0, 256, shape, np.uint8) for shape in shapes]


def source_of(images):
    """A source of the images, with labels 0, 1, 2, 0, 1, 2, 0."""
    ragged = tf.ragged.stack([tf.ragged.constant(i, ragged_rank=1) for i in images])
    labels = np.arange(len(images)) % 3
    return indexed_source(
        "noise", ("ant", "bee", "cat"), labels, lambda i: ragged[i].to_tensor(), "noise"
    )


@pytest.fixture(scope="module")
def source(images):
    return source_of(images)


def taken(dataset, count):
    """The first batches, as arrays."""
    return [[x.numpy() for x in batch] for batch in dataset.take(count)]


def assert_equal_batches(some, others):
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        for x, y in zip(one, other, strict=True):
            np.testing.assert_array_equal(x, y)


def train(source, batch_size=3, seed=0, augmentation=None, **arguments):
    return training_batches(
        source, SIZE, batch_size, seed, augmentation or Augmentation(), **arguments
    )


def test_a_smoothed_label_is_worked_out_by_hand(source):
    # Three classes: 0.7 of the label, and 0.3 / 3 = 0.1 on each class.
    ((_, labels, _),) = taken(train(source, label_smoothing=0.3), 1)
    classes = epoch_order(0, 0, 7).numpy()[:3] % 3
    expected = np.full((3, 3), 0.1)
    expected[np.arange(3), classes] = 0.8
    np.testing.assert_allclose(labels, expected, rtol=1e-6)


def test_a_label_without_smoothing_is_one_hot(source):
    ((_, labels, _),) = taken(train(source, batch_size=7), 1)
    classes = epoch_order(0, 0, 7).numpy() % 3
    np.testing.assert_array_equal(labels, np.eye(3)[classes])


def test_a_view_follows_from_seed_epoch_and_id_alone(source, images):
    # Two batches of three are an epoch: the third batch begins epoch 1.
    batch = taken(train(source, seed=5), 3)[2]
    for view, example_id in zip(batch[0], epoch_order(5, 1, 7).numpy(), strict=False):
        key = view_key(5, 1, example_id)
        expected = training_view(images[example_id], key, SIZE, Augmentation())
        np.testing.assert_array_equal(view, expected)


def test_training_batches_are_bytes_labels_and_weights_of_one(source):
    dataset = train(source)
    specs = dataset.element_spec
    assert [tuple(s.shape) for s in specs] == [(3, *SIZE, 3), (3, 3), (3,)]
    assert [s.dtype for s in specs] == [tf.uint8, tf.float32, tf.float32]
    for _, labels, weights in taken(dataset, 3):
        np.testing.assert_allclose(labels.sum(axis=1), 1)
        np.testing.assert_array_equal(weights, 1)


def test_an_epoch_leaves_out_less_than_a_batch_of_images():
    # The images are told apart by their grey levels, 0 to 6.
    source = source_of([np.full((9, 9, 3), grey, np.uint8) for grey in range(7)])
    greys = [batch[0][:, 0, 0, 0] for batch in taken(train(source), 40)]
    epochs = [set(a) | set(b) for a, b in zip(greys[::2], greys[1::2], strict=True)]
    assert {len(epoch) for epoch in epochs} == {6}
    assert set().union(*epochs) == set(range(7))  # each time another one is left out


def test_epochs_differ_in_order_and_in_views(source):
    first, second = taken(train(source, batch_size=7), 2)
    assert np.any(np.argmax(first[1], 1) != np.argmax(second[1], 1))
    views = [{view.tobytes() for view in batch[0]} for batch in (first, second)]
    assert not views[0] & views[1]


def test_the_same_seed_gives_the_same_bytes_at_every_reading(source):
    dataset = train(source)
    batches = taken(dataset, 5)
    assert_equal_batches(taken(dataset, 5), batches)
    assert_equal_batches(taken(train(source), 5), batches)
    other = taken(train(source, seed=1), 5)
    assert np.any(other[0][0] != batches[0][0])


def test_a_later_first_epoch_gives_the_later_part(source):
    batches = taken(train(source), 8)
    assert_equal_batches(taken(train(source, first_epoch=2), 4), batches[4:])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_evaluation_sees_every_image_once_and_fills_up_with_weight_0(
    source, images, batch_size
):
    dataset = evaluation_batches(source, SIZE, batch_size, 0.9)
    batches = [[x.numpy() for x in batch] for batch in dataset]
    assert len(batches) == -(-7 // batch_size) == dataset.cardinality()
    assert {batch[0].shape for batch in batches} == {(batch_size, *SIZE, 3)}
    pixels, labels, weights = (np.concatenate(x) for x in zip(*batches, strict=True))
    np.testing.assert_array_equal(weights, np.arange(len(weights)) < 7)
    np.testing.assert_array_equal(labels[:7], np.eye(3)[np.arange(7) % 3])
    for view, image in zip(pixels[:7], images, strict=True):
        np.testing.assert_array_equal(view, evaluation_view(image, SIZE, 0.9))


def test_evaluation_batches_are_bytes_labels_and_weights(source):
    specs = evaluation_batches(source, SIZE, 4, 1.0).element_spec
    assert [tuple(s.shape) for s in specs] == [(4, *SIZE, 3), (4, 3), (4,)]
    assert [s.dtype for s in specs] == [tf.uint8, tf.float32, tf.float32]


def test_loads_both_splits_of_the_digits():
    batches = load("digits", (16, 16), batch_size=100, seed=3, label_smoothing=0.1)
    assert batches.class_names == tuple("0123456789")
    assert [s.num_examples for s in batches.sources] == [1438, 359]
    assert batches.steps_per_epoch == 14
    assert len(batches.validation) == 4
    pixels, labels, _ = next(iter(batches.train))
    assert tuple(pixels.shape) == (100, 16, 16, 3)
    assert labels.numpy().max() == pytest.approx(0.91)
    by_hand = training_batches(
        batches.sources[0], (16, 16), 100, 3, Augmentation(), label_smoothing=0.1
    )
    np.testing.assert_array_equal(pixels, next(iter(by_hand))[0])
    _, labels, _ = next(iter(batches.validation))
    assert labels.numpy().max() == 1  # nothing is smoothed here


def test_the_augmentation_and_the_crop_of_a_load_can_be_chosen():
    batches = load("digits", 32, 2, augmentation=WHOLE, crop_ratio=0.5)
    train, validation = batches.sources
    example_id = int(epoch_order(0, 0, train.num_examples)[0])
    image = next(iter(train.in_order().skip(example_id)))["image"]
    np.testing.assert_array_equal(next(iter(batches.train))[0][0], image)
    image = next(iter(validation.in_order()))["image"]
    view = evaluation_view(image, (32, 32), 0.5)
    np.testing.assert_array_equal(next(iter(batches.validation))[0][0], view)


@pytest.mark.parametrize("batch_size", [0, 8])
def test_a_batch_larger_than_the_set_is_refused(source, batch_size):
    rule = r"`batch_size` must be between 1 and the 7 images of 'noise'\. "
    with pytest.raises(ValueError, match=rule + f"Received: batch_size={batch_size}"):
        train(source, batch_size=batch_size)


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.1])
def test_a_smoothing_that_is_no_share_is_refused(source, label_smoothing):
    rule = r"`label_smoothing` must be in \[0, 1\]\. Received: label_smoothing="
    with pytest.raises(ValueError, match=rule):
        train(source, label_smoothing=label_smoothing)


@pytest.mark.parametrize("crop_ratio", [0, 1.1])
def test_a_crop_that_is_no_share_is_refused(source, crop_ratio):
    rule = r"`crop_ratio` must be in \(0, 1\]\. Received: crop_ratio="
    with pytest.raises(ValueError, match=rule):
        evaluation_batches(source, SIZE, 4, crop_ratio)


def test_an_evaluation_batch_of_no_image_is_refused(source):
    rule = r"`batch_size` must be at least 1\. Received: batch_size=0"
    with pytest.raises(ValueError, match=rule):
        evaluation_batches(source, SIZE, 0, 1.0)


def test_what_load_is_given_is_checked():
    with pytest.raises(ValueError, match=r"between 1 and the 1438 images of 'digits'"):
        load("digits", 32, batch_size=2000)
    with pytest.raises(ValueError, match=r"`crop_ratio` must be in \(0, 1\]"):
        load("digits", 32, 64, crop_ratio=2.0)
    with pytest.raises(ValueError, match=r"`image_size` must be .*image_size=0"):
        load("digits", 0, 64)
    with pytest.raises(FileNotFoundError, match="There is no folder 'no_such_place'"):
        load("no_such_place", 32, 64)


def test_one_number_is_the_side_of_a_square(source, monkeypatch):
    monkeypatch.setattr("keras_deit.data.pipeline.load_source", lambda *_: source)
    batches = load("noise", 8, batch_size=2)
    for dataset in (batches.train, batches.validation):
        assert tuple(dataset.element_spec[0].shape) == (2, 8, 8, 3)


@pytest.mark.parametrize("download", [False, True])
def test_load_asks_for_both_splits_and_says_whether_to_download(
    source, monkeypatch, download
):
    asked = []

    def load_source(*arguments):
        asked.append(arguments)
        return source

    monkeypatch.setattr("keras_deit.data.pipeline.load_source", load_source)
    batches = load("pets", SIZE, batch_size=2, download=download)
    assert asked == [
        ("pets", "train", download, "refuse"),
        ("pets", "validation", download, "refuse"),
    ]
    assert batches.sources == (source, source)
    assert batches.steps_per_epoch == 3
