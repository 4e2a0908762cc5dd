from collections import Counter

import pytest
import tensorflow as tf
from PIL import Image

from keras_deit.data.image_folder import image_folder, naming_unreadable_images

SPLITS = ("train", "validation")


def labels_of(source):
    return [int(e["label"]) for e in source.in_order()]


def files_of(source):
    return {path.rpartition("/")[2] for path in source.paths}


@pytest.mark.parametrize("second", ["validation", "val", "test"])
def test_a_folder_may_hold_both_splits(tmp_path, write_images, second):
    for split, count in (("train", 3), (second, 2)):
        for name in ("cat", "dog"):
            write_images(tmp_path / split / name, count)
    train, validation = (image_folder(tmp_path, split) for split in SPLITS)
    assert train.class_names == validation.class_names == ("cat", "dog")
    assert labels_of(train) == [0, 0, 0, 1, 1, 1]
    assert labels_of(validation) == [0, 0, 1, 1]
    assert all("/train/" in path for path in train.paths)
    assert all(f"/{second}/" in path for path in validation.paths)


def test_the_name_validation_comes_before_val_and_test(tmp_path, write_images):
    for count, split in enumerate(("train", "validation", "val", "test"), start=1):
        for name in ("cat", "dog"):
            write_images(tmp_path / split / name, count)
    assert image_folder(tmp_path, "validation").num_examples == 4


@pytest.mark.parametrize("second", ["validation", "val", "test"])
def test_a_folder_with_the_second_split_alone_is_for_evaluation(
    tmp_path, write_images, second
):
    for name in ("cat", "dog"):
        write_images(tmp_path / second / name, 2)
    (tmp_path / ".git").mkdir()
    source = image_folder(tmp_path, "validation")
    assert source.class_names == ("cat", "dog")
    assert labels_of(source) == [0, 0, 1, 1]  # all of them: nothing is held out
    assert source.name == f"{tmp_path}/{second}"
    rule = rf"A folder with `{second}` and no `train` .* must be 'validation'\. Rece.*"
    for split in ("train", "all"):
        with pytest.raises(ValueError, match=f"{rule}split='{split}'"):
            image_folder(tmp_path, split)


def test_of_two_folders_for_evaluation_the_first_by_name_counts(tmp_path, write_images):
    for count, split in enumerate(("test", "val"), start=1):
        for name in ("cat", "dog"):
            write_images(tmp_path / split / name, count)
    source = image_folder(tmp_path, "validation")
    assert (source.name, source.num_examples) == (f"{tmp_path}/val", 4)


def test_all_images_of_a_folder_without_splits_can_be_taken(tmp_path, write_images):
    for name, count in (("cat", 3), ("dog", 2)):
        write_images(tmp_path / name, count)
    source = image_folder(tmp_path, "all")
    assert labels_of(source) == [0, 0, 0, 1, 1]
    parts = [image_folder(tmp_path, split).paths for split in SPLITS]
    assert sorted(source.paths) == sorted(parts[0] + parts[1])


def test_all_images_of_a_folder_with_splits_are_refused(tmp_path, write_images):
    for folder in ("train/cat", "train/dog", "val/cat", "val/dog"):
        write_images(tmp_path / folder, 1)
    rule = r"`split` 'all' is for a folder without `train`\. Received: folder="
    with pytest.raises(ValueError, match=rule):
        image_folder(tmp_path, "all")


def test_labels_follow_the_names_of_the_class_folders(tmp_path, write_images):
    for index, name in enumerate(("zebra", "ant", "Mole", ".hidden")):
        write_images(tmp_path / name, 5)
        grey = Image.new("RGB", (4, 4), (index, index, index))
        grey.save(tmp_path / name / "0.png")
    source = image_folder(tmp_path, "train")
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
    source = image_folder(tmp_path, "train")
    assert files_of(source) == {"00.PNG", "00.jpeg", "00.bmp", "00.gif"}
    assert [len(e["image"].shape) for e in source.in_order()] == [3] * 4


def test_a_fifth_of_each_class_of_a_folder_is_held_out(tmp_path, write_images):
    counts = {"ant": 10, "bee": 23, "cat": 2}
    for name, count in counts.items():
        write_images(tmp_path / name, count)
    train, validation = (image_folder(tmp_path, split) for split in SPLITS)
    assert Counter(labels_of(validation)) == {0: 2, 1: 5}  # of 2 cats none
    assert Counter(labels_of(train)) == {0: 8, 1: 18, 2: 2}
    assert not set(train.paths) & set(validation.paths)
    assert len(set(train.paths + validation.paths)) == 35
    for split, source in zip(SPLITS, (train, validation), strict=True):
        assert image_folder(tmp_path, split).paths == source.paths


def test_a_class_may_be_called_train(tmp_path, write_images):
    for name in ("car", "train"):
        write_images(tmp_path / name, 5)
    assert image_folder(tmp_path, "train").class_names == ("car", "train")


def test_a_class_may_be_called_test_beside_others(tmp_path, write_images):
    for name in ("car", "test"):
        write_images(tmp_path / name, 5)
    assert image_folder(tmp_path, "all").class_names == ("car", "test")


def test_a_folder_of_fewer_than_two_classes_is_refused(tmp_path, write_images):
    rule = r"must hold one folder for each of at least two classes\. Received: folder="
    with pytest.raises(ValueError, match=rule + r".*classes=\[\]"):
        image_folder(tmp_path, "train")
    write_images(tmp_path / "cat", 3)
    with pytest.raises(ValueError, match=rule + r".*classes=\['cat'\]"):
        image_folder(tmp_path, "train")


def test_a_class_without_images_is_refused(tmp_path, write_images):
    write_images(tmp_path / "cat", 3)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "dog.txt").write_text("a text")
    rule = r"Each class folder must hold images \(.jpg, .*\)\. Received: folder='.*/dog"
    with pytest.raises(ValueError, match=rule):
        image_folder(tmp_path, "train")


def test_splits_of_other_classes_are_refused(tmp_path, write_images):
    for folder in ("train/cat", "train/dog", "val/cat", "val/cow"):
        write_images(tmp_path / folder, 2)
    rule = (
        r"must hold the same classes\. Received: only_in_train=\['dog'\], "
        r"only_in_validation=\['cow'\]"
    )
    for split in SPLITS:
        with pytest.raises(ValueError, match=rule):
            image_folder(tmp_path, split)


def test_a_split_without_images_is_refused(tmp_path, write_images):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 1)  # nothing to hold out
    rule = r"too few images to hold out a fifth .*Received: folder='.*', images=2"
    with pytest.raises(ValueError, match=rule):
        image_folder(tmp_path, "validation")


def test_refuses_a_folder_of_training_images_alone(tmp_path, write_images):
    for name in ("cat", "dog"):
        write_images(tmp_path / "train" / name, 2)
    with pytest.raises(ValueError, match=r"`train` must also hold one of \['valid"):
        image_folder(tmp_path, "train")


def test_unreadable_images_are_named(tmp_path, write_images):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 10)
    whole = (tmp_path / "cat" / "03.png").read_bytes()
    for index in range(4):
        (tmp_path / "cat" / f"0{index}.png").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "dog" / f"0{index}.png").write_text("hello")
    sources = [image_folder(tmp_path, split) for split in SPLITS]
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
    source = image_folder(tmp_path, "train")
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="another fault"),
        naming_unreadable_images(source),
    ):
        tf.debugging.assert_equal(1, 2, "another fault")


def test_where_nothing_fails_nothing_is_raised():
    with naming_unreadable_images():
        pass
