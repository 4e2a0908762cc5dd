"""Seeds and moving statistics of a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.distillation.side_state import SideState

ONES = np.ones((2, 50), "float32")


def dropout():
    return keras.Sequential([keras.Input((50,)), keras.layers.Dropout(0.5, seed=3)])


def stepping(strategy, model):
    """A step of all replicas: what the model says to each, in training mode."""
    side = SideState(model)

    def step(pixels):
        state = side.read()
        with side.scope(state) as scope:
            outputs = model(pixels, training=True)
        side.write(side.after(scope, state))
        return outputs

    @tf.function(autograph=False)
    def step_of_all(pixels):
        return strategy.run(step, args=(pixels,))

    def steps(pixels):
        values = strategy.experimental_local_results(step_of_all(pixels))
        return [value.numpy() for value in values]

    return steps


def seeds(model):
    return [np.array(variable) for variable in model.non_trainable_variables]


def test_replicas_draw_different_masks_the_first_one_those_of_keras(two_replicas):
    with two_replicas.scope():
        model = dropout()
    step, alone = stepping(two_replicas, model), dropout()
    masks = []
    for _ in range(3):
        first, second = step(ONES)
        np.testing.assert_array_equal(first, alone(ONES, training=True))
        masks += [first.tobytes(), second.tobytes()]
    assert len(set(masks)) == 6
    (state,) = model.non_trainable_variables
    for value in two_replicas.experimental_local_results(state.value):
        np.testing.assert_array_equal(value, [3, 3])  # the seed, three steps
    np.testing.assert_array_equal(seeds(alone), seeds(model))


def test_on_one_replica_masks_and_seeds_are_those_of_keras():
    model, alone = dropout(), dropout()
    step = stepping(tf.distribute.get_strategy(), model)
    for _ in range(2):
        (mask,) = step(ONES)
        np.testing.assert_array_equal(mask, alone(ONES, training=True))
    np.testing.assert_array_equal(seeds(model), seeds(alone))


def test_large_seeds_come_back_as_they_were(two_replicas):
    with two_replicas.scope():
        model = dropout()
        (state,) = model.non_trainable_variables
        state.assign(np.array([2**32 - 1, 7], "uint32"))
    first, second = stepping(two_replicas, model)(ONES)
    assert (first != second).any()
    for value in two_replicas.experimental_local_results(state.value):
        np.testing.assert_array_equal(value, np.array([2**32 - 1, 8], "uint32"))


def test_moving_statistics_are_the_mean_of_those_of_the_replicas(two_replicas):
    with two_replicas.scope():
        model = keras.Sequential(
            [keras.Input((2,)), keras.layers.BatchNormalization(momentum=0.75)]
        )
    pixels = np.array([[0, 1], [2, 3], [4, 7], [4, 1]], "float32")

    def of_replica(context):
        number = context.replica_id_in_sync_group
        return tf.constant(pixels[2 * number : 2 * number + 2])

    values = two_replicas.experimental_distribute_values_from_function(of_replica)
    stepping(two_replicas, model)(values)
    # Means (1, 2) and (4, 4), variances (1, 1) and (0, 9); all began with 0 and 1.
    norm = model.layers[0]
    for variable, expected in (
        (norm.moving_mean, [0.625, 0.75]),
        (norm.moving_variance, [0.875, 2.0]),
    ):
        for found in two_replicas.experimental_local_results(variable.value):
            np.testing.assert_allclose(found, expected)


def test_layers_change_nothing_before_the_state_is_written():
    model = dropout()
    side = SideState(model)
    before = side.read()
    with side.scope(before) as scope:
        model(ONES, training=True)
    np.testing.assert_array_equal(seeds(model), [[3, 0]])
    (after,) = side.after(scope, before)
    np.testing.assert_array_equal(after, [3, 1])
    with side.scope([after]) as scope:
        model(ONES, training=True)
    side.write(side.after(scope, [after]))
    np.testing.assert_array_equal(seeds(model), [[3, 2]])


def test_what_did_not_change_is_not_assigned(monkeypatch):
    frozen = keras.layers.BatchNormalization(trainable=False)
    model = keras.Sequential([keras.Input((50,)), frozen, keras.layers.Dropout(0.5)])
    side = SideState(model)
    before = side.read()
    with side.scope(before) as scope:
        model(ONES, training=True)
    assigned = []
    assign = keras.Variable.assign
    monkeypatch.setattr(
        keras.Variable,
        "assign",
        lambda variable, value: assigned.append(variable) or assign(variable, value),
    )
    side.write(side.after(scope, before))
    assert [variable.name for variable in assigned] == ["seed_generator_state"]
    assert len(model.non_trainable_variables) > 1


def test_losses_that_layers_add_are_in_the_scope():
    layer = keras.layers.ActivityRegularization(l2=0.5)
    model = keras.Sequential([keras.Input((50,)), layer])
    side = SideState(model)
    with side.scope(side.read()) as scope:
        model(ONES)
    assert float(sum(scope.losses)) == pytest.approx(0.5 * 50)


@keras.saving.register_keras_serializable(package="tests")
class Unseeded(keras.layers.Layer):
    """Adds a number that Keras draws from its own seed, and counts its calls."""

    def build(self, shape):
        self.calls = keras.metrics.Sum()

    def call(self, x):
        self.calls.update_state(1.0)
        return x + keras.random.uniform(())


def test_what_is_not_the_models_changes_as_ever():
    layer = Unseeded()
    model = keras.Sequential([keras.Input((50,)), layer])
    step = stepping(tf.distribute.get_strategy(), model)
    drawn = [step(ONES)[0][0, 0] for _ in range(3)]
    assert len(set(drawn)) == 3
    assert float(layer.calls.result()) == 3
