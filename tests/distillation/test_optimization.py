"""One step of an optimizer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit import Distiller, create_model
from keras_deit.distillation.optimization import accumulated
from keras_deit.distillation.side_state import SideState
from tests.distillation.small_models import CLASSES, batch, compiled, head, two_heads


def test_with_kind_none_the_distillation_head_keeps_its_weights():
    student, (x, y) = two_heads(), batch()
    before = np.array(student.get_layer("distillation_head").kernel)
    compiled(student, kind="none").fit(x, y, verbose=0)
    np.testing.assert_array_equal(before, student.get_layer("distillation_head").kernel)


@pytest.mark.slow
def test_float16_scales_its_loss():
    student = create_model(
        "deit_micro_distilled_patch4_32", num_classes=CLASSES, dtype="mixed_float16"
    )
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.01), initial_scale=8.0
    )
    distiller = compiled(student, trainable_teacher(), optimizer=optimizer)
    full = create_model("deit_micro_distilled_patch4_32", num_classes=CLASSES)
    full.set_weights(student.get_weights())
    plain = compiled(full, distiller.teacher, optimizer=keras.optimizers.SGD(0.01))
    x, y = batch(4, 32)
    distiller.train_on_batch(x, y)
    plain.train_on_batch(x, y)
    for a, b in zip(student.trainable_weights, full.trainable_weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_float16_student_gets_a_loss_scale():
    student = create_model(
        "deit_micro_patch4_32", num_classes=CLASSES, dtype="mixed_float16"
    )
    distiller = compiled(student, kind="none")
    assert isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(
        compiled(two_heads(), kind="none").optimizer,
        keras.optimizers.LossScaleOptimizer,
    )


def trainable_teacher():
    return create_model("regnety_micro_32", num_classes=CLASSES)


# Micro-batches


def summing(data, state):
    """The gradient of sum(w * x), and what was seen, in its order."""
    x, y = data["x"], data["y"]
    assert data["weight"] is None
    (total,) = state
    return [tf.reduce_sum(x, axis=0)], [10.0 * total + tf.cast(y[0], "float32")]


def data_of(count):
    x = np.arange(2.0 * count, dtype="float32").reshape(count, 2)
    x, y = tf.constant(x), tf.range(count)
    return {"x": x, "y": y, "weight": None}


@pytest.mark.parametrize(("count", "seen"), [(1, 0.0), (2, 4.0), (4, 246.0)])
def test_gradients_are_summed_and_the_state_goes_through(count, seen):
    # Sums of 0, 2, ... 14 and of 1, 3, ... 15; the micro-batches begin with the
    # examples 0; 0, 4; 0, 2, 4, 6.
    weights = [tf.Variable([0.0, 0.0])]
    data, state = data_of(8), [tf.constant(0.0)]
    gradients, after = accumulated(summing, data, state, weights, count)
    np.testing.assert_array_equal(gradients, [[56.0, 64.0]])
    np.testing.assert_array_equal(after, [seen])


def test_micro_batches_have_a_known_size():
    def step(data, state):
        assert data.shape == (2, 3)
        return [tf.reduce_sum(data)], state

    weights = [tf.Variable(0.0)]

    @tf.function(autograph=False)
    def compiled_step():
        return accumulated(step, tf.ones((8, 3)), [], weights, 4)

    (total,), _ = compiled_step()
    assert float(total) == 24.0


def test_a_batch_that_cannot_be_cut_is_refused():
    weights = [tf.Variable([0.0, 0.0])]
    rule = "must divide the batch of a replica.*accumulate_steps=3, batch_size=8"
    with pytest.raises(ValueError, match=rule):
        accumulated(summing, data_of(8), [tf.constant(0.0)], weights, 3)

    @tf.function(input_signature=[tf.TensorSpec((None, 2))])
    def of_any_size(x):
        data = {"x": x, "y": tf.range(tf.shape(x)[0]), "weight": None}
        return accumulated(summing, data, [tf.constant(0.0)], weights, 4)

    np.testing.assert_array_equal(of_any_size(data_of(8)["x"])[0], [[56.0, 64.0]])
    with pytest.raises(tf.errors.InvalidArgumentError):
        of_any_size(data_of(6)["x"])


def test_each_micro_batch_draws_masks_of_its_own():
    def dropout():
        layer = keras.layers.Dropout(0.5, seed=3)
        return keras.Sequential([keras.Input((40,)), layer])

    model, alone = dropout(), dropout()
    side = SideState(model)

    def step(data, state):
        with side.scope(state) as scope:
            masked = model(data, training=True)
        return [masked], side.after(scope, state)

    before = side.read()
    weights = [tf.Variable(tf.zeros((2, 40)))]
    (total,), after = accumulated(step, tf.ones((8, 40)), before, weights, 4)
    side.write(after)
    masks = [alone(np.ones((2, 40), "float32"), training=True) for _ in range(4)]
    np.testing.assert_array_equal(total, sum(masks))
    assert len(np.unique(total)) > 2
    np.testing.assert_array_equal(model.non_trainable_variables[0], [3, 4])


def test_a_trained_step_counts_its_micro_batches():
    image = keras.Input((4, 4, 3))
    x = keras.layers.Dropout(0.5, seed=3)(keras.layers.Flatten()(image))
    student = keras.Model(image, keras.layers.Dense(CLASSES)(x))
    compiled(student, kind="none", accumulate_steps=3).train_on_batch(*batch(6))
    np.testing.assert_array_equal(student.non_trainable_variables[0], [3, 3])


def two_steps(strategy, accumulate_steps, cached=False, weighted=False):
    """What two steps of 16 images make of a student, and what they report."""
    x, y = batch(32)
    y = y.astype("int64")
    random = np.random.default_rng(2)
    logits = random.normal(size=(32, CLASSES)).astype("float32")
    labels = {"label": y, "teacher_logits": logits} if cached else y
    weight = random.uniform(0, 2, 32).astype("float32")
    data = (x, labels, weight) if weighted else (x, labels)
    with strategy.scope():
        keras.utils.set_random_seed(5)
        distiller = compiled(
            two_heads(),
            head("teacher"),
            "soft",
            temperature=2.0,
            accumulate_steps=accumulate_steps,
            optimizer=keras.optimizers.SGD(0.5, momentum=0.9),
        )
    start = distiller.student.get_weights()
    data = tf.data.Dataset.from_tensor_slices(data).batch(16, drop_remainder=True)
    history = distiller.fit(data, verbose=0).history
    moved = distiller.student.get_weights()
    assert max(np.abs(a - b).max() for a, b in zip(start, moved, strict=True)) > 1e-2
    return moved, history


def assert_equal_runs(run, other):
    for a, b in zip(run[0], other[0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert run[1].keys() == other[1].keys()
    assert {"loss", "distillation_loss", "fused_agreement"} <= run[1].keys()
    for name, values in other[1].items():
        assert run[1][name] == pytest.approx(values, abs=1e-5), name


def test_micro_batches_make_the_same_steps(two_replicas):
    one = tf.distribute.get_strategy()
    whole = two_steps(one, 1)
    assert_equal_runs(two_steps(one, 4), whole)
    assert_equal_runs(two_steps(two_replicas, 4), whole)


def test_micro_batches_of_cached_logits_and_weights_make_the_same_steps(two_replicas):
    whole = two_steps(tf.distribute.get_strategy(), 1, cached=True, weighted=True)
    assert_equal_runs(two_steps(two_replicas, 4, cached=True, weighted=True), whole)


def test_micro_batches_of_a_transformer_make_the_same_step():
    def stepped(accumulate_steps):
        keras.utils.set_random_seed(5)
        student = create_model("deit_micro_patch4_32", depth=1, num_classes=CLASSES)
        distiller = compiled(student, kind="none", accumulate_steps=accumulate_steps)
        numbers = distiller.train_on_batch(*batch(4, 32), return_dict=True)
        return student.get_weights(), numbers

    (whole, numbers), (cut, cut_numbers) = stepped(1), stepped(4)
    for a, b in zip(whole, cut, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert cut_numbers == pytest.approx(numbers, abs=1e-5)


def test_losses_of_layers_count_once():
    def stepped(accumulate_steps):
        image = keras.Input((4, 4, 3))
        x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
        dense = keras.layers.Dense(
            CLASSES,
            kernel_initializer=keras.initializers.Constant(0.5),
            kernel_regularizer=keras.regularizers.L2(0.5),
        )
        student = keras.Model(image, dense(x))
        distiller = compiled(student, kind="none", accumulate_steps=accumulate_steps)
        distiller.train_on_batch(*batch(4))
        return student.get_weights()[0]

    np.testing.assert_allclose(stepped(2), stepped(1), atol=1e-6)
    assert abs(stepped(1).mean() - 0.45) < 1e-6  # cross entropy moves no mean


def test_micro_batches_without_meaning_are_refused():
    rule = "`accumulate_steps` must be at least 1, and 1 with a teacher that is trained"
    with pytest.raises(ValueError, match=rule):
        Distiller(two_heads(), head("t"), accumulate_steps=0)
    with pytest.raises(ValueError, match=rule):
        Distiller(two_heads(), head("t"), train_teacher=True, accumulate_steps=2)
