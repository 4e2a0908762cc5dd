import json
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.sources import load_source
from tests.data.order_contract import hold_source_to_its_order

SPLITS = ("train", "validation")


def labels_of(source):
    return [int(e["label"]) for e in source.in_order().as_numpy_iterator()]


def contents(source):
    """The pixels of each image."""
    return [e["image"].tobytes() for e in source.in_order().as_numpy_iterator()]


@pytest.fixture(scope="module")
def digits():
    return [load_source("digits", split) for split in SPLITS]


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


def test_the_digits_have_an_order_for_each_epoch(digits):
    hold_source_to_its_order(digits[1], window=10)


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


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"`split` must be one of .*Did you mean 'tr"):
        load_source("digits", "trian")


def test_what_to_do_with_unreadable_images_is_a_choice():
    rule = r"`unreadable` must be one of \['refuse', 'skip'\].*Did you mean 'skip'"
    with pytest.raises(ValueError, match=rule):
        load_source("digits", "train", unreadable="skipp")


def test_a_file_is_refused(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK")
    rule = r"must be a folder, not a file\. Received: dataset='.*images\.zip'"
    with pytest.raises(ValueError, match=rule):
        load_source(str(tmp_path / "images.zip"), "train")


def test_a_name_that_nobody_knows_is_refused():
    with pytest.raises(FileNotFoundError, match="There is no folder 'no_such_place'"):
        load_source("no_such_place", "train")


def test_images_of_a_folder_can_be_skipped(tmp_path, write_images, capsys):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 5)
    (tmp_path / "cat" / "00.png").write_text("no image")
    counts = {
        unreadable: load_source(str(tmp_path), "all", False, unreadable).num_examples
        for unreadable in ("refuse", "skip")
    }
    assert counts == {"refuse": 10, "skip": 9}
    assert capsys.readouterr().err.startswith("Left out 1 images that cannot be dec")


def test_the_official_files_of_inaturalist_are_recognized(tmp_path, write_images):
    for name in ("a", "b"):
        write_images(tmp_path / "train_val2019" / name, 3)
    for split, numbers in (("train", (0, 1)), ("val", (2,))):
        files = [f"train_val2019/{name}/0{n}.png" for name in "ab" for n in numbers]
        content = {
            "images": [{"id": i, "file_name": f} for i, f in enumerate(files)],
            "annotations": [
                {"image_id": i, "category_id": int("/b/" in f)}
                for i, f in enumerate(files)
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate("xy")],
        }
        (tmp_path / f"{split}2019.json").write_text(json.dumps(content))
    sources = [load_source(str(tmp_path), split) for split in SPLITS]
    assert [source.num_examples for source in sources] == [4, 2]
    assert sources[0].class_names == ("x", "y")


def test_a_name_of_tensorflow_datasets_is_looked_up_last(tmp_path, monkeypatch):
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"not prepared in {tmp_path}/mnist"):
        load_source("mnist", "train")
