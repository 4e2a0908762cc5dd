"""What turns gradients into weights."""

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf
from keras import ops

from keras_deit._checks import check, check_choice
from keras_deit.layers.encoder_block import EncoderBlock
from keras_deit.layers.regnet_block import RegNetBlock
from keras_deit.training.recipe import Recipe
from keras_deit.training.recipe_rules import OPTIMIZERS

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # of AdamW, in the official code


@keras.saving.register_keras_serializable(package="keras_deit")
class LayerwiseOptimizer(keras.optimizers.Optimizer):
    """AdamW or SGD, each weight with its own factor of the learning rate.

    A weight p with the gradient g and the factor f has the learning rate
    r = f `learning_rate`. In a step first `p <- p - r weight_decay p`, for kernels;
    then, with "adamw", where n is the number of steps of this very weight,

        m <- m + (1 - beta_1) (g - m);  v <- v + (1 - beta_2) (g^2 - v)
        p <- p - r sqrt(1 - beta_2^n) / (1 - beta_1^n) m / (sqrt(v) + epsilon)

    or, with "sgd",

        m <- momentum m - r g;  p <- p + m

    These are the rules of `keras.optimizers.AdamW` and `SGD`, to the bit. Three things
    are not to be had there. The factors: a `MultiOptimizer` takes no subset of the
    weights, and clips each group by itself. The steps of each weight: with one n for
    all, weights that join late begin with steps up to six times too large. And the norm
    of the gradients of all devices together: Keras clips on each by itself.

    Only weights that are given to `apply` change, in any way.

    Args:
        method: "adamw" or "sgd".
        learning_rate: A number or a schedule; it is what `learning_rate` reports.
        weight_decay: Share of a kernel taken away at each step, times r. Biases,
            normalizations, tokens and positions are left alone.
        momentum: Of "sgd", in [0, 1).
        clip_norm: Largest norm of all gradients together; None for no limit.
        factors: f by the path of the weight; 1 for those that are not in it.
        name: Name of the optimizer.

    Raises:
        ValueError: If `method` is another one.

    Example:
    >>> weight = keras.Variable([1.0], name="kernel")
    >>> optimizer = LayerwiseOptimizer("sgd", 0.1, 0.5, factors={"kernel": 0.5})
    >>> optimizer.apply([ops.ones((1,))], [weight])
    >>> round(float(weight[0]), 4)  # 1 - 0.05 * 0.5 - 0.05
    0.925

    Reference:
        Loshchilov and Hutter (arXiv:1711.05101); PyTorch's `AdamW`, which counts the
        steps of each weight too. PyTorch's `SGD` adds `weight_decay p` to the gradient
        instead, where the momentum multiplies it: its decay acts like ours times
        `1 / (1 - momentum)`, 10 at 0.9.
    """

    def __init__(
        self,
        method: str,
        learning_rate,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        clip_norm: float | None = None,
        factors: Mapping[str, float] | None = None,
        name: str | None = None,
    ):
        super().__init__(learning_rate, name=name)
        check_choice("method", method, OPTIMIZERS)
        self.method = method
        self.kernel_decay = weight_decay  # Keras would apply `self.weight_decay` too
        self.momentum = momentum
        self.clip_norm = clip_norm
        self.factors = dict(factors or {})

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.weight_factors = [self.factors.get(v.path, 1.0) for v in variables]
        self.weight_decays = [
            self.kernel_decay if v.name == "kernel" else 0.0 for v in variables
        ]
        self.first_moments = self.add_optimizer_variables(variables, "momentum")
        if self.method == "adamw":
            self.second_moments = self.add_optimizer_variables(variables, "velocity")
            self.steps = [
                self.add_variable((), dtype="int", name="steps") for _ in variables
            ]

    def apply(self, grads, trainable_variables=None):
        if self.clip_norm is not None:
            grads = _clipped(grads, self.clip_norm)
        super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self.weight_factors[index]
        gradient = ops.cast(gradient, variable.dtype)
        if self.weight_decays[index]:
            self.assign_sub(variable, variable * self.weight_decays[index] * rate)
        if self.method == "adamw":
            self._adam_step(index, gradient, variable, rate)
        else:
            moment = self.first_moments[index]
            self.assign(moment, moment * self.momentum - gradient * rate)
            self.assign_add(variable, moment)

    def _adam_step(self, index, gradient, variable, rate):
        first, second = self.first_moments[index], self.second_moments[index]
        steps = self.steps[index]
        self.assign_add(steps, 1)
        count = ops.cast(steps, variable.dtype)
        unbias_1 = 1 - ops.power(ops.cast(BETA_1, variable.dtype), count)
        unbias_2 = 1 - ops.power(ops.cast(BETA_2, variable.dtype), count)
        rate = rate * ops.sqrt(unbias_2) / unbias_1
        self.assign_add(first, (gradient - first) * (1 - BETA_1))
        self.assign_add(second, (ops.square(gradient) - second) * (1 - BETA_2))
        self.assign_sub(variable, first * rate / (ops.sqrt(second) + EPSILON))

    def get_config(self):
        return {
            "method": self.method,
            "learning_rate": super().get_config()["learning_rate"],
            "weight_decay": self.kernel_decay,
            "momentum": self.momentum,
            "clip_norm": self.clip_norm,
            "factors": dict(self.factors),
            "name": self.name,
        }


def _clipped(gradients: Sequence, clip_norm: float) -> list:
    """Shrinks gradients if their norm, over all weights and devices, is too large.

    What each device gets back sums up to the clipped sum.
    """
    context = tf.distribute.get_replica_context()
    num_replicas = context.num_replicas_in_sync
    if num_replicas > 1:
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))
    clipped, _ = tf.clip_by_global_norm(gradients, clip_norm)
    return [gradient / num_replicas for gradient in clipped]


def layer_factors(model: keras.Model, layer_decay: float) -> dict[str, float]:
    """Computes the factor of the learning rate of each weight, falling with its depth.

    Block i, from 0, has `layer_decay**(depth - i)`, all in front of the blocks
    `layer_decay**(depth + 1)`, and the final normalization and the heads have 1.

    Args:
        model: A ViT, DeiT, EViT, T2T-ViT or RegNetY of this package.
        layer_decay: In (0, 1].

    Returns:
        The factors by the path of the weight.

    Raises:
        ValueError: If the model has no such blocks.

    Reference:
        BEiT (arXiv:2106.08254), `get_num_layer_for_vit`; MAE; timm
        `param_groups_layer_decay`.
    """
    layers = model.layers  # in the order of the path
    blocks = [
        place
        for place, layer in enumerate(layers)
        if isinstance(layer, EncoderBlock | RegNetBlock)
    ]
    check(
        bool(blocks),
        "A `layer_decay` below 1 needs a model with encoder blocks or RegNet blocks.",
        layer_decay=layer_decay,
        model=model.name,
    )
    factors = {}
    for place, layer in enumerate(layers):
        above = sum(block > place for block in blocks)
        exponent = 0 if place > blocks[-1] else 1 + above
        for weight in layer.trainable_weights:
            factors[weight.path] = layer_decay**exponent
    return factors


def make_optimizer(
    model: keras.Model, recipe: Recipe, schedule
) -> keras.optimizers.Optimizer:
    """Makes the optimizer of a run.

    Args:
        model: The model to train; its weights must exist.
        recipe: Says the rule, the decay of kernels and of layers, and the norm.
        schedule: The learning rate of the heads: a number or a schedule.

    Returns:
        A `LayerwiseOptimizer`.

    Raises:
        ValueError: If `layer_decay` is below 1 and the model has no blocks of ours.

    Reference:
        Official DeiT: AdamW with betas 0.9 and 0.999, epsilon 1e-8; it decays the
        distillation token too, which timm later left out, as here.
    """
    factors = {}
    if recipe.layer_decay < 1:
        factors = layer_factors(model, recipe.layer_decay)
    return LayerwiseOptimizer(
        recipe.optimizer,
        schedule,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        clip_norm=recipe.clip_norm,
        factors=factors,
    )
