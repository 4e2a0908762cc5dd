import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.mixing import (
    CUTMIX,
    MIXUP,
    UNCHANGED,
    Mixing,
    cutmix,
    draw_box,
    draw_kind,
    draw_share,
    mix_batch,
    mixup,
)


def key_of(number):
    return tf.constant([7, number], tf.int64)


def many(draw, count=2500):
    """What `draw(key)` gives for many keys."""
    keys = tf.stack([tf.zeros(count, tf.int64), tf.range(count, dtype=tf.int64)], 1)
    return (
        tf.data.Dataset.from_tensor_slices(keys)
        .map(draw)
        .batch(count)
        .get_single_element()
        .numpy()
    )


def random_batch(size, height=12, width=10, classes=5):
    random = np.random.default_rng(size)
    images = random.integers(0, 256, (size, height, width, 3), np.uint8)
    labels = np.eye(classes, dtype=np.float32)[random.integers(0, classes, size)]
    return tf.constant(images), tf.constant(labels * 0.9 + 0.1 / classes, tf.float32)


def test_mixup_of_two_images_by_hand():
    # 0.75 * 100 + 0.25 * 201 = 125.25, and 0.25 * 100 + 0.75 * 201 = 175.75.
    images = np.full((2, 1, 1, 3), [[[[100]]], [[[201]]]], np.uint8)
    mixed, labels = mixup(images, tf.eye(2), tf.constant(0.75))
    assert mixed.dtype == tf.uint8
    assert mixed.numpy()[:, 0, 0, 0].tolist() == [125, 176]
    assert labels.numpy().tolist() == [[0.75, 0.25], [0.25, 0.75]]


def test_cutmix_of_two_images_by_hand():
    # The box holds 2 of the 3 x 4 pixels: lam = 10/12.
    images = np.zeros((2, 3, 4, 3), np.uint8)
    images[1] = 9
    mixed, labels = cutmix(tf.constant(images), tf.eye(2), tf.constant([1, 2, 2, 4]))
    first = [[0, 0, 0, 0], [0, 0, 9, 9], [0, 0, 0, 0]]
    assert mixed.numpy()[0, :, :, 1].tolist() == first
    np.testing.assert_array_equal(mixed[1], 9 - mixed[0])
    expected = [[10 / 12, 2 / 12], [2 / 12, 10 / 12]]
    np.testing.assert_allclose(labels, expected, rtol=1e-6)


def test_a_box_has_the_sides_and_the_borders_of_timm():
    # lam = 3/4 and 8 x 12 pixels: sides 4 and 6, reaching 2 and 3 from the center,
    # which is any pixel; at the borders the box is clipped.
    boxes = many(lambda key: draw_box(key, tf.constant(0.75), 8, 12))
    tops, lefts, bottoms, rights = boxes.T
    vertical = {(max(c - 2, 0), min(c + 2, 8)) for c in range(8)}
    horizontal = {(max(c - 3, 0), min(c + 3, 12)) for c in range(12)}
    assert set(zip(tops.tolist(), bottoms.tolist(), strict=True)) == vertical
    assert set(zip(lefts.tolist(), rights.tolist(), strict=True)) == horizontal
    # 5 x 7 of the 8 x 12 centers are far enough from all borders.
    whole = (bottoms - tops == 4) & (rights - lefts == 6)
    np.testing.assert_allclose(whole.mean(), 35 / 96, atol=0.03)
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.05


def test_the_odd_side_of_a_box_loses_a_pixel_as_in_timm():
    # lam = 0.75, 11 x 7 pixels: int(5.5) and int(3.5), of which 4 and 2 are left.
    boxes = many(lambda key: draw_box(key, tf.constant(0.75), 11, 7), 200)
    assert (boxes[:, 2:] - boxes[:, :2]).max(axis=0).tolist() == [4, 2]


def test_the_box_of_share_1_is_empty_and_of_share_0_a_quarter_or_more():
    empty = draw_box(key_of(0), tf.constant(1.0), 8, 12).numpy()
    assert (empty[:2] == empty[2:]).all()
    boxes = many(lambda key: draw_box(key, tf.constant(0.0), 8, 12), 200)
    assert (boxes[:, 2:] - boxes[:, :2]).min(axis=0).tolist() == [4, 6]
    images, labels = random_batch(4)
    mixed, mixed_labels = cutmix(images, labels, tf.constant([3, 2, 3, 2]))
    np.testing.assert_array_equal(mixed, images)
    np.testing.assert_array_equal(mixed_labels, labels)
    mixed, mixed_labels = cutmix(images, labels, tf.constant([0, 0, 12, 10]))
    np.testing.assert_array_equal(mixed, images[::-1])
    np.testing.assert_array_equal(mixed_labels, labels[::-1])


def test_mixup_of_a_batch_read_backwards_is_that_of_the_other_share():
    images, labels = random_batch(6)
    backwards = mixup(images[::-1], labels[::-1], tf.constant(0.25))
    other = mixup(images, labels, tf.constant(0.75))
    for ours, theirs in zip(backwards, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(
            ours[::-1], mixup(images, labels, tf.constant(0.25))[ours is backwards[1]]
        )


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_labels_sum_to_1_and_the_middle_of_an_odd_batch_stays(kind, size):
    images, labels = random_batch(size)
    mixing = Mixing(**{"mixup": 0, "cutmix": 0, kind: 1.0})
    mixed, mixed_labels = mix_batch(images, labels, key_of(1), mixing)
    assert (mixed.dtype, mixed_labels.dtype) == (tf.uint8, tf.float32)
    assert (mixed.shape, mixed_labels.shape) == (images.shape, labels.shape)
    np.testing.assert_allclose(tf.reduce_sum(mixed_labels, 1), 1, atol=1e-6)
    if size % 2:
        middle = size // 2
        np.testing.assert_array_equal(mixed[middle], images[middle])
        np.testing.assert_allclose(mixed_labels[middle], labels[middle], atol=1e-7)
    if size > 1:
        assert (mixed.numpy() != images.numpy()).any()


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("shards", [2, 4])
def test_shards_of_whole_pairs_are_mixed_as_the_whole_batch(kind, shards):
    images, labels = random_batch(16)
    mixing = Mixing(**{"mixup": 0, "cutmix": 0, kind: 0.8})
    whole = mix_batch(images, labels, key_of(2), mixing)
    pairs = 16 // 2 // shards
    for shard in range(shards):
        first = np.arange(shard * pairs, (shard + 1) * pairs)
        own = np.concatenate([first, 15 - first[::-1]])
        part = mix_batch(
            tf.gather(images, own), tf.gather(labels, own), key_of(2), mixing
        )
        for ours, theirs in zip(part, whole, strict=True):
            assert ours.numpy().tobytes() == theirs.numpy()[own].tobytes()


def test_cutmix_has_the_labels_of_what_is_seen():
    # Image and label say the same: 255 and class 1, or 0 and class 0.
    images = tf.constant(np.full((2, 9, 7, 3), [[[[0]]], [[[255]]]], np.uint8))
    for number in range(8):
        mixed, labels = mix_batch(images, tf.eye(2), key_of(number), Mixing(mixup=0))
        seen = tf.reduce_mean(tf.cast(mixed, tf.float32), [1, 2, 3]) / 255
        np.testing.assert_allclose(labels[:, 1], seen, atol=1e-6)


def test_mixup_has_the_labels_of_what_is_seen():
    images = tf.constant(np.full((2, 9, 7, 3), [[[[0]]], [[[255]]]], np.uint8))
    shares = []
    for number in range(8):
        mixed, labels = mix_batch(images, tf.eye(2), key_of(number), Mixing(cutmix=0))
        assert np.unique(mixed[0]).size == 1
        np.testing.assert_allclose(labels[0, 1], mixed[0, 0, 0, 0] / 255, atol=2e-3)
        shares.append(float(labels[0, 0]))
    expected = [float(draw_share(key_of(number), 0.8)) for number in range(8)]
    np.testing.assert_allclose(shares, expected, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 3.0])
def test_shares_are_drawn_from_the_beta_distribution(alpha):
    shares = many(lambda key: draw_share(key, alpha))
    assert shares.dtype == np.float32
    assert shares.min() >= 0
    assert shares.max() <= 1
    np.testing.assert_allclose(shares.mean(), 0.5, atol=0.025)
    variance = 1 / (4 * (2 * alpha + 1))
    np.testing.assert_allclose(shares.var(), variance, rtol=0.08)
    # Also the tails: a sample of NumPy has the same deciles.
    theirs = np.random.default_rng(0).beta(alpha, alpha, 100_000)
    deciles = np.linspace(0.1, 0.9, 9)
    ours, theirs = np.quantile(shares, deciles), np.quantile(theirs, deciles)
    np.testing.assert_allclose(ours, theirs, atol=0.03)


def test_a_tiny_or_huge_alpha_gives_the_limits_of_the_distribution():
    shares = many(lambda key: draw_share(key, 1e-6), 200)
    assert set(shares.tolist()) == {0.0, 1.0}
    np.testing.assert_allclose(shares.mean(), 0.5, atol=0.15)
    shares = many(lambda key: draw_share(key, 1e9), 20)
    np.testing.assert_allclose(shares, 0.5, atol=1e-3)


@pytest.mark.parametrize(
    ("mixing", "expected"),
    [
        (Mixing(), (0, 0.5, 0.5)),
        (Mixing(probability=0.6, switch_probability=0.25), (0.4, 0.45, 0.15)),
        (Mixing(switch_probability=1.0), (0, 0, 1)),
        (Mixing(switch_probability=0.0), (0, 1, 0)),
        (Mixing(cutmix=0, switch_probability=1.0), (0, 1, 0)),
        (Mixing(mixup=0, switch_probability=0.0), (0, 0, 1)),
        (Mixing(probability=0.0), (1, 0, 0)),
    ],
)
def test_each_kind_has_its_share_of_the_batches(mixing, expected):
    kinds = many(lambda key: draw_kind(key, mixing), 1000)
    shares = [(kinds == kind).mean() for kind in (UNCHANGED, MIXUP, CUTMIX)]
    np.testing.assert_allclose(shares, expected, atol=0.05)
    certain = np.isin(expected, (0, 1))
    assert (np.array(shares)[certain] == np.array(expected)[certain]).all()


def test_a_batch_is_mixed_as_was_drawn():
    images, labels = random_batch(4)
    mixing = Mixing(probability=0.7)
    seen = set()
    for number in range(12):
        key = key_of(number)
        kind = int(draw_kind(key, mixing))
        if kind == MIXUP:
            expected = mixup(images, labels, draw_share(key, 0.8))
        elif kind == CUTMIX:
            box = draw_box(key, draw_share(key, 1.0), 12, 10)
            expected = cutmix(images, labels, box)
        else:
            expected = images, labels
        ours = mix_batch(images, labels, key, mixing)
        for one, other in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        seen.add(kind)
    assert seen == {UNCHANGED, MIXUP, CUTMIX}


def test_draws_for_different_purposes_are_independent():
    def draws(key):
        lam = draw_share(key, 1.0)
        kind = tf.cast(draw_kind(key, Mixing()), tf.float32)
        unchanged = tf.cast(draw_kind(key, Mixing(probability=0.5)) > 0, tf.float32)
        box = draw_box(key, tf.constant(1.0), 1000, 1000)
        return tf.stack(
            [lam, kind, unchanged, *tf.unstack(tf.cast(box[:2], "float32"))]
        )

    correlations = np.corrcoef(many(draws, 1500).T)
    assert np.abs(correlations - np.eye(5)).max() < 0.08


def test_a_batch_is_the_same_inside_tf_data():
    images, labels = random_batch(5)
    mixing = Mixing(probability=0.8)
    keys = tf.stack([tf.zeros(6, tf.int64), tf.range(6, dtype=tf.int64)], 1)

    def mixed(key):
        return mix_batch(images, labels, key, mixing)

    dataset = tf.data.Dataset.from_tensor_slices(keys).map(mixed, num_parallel_calls=8)
    assert dataset.element_spec[0] == tf.TensorSpec((5, 12, 10, 3), tf.uint8)
    assert dataset.element_spec[1] == tf.TensorSpec((5, 5), tf.float32)
    for key, inside in zip(keys, dataset, strict=True):
        for ours, theirs in zip(inside, mixed(key), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"mixup": -0.1},
            r"`mixup` must be finite, and not below 0\. Received: mixup=-0\.1\.",
        ),
        ({"cutmix": float("inf")}, r"`cutmix` must be finite, .* Received: cutmix=inf"),
        ({"cutmix": float("nan")}, r"`cutmix` must be finite, .* Received: cutmix=nan"),
        (
            {"mixup": 0, "cutmix": 0.0},
            r"to mix nothing, give no `Mixing`\. Received: mixup=0, cutmix=0\.0\.",
        ),
        (
            {"probability": 1.1},
            r"`probability` must be in \[0, 1\]\. Rec.*=1\.1",
        ),
        ({"switch_probability": -1}, r"`switch_probability` must be in \[0, 1\]\. R"),
    ],
)
def test_values_out_of_bounds_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Mixing(**values)
