import math

import keras
import pytest
import tensorflow as tf

from keras_deit.training.recipe import Recipe
from keras_deit.training.schedules import (
    EpochCosine,
    keep_rate_stages,
    learning_rate_schedule,
)

STEPS = 10  # of an epoch


def recipe(**changes):
    values = {
        "variant": "deit_micro_patch4_32",
        "dataset": "digits",
        "epochs": 10,
        "warmup_epochs": 2,
        "batch_size": 1024,
        "learning_rate": 5e-4,
        "warmup_learning_rate": 1e-6,
        "min_learning_rate": 1e-5,
        **changes,
    }
    return Recipe(**values)


def schedule(**changes):
    return learning_rate_schedule(recipe(**changes), STEPS)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1e-6),
        (10, 1e-6 + (1e-3 - 1e-6) / 2),  # the warm-up is a line over 20 steps
        (20, 1e-3),  # twice 5e-4: 1024 images are twice 512
        (40, 1e-5 + (1e-3 - 1e-5) * 0.85355339),  # (1 + cos(pi / 4)) / 2
        (60, (1e-3 + 1e-5) / 2),  # half of the cosine's 80 steps
        (100, 1e-5),
        (200, 1e-5),
    ],
)
def test_the_rate_is_worked_out_by_hand(step, rate):
    assert float(schedule()(step)) == pytest.approx(rate, rel=1e-5)


def test_a_warm_up_may_end_within_an_epoch():
    assert float(schedule(warmup_epochs=0.5)(5)) == pytest.approx(1e-3, rel=1e-5)


def test_without_warm_up_the_first_step_has_the_peak():
    cosine = schedule(warmup_epochs=0)
    assert float(cosine(0)) == pytest.approx(1e-3)
    assert float(cosine(50)) == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-5)
    assert float(cosine(100)) == pytest.approx(1e-5, rel=1e-4)


def test_the_rate_rises_in_the_warm_up_and_never_after():
    rates = [float(schedule()(step)) for step in range(0, 101, 5)]
    assert rates[:5] == sorted(rates[:5])
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_a_cooldown_ends_the_cosine_before_the_run():
    # 8 epochs of which 2 are warm-up: half of the cosine's 60 steps is step 50.
    cosine = schedule(cooldown_epochs=2)
    assert float(cosine(50)) == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-5)
    assert float(cosine(79)) > 1.05e-5
    assert [float(cosine(step)) for step in (80, 99)] == pytest.approx([1e-5] * 2)


def test_a_constant_rate_is_reached_in_the_warm_up_and_stays():
    constant = schedule(schedule="constant", cooldown_epochs=3)
    rates = [float(constant(step)) for step in (0, 10, 20, 55, 80, 99)]
    assert rates == pytest.approx([1e-6, 1e-6 + (1e-3 - 1e-6) / 2, *[1e-3] * 4])
    unwarmed = schedule(schedule="constant", warmup_epochs=0)
    assert [float(unwarmed(step)) for step in (0, 50)] == pytest.approx([1e-3] * 2)


@pytest.mark.parametrize("warmup_epochs", [10, 12])
def test_a_warm_up_that_is_not_shorter_than_the_run_is_refused(warmup_epochs):
    message = (
        r"`warmup_epochs` must be less than `epochs`\. Received: "
        rf"warmup_epochs={warmup_epochs}, epochs=10\."
    )
    with pytest.raises(ValueError, match=message):
        schedule(warmup_epochs=warmup_epochs)


def test_a_cooldown_that_leaves_nothing_to_the_cosine_is_refused():
    message = (
        r"^`warmup_epochs` \+ `cooldown_epochs` must be less than `epochs`\. Received: "
        r"warmup_epochs=2, cooldown_epochs=8, epochs=10\.$"
    )
    with pytest.raises(ValueError, match=message):
        schedule(cooldown_epochs=8)
    assert float(schedule(cooldown_epochs=7)(30)) == pytest.approx(1e-5)


def test_another_number_of_epochs_keeps_the_share_of_the_cooldown():
    official = recipe(epochs=310, warmup_epochs=10, cooldown_epochs=10)
    assert official.over(310) == official
    assert official.over(62).cooldown_epochs == 2
    # Of 3 epochs 1.2 are warm-up and 1.5 cooldown: rounded up, nothing would be left.
    assert recipe(warmup_epochs=4, cooldown_epochs=5).over(3).cooldown_epochs == 1


# ---- At each epoch ----


def by_epoch(**changes):
    """The rate of an epoch, which must be the same at its first and last step."""
    rate_of = learning_rate_schedule(
        recipe(**{"warmup_epochs": 5, **changes}), steps_per_epoch=7
    )

    def rate(epoch):
        first, last = (float(rate_of(7 * epoch + step)) for step in (0, 6))
        assert first == last
        return first

    return rate


def test_the_rate_at_each_epoch_is_worked_out_by_hand():
    # The warm-up covers the begin of the cosine, which is half done at epoch 4 of 8.
    rate = by_epoch(epochs=8, warmup_epochs=2, schedule="epochs")
    assert [rate(epoch) for epoch in range(2)] == pytest.approx([1e-6, 5.005e-4])
    assert rate(2) == pytest.approx(1e-5 + (1e-3 - 1e-5) * 0.85355339)
    assert rate(4) == pytest.approx((1e-3 + 1e-5) / 2)
    late = by_epoch(epochs=8, warmup_epochs=2, schedule="late_epochs")
    assert late(0) == late(1) == rate(0)
    assert [late(epoch + 1) for epoch in range(1, 9)] == [rate(e) for e in range(1, 9)]


def test_golden_the_rates_of_the_official_deit():
    rate = by_epoch(epochs=300, schedule="late_epochs")
    official = {
        0: 1e-6,
        1: 1e-6,
        2: 2.008e-4,
        3: 4.006e-4,
        4: 6.004e-4,
        5: 8.002e-4,
        6: 9.99322e-4,
        10: 9.97803e-4,
        100: 7.56976e-4,
        200: 2.62003e-4,
        299: 1.010856e-5,
    }
    ours = {epoch: rate(epoch) for epoch in official}
    assert ours == pytest.approx(official, rel=2e-6)


def test_golden_the_rates_of_the_official_t2t_vit():
    rate = by_epoch(
        epochs=310,
        cooldown_epochs=10,
        warmup_epochs=10,
        learning_rate_batch=None,
        schedule="epochs",
    )
    assert [rate(0), rate(10)] == pytest.approx([1e-6, 4.98658e-4], rel=2e-6)
    assert rate(299) == pytest.approx(1e-5 + 4.9e-4 * (1 - math.cos(math.pi / 300)) / 2)
    assert [rate(e) for e in (300, 309, 400)] == pytest.approx([1e-5] * 3, rel=1e-6)


def test_a_warm_up_by_epochs_may_have_a_fraction():
    # At epoch 2 it is 2 / 2.5 up; epoch 3 is on the cosine.
    rate = by_epoch(epochs=10, warmup_epochs=2.5, schedule="epochs")
    assert rate(2) == pytest.approx(1e-6 + (1e-3 - 1e-6) * 0.8)
    share = (1 + math.cos(0.3 * math.pi)) / 2
    assert rate(3) == pytest.approx(1e-5 + (1e-3 - 1e-5) * share)


def test_without_warm_up_the_first_epoch_has_the_peak():
    assert by_epoch(warmup_epochs=0, schedule="epochs")(0) == pytest.approx(1e-3)


def test_an_epoch_begins_at_its_very_step_also_late_in_a_long_run():
    # 2**24 + 1 is no number of float32: 16,777,214 = 2 * 8,388,607 begins epoch 2.
    rate = EpochCosine(1.0, epochs=4, steps_per_epoch=8_388_607)
    steps = tf.constant([16_777_213, 16_777_214, 25_165_820, 25_165_821], tf.int64)
    rates = [float(tf.function(rate)(step)) for step in steps]
    expected = [(1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in (1, 2, 2, 3)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["cosine", "constant", "epochs", "late_epochs"])
def test_a_schedule_is_made_anew_of_its_config(kind):
    made = schedule(schedule=kind)
    config = keras.optimizers.schedules.serialize(made)
    twin = keras.optimizers.schedules.deserialize(config)
    assert twin.get_config() == made.get_config()
    for step in (0, 15, 37, 99):
        assert float(twin(step)) == float(made(step))
    if "epochs" in kind:
        assert config["registered_name"] == "keras_deit>EpochCosine"


# ---- The keep rates of EViT ----


def stages(keep_rate=0.7, **changes):
    changes = {f"keep_rate_{name}": value for name, value in changes.items()}
    return keep_rate_stages(recipe(epochs=300, **changes), keep_rate)


def test_the_stages_are_worked_out_by_hand():
    # Two stages with the middles 1/4 and 3/4 of the ramp: 0.5 + 0.5 (1 +- 0.7071) / 2.
    expected = [(0, 1.0), (2, 0.9267767), (4, 0.5732233), (6, 0.5)]
    found = stages(0.5, start_epoch=2, ramp_epochs=4, stages=2)
    assert [first for first, _ in found] == [first for first, _ in expected]
    assert [rate for _, rate in found] == pytest.approx([rate for _, rate in expected])


def test_a_ramp_from_the_first_epoch_begins_with_its_first_stage():
    found = stages(0.5, start_epoch=0, ramp_epochs=4, stages=2)
    assert [first for first, _ in found] == [0, 2, 4]
    assert found[0][1] == pytest.approx(0.9267767)


def test_without_a_ramp_the_rate_is_there_at_once():
    assert stages(0.7) == [(0, 0.7)]
    assert stages(0.7, start_epoch=10) == [(0, 1.0), (10, 0.7)]


def test_a_model_that_keeps_all_tokens_has_one_stage():
    assert stages(1.0, start_epoch=10, ramp_epochs=100) == [(0, 1.0)]


def test_there_are_no_more_stages_than_epochs():
    found = stages(0.5, start_epoch=1, ramp_epochs=3, stages=100)
    assert [first for first, _ in found] == [0, 1, 2, 3, 4]
    # The middles are 1/6, 1/2 and 5/6 of the ramp.
    rates = [1.0, 0.5 + 0.25 * (1 + 0.8660254), 0.75, 0.5 + 0.25 * (1 - 0.8660254), 0.5]
    assert [rate for _, rate in found] == pytest.approx(rates)


def official_rate(epoch, start=10, length=100, keep_rate=0.7):
    turned = min(max((epoch - start) / length, 0), 1) * math.pi
    return keep_rate + (1 - keep_rate) * (math.cos(turned) + 1) / 2


def test_golden_the_official_curve():
    official = {
        0: 1,
        9: 1,
        10: 1,
        35: 0.956066,
        60: 0.85,
        85: 0.743934,
        109: 0.700074,
        110: 0.7,
        299: 0.7,
    }
    curve = {epoch: official_rate(epoch) for epoch in official}
    assert curve == pytest.approx(official, abs=5e-7)


@pytest.mark.parametrize("num_stages", [1, 4, 7, 100])
def test_the_stages_are_within_half_a_stage_of_the_official_curve(num_stages):
    found = stages(start_epoch=10, ramp_epochs=100, stages=num_stages)
    assert found[0] == (0, 1.0)
    assert found[-1] == (110, 0.7)
    assert len(found) == num_stages + 2
    ends = [first for first, _ in found[1:]]
    for (first, rate), end in zip(found, ends, strict=False):
        half = math.ceil(100 / num_stages) / 2
        for epoch in range(first, end):  # the curve half a stage later and earlier
            late, early = official_rate(epoch + half), official_rate(epoch - half)
            assert late - 1e-9 <= rate <= early + 1e-9, epoch
    lengths = {
        end - first for (first, _), end in zip(found[1:], ends[1:], strict=False)
    }
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("keep_rate", [0.0, -0.1, 1.1])
def test_a_keep_rate_out_of_range_is_refused(keep_rate):
    rule = rf"`keep_rate` must be above 0, up to 1\. Received: keep_rate={keep_rate}"
    with pytest.raises(ValueError, match=rule):
        stages(keep_rate)
