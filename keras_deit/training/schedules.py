"""What changes while a run goes on."""

import keras

from keras_deit.training.recipe import Recipe


def learning_rate_schedule(recipe: Recipe, steps_per_epoch: int):
    """Linear warm-up, then half a cosine down to the smallest learning rate.

    Args:
        recipe: Says the rates, in units per step, and the epochs.
        steps_per_epoch: Steps in an epoch.

    Returns:
        A `keras.optimizers.schedules.CosineDecay` over all steps of the run.
    Reference:
        Loshchilov and Hutter (arXiv:1608.03983); Touvron et al., DeiT
        (arXiv:2012.12877), table 9. The rate changes at each step, where the official
        code changes it at each epoch, and the cosine begins after the warm-up.
    """
    warmup_steps = round(recipe.warmup_epochs * steps_per_epoch)
    peak = recipe.peak_learning_rate
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=recipe.warmup_learning_rate if warmup_steps else peak,
        decay_steps=max(recipe.epochs * steps_per_epoch - warmup_steps, 1),
        alpha=recipe.min_learning_rate / peak,
        warmup_target=peak if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
