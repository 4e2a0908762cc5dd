from dataclasses import replace

import pytest

from keras_deit.training.dataset_sizes import DatasetSize
from keras_deit.training.plan_speed import Rates
from keras_deit.training.planning import plan, plan_of, steps_of
from tests.training.small_workloads import ALONE, FLEET, RECIPE, TAUGHT

IMAGES = DatasetSize(1_000, 20, 100.0)
RATES = Rates((0.2, 0.4), images_per_core=1000.0)


def plan_by_hand(recipe, fleet=FLEET, workload=ALONE):
    steps = steps_of(recipe, fleet, IMAGES.num_examples)
    return plan_of(recipe, fleet, IMAGES, RATES, steps, workload)


def test_deals_out_the_views():
    recipe = replace(RECIPE, accumulate_steps=4, learning_rate=1e-3)
    steps = steps_of(recipe, FLEET, 1_000)
    assert (steps.batch_size, steps.per_device, steps.micro_batch) == (64, 8, 2)
    assert (steps.per_epoch, steps.epochs, steps.views_per_epoch) == (15, 10, 960)
    assert steps.learning_rate == pytest.approx(1e-3 * 64 / 512)


def test_time_and_input_by_hand():
    found = plan_by_hand(RECIPE)
    slow, fast = 8 * 100e12 * 0.2 / 27.6e9, 8 * 100e12 * 0.4 / 27.6e9
    assert found.images_per_second == pytest.approx((slow, fast))  # 5,797 and 11,594
    hours = 9600 / slow / 3600, 9600 / fast / 3600
    assert found.hours == pytest.approx(hours)
    assert found.device_hours == pytest.approx([8 * time for time in hours])
    assert found.host_images_per_second == found.images_per_second
    assert found.host_cores == (6, 12)
    assert found.host_disk_megabytes == (0, 0)  # 100 MB stay in memory
    assert found.checkpoint_bytes > found.model_bytes == 100
    assert found.caches == ()
    assert found.cache_hours is None


def test_hosts_share_the_views():
    hosts = replace(FLEET, hosts=4, devices_per_host=2)
    one, four = plan_by_hand(RECIPE), plan_by_hand(RECIPE, hosts)
    assert four.images_per_second == one.images_per_second
    quarter = [rate / 4 for rate in one.images_per_second]
    assert four.host_images_per_second == pytest.approx(quarter)
    assert four.host_cores == (2, 3)


def test_a_teacher_may_be_asked_once():
    live = plan_by_hand(
        replace(RECIPE, kind="soft", teacher="t.keras"), workload=TAUGHT
    )
    # 9,600 views of 32 billion operations.
    asking = [9600 * 32e9 / (8 * 100e12 * u) / 3600 for u in (0.2, 0.4)]
    assert live.cache_hours == pytest.approx(asking)
    assert [cache.keep_logits for cache in live.caches] == ["hard", 16, "all"]
    assert live.hours[0] == pytest.approx(plan_by_hand(RECIPE).hours[0] + asking[0])
    recipe = replace(RECIPE, kind="soft", teacher_cache="cache")
    cached = plan_by_hand(recipe)
    assert cached.hours == plan_by_hand(RECIPE).hours
    assert cached.cache_hours is None  # nobody knows whose cache it is
    assert cached.caches == live.caches
    trained = replace(RECIPE, kind="soft", teacher="t.keras", train_teacher=True)
    trained = plan_by_hand(trained, workload=TAUGHT)
    assert (trained.caches, trained.cache_hours) == ((), None)


def test_what_does_not_fit_is_advised():
    assert not plan_by_hand(RECIPE).memory.fits
    found = plan_by_hand(RECIPE)
    assert found.memory_checkpointed.total == found.memory.total - 8 * 30
    assert found.advice[0].startswith("accumulate_steps=")
    large = replace(FLEET, accelerator=replace(FLEET.accelerator, memory_gb=1.0))
    assert plan_by_hand(RECIPE, large).memory.fits
    assert plan_by_hand(RECIPE, large).advice == ()


@pytest.mark.parametrize(("devices", "accumulate_steps"), [(7, 1), (8, 16), (128, 1)])
def test_refuses_a_batch_that_does_not_come_out_even(devices, accumulate_steps):
    fleet = replace(FLEET, devices_per_host=devices)
    recipe = replace(RECIPE, accumulate_steps=accumulate_steps)
    with pytest.raises(ValueError, match=r"`batch_size` must be a multiple of the num"):
        steps_of(recipe, fleet, 1_000)


def test_refuses_hosts_without_pairs_of_views():
    fleet = replace(FLEET, hosts=64, devices_per_host=1)
    with pytest.raises(ValueError, match=r"multiple of twice their .* hosts=64"):
        steps_of(RECIPE, fleet, 1_000)
    assert steps_of(RECIPE, replace(fleet, hosts=32), 1_000).per_device == 2
    assert steps_of(RECIPE, replace(FLEET, devices_per_host=64), 1_000).per_device == 1


def test_refuses_more_views_than_images():
    assert steps_of(RECIPE, FLEET, 64).per_epoch == 1
    with pytest.raises(ValueError, match="at most the number of training images"):
        steps_of(RECIPE, FLEET, 63)


def test_refuses_what_cannot_run_before_a_model_is_built(monkeypatch):
    monkeypatch.setattr("keras_deit.training.planning.workload_of", None)
    with pytest.raises(ValueError, match="`teacher` or `teacher_cache` must be there"):
        plan(replace(RECIPE, kind="soft"), FLEET, IMAGES)
    with pytest.raises(ValueError, match="`precision` must be one"):
        plan(replace(RECIPE, precision="mixed_float16"), FLEET, IMAGES)
    with pytest.raises(ValueError, match="`batch_size` must be a multiple"):
        plan(RECIPE, replace(FLEET, devices_per_host=7), IMAGES)


def test_measures_the_models_of_a_recipe(monkeypatch):
    asked = []

    def measured(recipe, num_classes):
        asked.append((recipe, num_classes))
        return ALONE

    monkeypatch.setattr("keras_deit.training.planning.workload_of", measured)
    found = plan(RECIPE, FLEET, IMAGES)
    assert asked == [(RECIPE, 20)]
    assert found.rates == Rates()
    assert plan(RECIPE, FLEET, IMAGES, RATES) == plan_by_hand(RECIPE)
