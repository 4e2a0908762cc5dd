import pytest

from keras_deit.training.recipe import Recipe
from keras_deit.training.schedules import learning_rate_schedule

STEPS = 10  # of an epoch


def schedule(**changes):
    recipe = {
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
    return learning_rate_schedule(Recipe(**recipe), STEPS)


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


@pytest.mark.parametrize("warmup_epochs", [10, 12])
def test_a_warm_up_that_is_not_shorter_than_the_run_is_refused(warmup_epochs):
    message = (
        r"`warmup_epochs` must be less than `epochs`\. Received: "
        rf"warmup_epochs={warmup_epochs}, epochs=10\."
    )
    with pytest.raises(ValueError, match=message):
        schedule(warmup_epochs=warmup_epochs)
