import runpy
import sys
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deit.data.sources import load_source, naming_unreadable_images

SPLITS = ("train", "validation")


def labels_of(source):
    return [int(e["label"]) for e in source.in_order()]


def contents(source):
    """The pixels of each image."""
    return [e["image"].numpy().tobytes() for e in source.in_order()]


def ids(dataset):
    return [int(e["id"]) for e in dataset]


def files_of(source):
    return {path.rpartition("/")[2] for path in source.paths}


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


def test_an_id_is_the_number_of_the_example_in_any_order(digits):
    source = digits[1]
    assert ids(source.in_order()) == list(range(359))
    by_id = dict(zip(range(359), contents(source), strict=True))
    for example in source.shuffled(0, 3).take(20):
        assert example["image"].numpy().tobytes() == by_id[int(example["id"])]


def test_an_epoch_has_one_order_and_the_next_another(digits):
    source = digits[1]
    order = ids(source.shuffled(0, 1))
    assert sorted(order) == list(range(359))
    assert order == ids(source.shuffled(0, 1))
    assert order != ids(source.shuffled(0, 2))
    assert order != ids(source.shuffled(1, 1))


@pytest.mark.parametrize("second", ["validation", "val", "test"])
def test_a_folder_may_hold_both_splits(tmp_path, write_images, second):
    for split, count in (("train", 3), (second, 2)):
        for name in ("cat", "dog"):
            write_images(tmp_path / split / name, count)
    train, validation = (load_source(str(tmp_path), split) for split in SPLITS)
    assert train.class_names == validation.class_names == ("cat", "dog")
    assert labels_of(train) == [0, 0, 0, 1, 1, 1]
    assert labels_of(validation) == [0, 0, 1, 1]
    assert all("/train/" in path for path in train.paths)
    assert all(f"/{second}/" in path for path in validation.paths)


def test_the_name_validation_comes_before_val_and_test(tmp_path, write_images):
    for count, split in enumerate(("train", "validation", "val", "test"), start=1):
        for name in ("cat", "dog"):
            write_images(tmp_path / split / name, count)
    assert load_source(str(tmp_path), "validation").num_examples == 4


def test_labels_follow_the_names_of_the_class_folders(tmp_path, write_images):
    for index, name in enumerate(("zebra", "ant", "Mole", ".hidden")):
        write_images(tmp_path / name, 5)
        grey = Image.new("RGB", (4, 4), (index, index, index))
        grey.save(tmp_path / name / "0.png")
    source = load_source(str(tmp_path), "train")
    assert source.class_names == ("Mole", "ant", "zebra")
    for path, label in zip(source.paths, labels_of(source), strict=True):
        assert f"/{source.class_names[label]}/" in path
    for example in source.in_order():
        if example["image"].shape == (4, 4, 3):
            folder = ("zebra", "ant", "Mole")[int(example["image"][0, 0, 0])]
            assert source.class_names[int(example["label"])] == folder


def test_images_are_found_by_their_endings_in_folders_of_any_depth(
    tmp_path, write_images
):
    write_images(tmp_path / "cat", 1, ".PNG")
    write_images(tmp_path / "cat" / "more" / "and_more", 1, ".jpeg")
    write_images(tmp_path / "dog", 1, ".bmp")
    write_images(tmp_path / "dog", 1, ".gif")
    (tmp_path / "dog" / "notes.txt").write_text("a text")
    source = load_source(str(tmp_path), "train")
    assert files_of(source) == {"00.PNG", "00.jpeg", "00.bmp", "00.gif"}
    assert [len(e["image"].shape) for e in source.in_order()] == [3] * 4


def test_a_fifth_of_each_class_of_a_folder_is_held_out(tmp_path, write_images):
    counts = {"ant": 10, "bee": 23, "cat": 2}
    for name, count in counts.items():
        write_images(tmp_path / name, count)
    train, validation = (load_source(str(tmp_path), split) for split in SPLITS)
    assert Counter(labels_of(validation)) == {0: 2, 1: 5}  # of 2 cats none
    assert Counter(labels_of(train)) == {0: 8, 1: 18, 2: 2}
    assert not set(train.paths) & set(validation.paths)
    assert len(set(train.paths + validation.paths)) == 35
    for split, source in zip(SPLITS, (train, validation), strict=True):
        assert load_source(str(tmp_path), split).paths == source.paths


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


def test_a_dataset_with_one_split_has_its_last_tenth_held_out(tmp_path, monkeypatch):
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
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tf_flowers",
        version="3.0.1",
        data_dir=tmp_path,
        features=features,
        split_datasets={"train": list(enumerate(examples))},
    )
    train, validation = (load_source("tf_flowers", split) for split in SPLITS)
    assert (train.num_examples, validation.num_examples) == (18, 2)
    assert len(contents(train)) == 18
    assert len(set(contents(train) + contents(validation))) == 20
    assert ids(validation.in_order()) == [0, 1]


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


def test_a_folder_of_fewer_than_two_classes_is_refused(tmp_path, write_images):
    rule = r"must hold one folder for each of at least two classes\. Received: folder="
    with pytest.raises(ValueError, match=rule + r".*classes=\[\]"):
        load_source(str(tmp_path), "train")
    write_images(tmp_path / "cat", 3)
    with pytest.raises(ValueError, match=rule + r".*classes=\['cat'\]"):
        load_source(str(tmp_path), "train")


def test_a_class_without_images_is_refused(tmp_path, write_images):
    write_images(tmp_path / "cat", 3)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "dog.txt").write_text("a text")
    rule = r"Each class folder must hold images \(.jpg, .*\)\. Received: folder='.*/dog"
    with pytest.raises(ValueError, match=rule):
        load_source(str(tmp_path), "train")


def test_splits_of_other_classes_are_refused(tmp_path, write_images):
    for folder in ("train/cat", "train/dog", "val/cat", "val/cow"):
        write_images(tmp_path / folder, 2)
    rule = (
        r"must hold the same classes\. Received: only_in_train=\['dog'\], "
        r"only_in_validation=\['cow'\]"
    )
    for split in SPLITS:
        with pytest.raises(ValueError, match=rule):
            load_source(str(tmp_path), split)


def test_a_split_without_images_is_refused(tmp_path, write_images):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 1)  # nothing to hold out
    rule = r"too few images to hold out a fifth .*Received: folder='.*', images=2"
    with pytest.raises(ValueError, match=rule):
        load_source(str(tmp_path), "validation")


def test_unreadable_images_are_named(tmp_path, write_images):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 10)
    whole = (tmp_path / "cat" / "03.png").read_bytes()
    for index in range(4):
        (tmp_path / "cat" / f"0{index}.png").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "dog" / f"0{index}.png").write_text("hello")
    sources = [load_source(str(tmp_path), split) for split in SPLITS]
    message = r"^8 of 20 images cannot be decoded; remove or repair them: [^,]*"
    with (
        pytest.raises(ValueError, match=message + r"\.png(, [^,]*\.png){4}$") as raised,
        naming_unreadable_images(*sources),
    ):
        for source in sources:
            list(source.in_order())
    for path in str(raised.value).partition("them: ")[2].split(", "):
        assert path.rpartition("/")[2] in {"00.png", "01.png", "02.png", "03.png"}


def test_other_errors_of_tensorflow_pass(tmp_path, write_images):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 5)
    source = load_source(str(tmp_path), "train")
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="another fault"),
        naming_unreadable_images(source),
    ):
        tf.debugging.assert_equal(1, 2, "another fault")


def test_where_nothing_fails_nothing_is_raised(digits):
    with naming_unreadable_images(*digits):
        pass


def test_refuses_a_folder_of_training_images_alone(tmp_path, write_images):
    for name in ("cat", "dog"):
        write_images(tmp_path / "train" / name, 2)
    with pytest.raises(ValueError, match=r"`train` must also hold one of \['valid"):
        load_source(str(tmp_path), "train")


def test_a_class_may_be_called_train(tmp_path, write_images):
    for name in ("car", "train"):
        write_images(tmp_path / name, 5)
    assert load_source(str(tmp_path), "train").class_names == ("car", "train")


def test_a_version_that_does_not_exist_is_refused():
    with pytest.raises(FileNotFoundError, match="has no 'mnist:9.9.9': "):
        load_source("mnist:9.9.9", "train")
