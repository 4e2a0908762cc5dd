import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.models.factory import build_model
from keras_deit.models.reorganization import with_keep_rate
from keras_deit.training.optimizers import (
    LayerwiseOptimizer,
    layer_factors,
    make_optimizer,
)
from keras_deit.training.recipe import Recipe

SPARED = ("bias", "gamma", "beta", "token", "position", "embedding")
RATES = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [0.1, 0.02, 0.3])


def recipe(**changes):
    values = {"variant": "deit_micro_patch4_32", "dataset": "digits", **changes}
    return Recipe(**values)


def vit(depth=1):
    return build_model("deit_micro_distilled_patch4_32", 5, depth=depth, embed_dim=8)


@pytest.fixture(scope="module")
def deit():
    return vit()


@pytest.fixture(params=["deit", "regnet"])
def model(request, deit):
    if request.param == "regnet":
        return build_model("regnety_micro_32", 5, depth=2)
    return deit


def weights_of(values, name="kernel"):
    return [keras.Variable([float(value)], name=name) for value in values]


def gradients_of(values):
    return [tf.constant([float(value)]) for value in values]


def numbers(weights):
    return [float(weight[0]) for weight in weights]


def step_without_gradient(model, optimizer):
    """The share that is left of each weight of ones, by the weight's path."""
    for weight in model.trainable_weights:
        weight.assign(np.ones(weight.shape))
    zeros = [np.zeros(weight.shape, "float32") for weight in model.trainable_weights]
    optimizer.apply(zeros, model.trainable_weights)
    left = {w.path: np.unique(np.asarray(w.value)) for w in model.trainable_weights}
    assert {x.shape for x in left.values()} == {(1,)}
    return {path: float(x[0]) for path, x in left.items()}


def test_a_first_step_of_adamw_is_worked_out_by_hand():
    # 5 % of the kernel decay; then m / sqrt(v), without bias, is the sign of g.
    (kernel,) = weights_of([1])
    optimizer = LayerwiseOptimizer("adamw", 0.1, weight_decay=0.5)
    optimizer.apply(gradients_of([7]), [kernel])
    assert numbers([kernel]) == pytest.approx([0.95 - 0.1])


def test_two_steps_of_sgd_are_worked_out_by_hand():
    # m = -0.1, then -0.05 - 0.1. The decay is no part of m: 0.8 * 0.9 - 0.15.
    (kernel,) = weights_of([1])
    optimizer = LayerwiseOptimizer("sgd", 0.1, weight_decay=1.0, momentum=0.5)
    optimizer.apply(gradients_of([1]), [kernel])
    assert numbers([kernel]) == pytest.approx([0.9 - 0.1])
    optimizer.apply(gradients_of([1]), [kernel])
    assert numbers([kernel]) == pytest.approx([0.9 * 0.8 - 0.15])


def adamw_in_numpy(p, gradients, rates, decay):
    m = v = np.zeros_like(p)
    for n, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        unbiased = (m / (1 - 0.9**n)) / np.sqrt(v / (1 - 0.999**n))
        p = p - rate * decay * p - rate * unbiased
    return p


def sgd_in_numpy(p, gradients, rates, decay):
    m = np.zeros_like(p)
    for g, rate in zip(gradients, rates, strict=True):
        m = 0.8 * m - rate * g
        p = p - rate * decay * p + m
    return p


@pytest.mark.parametrize(
    ("method", "in_numpy"), [("adamw", adamw_in_numpy), ("sgd", sgd_in_numpy)]
)
def test_each_weight_follows_the_rule_with_its_own_learning_rate(method, in_numpy):
    random = np.random.default_rng(0)
    start = random.normal(size=(2, 3))
    gradients = random.normal(size=(3, 2, 3))
    kernel = keras.Variable(start[0], name="kernel")
    bias = keras.Variable(start[1], name="bias")
    optimizer = LayerwiseOptimizer(
        method, RATES, weight_decay=0.5, momentum=0.8, factors={kernel.path: 0.25}
    )
    for gradient in gradients.astype("float32"):
        optimizer.apply(list(gradient), [kernel, bias])
    rates = np.array([0.1, 0.02, 0.3])
    expected = in_numpy(start[0], gradients[:, 0], 0.25 * rates, 0.5)
    np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-4)
    expected = in_numpy(start[1], gradients[:, 1], rates, 0)
    np.testing.assert_allclose(bias.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("method", "theirs"),
    [
        ("adamw", keras.optimizers.AdamW(RATES, weight_decay=0.05, epsilon=1e-8)),
        ("sgd", keras.optimizers.SGD(RATES, momentum=0.9, weight_decay=0.05)),
    ],
)
def test_without_factors_the_rules_are_those_of_keras_to_the_bit(method, theirs):
    ours = LayerwiseOptimizer(method, RATES, weight_decay=0.05, momentum=0.9)
    start = np.random.default_rng(0).normal(size=(4, 50)).astype("float32")
    left, right = (keras.Variable(start[0], name="kernel") for _ in range(2))
    for gradient in start[1:]:
        ours.apply([gradient], [left])
        theirs.apply([gradient], [right])
    assert not np.array_equal(left.numpy(), start[0])
    np.testing.assert_array_equal(left.numpy(), right.numpy())


def test_a_step_without_gradient_takes_its_share_of_the_kernels_and_nothing_else(model):
    # The decay takes away 0.1 * 0.5 = 5 % of a kernel.
    optimizer = make_optimizer(model, recipe(weight_decay=0.5), 0.1)
    left = step_without_gradient(model, optimizer)
    kernels = {path for path in left if path.endswith("/kernel")}
    assert len(kernels) > 5
    for path, share in left.items():
        assert share == pytest.approx(0.95 if path in kernels else 1.0), path
    for path in left.keys() - kernels:
        assert any(word in path.rpartition("/")[2] for word in SPARED), path


@pytest.mark.parametrize("method", ["adamw", "sgd"])
def test_without_decay_nothing_changes(method, deit):
    optimizer = make_optimizer(deit, recipe(weight_decay=0.0, optimizer=method), 0.1)
    assert set(step_without_gradient(deit, optimizer).values()) == {1.0}


# ---- Layers ----


def by_layer(model, layer_decay=0.5):
    """The only factor of each layer, by the layer's name."""
    factors = layer_factors(model, layer_decay)
    assert set(factors) == {weight.path for weight in model.trainable_weights}
    layers = {}
    for path, factor in factors.items():
        layers.setdefault(path.partition("/")[0], set()).add(factor)
    assert {len(found) for found in layers.values()} == {1}
    return {layer: found.pop() for layer, found in layers.items()}


def test_the_factor_halves_from_a_block_to_the_one_before_it():
    assert by_layer(vit(depth=3)) == {
        "patch_embedding": 1 / 16,
        "prefix_tokens": 1 / 16,
        "position_embedding": 1 / 16,
        "block_0": 1 / 8,
        "block_1": 1 / 4,
        "block_2": 1 / 2,
        "norm": 1,
        "class_head": 1,
        "distillation_head": 1,
    }


def test_all_that_is_in_front_of_the_blocks_of_a_t2t_vit_is_one_layer():
    model = build_model("t2t_vit_7", 5, depth=2, image_size=(32, 32))
    assert by_layer(model) == {
        "tokens_to_token": 1 / 8,
        "prefix_tokens": 1 / 8,  # the positions are frozen
        "block_0": 1 / 4,
        "block_1": 1 / 2,
        "norm": 1,
        "class_head": 1,
    }


def test_the_blocks_of_a_regnet_count_on_from_stage_to_stage():
    assert by_layer(build_model("regnety_micro_32", 5)) == {
        "stem": 1 / 32,
        "stage_1_block_0": 1 / 16,
        "stage_2_block_0": 1 / 8,
        "stage_3_block_0": 1 / 4,
        "stage_3_block_1": 1 / 2,
        "class_head": 1,
    }


def test_evit_has_the_factors_of_its_deit():
    evit = build_model("deit_micro_patch4_32", 5, depth=2, keep_rate=0.5)
    factors = by_layer(evit)
    assert [factors[f"block_{index}"] for index in (0, 1)] == [1 / 4, 1 / 2]
    assert by_layer(with_keep_rate(evit, 0.75)) == factors


def test_a_layer_decay_of_one_is_no_decay(deit):
    assert set(by_layer(deit, layer_decay=1.0).values()) == {1.0}


def test_the_decay_of_kernels_has_the_factor_of_the_layer_too(deit):
    changes = {"weight_decay": 0.5, "layer_decay": 0.5}
    left = step_without_gradient(deit, make_optimizer(deit, recipe(**changes), 0.1))
    assert left["patch_embedding/projection/kernel"] == pytest.approx(1 - 0.05 / 4)
    assert left["block_0/mlp/fc1/kernel"] == pytest.approx(1 - 0.05 / 2)
    assert left["class_head/kernel"] == pytest.approx(1 - 0.05)


def test_a_network_without_our_blocks_has_no_layer_decay():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="dense")
    rule = "A `layer_decay` below 1 needs a model with encoder blocks or RegNet blocks"
    received = r"layer_decay=0\.75, model='dense'"
    with pytest.raises(ValueError, match=rf"{rule}\. Received: {received}"):
        make_optimizer(model, recipe(layer_decay=0.75), 0.1)
    assert make_optimizer(model, recipe(), 0.1).factors == {}


# ---- A part of the weights ----


@pytest.mark.parametrize("method", ["adamw", "sgd"])
@pytest.mark.parametrize(("layer_decay", "clip_norm"), [(1.0, None), (0.5, 1.0)])
def test_weights_that_get_no_gradient_stay_to_the_bit(
    method, layer_decay, clip_norm, deit
):
    weights = deit.trainable_variables
    for weight in weights:
        weight.assign(np.full(weight.shape, 0.1))
    changes = {"optimizer": method, "layer_decay": layer_decay, "clip_norm": clip_norm}
    optimizer = make_optimizer(deit, recipe(weight_decay=0.5, **changes), RATES)
    optimizer.build(weights)
    heads = [weight for weight in weights if "head" in weight.path]
    before = {weight.path: weight.numpy() for weight in weights}
    for _ in range(2):
        ones = [tf.ones(weight.shape) for weight in heads]
        optimizer.apply_gradients(zip(ones, heads, strict=True))
    changed = {w.path for w in weights if (w.numpy() != before[w.path]).any()}
    assert changed == {w.path for w in heads}
    assert int(optimizer.iterations) == 2
    assert float(optimizer.learning_rate) == pytest.approx(0.3)


def test_weights_that_join_late_begin_as_small_as_the_first():
    # With the n = 41 of the other weight in its bias correction, the first step of the
    # late one would be 0.1 / (1 - 0.9**n) * sqrt((1 - 0.999**n) / 0.001) = 0.64 of its
    # rate; after thousands of steps 3.2, and the tenth 6.5 of it.
    early, late = weights_of([0, 0])
    optimizer = LayerwiseOptimizer("adamw", 0.1)
    optimizer.build([early, late])
    for _ in range(40):
        optimizer.apply(gradients_of([1]), [early])
    for joined in range(1, 6):
        optimizer.apply(gradients_of([1, 1]), [early, late])
        assert numbers([late]) == pytest.approx([-0.1 * joined], rel=1e-4)


# ---- The norm of all gradients ----


@pytest.mark.parametrize(
    ("clip_norm", "steps"), [(1.0, (0.6, 0.8)), (10.0, (3.0, 4.0)), (None, (3.0, 4.0))]
)
def test_gradients_are_clipped_by_the_norm_of_all_of_them(clip_norm, steps):
    # The norm of 3 and 4 is 5. The factor, of a group of its own, plays no part in it.
    weights = [*weights_of([0], name="a"), *weights_of([0], name="b")]
    optimizer = LayerwiseOptimizer("sgd", 1.0, clip_norm=clip_norm, factors={"b": 0.1})
    optimizer.apply(gradients_of([3, 4]), weights)
    assert numbers(weights) == pytest.approx([-steps[0], -0.1 * steps[1]])


def test_gradients_of_two_devices_are_clipped_by_the_norm_of_their_sum(two_replicas):
    # One device says (3, 0), the other (0, 4): together norm 5. Keras' clipping of each
    # by itself would leave (1, 0) and (0, 1).
    strategy = two_replicas
    with strategy.scope():
        weights = weights_of([0, 0])
        optimizer = LayerwiseOptimizer("sgd", 1.0, clip_norm=1.0)
        optimizer.build(weights)

    def apply():
        context = tf.distribute.get_replica_context()
        device = tf.cast(context.replica_id_in_sync_group, "float32")
        optimizer.apply([3 * (1 - device)[None], 4 * device[None]], weights)

    @tf.function(autograph=False)
    def step():
        strategy.run(apply)

    step()
    assert numbers(weights) == pytest.approx([-0.6, -0.8])


def test_adamw_on_two_devices_is_adamw_on_one(two_replicas):
    strategy = two_replicas
    with strategy.scope():
        weights = weights_of([1, 1])
        optimizer = LayerwiseOptimizer(
            "adamw", 0.1, weight_decay=0.5, factors={weights[0].path: 0.5}
        )
        optimizer.build(weights)

    @tf.function(autograph=False)
    def step():
        strategy.run(lambda: optimizer.apply(gradients_of([3, 4]), weights))

    alone = weights_of([1, 1])
    single = LayerwiseOptimizer(
        "adamw", 0.1, weight_decay=0.5, factors={alone[0].path: 0.5}
    )
    for _ in range(3):
        step()
        single.apply(gradients_of([6, 8]), alone)
    assert numbers(weights) == pytest.approx(numbers(alone))
    assert int(optimizer.iterations.numpy()) == 3


# ---- Around it ----


def test_a_scaled_loss_is_clipped_by_the_norm_without_the_scale():
    weights = weights_of([0, 0])
    inner = LayerwiseOptimizer("sgd", 1.0, clip_norm=10.0)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
    optimizer.apply(gradients_of([3 * 1024, 4 * 1024]), weights)
    assert numbers(weights) == pytest.approx([-3, -4])
    optimizer.apply(gradients_of([np.inf, 1]), weights)  # skipped
    assert numbers(weights) == pytest.approx([-3, -4])
    assert int(optimizer.iterations) == 1


def test_a_scaled_loss_is_clipped_over_two_devices_too(two_replicas):
    strategy = two_replicas
    with strategy.scope():
        weights = weights_of([0, 0])
        inner = LayerwiseOptimizer("sgd", 1.0, clip_norm=1.0)
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
        optimizer.build(weights)

    @tf.function(autograph=False)
    def step(scale):
        gradients = [scale * 3 * tf.ones(1), scale * 4 * tf.ones(1)]
        strategy.run(lambda: optimizer.apply(gradients, weights))

    step(8.0)
    assert numbers(weights) == pytest.approx([-0.6, -0.8])


@pytest.mark.parametrize("method", ["adamw", "sgd"])
def test_its_variables_are_all_that_the_next_step_depends_on(method):
    def run(steps, state=None):
        weights = weights_of([1, 2])
        optimizer = LayerwiseOptimizer(method, RATES, 0.05, momentum=0.9)
        optimizer.build(weights)
        variables = [*weights, *optimizer.variables]
        if state is not None:
            for variable, value in zip(variables, state, strict=True):
                variable.assign(value)
        for step in steps:
            given = weights if step > 1 else weights[:1]  # at first only one of them
            optimizer.apply(gradients_of([1 + step, 2])[: len(given)], given)
        return [variable.numpy() for variable in variables]

    halves = run([2, 3], state=run([0, 1]))
    for whole, resumed in zip(run([0, 1, 2, 3]), halves, strict=True):
        np.testing.assert_array_equal(whole, resumed)


def test_it_is_made_anew_of_its_config():
    optimizer = LayerwiseOptimizer(
        "sgd", RATES, 0.05, momentum=0.9, clip_norm=2.0, factors={"a/b": 0.5}, name="x"
    )
    config = keras.optimizers.serialize(optimizer)
    assert config["registered_name"] == "keras_deit>LayerwiseOptimizer"
    twin = keras.optimizers.deserialize(config)
    assert twin.get_config() == optimizer.get_config()
    assert twin.get_config() == {
        "method": "sgd",
        "learning_rate": keras.optimizers.schedules.serialize(RATES),
        "weight_decay": 0.05,
        "momentum": 0.9,
        "clip_norm": 2.0,
        "factors": {"a/b": 0.5},
        "name": "x",
    }


def test_a_recipe_says_everything_about_its_optimizer(deit):
    changes = {
        "optimizer": "sgd",
        "momentum": 0.7,
        "weight_decay": 0.3,
        "clip_norm": 2.5,
        "layer_decay": 0.5,
    }
    optimizer = make_optimizer(deit, recipe(**changes), RATES)
    config = optimizer.get_config()
    assert (config["method"], config["momentum"]) == ("sgd", 0.7)
    assert (config["weight_decay"], config["clip_norm"]) == (0.3, 2.5)
    assert config["factors"] == layer_factors(deit, 0.5)
    assert optimizer.learning_rate == RATES(0)


def test_another_method_is_refused():
    rule = r"`method` must be one of \['adamw', 'sgd'\]\. Did you mean 'adamw'\?"
    with pytest.raises(ValueError, match=rule):
        LayerwiseOptimizer("adam", 0.1)
