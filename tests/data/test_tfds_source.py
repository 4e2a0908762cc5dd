import runpy
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data import tfds_source as module
from keras_deit.data.image_folder import naming_unreadable_images
from keras_deit.data.shards import of_places
from keras_deit.data.tfds_source import tfds_source
from tests.data.order_contract import hold_source_to_its_order, ids, records, tails

SPLITS = ("train", "validation")
DATA_DIR = "tensorflow_datasets.core.constants.DATA_DIR"


def contents(source):
    """The pixels of each image."""
    return [e["image"].tobytes() for e in source.in_order().as_numpy_iterator()]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Prepares grey images as `my_flowers`, `store(split=[grey, ...], ...)`."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(DATA_DIR, str(tmp_path))

    def store(num_shards=1, label="label", file_format=None, **splits):
        classes = tfds.features.ClassLabel(names=["cat", "dog"])
        features = {"image": tfds.features.Image(shape=(4, 4, 3)), label: classes}

        def example(grey):
            image = np.full((4, 4, 3), grey, np.uint8)
            return {"image": image, label: grey % 2}

        tfds.dataset_builders.store_as_tfds_dataset(
            name="my_flowers",
            version="3.0.1",
            data_dir=tmp_path,
            features=tfds.features.FeaturesDict(features),
            split_datasets={
                split: [(grey, example(grey)) for grey in greys]
                for split, greys in splits.items()
            },
            download_config=tfds.download.DownloadConfig(num_shards=num_shards),
            file_format=file_format,
        )
        return tmp_path / "my_flowers" / "3.0.1"

    return store


@pytest.fixture(params=["in memory", "streamed"])
def kept(request, monkeypatch):
    """Both ways to read a split; the windows of a stream are ten examples."""
    if request.param == "streamed":
        monkeypatch.setattr(module, "IN_MEMORY", 0)
    monkeypatch.setattr(module, "SHUFFLE_WINDOW", 10)
    return request.param


def flowers(split="train"):
    return tfds_source("my_flowers", split, download=False)


def ids_of_tensorflow_datasets(split):
    """Grey of each image, by the number of its file and its own number in it."""
    import tensorflow_datasets as tfds

    dataset = tfds.load(
        "my_flowers", split=split, read_config=tfds.ReadConfig(add_tfds_id=True)
    )
    greys = {}
    for example in dataset.as_numpy_iterator():
        file, _, index = example["tfds_id"].decode().partition("__")
        shard = int(file.partition("record-")[2].partition("-of-")[0])
        greys[shard, int(index)] = int(example["image"][0, 0, 0])
    return greys


@pytest.mark.parametrize("split", SPLITS)
def test_an_id_is_the_file_and_the_place_in_it(store, kept, split):
    store(num_shards=3, train=range(25))
    greys = ids_of_tensorflow_datasets(
        {"train": "train[:90%]", "validation": "train[90%:]"}[split]
    )
    source = flowers(split)
    found = {
        divmod(int(e["id"]), 2**32): int(e["image"][0, 0, 0]) for e in source.in_order()
    }
    assert found == greys
    assert list(found) == sorted(greys)  # the natural order
    assert all(int(e["label"]) == e["image"][0, 0, 0] % 2 for e in source.in_order())


def test_an_epoch_can_be_entered_anywhere(store, kept):
    store(num_shards=4, train=range(37))
    hold_source_to_its_order(flowers("train"), window=10)


def test_workers_share_its_batches(store, kept):
    store(num_shards=4, train=range(37))
    source = flowers("train")
    order = records(source, 3, 1, 0)
    places = np.array([1, 2, 5, 6])
    records_of_batches = source.permuted(3, 1, 0).enumerate()
    shard = of_places(records_of_batches, places, 8, source.read)
    shard = shard.map(lambda place, record, y: (source.read(record)["id"], y))
    own, rows = zip(*[(int(i), y["batch_ids"].numpy()) for i, y in shard], strict=True)
    whole = source.num_examples // 8 * 8
    assert own == tuple(np.reshape(order[:whole], (-1, 8))[:, places].ravel())
    np.testing.assert_array_equal(np.ravel(rows), order[:whole])
    natural = ids(source.in_order())
    assert ids(source.natural().shard(3, 1).map(source.read)) == natural[1::3]


def test_the_orders_of_a_stream_are_worked_out_by_hand(store, monkeypatch):
    # Three files of 8, in the order 2, 0, 1; windows of 10: all of file 2 and two of
    # file 0, then the rest of file 0 and four of file 1, then the rest.
    def order(seed, epoch, count, window):
        backwards = tf.range(tf.cast(count, tf.int64))[::-1]
        return (
            tf.constant([2, 0, 1], tf.int64) if isinstance(window, int) else backwards
        )

    monkeypatch.setattr(module, "epoch_order", order)
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    monkeypatch.setattr(module, "SHUFFLE_WINDOW", 10)
    store(num_shards=3, train=range(24))
    stream = [2**32 * shard + index for shard in (2, 0, 1) for index in range(8)]
    windows = [*stream[9::-1], *stream[19:9:-1], *stream[:19:-1]]
    firsts = (0, 7, 8, 9, 10, 12, 20, 23, 24)
    assert tails(flowers("all"), *((0, 0, first) for first in firsts)) == [
        name for first in firsts for name in windows[first:]
    ]


def test_a_stream_mixes_the_files_anew_in_each_epoch(store, monkeypatch):
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    monkeypatch.setattr(module, "SHUFFLE_WINDOW", 10)
    store(num_shards=5, train=range(50))
    order = tails(flowers("all"), *((0, epoch, 0) for epoch in range(20)))
    shards = np.reshape(order, (20, 5, 10)) // 2**32
    assert (shards == shards[:, :, :1]).all()  # here a window is a file
    assert {tuple(epoch) for epoch in np.sort(shards[:, :, 0])} == {(0, 1, 2, 3, 4)}
    assert set(shards[:, 0, 0]) == set(shards[:, 4, 0]) == set(range(5))


def test_a_stream_opens_no_file_before_its_beginning(store, monkeypatch):
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    monkeypatch.setattr(module, "SHUFFLE_WINDOW", 10)
    folder = store(num_shards=5, train=range(50))
    source = flowers("all")
    order = records(source, 0, 0, 0)
    for shard in {name // 2**32 for name in order[:30]}:
        next(folder.glob(f"*-0000{shard}-of-*")).unlink()
    assert records(source, 0, 0, 33) == order[33:]


def test_both_ways_give_the_same_images_under_the_same_digest(store, monkeypatch):
    store(num_shards=2, train=range(20))
    memory = flowers("all")
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    stream = flowers("all")
    assert contents(memory) == contents(stream)
    assert ids(memory.in_order()) == ids(stream.in_order())
    assert stream.digest == flowers("all").digest != flowers("train").digest
    assert len(memory.digest) == 64


@pytest.mark.parametrize("num_shards", [1, 4])
def test_a_small_part_of_a_large_split_is_kept_in_memory(
    store, monkeypatch, num_shards
):
    folder = store(num_shards=num_shards, train=range(40))
    size = sum(path.stat().st_size for path in folder.glob("*.tfrecord*"))

    def is_streamed(split, limit):
        monkeypatch.setattr(module, "IN_MEMORY", limit)
        # The records of a stream are examples, those of the other kind their numbers.
        return isinstance(flowers(split).natural().element_spec, dict)

    assert is_streamed("all", size - 1)
    assert not is_streamed("all", size)
    assert is_streamed("validation", 0.08 * size)  # a tenth: 4 images
    assert not is_streamed("validation", 0.12 * size)
    assert is_streamed("train", 0.88 * size)
    assert not is_streamed("train", 0.92 * size)


def test_a_split_without_images_is_refused(store):
    store(train=range(2))
    rule = r"must have images for each split\. .*split='train\[90%:\]'"
    with pytest.raises(ValueError, match=rule):
        flowers("validation")


def test_another_number_of_images_has_another_digest(store, kept):
    digests = []
    for count in (20, 21, 20):
        folder = store(train=range(count))
        digests.append(flowers("all").digest)
        shutil.rmtree(folder)
    assert digests[0] == digests[2] != digests[1]


def test_a_dataset_with_one_split_has_its_last_tenth_held_out(store, kept):
    store(train=range(20))
    train, validation, everything = (flowers(s) for s in (*SPLITS, "all"))
    assert (train.num_examples, validation.num_examples) == (18, 2)
    assert len(set(contents(train) + contents(validation))) == 20
    assert contents(everything) == contents(train) + contents(validation)
    assert ids(everything.in_order()) == [
        *ids(train.in_order()),
        *ids(validation.in_order()),
    ]


def test_all_images_are_those_for_training_where_others_are_no_second_split(store):
    store(train=range(20), unlabeled=range(5))
    assert flowers("all").num_examples == 20


def test_all_images_of_a_dataset_with_splits_are_refused(store):
    store(train=range(5), test=range(5))
    rule = r"`split` 'all' is for a dataset without 'test'\. Received: dataset='my_fl"
    with pytest.raises(ValueError, match=rule):
        flowers("all")


def test_a_dataset_with_test_images_alone_is_for_evaluation(store):
    store(test=range(20))
    assert flowers("validation").num_examples == 20
    rule = r"no images for 'train'\. Received: dataset='my_flowers', splits=\['test'\]"
    with pytest.raises(ValueError, match=rule):
        flowers("train")


def test_a_dataset_without_labels_is_refused(store):
    store(label="kind", train=range(5))
    rule = r"features 'image', an image, and 'label', .*features=\['image', 'kind'\]"
    with pytest.raises(ValueError, match=rule):
        flowers()


def test_labels_that_are_no_images_classes_are_refused(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(DATA_DIR, str(tmp_path))
    features = {"image": tfds.features.Image(), "label": tfds.features.Text()}
    image = np.zeros((4, 4, 3), np.uint8)
    tfds.dataset_builders.store_as_tfds_dataset(
        name="my_flowers",
        version="3.0.1",
        data_dir=tmp_path,
        features=tfds.features.FeaturesDict(features),
        split_datasets={"train": [(0, {"image": image, "label": "cat"})]},
    )
    with pytest.raises(ValueError, match=r"and 'label', a class\. Received: dataset="):
        flowers("all")


def test_images_without_a_label_are_refused(store, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(
        tfds.features.ClassLabel, "encode_example", lambda _, label: np.int64(-label)
    )
    store(train=range(20))
    rule = r"Every image must have a label\. Received: dataset='my_flowers', without=10"
    with pytest.raises(ValueError, match=rule):
        flowers("all")


def test_files_of_another_format_are_refused(store):
    folder = store(train=range(5))
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace("tfrecord", "array_record"))
    rule = (
        r"must be of the format 'tfrecord'; prepare it anew\. .*format='array_record'"
    )
    with pytest.raises(ValueError, match=rule):
        flowers()


def test_a_record_file_that_is_missing_is_named(store, kept):
    folder = store(num_shards=3, train=range(30))
    next(folder.glob("*-00001-of-*")).unlink()
    rule = r"Of 'my_flowers', 1 of 3 record files are missing: .*-00001-of-00003"
    with pytest.raises(FileNotFoundError, match=rule):
        flowers("all")


@pytest.mark.parametrize("damage", ["flipped", "truncated", "at a record's end"])
def test_a_damaged_record_file_is_an_error(store, kept, damage):
    folder = store(train=range(20))
    path = next(folder.glob("*.tfrecord*"))
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 255
    elif damage == "truncated":
        del data[-5:]
    else:
        del data[int.from_bytes(data[:8], "little") + 16 :]
    path.write_bytes(data)
    reason = {
        "flipped": r"corrupted record at \d+$",
        "truncated": r"truncated record at \d+$",
        "at a record's end": r"expected to contain \d+ elements but contained only 1$",
    }
    where = "'my_flowers'.* are damaged; remove them and prepare the dataset anew: "
    with pytest.raises(ValueError, match=where + reason[damage]):
        source = flowers("all")
        with naming_unreadable_images(source):
            list(source.shuffled(0, 0))


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory, shared):
    """Real CIFAR-10, prepared as TensorFlow Datasets does: 500 and 100 images."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    script = shared("data") / "make_tfds.py"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(script.parent)
        monkeypatch.setattr(sys, "argv", ["make_tfds.py", str(folder), "500", "100"])
        runpy.run_path(str(script))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(DATA_DIR, str(folder))
        yield [tfds_source("cifar10", split, download=False) for split in SPLITS]


@pytest.mark.slow
def test_real_images_come_as_tensorflow_datasets_gives_them(cifar10):
    import tensorflow_datasets as tfds

    for source, split, count in zip(
        cifar10, ("train", "test"), (500, 100), strict=True
    ):
        assert source.num_examples == count
        assert source.class_names[:3] == ("airplane", "automobile", "bird")
        theirs = tfds.load("cifar10", split=split).as_numpy_iterator()
        for ours, their in zip(source.in_order(), theirs, strict=True):
            np.testing.assert_array_equal(ours["image"], their["image"])
            assert int(ours["label"]) == their["label"]
        assert ids(source.in_order()) == list(range(count))


@pytest.mark.slow
def test_real_images_are_shuffled(cifar10):
    hold_source_to_its_order(cifar10[1], window=10)
