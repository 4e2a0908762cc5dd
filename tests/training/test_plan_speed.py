from dataclasses import replace

import pytest

from keras_deit.training.dataset_sizes import DatasetSize
from keras_deit.training.plan_speed import (
    Rates,
    arithmetic_of,
    disk_megabytes,
    images_per_second,
)
from tests.training.small_workloads import ALONE, FLEET, GIGA, RECIPE, TAUGHT

SOFT = replace(RECIPE, kind="soft", teacher="t.keras")


def test_deit_small_on_eight_devices_by_hand():
    arithmetic = arithmetic_of(RECIPE, ALONE)
    assert arithmetic.total == arithmetic.student == 27.6 * GIGA  # 3 x 2 x 4.6
    rates = Rates(utilization=(0.2, 0.4))
    slow, fast = images_per_second(RECIPE, FLEET, arithmetic, rates)
    assert fast == pytest.approx(8 * 100e12 * 0.4 / 27.6e9)  # 11,594
    assert slow == pytest.approx(fast / 2)


def test_a_teacher_is_asked_forward_in_its_own_precision():
    arithmetic = arithmetic_of(SOFT, TAUGHT)
    assert arithmetic.teacher == arithmetic.teacher_forward == 32 * GIGA
    assert arithmetic.total == 59.6 * GIGA
    recipe = replace(SOFT, precision="mixed_bfloat16")  # 200 TFLOP/s, the teacher 100
    seconds = 27.6e9 / 200e12 + 32e9 / 100e12
    _, fast = images_per_second(recipe, FLEET, arithmetic, Rates((1, 1)))
    assert fast == pytest.approx(8 / seconds)
    recipe = replace(recipe, teacher_precision="mixed_bfloat16")
    _, fast = images_per_second(recipe, FLEET, arithmetic, Rates((1, 1)))
    assert fast == pytest.approx(8 * 200e12 / 59.6e9)


def test_a_cached_teacher_is_not_asked_and_a_trained_one_goes_backward():
    cached = arithmetic_of(replace(SOFT, teacher_cache="cache"), TAUGHT)
    assert (cached.teacher, cached.teacher_forward) == (0, 32 * GIGA)
    assert arithmetic_of(replace(SOFT, train_teacher=True), TAUGHT).teacher == 96 * GIGA
    assert arithmetic_of(replace(SOFT, train_teacher="head"), TAUGHT).teacher == 32e9


def test_checkpointing_computes_the_blocks_again():
    recipe = replace(RECIPE, gradient_checkpointing=True)
    arithmetic = arithmetic_of(recipe, ALONE)
    assert arithmetic.recomputed == 9 * GIGA  # 2 x 4.5
    assert arithmetic.total == 36.6 * GIGA
    _, fast = images_per_second(recipe, FLEET, arithmetic, Rates((1, 1)))
    assert fast == pytest.approx(8 * 100e12 / 36.6e9)


def test_what_is_read_from_disk_by_hand(tmp_path):
    images = DatasetSize(10**6, 10, 100.0)  # 100 GB
    hosts = replace(FLEET, hosts=4)
    # 2,000 views of 1,000 images are 100 MB: all of it read by each host of a stream,
    # a quarter of it from a folder.
    recipe = replace(RECIPE, repeats=2)
    assert disk_megabytes(recipe, hosts, images, (2000, 4000)) == (100, 200)
    for folder in (str(tmp_path), "/not/here", "~/images"):
        folder = replace(recipe, dataset=folder)
        assert disk_megabytes(folder, hosts, images, (2000, 4000)) == (25, 50)
    small = replace(images, num_examples=10_737)  # 1 GiB and less is kept in memory
    assert disk_megabytes(recipe, hosts, small, (2000, 4000)) == (0, 0)
    above = replace(images, num_examples=10_738)
    assert disk_megabytes(recipe, hosts, above, (2000, 4000)) == (100, 200)
    folder = replace(recipe, dataset=str(tmp_path))
    assert disk_megabytes(folder, hosts, small, (2000, 4000)) == (25, 50)
    assert disk_megabytes(recipe, hosts, DatasetSize(5, 2), (1, 2)) is None


@pytest.mark.parametrize("pair", [(0, 0.5), (0.5, 0.4), (0.5, 1.1)])
def test_refuses_shares_that_are_none(pair):
    with pytest.raises(ValueError, match="`utilization` must be two rising shares"):
        Rates(utilization=pair)


def test_refuses_a_core_that_makes_nothing():
    with pytest.raises(ValueError, match="`images_per_core` must be positive"):
        Rates(images_per_core=0)
