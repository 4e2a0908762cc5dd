"""What changes while a run goes on."""

import math

import keras
from keras import ops

from keras_deit._checks import check
from keras_deit.training.recipe import Recipe


@keras.saving.register_keras_serializable(package="keras_deit")
class EpochCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Changes the learning rate at each epoch, on a cosine that no warm-up shifts.

    In epoch t the rate is

        warmup_rate + t (peak - warmup_rate) / warmup_epochs       if t < warmup_epochs
        end_rate + (peak - end_rate) (1 + cos(pi t / epochs)) / 2  then, if t < epochs
        end_rate                                                   from then on

    Args:
        peak: The rate at which the cosine begins.
        epochs: Length of the cosine, from epoch 0.
        steps_per_epoch: Steps in an epoch.
        warmup_epochs: Length of the warm-up, which hides the beginning of the cosine.
        warmup_rate: The rate of epoch 0, if there is a warm-up.
        end_rate: The rate at which the cosine ends.
        late: Whether epoch e has the rate of t = e - 1 (and epoch 0 that of t = 0).

    Call arguments:
        step: The number of steps done, a scalar.

    Returns:
        The learning rate, a scalar in float32.

    Example:
    >>> schedule = EpochCosine(1.0, epochs=4, steps_per_epoch=10)
    >>> [round(float(schedule(step)), 4) for step in (0, 9, 10, 25, 40)]
    [1.0, 1.0, 0.8536, 0.5, 0.0]

    Reference:
        timm `CosineLRScheduler`, stepped with the number of the epoch. The official
        T2T-ViT steps it with the next epoch; the official DeiT and EViT with the epoch
        that has just ended, so that they are late.
    """

    def __init__(
        self,
        peak: float,
        epochs: int,
        steps_per_epoch: int,
        warmup_epochs: float = 0,
        warmup_rate: float = 0.0,
        end_rate: float = 0.0,
        late: bool = False,
    ):
        self.peak = peak
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.warmup_epochs = warmup_epochs
        self.warmup_rate = warmup_rate
        self.end_rate = end_rate
        self.late = late

    def __call__(self, step):
        # Whole numbers: a quotient in float32 could land in the neighboring epoch.
        epoch = ops.floor_divide(ops.cast(step, "int64"), self.steps_per_epoch)
        epoch = ops.maximum(epoch - 1, 0) if self.late else epoch
        epoch = ops.cast(epoch, "float32")
        turned = math.pi * ops.minimum(epoch / self.epochs, 1.0)
        share = 0.5 * (1.0 + ops.cos(turned))
        rate = self.end_rate + share * (self.peak - self.end_rate)
        if not self.warmup_epochs:
            return rate
        slope = (self.peak - self.warmup_rate) / self.warmup_epochs
        rising = self.warmup_rate + epoch * slope
        return ops.where(epoch < self.warmup_epochs, rising, rate)

    def get_config(self):
        return {
            "peak": self.peak,
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
            "warmup_epochs": self.warmup_epochs,
            "warmup_rate": self.warmup_rate,
            "end_rate": self.end_rate,
            "late": self.late,
        }


def learning_rate_schedule(
    recipe: Recipe, steps_per_epoch: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Makes the learning rate of a run, a function of the optimizer's step.

    "cosine": linear warm-up, then half a cosine down to the smallest learning rate, a
    little at each step. "constant": the same warm-up, then the peak. "epochs" and
    "late_epochs": an `EpochCosine`. All of them end `cooldown_epochs` before the run
    does, and stay where they are.

    Args:
        recipe: Says the kind, the rates, in units per step, and the epochs.
        steps_per_epoch: Steps in an epoch.

    Returns:
        The schedule.

    Reference:
        Loshchilov and Hutter (arXiv:1608.03983); Touvron et al., DeiT
        (arXiv:2012.12877), table 9. The official code is "late_epochs"; the official
        T2T-ViT "epochs", with a cooldown of 10 epochs after 300.
    """
    peak = recipe.peak_learning_rate
    epochs = recipe.epochs - recipe.cooldown_epochs
    if recipe.schedule in ("epochs", "late_epochs"):
        return EpochCosine(
            peak,
            epochs,
            steps_per_epoch,
            recipe.warmup_epochs,
            recipe.warmup_learning_rate,
            recipe.min_learning_rate,
            late=recipe.schedule == "late_epochs",
        )
    warmup_steps = round(recipe.warmup_epochs * steps_per_epoch)
    last = peak if recipe.schedule == "constant" else recipe.min_learning_rate
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=recipe.warmup_learning_rate if warmup_steps else peak,
        decay_steps=max(epochs * steps_per_epoch - warmup_steps, 1),
        alpha=last / peak,
        warmup_target=peak if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def keep_rate_stages(recipe: Recipe, keep_rate: float) -> list[tuple[int, float]]:
    """Lists the keep rates of a run, each from its first epoch on.

    The official rate falls at each iteration: at t in [0, 1] of the ramp it is

        keep_rate + (1 - keep_rate) (1 + cos(pi t)) / 2.

    Each new number of tokens is a new graph, so here the ramp has `keep_rate_stages`
    stages of whole epochs, or as many as it has epochs if these are fewer. A stage has
    the official rate of its middle.

    Args:
        recipe: Says where the ramp begins, how long it is, and how many stages it has.
        keep_rate: The rate after the ramp, in (0, 1].

    Returns:
        (first epoch, keep rate), the first one from epoch 0 on; the last rate is
        `keep_rate`.

    Raises:
        ValueError: If `keep_rate` is outside (0, 1].

    Example:
    >>> recipe = Recipe("deit_micro_patch4_32", "digits", keep_rate_start_epoch=2,
    ...     keep_rate_ramp_epochs=4, keep_rate_stages=2)
    >>> [(first, round(rate, 4)) for first, rate in keep_rate_stages(recipe, 0.5)]
    [(0, 1.0), (2, 0.9268), (4, 0.5732), (6, 0.5)]

    Reference:
        Liang et al., EViT (arXiv:2202.07800), section 4.1; official code `helpers.py`,
        `adjust_keep_rate`.
    """
    check(
        0 < keep_rate <= 1, "`keep_rate` must be above 0, up to 1.", keep_rate=keep_rate
    )
    if keep_rate == 1:
        return [(0, 1.0)]
    start, ramp = recipe.keep_rate_start_epoch, recipe.keep_rate_ramp_epochs
    num_stages = min(recipe.keep_rate_stages, ramp)
    stages = [(0, 1.0)] if start else []
    for index in range(num_stages):
        first, end = (ramp * i // num_stages for i in (index, index + 1))
        share = 0.5 * (1 + math.cos(math.pi * (first + end) / 2 / ramp))
        stages.append((start + first, keep_rate + (1 - keep_rate) * share))
    return [*stages, (start + ramp, keep_rate)]
