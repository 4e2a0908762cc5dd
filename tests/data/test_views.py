import math

import numpy as np
import pytest
import tensorflow as tf

from keras_deit.data.views import (
    VIEW_FORMAT,
    draw_crop,
    draw_flip,
    epoch_order,
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


def draws_of_id(example_id):
    key = view_key(3, 1, example_id)
    return example_id, key, draw_crop(key, 40, 50, AREA, ASPECT_RATIO), draw_flip(key)


def collected(views):
    """Draws by example id."""
    return {int(i): (*key.numpy(), *crop.numpy(), bool(f)) for i, key, crop, f in views}


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
    ids = tf.data.Dataset.range(24)
    eagerly = collected(draws_of_id(i) for i in ids)
    assert eagerly == collected(draws_of_id(i) for i in ids)
    assert eagerly == collected(ids.map(draws_of_id, num_parallel_calls=1))
    assert eagerly == collected(ids.map(draws_of_id, num_parallel_calls=8))
    backwards = tf.data.Dataset.from_tensor_slices(np.arange(24)[::-1])
    assert eagerly == collected(backwards.map(draws_of_id, num_parallel_calls=8))


def test_every_argument_of_a_key_makes_other_draws():
    arguments = [(1, 2, 3, 4), (2, 2, 3, 4), (1, 3, 3, 4), (1, 2, 4, 4), (1, 2, 3, 5)]
    arguments += [(1, 2, 3), (2, 1, 3, 4), (1, 3, 2, 4)]
    keys = [view_key(*a) for a in arguments]
    assert len({tuple(key.numpy()) for key in keys}) == len(keys)
    boxes = [draw_crop(key, 10**4, 10**4, AREA, ASPECT_RATIO) for key in keys]
    assert len({tuple(box.numpy()) for box in boxes}) == len(keys)


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


@pytest.mark.parametrize(
    ("arguments", "key", "box", "flip"),
    [
        ((0, 0, 0, 0), (8918111245148349490, 0), (0, 36, 93, 113), False),
        ((1, 2, 3, 0), (6872143873421174729, 0), (13, 71, 78, 73), True),
        ((7, 5, 1000, 1), (-6527179690350898335, 1), (1, 25, 83, 76), False),
    ],
)
def test_draws_what_this_format_has_always_drawn(arguments, key, box, flip):
    # If this fails on purpose, raise VIEW_FORMAT and write down the new draws.
    assert VIEW_FORMAT == 1
    drawn = view_key(*arguments)
    assert tuple(drawn.numpy()) == key
    assert tuple(draw_crop(drawn, 100, 150, AREA, ASPECT_RATIO).numpy()) == box
    assert bool(draw_flip(drawn)) is flip


def test_orders_as_this_format_has_always_ordered():
    assert VIEW_FORMAT == 1
    assert epoch_order(0, 0, 8).numpy().tolist() == [4, 1, 5, 2, 6, 3, 0, 7]
    assert epoch_order(0, 1, 8).numpy().tolist() == [7, 4, 2, 5, 6, 3, 0, 1]
