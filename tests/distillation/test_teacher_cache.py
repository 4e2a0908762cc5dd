import itertools
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.distillation.cache_writer import CacheWriter
from keras_deit.distillation.teacher_cache import (
    FORMAT,
    TeacherCache,
    fingerprint,
    naming_damaged_shards,
)

B, Y, STEPS = 4, 3, 5
HEADER = {
    "views": {"seed": 0, "image_size": (2, 2)},
    "dataset": "d" * 64,
    "teacher": {"digest": "e" * 64, "name": "regnety_160"},
    "keep_logits": "all",
    "temperature": 1.0,
    "class_names": ["cat", "dog", "owl"],
    "batch_size": B,
    "steps_per_epoch": STEPS,
    "shard_steps": 2,
}
SECOND = "epoch-00000-step-0000002.tfrecord"


def ids_of(epoch, step):
    return np.arange(B) + B * (step + STEPS * epoch)


def logits_of(epoch, step):
    ramp = np.arange(B * Y).reshape(B, Y)
    return (np.sin(ramp) + 10 * step + 100 * epoch).astype("float32")


def make_cache(path, epochs=2, shards=None, **changed):
    writer = CacheWriter(path, {**HEADER, **changed})
    for shard in writer.missing(epochs)[:shards]:
        with writer.claim(shard) as file:
            for step in range(shard.first_step, shard.first_step + shard.steps):
                file.write(ids_of(shard.epoch, step), logits_of(shard.epoch, step))
    return path


def batches(cycle, first_epoch=0, first_step=0, ids=ids_of):
    """Endless batches, epoch after epoch; of epoch e % cycle in epoch e."""

    def generate():
        place = first_epoch * STEPS + first_step
        while True:
            epoch, step = divmod(place, STEPS)
            y = {"label": np.eye(B, Y, dtype="float32"), "id": ids(epoch % cycle, step)}
            yield np.zeros((B, 2, 2, 3), "uint8"), y, np.ones(B, "float32")
            place += 1

    return tf.data.Dataset.from_generator(
        generate,
        output_signature=(
            tf.TensorSpec((B, 2, 2, 3), tf.uint8),
            {
                "label": tf.TensorSpec((B, Y), tf.float32),
                "id": tf.TensorSpec((B,), tf.int64),
            },
            tf.TensorSpec((B,), tf.float32),
        ),
    )


def joined(cache, steps, first_epoch=0, first_step=0):
    """The teacher's logits of so many steps."""
    data = cache.join(
        batches(cache.epochs, first_epoch, first_step), first_epoch, first_step
    )
    return [y["teacher_logits"].numpy() for _, y, _ in data.take(steps)]


def change(path, change_bytes):
    path.write_bytes(change_bytes(path.read_bytes()))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return TeacherCache(make_cache(tmp_path_factory.mktemp("cache")))


def test_what_is_in_a_cache(cache):
    assert (cache.num_classes, cache.batch_size, cache.steps_per_epoch) == (Y, B, STEPS)
    assert (cache.codec.keep, cache.epochs, cache.facts) == ("all", 2, {})
    assert cache.header["views"] == {"seed": 0, "image_size": [2, 2]}
    assert len(cache.digest) == 64
    assert cache.damaged() == []


def test_batches_get_the_logits_of_their_step_and_keep_the_rest(cache):
    data = cache.join(batches(2))
    assert data.element_spec[1]["teacher_logits"] == tf.TensorSpec((B, Y), tf.float32)
    pixels, y, weight = next(iter(data.skip(7)))  # step 2 of epoch 1
    np.testing.assert_array_equal(y["teacher_logits"], logits_of(1, 2))
    np.testing.assert_array_equal(y["id"], ids_of(1, 2))
    np.testing.assert_array_equal(y["label"], np.eye(B, Y))
    assert (pixels.shape, pixels.dtype, weight.shape) == ((B, 2, 2, 3), tf.uint8, (B,))


def test_epochs_come_again_when_the_cache_is_at_its_end(cache):
    found = joined(cache, 5 * STEPS)
    expected = [logits_of(e % 2, step) for e in range(5) for step in range(STEPS)]
    np.testing.assert_array_equal(found, expected)


def test_to_begin_anywhere_is_to_skip(cache):
    whole = joined(cache, 5 * STEPS)
    for place in (0, 1, 2, 4, 5, 8, 9, 14):
        found = joined(cache, STEPS + 2, *divmod(place, STEPS))
        np.testing.assert_array_equal(found, whole[place : place + STEPS + 2])


def test_only_the_shards_that_are_needed_are_read(tmp_path):
    cache = TeacherCache(make_cache(tmp_path, 1))
    (tmp_path / SECOND).unlink()
    np.testing.assert_array_equal(joined(cache, 1, 0, 4), [logits_of(0, 4)])


@pytest.mark.parametrize(("keep", "temperature"), [("hard", 1.0), (2, 3.0)])
def test_other_ways_to_keep_logits(tmp_path, keep, temperature):
    make_cache(tmp_path, keep_logits=keep, temperature=temperature)
    cache = TeacherCache(tmp_path)
    found = joined(cache, 1, 1, 3)[0]
    np.testing.assert_array_equal(found.argmax(1), logits_of(1, 3).argmax(1))
    payload = cache.codec.encode(logits_of(1, 3))
    np.testing.assert_array_equal(found, cache.codec.decode(payload, B))


def test_a_fingerprint_tells_ids_and_their_order():
    prints = {
        bytes(fingerprint(tf.constant(ids, tf.int64)).numpy())
        for ids in ([0, 1, 2], [1, 0, 2], [0, 1, 3], [0, 1], [0, 1, 2, 0])
    }
    assert len(prints) == 5
    assert {len(print_) for print_ in prints} == {8}
    # As it is on disk: caches of today must be readable tomorrow.
    by_hand = [105, 190, 92, 80, 114, 177, 247, 12]
    assert fingerprint(tf.range(3, dtype=tf.int64)).numpy().tolist() == by_hand


@pytest.mark.parametrize(
    "ids",
    [
        lambda epoch, step: ids_of(epoch, step)[::-1],
        lambda epoch, step: ids_of(epoch, step + 1),
        lambda epoch, step: ids_of(1 - epoch, step),
    ],
)
def test_other_batches_are_refused(cache, ids):
    data = cache.join(batches(2, ids=ids))
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="batches are not those of the teacher"
    ):
        next(iter(data))


def test_batches_that_cannot_be_joined_are_refused(cache):
    plain = batches(2).map(lambda pixels, y, weight: (pixels, y["label"], weight))
    with pytest.raises(ValueError, match=r"must have the ids of 4 .*found=\{\}"):
        cache.join(plain)
    with pytest.raises(ValueError, match=r"same `num_shards`.*'id': \(2,\)"):
        cache.join(batches(2).unbatch().batch(2, drop_remainder=True))
    for step in (-1, STEPS):
        with pytest.raises(ValueError, match="`first_step` must be .* below 5"):
            cache.join(batches(2), 0, step)
    with pytest.raises(ValueError, match="`first_epoch` must be at least 0"):
        cache.join(batches(2), -1)


def classifier():
    inputs = keras.Input((2, 2, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    outputs = keras.layers.Dense(Y)(keras.layers.Flatten()(x))
    return keras.Model(inputs, outputs)


def fit(data):
    model = classifier()

    def to_teacher(pixels, y, weight):
        return pixels, y["teacher_logits"], weight

    model.compile("sgd", "mse")
    return model.fit(
        data.map(to_teacher), epochs=1, steps_per_epoch=2 * STEPS, verbose=0
    ).history["loss"][0]


@pytest.mark.slow
def test_fit_reads_it_on_two_replicas(cache, two_replicas):
    one = fit(cache.join(batches(2)))
    with two_replicas.scope():
        assert fit(cache.join(batches(2))) == pytest.approx(one, rel=1e-4)


def test_a_cache_that_fits_is_taken(cache):
    views, names = HEADER["views"], HEADER["class_names"]
    cache.check(views, "d" * 64, tuple(names), "e" * 64)
    cache.check(views, "d" * 64, names, None)


def test_a_cache_that_does_not_fit_is_refused_with_all_differences(cache):
    views = {"seed": 1, "image_size": (2, 3), "erasing": 0.25}
    message = (
        r"must be of this run's views, teacher and loss: seed: 0 in the cache, 1 now; "
        r"image_size\[1\]: 2 in the cache, 3 now; dataset: 'd+' in the cache, 'f' now; "
        r"teacher: 'e+' in the cache, 'a' now; class_names\[2\]: 'owl' in the cache, "
        r"'ox' now; erasing: nothing in the cache, 0.25 now\. Received: differences=6"
    )
    with pytest.raises(ValueError, match=message):
        cache.check(views, "f", ["cat", "dog", "ox"], "a")


def test_a_loss_must_have_the_logits_that_it_needs(cache, tmp_path):
    hard = make_cache(tmp_path / "hard", 1, keep_logits="hard")
    few = make_cache(tmp_path / "few", 1, keep_logits=2, temperature=3.0)
    hard, few = TeacherCache(hard), TeacherCache(few)
    for kept in (cache, hard, few):
        for kind in ("none", "hard"):
            kept.check_loss(kind, 1.0)
    cache.check_loss("soft", 1.0)
    cache.check_loss("soft", 3.0)
    few.check_loss("soft", 3)
    with pytest.raises(ValueError, match=r"temperature: 3\.0 in the cache, 1\.0 now"):
        few.check_loss("soft", 1.0)
    with pytest.raises(ValueError, match="keep_logits: 'hard' in the cache, soft"):
        hard.check_loss("soft", 1.0)
    with pytest.raises(ValueError, match="`kind` must be one of .* kind='sof'"):
        cache.check_loss("sof", 1.0)


def test_only_whole_epochs_count(tmp_path):
    make_cache(tmp_path, 2, shards=2)
    with pytest.raises(ValueError, match="must have a whole epoch.* shards=2"):
        TeacherCache(tmp_path)
    make_cache(tmp_path, 2, shards=3)  # five of six
    cache = TeacherCache(tmp_path)
    assert cache.epochs == 1
    expected = [logits_of(0, step % STEPS) for step in range(2 * STEPS)]
    np.testing.assert_array_equal(joined(cache, 2 * STEPS), expected)


def test_the_digest_is_of_what_is_read(cache, tmp_path):
    same = TeacherCache(make_cache(tmp_path / "same", 2))
    assert same.digest == cache.digest
    one = TeacherCache(make_cache(tmp_path / "one", 1))
    assert one.digest != cache.digest
    make_cache(tmp_path / "one", 2, shards=2)  # not a whole epoch more
    assert TeacherCache(tmp_path / "one").digest == one.digest
    other = make_cache(tmp_path / "other", 2, dataset="f")
    assert TeacherCache(other).digest != cache.digest


def test_no_cache_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder '.*gone'"):
        TeacherCache(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"A teacher cache must have an 'index\.json'"):
        TeacherCache(tmp_path)
    index = json.dumps({"format": FORMAT + 1})
    (tmp_path / "index.json").write_text(index)
    with pytest.raises(ValueError, match="newer version of keras_deit"):
        TeacherCache(tmp_path)


def flipped(content, place=70):
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (os.unlink, "it is missing"),
        (lambda p: change(p, lambda c: c[:-1]), "it has 143 bytes, not 144"),
        (lambda p: change(p, lambda c: c[:72]), "it has 72 bytes, not 144"),
        (lambda p: change(p, lambda c: c + b"0"), "it has 145 bytes, not 144"),
    ],
)
def test_a_shard_of_another_size_is_named_at_once(tmp_path, damage, message):
    damage(make_cache(tmp_path, 1) / SECOND)
    with pytest.raises(ValueError, match=f"damaged: {SECOND}: {message}. Delete these"):
        TeacherCache(tmp_path)


def test_a_flipped_bit_is_named_when_it_is_read(tmp_path):
    cache = TeacherCache(make_cache(tmp_path, 1))
    change(tmp_path / SECOND, flipped)
    cache = TeacherCache(tmp_path)  # the size is right
    fault = f"{SECOND}: its SHA-256 is not that of the index"
    assert cache.damaged() == [fault]
    with (
        pytest.raises(ValueError, match=f"is damaged: {fault}.*damaged_shards=1") as e,
        naming_damaged_shards(cache),
    ):
        fit(cache.join(batches(1)))
    assert isinstance(e.value.__cause__, tf.errors.DataLossError)


def test_a_bit_counts_in_every_part_of_a_record(tmp_path):
    cache = TeacherCache(make_cache(tmp_path, 1))
    whole = (tmp_path / SECOND).read_bytes()
    for place in (0, 9, 12, 19, 20, 50, 68, 71):
        (tmp_path / SECOND).write_bytes(flipped(whole, place))
        with pytest.raises(tf.errors.DataLossError):
            joined(cache, 2, 0, 2)


def test_a_shard_that_is_damaged_while_it_is_used_is_named(tmp_path):
    cache = TeacherCache(make_cache(tmp_path, 1))
    change(tmp_path / SECOND, lambda content: content[:-7])
    with (
        pytest.raises(ValueError, match=f"{SECOND}: it has 137 bytes, not 144"),
        naming_damaged_shards(cache),
    ):
        joined(cache, STEPS)
    (tmp_path / SECOND).unlink()
    assert cache.damaged() == [f"{SECOND}: it is missing"]
    with (
        pytest.raises(ValueError, match=f"{SECOND}: it is missing"),
        naming_damaged_shards(cache),
    ):
        joined(cache, STEPS)


def test_other_errors_go_through(cache):
    for read, error in itertools.product(
        (cache, None),
        (
            tf.errors.DataLossError(None, None, "of another file"),
            tf.errors.InvalidArgumentError(None, None, "no"),
            KeyError("no"),
        ),
    ):
        with (
            pytest.raises(type(error), match="no|of another"),
            naming_damaged_shards(read),
        ):
            raise error
