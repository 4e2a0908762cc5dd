import runpy
import sys
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.sources import load_source

SPLITS = ("train", "validation")


def labels_of(source):
    return [int(e["label"]) for e in source.in_order().as_numpy_iterator()]


def contents(source):
    """The pixels of each image."""
    return [e["image"].tobytes() for e in source.in_order().as_numpy_iterator()]


def ids(dataset):
    return [int(e["id"]) for e in dataset]


@pytest.fixture(scope="module")
def digits():
    return [load_source("digits", split) for split in SPLITS]


@pytest.fixture
def no_datasets(tmp_path, monkeypatch):
    """A TensorFlow Datasets folder in which nothing is."""
    folder = tmp_path / "tensorflow_datasets"
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(folder))
    return folder


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory, shared_data):
    """Real CIFAR-10, prepared as TensorFlow Datasets does: 24 and 8 images."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(shared_data)
        monkeypatch.setattr(sys, "argv", ["make_tfds.py", str(folder), "24", "8"])
        runpy.run_path(str(shared_data / "make_tfds.py"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(folder))
        yield [load_source("cifar10", split) for split in SPLITS]


def test_the_digits_are_1797_of_ten_classes(digits):
    assert [source.num_examples for source in digits] == [1438, 359]
    for source in digits:
        assert source.class_names == tuple("0123456789")
        assert len(labels_of(source)) == source.num_examples


def test_the_digits_of_both_splits_are_other_images(digits):
    train, validation = (contents(source) for source in digits)
    assert not set(train) & set(validation)
    assert len(set(train + validation)) == 1797


def test_all_digits_are_those_of_both_splits(digits):
    everything = load_source("digits", "all")
    assert everything.num_examples == 1797
    assert everything.class_names == digits[0].class_names
    pairs = [
        Counter(zip(contents(s), labels_of(s), strict=True))
        for s in (everything, *digits)
    ]
    assert pairs[0] == pairs[1] + pairs[2]


def test_a_fifth_of_each_digit_is_held_out(digits):
    train, validation = (Counter(labels_of(source)) for source in digits)
    for label in range(10):
        total = train[label] + validation[label]
        assert validation[label] == round(total / 5)


def test_a_digit_is_32_pixels_wide_from_black_to_white_and_grey(digits):
    example = next(iter(digits[0].in_order()))
    image = example["image"].numpy()
    assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
    assert (image == image[..., :1]).all()
    assert (image.min(), image.max()) == (0, 255)
    assert (example["label"].dtype, example["id"].dtype) == (tf.int64, tf.int64)


def test_the_label_says_which_digit_it_is(digits):
    # The nearest mean image names most digits: the labels belong to the images.
    images, labels = [], []
    for source in digits:
        images.append(np.stack([e["image"][..., 0] for e in source.in_order()]))
        labels.append(np.array(labels_of(source)))
    means = np.stack([images[0][labels[0] == i].mean(axis=0) for i in range(10)])
    distances = ((images[1][:, None] - means) ** 2).sum(axis=(2, 3))
    assert np.mean(distances.argmin(axis=1) == labels[1]) > 0.8


def test_the_digits_are_the_same_at_every_call(digits):
    for split, source in zip(SPLITS, digits, strict=True):
        again = load_source("digits", split)
        assert contents(again) == contents(source)
        assert labels_of(again) == labels_of(source)


def test_a_folder_is_looked_for_before_a_name(tmp_path, write_images, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        write_images(tmp_path / "mnist" / name, 5)
    sizes = {s: load_source("mnist", s).num_examples for s in (*SPLITS, "all")}
    assert sizes == {"train": 8, "validation": 2, "all": 10}


def test_a_folder_may_lie_in_the_home_of_the_user(tmp_path, write_images, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("cat", "dog"):
        write_images(tmp_path / "pets" / name, 5)
    assert load_source("~/pets", "train").num_examples == 8


def test_a_prepared_dataset_of_tensorflow_datasets_gives_its_splits(cifar10):
    assert [source.num_examples for source in cifar10] == [24, 8]
    for source in cifar10:
        assert source.class_names[:3] == ("airplane", "automobile", "bird")
        assert ids(source.in_order()) == list(range(source.num_examples))
        assert {e["image"].shape for e in source.in_order()} == {(32, 32, 3)}
        assert len(set(labels_of(source))) > 1


def test_a_dataset_of_tensorflow_datasets_has_an_order_for_each_run(cifar10):
    source = cifar10[0]
    order = ids(source.shuffled(0, 1))
    assert sorted(order) == list(range(24))
    assert order == ids(source.shuffled(0, 1))
    assert order != list(range(24))
    assert order != ids(source.shuffled(1, 1))
    dataset = source.shuffled(0, 1)  # also when it is read twice
    assert order == ids(dataset) == ids(dataset)
    by_id = dict(zip(range(24), contents(source), strict=True))
    for example in source.shuffled(0, 1):
        assert example["image"].numpy().tobytes() == by_id[int(example["id"])]


def test_a_dataset_of_tensorflow_datasets_has_an_order_for_each_epoch(cifar10):
    source = cifar10[0]
    assert ids(source.shuffled(0, 1)) != ids(source.shuffled(0, 2))


def test_an_order_does_not_depend_on_where_it_is_drawn_or_on_the_global_seed(cifar10):
    source = cifar10[0]
    order = ids(source.shuffled(0, 1))
    epochs = tf.data.Dataset.range(1, 2)
    assert ids(epochs.flat_map(lambda epoch: source.shuffled(0, epoch))) == order
    tf.random.set_seed(17)
    assert ids(source.shuffled(0, 1)) == order


def test_a_stream_is_shuffled_window_by_window(cifar10, monkeypatch):
    monkeypatch.setattr("keras_deit.data.sources.SHUFFLE_WINDOW", 10)
    monkeypatch.setattr("keras_deit.data.sources.epoch_start", lambda *_: 4)
    order = ids(cifar10[0].shuffled(0, 1))
    stream = [*range(4, 24), *range(4)]
    assert [sorted(order[i : i + 10]) for i in (0, 10, 20)] == [
        sorted(stream[i : i + 10]) for i in (0, 10, 20)
    ]
    assert order[:10] != stream[:10]


def test_no_image_of_a_stream_is_left_out_in_every_epoch(cifar10, monkeypatch):
    monkeypatch.setattr("keras_deit.data.sources.SHUFFLE_WINDOW", 10)
    seen = set()
    for epoch in range(8):  # each leaves out 8 of 24
        seen |= set(ids(cifar10[0].shuffled(0, epoch))[:16])
    assert seen == set(range(24))


@pytest.fixture
def store_flowers(tmp_path, monkeypatch):
    """Prepares 20 grey images as `tf_flowers`, `store_flowers("train", ...)`."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(4, 4, 3)),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
        }
    )
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))
    images = [np.full((4, 4, 3), i, np.uint8) for i in range(20)]
    examples = [{"image": image, "label": 0} for image in images]

    def store(*splits):
        tfds.dataset_builders.store_as_tfds_dataset(
            name="tf_flowers",
            version="3.0.1",
            data_dir=tmp_path,
            features=features,
            split_datasets={split: list(enumerate(examples)) for split in splits},
        )

    return store


def test_a_dataset_with_one_split_has_its_last_tenth_held_out(store_flowers):
    store_flowers("train")
    train, validation = (load_source("tf_flowers", split) for split in SPLITS)
    assert (train.num_examples, validation.num_examples) == (18, 2)
    assert len(contents(train)) == 18
    assert len(set(contents(train) + contents(validation))) == 20
    assert ids(validation.in_order()) == [0, 1]
    everything = load_source("tf_flowers", "all")
    assert everything.num_examples == 20
    assert contents(everything) == contents(train) + contents(validation)


def test_all_images_are_those_for_training_where_others_are_no_second_split(
    store_flowers,
):
    store_flowers("train", "unlabeled")
    assert load_source("tf_flowers", "all").num_examples == 20


def test_all_images_of_a_dataset_with_splits_are_refused(store_flowers):
    store_flowers("train", "test")
    rule = r"`split` 'all' is for a dataset without 'test'\. Received: dataset='tf_fl"
    with pytest.raises(ValueError, match=rule):
        load_source("tf_flowers", "all")


def test_a_dataset_with_test_images_alone_is_for_evaluation(store_flowers):
    store_flowers("test")
    assert load_source("tf_flowers", "validation").num_examples == 20
    rule = r"no images for 'train'\. Received: dataset='tf_flowers', splits=\['test'\]"
    with pytest.raises(ValueError, match=rule):
        load_source("tf_flowers", "train")


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"`split` must be one of .*Did you mean 'tr"):
        load_source("digits", "trian")


def test_a_name_that_nobody_knows_is_refused():
    message = (
        r"There is no folder 'no_such_place', and TensorFlow Datasets knows no dataset "
        r"of that name\. Give 'digits', an existing folder, or a name listed at https:"
    )
    with pytest.raises(FileNotFoundError, match=message):
        load_source("no_such_place", "train")


def test_a_dataset_that_is_not_prepared_is_refused_without_a_download(
    no_datasets, monkeypatch
):
    monkeypatch.setattr(
        "tensorflow_datasets.core.DatasetBuilder.download_and_prepare",
        lambda _: pytest.fail("a download was tried"),
    )
    message = (
        rf"There is no folder 'mnist', and the dataset 'mnist' of TensorFlow Datasets "
        rf"is not prepared in {no_datasets}/mnist/3\.0\.1\. Allow its download "
        r"\(--download, or download=True\), or set TFDS_DATA_DIR to where it is\."
    )
    with pytest.raises(FileNotFoundError, match=message):
        load_source("mnist", "train")
    assert not no_datasets.exists()


def test_a_download_that_fails_says_what_was_tried(no_datasets, monkeypatch):
    def fail(self):
        raise OSError("no way to the network")

    builder = "tensorflow_datasets.core.DatasetBuilder.download_and_prepare"
    monkeypatch.setattr(builder, fail)
    message = rf"could not prepare 'mnist' in {no_datasets}/.*: no way to the network"
    with pytest.raises(FileNotFoundError, match=message):
        load_source("mnist", "train", download=True)


def test_a_version_that_does_not_exist_is_refused():
    with pytest.raises(FileNotFoundError, match="has no 'mnist:9.9.9': "):
        load_source("mnist:9.9.9", "train")
