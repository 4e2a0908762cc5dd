import math

import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.views import (
    VIEW_FORMAT,
    draw_crop,
    draw_erased_box,
    draw_erasing,
    draw_flip,
    draw_jitter,
    draw_noise,
    draw_operations,
    epoch_order,
    mix_key,
    view_key,
)

AREA, ASPECT_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
NUM_VIEWS = 400


def crops(height, width, area, aspect_ratio, num_views=NUM_VIEWS):
    """The boxes (top, left, height, width) of many views of one image, (n, 4)."""

    def draw(example_id):
        return draw_crop(view_key(0, 0, example_id), height, width, area, aspect_ratio)

    views = tf.data.Dataset.range(num_views).map(draw).batch(num_views)
    return next(iter(views)).numpy()


def many(draw, num_views=NUM_VIEWS):
    """What is drawn for many views of seed 0, as arrays."""
    ids = tf.data.Dataset.range(num_views)
    views = ids.map(lambda i: draw(view_key(0, 0, i))).batch(num_views)
    drawn = next(iter(views))
    return tf.nest.map_structure(lambda x: x.numpy(), drawn)


def draws_of_id(example_id):
    key = view_key(3, 1, example_id)
    return (
        example_id,
        key,
        draw_crop(key, 40, 50, AREA, ASPECT_RATIO),
        draw_flip(key),
        *draw_operations(key, 2, 15, 0.5, 9, 0.5),
        *draw_jitter(key, 3, 0.4),
        draw_erasing(key, 0.5),
        draw_erased_box(key, 32, 48),
        draw_noise(key, (2, 3)),
    )


def collected(views):
    """Draws by example id."""
    return {int(i): [x.numpy().tolist() for x in drawn] for i, *drawn in views}


def test_a_wide_range_on_a_square_falls_back_to_the_largest_wide_box_in_the_center():
    # At least 90 of 100 x 100 with a width of 3 heights is 164 wide: none fits. The
    # largest box in the center is 100 wide and 100 / 3 = 33 high, 33 rows from the top.
    assert crops(100, 100, (0.9, 1), (3, 4), 3).tolist() == [[33, 0, 33, 100]] * 3


def test_a_tall_range_on_a_square_falls_back_to_the_largest_tall_box_in_the_center():
    # The same on its side: 100 high, and 100 * (1 / 3) = 33 wide.
    boxes = crops(100, 100, (0.9, 1), (1 / 4, 1 / 3), 3)
    assert boxes.tolist() == [[0, 33, 100, 33]] * 3


def test_an_image_whose_aspect_ratio_is_in_the_range_falls_back_to_all_of_it():
    # All of the area, but of another shape in nearly all of the tries: none fits.
    boxes = crops(1000, 1000, (1, 1), (0.5, 2), 20)
    assert boxes.tolist() == [[0, 0, 1000, 1000]] * 20


def test_a_panorama_falls_back_to_all_of_its_height_in_the_center():
    # As wide as 4 / 3 of its 30 rows, 40, with (300 - 40) / 2 = 130 columns before it.
    assert crops(30, 300, (1, 1), ASPECT_RATIO, 3).tolist() == [[0, 130, 30, 40]] * 3
    assert crops(300, 30, (1, 1), ASPECT_RATIO, 3).tolist() == [[130, 0, 40, 30]] * 3


def test_all_of_the_area_at_the_aspect_ratio_of_the_image_is_the_image():
    assert crops(30, 60, (1, 1), (2, 2), 3).tolist() == [[0, 0, 30, 60]] * 3


def test_an_image_of_one_pixel_has_one_box():
    assert crops(1, 1, AREA, ASPECT_RATIO, 3).tolist() == [[0, 0, 1, 1]] * 3


@pytest.mark.parametrize("size", [(5, 7), (40, 33), (600, 200)])
def test_a_box_lies_inside_the_image(size):
    top, left, height, width = crops(*size, AREA, ASPECT_RATIO).T
    assert top.min() >= 0
    assert left.min() >= 0
    assert height.min() >= 1
    assert width.min() >= 1
    assert (top + height).max() <= size[0]
    assert (left + width).max() <= size[1]


def test_a_box_has_an_area_and_an_aspect_ratio_of_the_ranges():
    _, _, height, width = crops(1000, 1500, AREA, ASPECT_RATIO).T
    share = height * width / (1000 * 1500)
    assert share.min() >= 0.08 * 0.99  # sides are whole pixels
    assert share.max() <= 1
    assert share.max() - share.min() > 0.6
    assert (width / height).min() >= 3 / 4 * 0.99
    assert (width / height).max() <= 4 / 3 * 1.01


def test_the_area_is_uniform_and_the_aspect_ratio_log_uniform():
    # Standard error of the mean over 400: (0.3 - 0.1) / sqrt(12 * 400) = 0.003, and
    # log(4) / sqrt(12 * 400) = 0.02 of the logarithm. These boxes always fit.
    _, _, height, width = crops(1000, 1000, (0.1, 0.3), (0.5, 2)).T
    assert np.mean(height * width / 1e6) == pytest.approx(0.2, abs=0.01)
    assert np.mean(np.log(width / height)) == pytest.approx(0, abs=0.07)
    assert np.std(np.log(width / height)) == pytest.approx(
        math.log(4) / math.sqrt(12), abs=0.05
    )


def test_the_aspect_ratio_is_width_over_height():
    _, _, height, width = crops(100, 100, (0.1, 0.2), (2, 3), 50).T
    assert (width / height).min() > 1.8


def test_the_place_is_uniform():
    # A quarter of 64 x 64 can begin at any of 33 rows and columns.
    top, left, height, width = crops(64, 64, (0.25, 0.25), (1, 1)).T
    assert set(height) == set(width) == {32}
    for begin in (top, left):
        assert (begin.min(), begin.max()) == (0, 32)
        thirds = np.histogram(begin, bins=3, range=(-0.5, 32.5))[0] / NUM_VIEWS
        np.testing.assert_allclose(thirds, 1 / 3, atol=0.08)
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.15


def test_half_of_the_views_are_mirrored_whatever_their_crop():
    def draw(example_id):
        key = view_key(0, 0, example_id)
        box = draw_crop(key, 64, 64, (0.25, 0.25), (1, 1))
        return draw_flip(key), box

    views = tf.data.Dataset.range(NUM_VIEWS).map(draw).batch(NUM_VIEWS)
    flips, boxes = (x.numpy() for x in next(iter(views)))
    assert flips.mean() == pytest.approx(0.5, abs=0.08)
    for begin in boxes[:, :2].T:
        assert abs(np.corrcoef(flips, begin)[0, 1]) < 0.15


def test_the_same_arguments_draw_the_same_under_any_parallelism_and_in_any_order():
    ids = tf.data.Dataset.range(6)
    eagerly = collected(draws_of_id(i) for i in ids)
    traced = tf.function(draws_of_id)
    assert eagerly == collected(ids.map(traced, num_parallel_calls=1))
    assert eagerly == collected(ids.map(traced, num_parallel_calls=8))
    backwards = tf.data.Dataset.from_tensor_slices(np.arange(6)[::-1])
    assert eagerly == collected(backwards.map(traced, num_parallel_calls=8))


def test_every_argument_of_a_key_makes_other_draws():
    arguments = [(1, 2, 3, 4), (2, 2, 3, 4), (1, 3, 3, 4), (1, 2, 4, 4), (1, 2, 3, 5)]
    arguments += [(1, 2, 3), (2, 1, 3, 4), (1, 3, 2, 4)]
    keys = [view_key(*a) for a in arguments]
    assert len({tuple(key.numpy()) for key in keys}) == len(keys)
    boxes = [draw_crop(key, 10**4, 10**4, AREA, ASPECT_RATIO) for key in keys]
    assert len({tuple(box.numpy()) for box in boxes}) == len(keys)


def test_no_two_views_of_a_seed_have_the_same_key():
    ids = [0, 1, 2, 255, 256, 2**24, 2**32, 2**62 - 1, 2**62]
    arguments = [(e, i, r) for e in (0, 1, 2**30) for i in ids for r in (0, 1, 2**23)]
    keys = {tuple(view_key(-1, *a).numpy()) for a in arguments}
    assert len(keys) == len(arguments)
    for word in zip(*keys, strict=True):  # each of the two is a hash of everything
        assert len(set(word)) == len(arguments)


def test_repeat_zero_is_what_a_key_is_made_of_by_default():
    np.testing.assert_array_equal(view_key(1, 2, 3), view_key(1, 2, 3, 0))


def test_the_order_of_an_epoch_is_a_permutation_and_another_one_in_each_epoch():
    orders = [epoch_order(0, epoch, 50).numpy() for epoch in range(3)]
    orders += [epoch_order(1, 0, 50).numpy()]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(epoch_order(0, 1, 50), orders[1])


def test_the_order_of_an_epoch_is_the_same_inside_tf_data():
    drawn = tf.data.Dataset.range(2).map(lambda epoch: epoch_order(0, epoch, 50))
    for epoch, order in enumerate(drawn):
        np.testing.assert_array_equal(order, epoch_order(0, epoch, 50))


def test_each_window_of_a_stream_has_an_order_of_its_own():
    orders = {
        tuple(epoch_order(seed, epoch, 9, window).numpy())
        for seed in (0, 1)
        for epoch in (0, 1)
        for window in (0, 1)
    }
    assert len(orders) == 8


def test_the_key_of_a_batch_follows_from_each_of_its_arguments():
    arguments = [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (1, 3, 2)]
    keys = {tuple(mix_key(*a).numpy()) for a in arguments}
    keys |= {tuple(view_key(*a).numpy()) for a in arguments}
    assert len(keys) == 10
    np.testing.assert_array_equal(mix_key(1, 2, 3), mix_key(1, 2, 3))


def test_half_of_the_operations_are_applied_and_each_is_as_likely():
    # Standard errors over 3000: 0.009 of a half, and 0.0066 of 1 / 15 among 1500.
    drawn = many(lambda key: draw_operations(key, 1, 15, 0.5, 9, 0.5), 3000)
    numbers, _, signs = (x[:, 0] for x in drawn)
    shares = np.bincount(numbers, minlength=16) / len(numbers)
    assert len(shares) == 16
    assert shares[15] == pytest.approx(0.5, abs=0.04)
    np.testing.assert_allclose(shares[:15] / (1 - shares[15]), 1 / 15, atol=0.03)
    assert set(signs) == {1, -1}
    assert abs(np.mean(signs)) < 0.07
    applied = numbers < 15
    assert abs(np.corrcoef(signs, applied)[0, 1]) < 0.08
    assert abs(np.corrcoef(signs[applied], numbers[applied])[0, 1]) < 0.1


def test_an_operation_is_applied_as_often_as_is_said():
    def draw(key):
        return [draw_operations(key, 1, 4, p, 9, 0)[0][0] for p in (0.0, 0.2, 1.0)]

    never, seldom, always = many(draw)
    assert set(never) == {4}
    assert np.mean(seldom < 4) == pytest.approx(0.2, abs=0.08)
    assert set(always) == {0, 1, 2, 3}


def test_a_magnitude_is_gaussian_and_clipped():
    # Standard errors over 400: 0.5 / 20 = 0.025 of the mean, 0.018 of the deviation.
    def draw(key):
        strengths = [(5, 0.5), (5, 50), (9, 0), (9, 0.5)]
        return [
            draw_operations(key, 1, 15, 0.5, *strength)[1][0] for strength in strengths
        ]

    narrow, wide, fixed, official = many(draw)
    assert np.mean(narrow) == pytest.approx(5, abs=0.1)
    assert np.std(narrow) == pytest.approx(0.5, abs=0.07)
    assert np.mean(np.abs(narrow - 5) < 0.5) == pytest.approx(0.683, abs=0.1)
    assert (wide.min(), wide.max()) == (0, 10)
    assert set(fixed) == {9}
    assert 0 < np.mean(official == 10) < 0.06  # two deviations away: 2.3 percent


def test_two_operations_of_a_view_are_drawn_apart():
    for drawn in many(lambda key: draw_operations(key, 2, 15, 0.5, 5, 1)):
        assert abs(np.corrcoef(*drawn.T)[0, 1]) < 0.15


def test_factors_are_uniform_around_one_and_in_any_order():
    # Standard error of the mean over 1200: 0.8 / sqrt(12 * 1200) = 0.007.
    orders, factors = many(lambda key: draw_jitter(key, 3, 0.4))
    assert 0.6 <= factors.min() < 0.62
    assert 1.38 < factors.max() <= 1.4
    assert np.mean(factors) == pytest.approx(1, abs=0.03)
    assert np.std(factors) == pytest.approx(0.8 / math.sqrt(12), abs=0.02)
    found, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(found) == 6
    np.testing.assert_allclose(counts / NUM_VIEWS, 1 / 6, atol=0.08)
    assert abs(np.corrcoef(factors[:, 0], factors[:, 1])[0, 1]) < 0.15
    assert abs(np.corrcoef(orders[:, 0], factors[:, 0])[0, 1]) < 0.15


def test_factors_of_a_strength_above_one_begin_at_zero():
    _, factors = many(lambda key: draw_jitter(key, 3, 1.5))
    assert 0 <= factors.min() < 0.05
    assert 2.4 < factors.max() <= 2.5


def test_a_box_is_erased_as_often_as_is_said():
    def draw(key):
        return [draw_erasing(key, p) for p in (0.0, 0.25, 1.0)]

    never, seldom, always = many(draw)
    assert not never.any()
    assert seldom.mean() == pytest.approx(0.25, abs=0.08)
    assert always.all()


def test_no_draw_of_a_view_follows_from_another():
    # Two draws from the same bits correlate; the standard error over 400 is 0.05.
    def draw(key):
        return [
            draw_crop(key, 4000, 4000, (0.25, 0.25), (1, 1))[:2],
            draw_flip(key)[None],
            *draw_operations(key, 2, 1000, 1.0, 5, 1),
            *draw_jitter(key, 3, 0.4),
            draw_erasing(key, 0.25)[None],
            draw_erased_box(key, 4000, 4000),
            draw_noise(key, (4,)),
        ]

    kinds = [kind.astype(float) for kind in many(draw)]
    for number, kind in enumerate(kinds):
        for other in kinds[:number]:
            both = np.corrcoef(kind, other, rowvar=False)
            shared = both[: kind.shape[1], kind.shape[1] :]
            assert np.abs(shared).max() < 0.25


def test_an_erased_box_has_an_area_an_aspect_ratio_and_a_place_of_the_ranges():
    # Standard error of the mean over 1000: 0.313 / sqrt(12 * 1000) = 0.003 of the area,
    # 2.41 / sqrt(12 * 1000) = 0.022 of the logarithm of the ratio.
    boxes = many(lambda key: draw_erased_box(key, 2000, 2000), 1000)
    top, left, height, width = boxes.T
    share, ratio = height * width / 2000**2, height / width
    assert 0.0199 < share.min() < 0.03
    assert 0.32 < share.max() < 0.334
    assert np.mean(share) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.015)
    assert 0.298 < ratio.min() < 0.32
    assert 3.1 < ratio.max() < 3.36
    assert np.mean(np.log(ratio)) == pytest.approx(0, abs=0.1)
    for begin, side in ((top, height), (left, width)):
        places = begin / (2000 - side)
        assert 0 <= places.min() < 0.02
        assert 0.98 < places.max() <= 1.001  # the last place is included
        assert np.mean(places) == pytest.approx(0.5, abs=0.05)
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.15


def test_an_erased_box_is_lower_and_narrower_than_the_view():
    # A third of 20 x 60 is 20 x 20: higher boxes are drawn again.
    boxes = many(lambda key: draw_erased_box(key, 20, 60))
    assert boxes[:, 2].max() == 19
    assert (boxes[:, 0] + boxes[:, 2]).max() <= 20
    assert (boxes[:, 1] + boxes[:, 3]).max() <= 60
    assert boxes[:, 3].max() > 20  # height over width, not the other way round


def test_nothing_of_a_view_is_erased_where_no_box_fits():
    boxes = many(lambda key: draw_erased_box(key, 1, 50), 50)
    assert np.all(boxes == 0)


def test_noise_is_standard_normal():
    noise = draw_noise(view_key(0, 0, 0), (100, 100, 3)).numpy()
    assert np.mean(noise) == pytest.approx(0, abs=0.03)
    assert np.std(noise) == pytest.approx(1, abs=0.03)
    assert np.any(noise != draw_noise(view_key(0, 0, 1), (100, 100, 3)).numpy())


@pytest.mark.parametrize(
    ("arguments", "key", "box", "flip"),
    [
        (
            (0, 0, 0, 0),
            (6679402142117448868, 684265014234019051),
            (38, 68, 36, 40),
            False,
        ),
        (
            (1, 2, 3, 0),
            (3926309177402505104, -8031468340501234785),
            (14, 32, 82, 86),
            False,
        ),
        (
            (7, 5, 1000, 1),
            (2636286450837414576, 1654659001991951629),
            (50, 12, 42, 55),
            True,
        ),
    ],
)
def test_draws_what_this_format_has_always_drawn(arguments, key, box, flip):
    # If this fails on purpose, raise VIEW_FORMAT and write down the new draws.
    assert VIEW_FORMAT == 2
    drawn = view_key(*arguments)
    assert tuple(drawn.numpy()) == key
    assert tuple(draw_crop(drawn, 100, 150, AREA, ASPECT_RATIO).numpy()) == box
    assert bool(draw_flip(drawn)) is flip


def test_augments_what_this_format_has_always_augmented():
    assert VIEW_FORMAT == 2
    key = view_key(1, 2, 3)
    numbers, magnitudes, signs = draw_operations(key, 2, 15, 1.0, 9, 0.5)
    assert (numbers.numpy().tolist(), signs.numpy().tolist()) == ([5, 3], [-1, -1])
    np.testing.assert_allclose(magnitudes, [9.150778, 9.406991], atol=1e-5)
    order, factors = draw_jitter(key, 3, 0.4)
    assert order.numpy().tolist() == [0, 2, 1]
    np.testing.assert_allclose(factors, [0.622207, 0.671407, 1.272635], atol=1e-5)
    assert not draw_erasing(key, 0.25)
    assert draw_erased_box(key, 224, 224).numpy().tolist() == [67, 6, 142, 73]
    np.testing.assert_allclose(draw_noise(key, (2,)), [-0.572563, -1.27956], atol=1e-5)
    assert tuple(mix_key(1, 2, 3).numpy()) == (
        6484360805823589735,
        -3146442065081873049,
    )


def test_orders_as_this_format_has_always_ordered():
    assert VIEW_FORMAT == 2
    assert epoch_order(0, 0, 8).numpy().tolist() == [4, 6, 1, 3, 7, 0, 2, 5]
    assert epoch_order(0, 1, 8).numpy().tolist() == [5, 0, 6, 3, 2, 1, 4, 7]
