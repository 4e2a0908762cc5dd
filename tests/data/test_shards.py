import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.augmentation import Augmentation
from keras_deit.data.pipeline import batch_ids, evaluation_batches, training_batches
from keras_deit.data.shards import check_shard, of_places, training_places
from keras_deit.data.source import indexed_source

SIZE = (4, 4)
WHOLE = Augmentation((1.0, 1.0), (1.0, 1.0), flip=False)


def source_of_files(folder, count):
    """A source of plain grey images, each as grey as its number says."""
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{grey}.png") for grey in range(count)]
    for grey, path in enumerate(paths):
        image = tf.fill((*SIZE, 3), tf.constant(grey, tf.uint8))
        tf.io.write_file(path, tf.io.encode_png(image))
    return indexed_source(
        "greys",
        ("ant", "bee"),
        np.arange(count) % 2,
        lambda index: tf.io.read_file(tf.gather(paths, index)),
        "greys",
        paths,
    )


def greys(pixels):
    return [int(grey) for grey in pixels[:, 0, 0, 0]]


def test_the_places_of_a_shard_are_pairs_by_hand():
    # Mixed with each other: 0 and 11, 1 and 10, and so on.
    places = [training_places(12, shard, 3).tolist() for shard in range(3)]
    assert places == [[0, 1, 10, 11], [2, 3, 8, 9], [4, 5, 6, 7]]


@pytest.mark.parametrize("batch_size", [1, 7, 8])
def test_one_shard_has_all_places_of_any_batch(batch_size):
    assert training_places(batch_size, 0, 1).tolist() == list(range(batch_size))


@pytest.mark.parametrize("num_shards", [2, 4, 8])
def test_each_place_is_of_one_shard_and_its_partner_is_of_the_same(num_shards):
    shards = [training_places(48, shard, num_shards) for shard in range(num_shards)]
    assert {len(places) for places in shards} == {48 // num_shards}
    assert sorted(np.concatenate(shards)) == list(range(48))
    for places in shards:
        np.testing.assert_array_equal(places[::-1], 47 - places)


def test_records_of_some_places_come_with_a_row_of_ids_by_hand():
    # Two batches of four; a shard has the places 1 and 2. The tenth is a remainder.
    records = tf.data.Dataset.range(100, 110).enumerate()

    def read(record):
        return {"id": 2 * record, "image": tf.io.read_file("/no/such/file")}

    found = [
        (int(place), int(record), of_batch["batch_ids"].numpy().tolist())
        for place, record, of_batch in of_places(records, np.array([1, 2]), 4, read)
    ]
    assert found == [
        (1, 101, [200, 202]),
        (2, 102, [204, 206]),
        (5, 105, [208, 210]),
        (6, 106, [212, 214]),
    ]
    plain = of_places(records, np.array([1, 2]), 4)
    assert [(int(p), int(r)) for p, r in plain] == [(p, r) for p, r, _ in found]


def test_records_that_are_dicts_are_kept_whole():
    records = tf.data.Dataset.range(4).map(lambda i: {"id": i, "example": str(i)[:0]})
    kept = of_places(records.enumerate(), np.array([0, 3]), 4)
    assert [int(record["id"]) for _, record in kept] == [0, 3]
    assert kept.element_spec[1]["example"] == tf.TensorSpec((), tf.string)


def test_a_worker_reads_no_training_image_of_another(tmp_path):
    source = source_of_files(tmp_path, 8)
    ids = np.array(batch_ids(source, 8, 0, 1, 0, 0))
    for place in (2, 3, 4, 5):
        (tmp_path / f"{ids[place]}.png").unlink()
    batches = training_batches(
        source, SIZE, 8, 0, WHOLE, shard=0, num_shards=2, ids=True
    )
    images, y, _ = next(iter(batches))
    assert greys(images.numpy()) == y["id"].numpy().tolist()
    np.testing.assert_array_equal(y["id"], ids[[0, 1, 6, 7]])
    np.testing.assert_array_equal(np.ravel(y["batch_ids"]), ids)
    assert batches.element_spec[1]["batch_ids"] == tf.TensorSpec((4, 2), tf.int64)


def test_a_worker_reads_no_validation_image_of_another(tmp_path):
    source = source_of_files(tmp_path, 7)
    for grey in (0, 2, 4, 6):
        (tmp_path / f"{grey}.png").unlink()
    batches = evaluation_batches(source, SIZE, 4, 1.0, shard=1, num_shards=2)
    assert [greys(images.numpy()) for images, _, _ in batches] == [[1, 3], [5, 0]]
    assert [weight.numpy().tolist() for _, _, weight in batches] == [[1, 1], [1, 0]]


@pytest.mark.parametrize(
    ("count", "batch_size", "num_shards"),
    [
        (8, 4, 2),
        (5, 12, 3),
        pytest.param(13, 4, 4, marks=pytest.mark.slow),
        pytest.param(1, 4, 4, marks=pytest.mark.slow),
    ],
)
def test_the_workers_see_every_validation_image_once(
    tmp_path, count, batch_size, num_shards
):
    source = source_of_files(tmp_path, count)
    whole = list(evaluation_batches(source, SIZE, batch_size, 1.0))
    shards = [
        evaluation_batches(source, SIZE, batch_size, 1.0, shard, num_shards)
        for shard in range(num_shards)
    ]
    assert {int(batches.cardinality()) for batches in shards} == {len(whole)}
    views = (batch_size // num_shards, *SIZE, 3)
    assert {tuple(batches.element_spec[0].shape) for batches in shards} == {views}
    # Place p of a batch is that of shard p % K: they alternate.
    for batch, *parts in zip(whole, *shards, strict=True):
        for x, *xs in zip(batch, *parts, strict=True):
            together = np.stack(xs, axis=1).reshape(x.shape)
            np.testing.assert_array_equal(together, x)
    seen = [greys(x[weight > 0]) for batches in shards for x, _, weight in batches]
    assert sorted(sum(seen, [])) == list(range(count))


@pytest.mark.parametrize("shard", [-1, 2])
def test_a_shard_that_is_not_there_is_refused(tmp_path, shard):
    rule = r"`shard` must be at least 0 and less than `num_shards`\. Received: shard="
    for refuse in (
        lambda: training_places(8, shard, 2),
        lambda: check_shard(8, shard, 2),
        lambda: evaluation_batches(
            source_of_files(tmp_path, 2), SIZE, 8, 1.0, shard, 2
        ),
    ):
        with pytest.raises(ValueError, match=rule + f"{shard}, num_shards=2"):
            refuse()


def test_no_shard_at_all_is_refused():
    with pytest.raises(ValueError, match="less than `num_shards`.* num_shards=0"):
        training_places(8, 0, 0)


def test_shards_that_do_not_divide_the_batch_are_refused(tmp_path):
    source = source_of_files(tmp_path, 12)
    rule = "With several shards, `batch_size` must be a multiple of {}. Received: "
    with pytest.raises(ValueError, match=rule.format("their number") + "batch_size=9"):
        evaluation_batches(source, SIZE, 9, 1.0, 0, 2)
    twice = rule.format("twice their number")
    with pytest.raises(ValueError, match=twice + "batch_size=6, num_shards=2"):
        training_places(6, 0, 2)
    with pytest.raises(ValueError, match=twice + "batch_size=6, num_shards=2"):
        training_batches(source, SIZE, 6, 0, WHOLE, shard=0, num_shards=2)
    check_shard(6, 0, 2)
