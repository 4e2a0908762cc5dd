"""The workers of a run, together, have what one alone would have."""

import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.augmentation import Augmentation
from keras_deit.data.mixing import Mixing
from keras_deit.data.pipeline import batch_ids, training_batches
from keras_deit.data.shards import training_places
from keras_deit.data.source import indexed_source
from keras_deit.distillation.cache_writer import CacheWriter
from keras_deit.distillation.teacher_cache import TeacherCache

B, Y, COUNT, EPOCHS, REPEATS, SEED = 8, 5, 27, 2, 3, 4
STEPS = COUNT // B
BEGIN = {"first_epoch": 1, "first_step": 1}  # two steps are left: then epoch 0 again
TAKEN = 4


@pytest.fixture(scope="module")
def source():
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 9, 8, 3), np.uint8)
    return indexed_source(
        "noise",
        tuple("abcde"),
        np.arange(COUNT) % Y,
        lambda i: tf.gather(images, i),
        "",
    )


@pytest.fixture(scope="module")
def cache(source, tmp_path_factory):
    """A cache whose logits are all different, so that none passes for another's."""
    folder = tmp_path_factory.mktemp("cache")
    header = {
        "views": {},
        "dataset": source.digest,
        "teacher": {"digest": "e" * 64, "name": "none"},
        "keep_logits": "all",
        "temperature": 1.0,
        "class_names": list(source.class_names),
        "batch_size": B,
        "steps_per_epoch": STEPS,
        "shard_steps": 2,
    }
    writer = CacheWriter(folder, header)
    random = np.random.default_rng(1)
    for shard in writer.missing(EPOCHS):
        with writer.claim(shard) as file:
            for step in range(shard.first_step, shard.first_step + shard.steps):
                ids = batch_ids(source, B, SEED, REPEATS, shard.epoch, step)
                logits = random.normal(size=(B, Y)).astype("float32")
                file.write(np.array(ids, np.int64), logits)
    return TeacherCache(folder)


def batches(source, seed=SEED, **arguments):
    return training_batches(
        source,
        (6, 6),
        B,
        seed,
        Augmentation((0.3, 1.0)),
        Mixing(),
        repeats=REPEATS,
        ids=True,
        cycle=EPOCHS,
        **(BEGIN | arguments),
    )


def joined(source, cache, shard=0, num_shards=1):
    part = {"shard": shard, "num_shards": num_shards}
    return cache.join(batches(source, **part), **BEGIN, **part)


def taken(dataset, count=TAKEN):
    """Pixels, labels, ids, logits and weights of the first batches, as arrays."""
    names = ("label", "id", "teacher_logits")
    return [
        [x.numpy() for x in (pixels, *(y[name] for name in names), weight)]
        for pixels, y, weight in dataset.take(count)
    ]


@pytest.fixture(scope="module")
def whole(source, cache):
    return taken(joined(source, cache))


def test_the_logits_of_one_worker_are_those_of_the_places(whole, cache, source):
    assert len({logits.tobytes() for _, _, _, logits, _ in whole}) == TAKEN
    for (epoch, step), (_, _, ids, _, _) in zip(
        [(1, 1), (1, 2), (0, 0), (0, 1)], whole, strict=True
    ):
        assert ids.tolist() == batch_ids(source, B, SEED, REPEATS, epoch, step)


@pytest.mark.parametrize("num_shards", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_workers_have_the_views_labels_and_logits_of_one(
    source, cache, whole, num_shards
):
    shards = [joined(source, cache, k, num_shards) for k in range(num_shards)]
    spec = shards[0].element_spec
    assert set(spec[1]) == {"label", "id", "teacher_logits"}
    assert {x.shape[0] for x in tf.nest.flatten(spec)} == {B // num_shards}
    for step, *parts in zip(whole, *map(taken, shards), strict=True):
        for x, *xs in zip(step, *parts, strict=True):
            together = np.zeros_like(x)
            for shard, part in enumerate(xs):
                together[training_places(B, shard, num_shards)] = part
            np.testing.assert_array_equal(together, x)


@pytest.mark.slow
def test_a_share_cut_for_the_devices_of_a_worker_keeps_order_and_steps(
    source, cache, whole
):
    dataset = joined(source, cache, 1, 2).rebatch(2)
    assert {x.shape[0] for x in tf.nest.flatten(dataset.element_spec)} == {2}
    pieces = taken(dataset, 2 * TAKEN)
    places = training_places(B, 1, 2)
    for step, *halves in zip(whole, pieces[::2], pieces[1::2], strict=True):
        for x, *xs in zip(step, *halves, strict=True):
            np.testing.assert_array_equal(np.concatenate(xs), x[places])


def sharded(ids, own):
    """One batch of a shard of two, which says that these are its ids."""
    y = {"id": np.array(own, np.int64), "batch_ids": np.reshape(ids, (B // 2, 2))}
    return tf.data.Dataset.from_tensors((0, y, 1.0))


def test_a_shard_of_other_batches_is_refused(source, cache):
    ids = np.array(batch_ids(source, B, SEED, REPEATS, 0, 0))
    own = ids[training_places(B, 1, 2)]
    taught = cache.join(sharded(ids, own), 0, 0, 1, 2)
    assert next(iter(taught))[1]["teacher_logits"].shape == (B // 2, Y)
    # Its own examples are right, but two of the other shard changed their places.
    elsewhere = ids[[7, 1, 2, 3, 4, 5, 6, 0]]
    refused = tf.errors.InvalidArgumentError
    with pytest.raises(refused, match="are not those of the teacher cache"):
        next(iter(cache.join(sharded(elsewhere, own), 0, 0, 1, 2)))
    with pytest.raises(refused, match="are not those of the teacher cache"):
        next(iter(cache.join(sharded(ids, own), 0, 1, 1, 2)))
    with pytest.raises(refused, match="must be of the same `shard` as the logits"):
        next(iter(cache.join(sharded(ids, own), 0, 0, 0, 2)))
    with pytest.raises(refused, match="must be of the same `shard` as the logits"):
        next(iter(cache.join(sharded(ids, own[::-1]), 0, 0, 1, 2)))


def test_shards_that_cannot_be_joined_are_refused(source, cache):
    data = sharded(np.arange(B), np.arange(B // 2))
    with pytest.raises(ValueError, match=r"`shard` must be .* shard=2, num_shards=2"):
        cache.join(data, 0, 0, 2, 2)
    with pytest.raises(ValueError, match=r"multiple of twice .*num_shards=3"):
        cache.join(data, 0, 0, 0, 3)
    for num_shards, views in ((1, 8), (4, 2)):
        rule = rf"must have the ids of {views} views .* the same `num_shards`\."
        with pytest.raises(ValueError, match=rule):
            cache.join(data, 0, 0, 0, num_shards)
    without = data.map(lambda pixels, y, weight: (pixels, {"id": y["id"]}, weight))
    with pytest.raises(ValueError, match=r"num_shards=2, found=\{'id': \(4,\)\}"):
        cache.join(without, 0, 0, 0, 2)
