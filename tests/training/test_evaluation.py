import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.training.evaluation import evaluate, heads_of, images_per_second


def logits_model(num_classes, heads=None):
    """A model whose pixels are its logits; a second head reads them backwards."""
    image = keras.Input((1, num_classes, 1))
    logits = keras.layers.Reshape((num_classes,))(image)
    if heads is None:
        return keras.Model(image, logits)
    backwards = keras.layers.Lambda(lambda x: 0.9 * x[:, ::-1])(logits)
    return keras.Model(image, {"class": logits, "distillation": backwards})


def batches_of(logits, labels, weights, batch_size=2):
    logits = np.asarray(logits, "float32")
    dataset = tf.data.Dataset.from_tensor_slices(
        (
            logits[:, None, :, None],
            np.eye(logits.shape[1], dtype="float32")[labels],
            np.asarray(weights, "float32"),
        )
    )
    return dataset.batch(batch_size)


def test_the_scores_are_worked_out_by_hand():
    # Seven classes; the logits fall from class 0 to class 6, so that label 0 is the
    # best, label 4 the last of the five best, and label 5 is none of them.
    logits = [[6, 5, 4, 3, 2, 1, 0]] * 4
    scores = evaluate(logits_model(7), batches_of(logits, [0, 4, 5, 1], [1] * 4))
    assert scores == {"class": {"top1": 1 / 4, "top5": 3 / 4}}


def test_images_of_weight_0_are_not_counted():
    logits = [[6, 5, 4, 3, 2, 1, 0]] * 4
    batches = batches_of(logits, [0, 4, 0, 5], [1, 1, 0, 1])
    scores = evaluate(logits_model(7), batches)
    assert scores["class"]["top1"] == pytest.approx(1 / 3)
    assert scores["class"]["top5"] == pytest.approx(2 / 3)


def test_with_fewer_than_five_classes_every_class_is_among_the_best():
    batches = batches_of([[2, 1, 0], [0, 1, 2]], [2, 2], [1, 1])
    assert evaluate(logits_model(3), batches) == {"class": {"top1": 0.5, "top5": 1.0}}


def test_a_distilled_model_has_three_heads():
    # The first image: class head 0, distillation head 2, fused
    # ([3, 1, 0] + 0.9 [0, 1, 3]) / 2 = [1.5, 0.95, 1.35]: 0.
    model = logits_model(3, heads=2)
    assert heads_of(model) == ("class", "distillation", "fused")
    scores = evaluate(model, batches_of([[3, 1, 0], [0, 1, 3]], [0, 0], [1, 1]))
    assert {head: s["top1"] for head, s in scores.items()} == {
        "class": 0.5,
        "distillation": 0.5,
        "fused": 0.5,
    }
    scores = evaluate(model, batches_of([[3, 1, 0]], [0], [1]))
    assert {head: s["top1"] for head, s in scores.items()} == {
        "class": 1.0,
        "distillation": 0.0,
        "fused": 1.0,
    }


def test_a_model_with_one_head_has_the_class_head():
    assert heads_of(logits_model(3)) == ("class",)


def test_a_last_batch_may_be_smaller():
    scores = evaluate(logits_model(2), batches_of([[1, 0]] * 3, [0, 0, 1], [1] * 3))
    assert scores["class"]["top1"] == pytest.approx(2 / 3)


def test_dropout_is_off():
    image = keras.Input((1, 2, 1))
    logits = keras.layers.Dropout(0.9)(keras.layers.Reshape((2,))(image))
    batches = batches_of([[0, 1]] * 40, [1] * 40, [1] * 40, batch_size=40)
    assert evaluate(keras.Model(image, logits), batches)["class"]["top1"] == 1


def test_the_speed_is_a_positive_number():
    assert images_per_second(logits_model(3), batch_size=4, rounds=3) > 0
