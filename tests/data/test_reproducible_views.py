"""The same bytes, whatever the parallelism, the beginning and the sharding."""

import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.augmentation import Augmentation
from keras_deit.data.mixing import Mixing
from keras_deit.data.pipeline import batch_ids, training_batches
from keras_deit.data.source import indexed_source

SIZE = (16, 12)
COUNT, BATCH = 37, 8
STEPS = COUNT // BATCH  # of an epoch
FULL = Augmentation(
    crop_area=(0.3, 1.0), rand_augment="rand-m9-mstd0.5-inc1", erasing=0.5
)
CROP = Augmentation(crop_area=(0.3, 1.0))  # a small graph, traced in no time


@pytest.fixture(scope="module")
def source():
    """Noisy images, as encoded files; each class is there at least seven times."""
    random = np.random.default_rng(0)
    encoded = [
        tf.io.encode_jpeg(random.integers(0, 256, (30 + i, 60 - i, 3), np.uint8))
        for i in range(COUNT)
    ]
    encoded = tf.stack(encoded)
    labels = np.arange(COUNT) % 5
    return indexed_source(
        "noise", tuple("abcde"), labels, lambda index: tf.gather(encoded, index), "x"
    )


def batches(source, count, augmentation=CROP, **arguments):
    """The first batches, mixed, as arrays."""
    options = {"mixing": Mixing(), "label_smoothing": 0.1, "repeats": 3} | arguments
    dataset = training_batches(source, SIZE, BATCH, 5, augmentation, **options)
    return [[x.numpy() for x in batch] for batch in dataset.take(count)]


def assert_equal(some, others):
    assert len(some) == len(others) > 0
    for one, other in zip(some, others, strict=True):
        for x, y in zip(one, other, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def undisturbed(source):
    """Three epochs of batches with everything that can happen to a view."""
    return batches(source, 3 * STEPS, FULL)


def test_no_batch_is_like_another(undisturbed):
    assert len({images.tobytes() for images, _, _ in undisturbed}) == 3 * STEPS


@pytest.mark.parametrize("parallel_calls", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_the_parallelism_changes_nothing(source, undisturbed, parallel_calls):
    again = batches(source, 3 * STEPS, FULL, parallel_calls=parallel_calls)
    assert_equal(again, undisturbed)


@pytest.mark.parametrize(
    ("epoch", "first_step"), [pytest.param(0, 3, marks=pytest.mark.slow), (1, 2)]
)
def test_begun_in_the_middle_it_goes_on_as_it_would_have(
    source, undisturbed, epoch, first_step
):
    done = epoch * STEPS + first_step
    beginning = {"first_epoch": epoch, "first_step": first_step}
    rest = batches(source, 3 * STEPS - done, FULL, **beginning)
    assert_equal(rest, undisturbed[done:])


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(1, marks=pytest.mark.slow),
        pytest.param(STEPS, marks=pytest.mark.slow),
        2 * STEPS - 1,
    ],
)
def test_it_can_begin_at_every_step(source, step):
    whole = batches(source, 2 * STEPS + 1)
    beginning = {"first_epoch": step // STEPS, "first_step": step % STEPS}
    assert_equal(batches(source, 2, **beginning), whole[step : step + 2])


@pytest.mark.slow
def test_shards_make_up_the_batch_with_everything(source, undisturbed):
    assert_equal(put_together(source, STEPS, FULL, 2), undisturbed[:STEPS])


@pytest.mark.parametrize(
    ("num_shards", "mixing"),
    [(2, None), pytest.param(4, Mixing(), marks=pytest.mark.slow)],
    ids=["2 plain", "4 mixed"],
)
def test_shards_make_up_the_batch(source, num_shards, mixing):
    whole = batches(source, STEPS + 1, mixing=mixing)
    parts = put_together(source, STEPS + 1, CROP, num_shards, mixing=mixing)
    assert_equal(parts, whole)


def put_together(source, count, augmentation, num_shards, **arguments):
    """The batches of all shards, each view in its place of the whole batch."""
    shards = [
        batches(
            source, count, augmentation, shard=k, num_shards=num_shards, **arguments
        )
        for k in range(num_shards)
    ]
    half = BATCH // (2 * num_shards)
    return [
        [
            np.concatenate([x[:half] for x in xs] + [x[half:] for x in reversed(xs)])
            for xs in zip(*step, strict=True)  # pixels, labels or weights of each shard
        ]
        for step in zip(*shards, strict=True)
    ]


def test_a_shard_owns_whole_pairs_by_hand(source):
    # Eight places, two shards: 0, 1, 6, 7 and 2, 3, 4, 5.
    ids = batch_ids(source, BATCH, 5, 1, 0, 0)
    greys = [_labels(source, shard) for shard in range(2)]
    assert greys == [
        [ids[place] % 5 for place in places] for places in ((0, 1, 6, 7), (2, 3, 4, 5))
    ]


def _labels(source, shard):
    ((_, labels, _),) = batches(
        source, 1, mixing=None, repeats=1, shard=shard, num_shards=2
    )
    return labels.argmax(axis=1).tolist()


def test_repeats_stand_side_by_side_and_differ(source):
    images, labels, _ = batches(source, 1, mixing=None)[0]
    ids = batch_ids(source, BATCH, 5, 3, 0, 0)
    assert ids == [ids[0]] * 3 + [ids[3]] * 3 + [ids[6]] * 2
    assert len(set(ids)) == 3
    np.testing.assert_array_equal(labels.argmax(axis=1), np.array(ids) % 5)
    assert len({image.tobytes() for image in images}) == BATCH


def test_the_third_repeat_begins_the_next_batch_with_a_view_of_its_own(source):
    first, second = (batch_ids(source, BATCH, 5, 3, 0, step) for step in (0, 1))
    assert second[0] == first[-1] != second[1]
    one, two = batches(source, 2, mixing=None)
    assert not any(np.array_equal(two[0][0], view) for view in one[0][6:])


def test_an_epoch_of_repeats_has_a_share_of_the_images_and_other_ones_each_time(
    source,
):
    epochs = [
        {
            i
            for step in range(STEPS)
            for i in batch_ids(source, BATCH, 5, 3, epoch, step)
        }
        for epoch in range(8)
    ]
    assert {len(epoch) for epoch in epochs} == {-(-STEPS * BATCH // 3)}
    assert len(set().union(*epochs)) > COUNT / 2


def test_the_ids_of_a_batch_are_those_that_were_in_it(source):
    for epoch, step in ((0, 0), (1, 2), (2, 3)):
        ids = batch_ids(source, BATCH, 5, 1, epoch, step)
        (batch,) = batches(
            source, 1, mixing=None, repeats=1, first_epoch=epoch, first_step=step
        )
        np.testing.assert_array_equal(batch[1].argmax(axis=1), np.array(ids) % 5)


def test_other_seeds_give_other_batches(source):
    dataset = training_batches(source, SIZE, BATCH, 6, CROP)
    images, _, _ = next(iter(dataset))
    assert not np.array_equal(images, batches(source, 1, mixing=None, repeats=1)[0][0])


def test_mixing_draws_anew_for_each_step_and_epoch(source):
    shares = [
        tuple(np.sort(labels, axis=1)[:, -1].round(6))
        for _, labels, _ in batches(source, 3 * STEPS, label_smoothing=0.0)
    ]
    assert len(set(shares)) > 2 * STEPS  # a clipped CutMix may leave all as it is


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"repeats": 0}, "`repeats` must be at least 1. Received: repeats=0"),
        (
            {"num_shards": 3},
            "With several shards, `batch_size` must be a multiple of twice their "
            "number. Received: batch_size=8, num_shards=3",
        ),
        (
            {"shard": 2, "num_shards": 2},
            "`shard` must be at least 0 and less than `num_shards`. Received: shard=2",
        ),
        (
            {"first_step": STEPS},
            "`first_step` must be at least 0 and less than the 4 of an epoch.",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(source, changes, rule):
    with pytest.raises(ValueError, match=rule.replace(".", r"\.")):
        batches(source, 1, **changes)


def test_an_odd_batch_in_one_shard_is_mixed(source):
    dataset = training_batches(source, SIZE, 7, 5, CROP, Mixing(), 0.1)
    images, labels, _ = next(iter(dataset))
    assert images.shape == (7, *SIZE, 3)
    np.testing.assert_allclose(labels.numpy().sum(axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_the_operations_of_keras_cv_change_nothing_of_this(source):
    views = Augmentation(
        rand_augment="rand-m9-mstd0.5-inc1", erasing=0.5, engine="keras-cv"
    )
    whole = batches(source, STEPS, views)
    assert_equal(batches(source, STEPS, views, parallel_calls=1), whole)
    assert_equal(batches(source, 1, views, first_step=2), whole[2:3])
    assert not np.array_equal(whole[0][0], batches(source, 1, FULL)[0][0])
