"""What turns gradients into weights."""

import keras


def adamw(model: keras.Model, learning_rate, weight_decay: float):
    """Makes an AdamW that decays kernels and nothing else.

    Biases, normalizations, tokens and positions are left alone.

    Args:
        model: The model to train; its weights must exist.
        learning_rate: A number or a schedule.
        weight_decay: Share of a kernel taken away at each step, times the learning
            rate.

    Returns:
        A `keras.optimizers.AdamW`.

    Reference:
        Loshchilov and Hutter (arXiv:1711.05101). Official DeiT: betas 0.9 and 0.999,
        epsilon 1e-8; it decays the distillation token too, which timm later left out,
        as here.
    """
    optimizer = keras.optimizers.AdamW(
        learning_rate, weight_decay=weight_decay, epsilon=1e-8
    )
    spared = [w for w in model.trainable_weights if w.name != "kernel"]
    optimizer.exclude_from_weight_decay(var_list=spared)
    return optimizer
