import os
import time
from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf
from PIL import Image

from keras_deit.data.augmentation import Augmentation
from keras_deit.data.image_folder import image_folder, naming_unreadable_images
from keras_deit.data.pipeline import training_batches
from tests.data.order_contract import hold_source_to_its_order, ids

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
    write_images(tmp_path / "dog", 1, ".webp")
    (tmp_path / "dog" / "notes.txt").write_text("a text")
    (tmp_path / "dog" / "jpg").write_text("a text")
    (tmp_path / "dog" / ".00.png").write_text("what a file manager leaves")
    write_images(tmp_path / "dog" / ".thumbnails", 1)
    source = image_folder(tmp_path, "all")
    assert files_of(source) == {"00.PNG", "00.jpeg", "00.bmp", "00.gif", "00.webp"}
    assert [len(e["image"].shape) for e in source.in_order()] == [3] * 5


def test_a_webp_has_the_pixels_that_pil_gives_it(tmp_path, write_images):
    for name, mode in (("cat", "RGB"), ("dog", "RGBA")):
        write_images(tmp_path / name, 1)
        image = Image.open(tmp_path / name / "00.png").convert(mode)
        image.save(tmp_path / name / "01.webp", lossless=True)
    png, webp, *others = image_folder(tmp_path, "all").in_order()
    assert (png["image"].numpy() == webp["image"].numpy()).all()
    assert (others[0]["image"].numpy() == others[1]["image"].numpy()).all()


def test_names_may_have_spaces_and_letters_of_any_script(tmp_path, write_images):
    names = ["a cat", "Hund ü", "猫", os.fsdecode(b"\xff")]
    for name in names:
        write_images(tmp_path / name, 5)
    source = image_folder(tmp_path, "all")
    assert source.class_names == tuple(sorted(names))
    assert labels_of(source) == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5


def test_links_are_followed(tmp_path, write_images):
    write_images(tmp_path / "elsewhere" / "deep", 3)
    write_images(tmp_path / "data" / "cat", 2)
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "cat" / "more").symlink_to(tmp_path / "elsewhere" / "deep")
    (tmp_path / "data" / "cat" / "02.png").symlink_to(tmp_path / "data/cat/00.png")
    assert labels_of(image_folder(tmp_path / "data", "all")) == [0] * 6 + [1] * 3


def test_a_link_in_a_circle_is_refused(tmp_path, write_images):
    for name in ("cat", "dog"):
        write_images(tmp_path / name / "deep", 1)
    (tmp_path / "dog" / "deep" / "again").symlink_to(tmp_path / "dog")
    rule = r"must not lead to a folder around it\. Received: link='.*/dog/deep/again'"
    with pytest.raises(ValueError, match=rule):
        image_folder(tmp_path, "all")


def test_images_that_nobody_here_decodes_are_told_once(tmp_path, write_images, capsys):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 5)
        (tmp_path / name / "photo.HEIC").touch()
    (tmp_path / "dog" / "scan.tiff").touch()
    for split in SPLITS:
        image_folder(tmp_path, split)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"Left out of {tmp_path}, for TensorFlow cannot decode them: 2 .heic, 1 .tiff\n"
    )


def test_the_order_of_a_folder_can_be_entered_anywhere(tmp_path, write_images):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 8)
    hold_source_to_its_order(image_folder(tmp_path, "train"), window=5)


def test_an_id_is_the_number_among_all_images_of_the_folder(tmp_path, write_images):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 5)
    every, train, validation = (
        dict(zip(source.paths, ids(source.in_order()), strict=True))
        for source in (image_folder(tmp_path, split) for split in ("all", *SPLITS))
    )
    assert list(every.values()) == list(range(10))
    assert train | validation == every


def test_a_digest_is_of_names_sizes_and_the_split(tmp_path, write_images, monkeypatch):
    for root in ("one", "two"):
        for name in ("cat", "dog"):
            write_images(tmp_path / root / name, 5)
            (tmp_path / root / name / "05.png").write_bytes(b"five!")
    digest = image_folder(tmp_path / "one", "all").digest
    for folder in (tmp_path / "one", tmp_path / "two"):
        for index in range(5):  # of one size everywhere
            for name in ("cat", "dog"):
                (folder / name / f"0{index}.png").write_bytes(b"12345")
    digest = image_folder(tmp_path / "one", "all").digest
    assert image_folder(tmp_path / "two", "all").digest == digest
    monkeypatch.chdir(tmp_path / "two")
    assert image_folder(Path(), "all").digest == digest
    assert image_folder(Path(), "train").digest != digest
    (tmp_path / "two" / "dog" / "05.png").write_bytes(b"six..!")
    assert image_folder(Path(), "all").digest != digest
    (tmp_path / "one" / "dog" / "05.png").rename(tmp_path / "one" / "dog" / "06.png")
    assert image_folder(tmp_path / "one", "all").digest != digest


@pytest.mark.slow
def test_ten_thousand_classes_are_found_in_seconds(tmp_path):
    for label in range(10_000):
        folder = tmp_path / f"{label:05}"
        folder.mkdir()
        for index in range(3 if label else 1):
            (folder / f"{index}.png").touch()
    start = time.perf_counter()
    train, validation = (image_folder(tmp_path, split) for split in SPLITS)
    assert time.perf_counter() - start < 20
    assert len(train.class_names) == len(validation.class_names) == 10_000
    # Of three images one is held out; of one, none.
    assert (train.num_examples, validation.num_examples) == (19_999, 9_999)
    first = next(iter(validation.natural().map(lambda i: i)))
    assert validation.paths[int(first)].rpartition("/")[0] == f"{tmp_path}/00001"


def test_a_batch_larger_than_the_folder_is_refused(tmp_path, write_images):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 5)
    source = image_folder(tmp_path, "train")
    rule = r"`batch_size` must be between 1 and the 8 images of .*batch_size=9"
    with pytest.raises(ValueError, match=rule):
        training_batches(source, (4, 4), 9, 0, Augmentation())


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
    rule = (
        r"Each class folder must hold images \(.jpg, .*\)\. Received: folder='.*/dog'"
    )
    with pytest.raises(ValueError, match=rule + ", others={}"):
        image_folder(tmp_path, "train")
    (tmp_path / "dog" / "dog.tif").touch()
    with pytest.raises(ValueError, match=rule + r", others={'\.tif': 1}"):
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
    rule = "remove, repair or skip them"
    message = rf"^8 of 20 images cannot be decoded; {rule} \(--unreadable=skip\): [^,]*"
    with (
        pytest.raises(ValueError, match=message + r"\.png(, [^,]*\.png){4}$") as raised,
        naming_unreadable_images(*sources),
    ):
        for source in sources:
            list(source.in_order())
    for path in str(raised.value).partition("=skip): ")[2].split(", "):
        assert path.rpartition("/")[2] in {"00.png", "01.png", "02.png", "03.png"}


@pytest.fixture
def spoiled(tmp_path, write_images):
    """Two classes of ten images; of the cats four are broken, in four ways."""
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 10)
    whole = (tmp_path / "cat" / "03.png").read_bytes()
    (tmp_path / "cat" / "01.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cat" / "03.png").write_bytes(b"")
    (tmp_path / "cat" / "05.png").write_text("hello")
    (tmp_path / "cat" / "07.png").unlink()
    (tmp_path / "cat" / "07.png").symlink_to(tmp_path / "nowhere")
    return tmp_path


def test_unreadable_images_are_skipped_and_told(spoiled, capsys):
    source = image_folder(spoiled, "all", "skip")
    named = ", ".join(f"{spoiled}/cat/0{index}.png" for index in (1, 3, 5, 7))
    said = capsys.readouterr()
    assert said.out == ""  # and no bar: this is no terminal
    assert said.err == f"Left out 4 images that cannot be decoded: {named}\n"
    assert labels_of(source) == [0] * 6 + [1] * 10
    assert ids(source.in_order()) == [0, 2, 4, 6, 8, 9, *range(10, 20)]


def test_skipping_changes_neither_the_ids_nor_the_splits(spoiled):
    for split in SPLITS:
        refusing, skipping = (
            image_folder(spoiled, split, unreadable)
            for unreadable in ("refuse", "skip")
        )
        broken = {f"{spoiled}/cat/0{index}.png" for index in (1, 3, 5, 7)}
        assert skipping.paths == tuple(p for p in refusing.paths if p not in broken)
        # The broken cats cannot be read; the numbers of all are known without.
        numbers = {
            str(path): number
            for number, path in enumerate(sorted(spoiled.glob("*/*.png")))
        }
        assert ids(skipping.in_order()) == [numbers[p] for p in skipping.paths]
        assert (skipping.digest == refusing.digest) == (
            skipping.paths == refusing.paths
        )


def test_at_most_five_of_the_skipped_are_named(tmp_path, write_images, capsys):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 10)
        for index in range(4):
            (tmp_path / name / f"0{index}.png").write_text("hello")
    image_folder(tmp_path, "all", "skip")
    assert capsys.readouterr().err.count(".png") == 5


def test_where_all_can_be_decoded_nothing_is_told(tmp_path, write_images, capsys):
    for name in ("cat", "dog"):
        write_images(tmp_path / name, 2)
    sources = [image_folder(tmp_path, "all", how) for how in ("refuse", "skip")]
    assert capsys.readouterr().err == ""
    assert sources[0].digest == sources[1].digest


def test_a_class_of_which_nothing_is_left_is_refused(tmp_path, write_images):
    for name in ("ant", "bee", "cat"):
        write_images(tmp_path / name, 2)
    for path in (tmp_path / "bee").iterdir():
        path.write_text("hello")
    rule = r"must have an image that can be decoded\. .*without=\['bee'\]"
    with pytest.raises(ValueError, match=rule):
        image_folder(tmp_path, "all", "skip")
    assert image_folder(tmp_path, "all", "refuse").num_examples == 6


def test_other_failed_preconditions_pass():
    with (
        pytest.raises(tf.errors.FailedPreconditionError, match="not initialized"),
        naming_unreadable_images(),
    ):
        raise tf.errors.FailedPreconditionError(None, None, "not initialized")


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
