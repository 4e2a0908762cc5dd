from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit.training.evaluation import (
    ClassScore,
    Evaluator,
    evaluate,
    heads_of,
    images_per_second,
    worst_classes,
)


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
    scores = evaluate(logits_model(7), batches_of(logits, [0, 4, 5, 1], [1] * 4)).scores
    assert scores == {"class": {"top1": 1 / 4, "top5": 3 / 4}}


def test_images_of_weight_0_are_not_counted():
    logits = [[6, 5, 4, 3, 2, 1, 0]] * 4
    batches = batches_of(logits, [0, 4, 0, 5], [1, 1, 0, 1])
    scores = evaluate(logits_model(7), batches).scores
    assert scores["class"]["top1"] == pytest.approx(1 / 3)
    assert scores["class"]["top5"] == pytest.approx(2 / 3)


def test_with_fewer_than_five_classes_every_class_is_among_the_best():
    batches = batches_of([[2, 1, 0], [0, 1, 2]], [2, 2], [1, 1])
    assert evaluate(logits_model(3), batches).scores == {
        "class": {"top1": 0.5, "top5": 1.0}
    }


def test_a_distilled_model_has_three_heads():
    # The first image: class head 0, distillation head 2, fused
    # ([3, 1, 0] + 0.9 [0, 1, 3]) / 2 = [1.5, 0.95, 1.35]: 0.
    model = logits_model(3, heads=2)
    assert heads_of(model) == ("class", "distillation", "fused")
    scores = evaluate(model, batches_of([[3, 1, 0], [0, 1, 3]], [0, 0], [1, 1])).scores
    assert {head: s["top1"] for head, s in scores.items()} == {
        "class": 0.5,
        "distillation": 0.5,
        "fused": 0.5,
    }
    scores = evaluate(model, batches_of([[3, 1, 0]], [0], [1])).scores
    assert {head: s["top1"] for head, s in scores.items()} == {
        "class": 1.0,
        "distillation": 0.0,
        "fused": 1.0,
    }


def test_a_model_with_one_head_has_the_class_head():
    assert heads_of(logits_model(3)) == ("class",)


def test_a_last_batch_may_be_smaller():
    scores = evaluate(
        logits_model(2), batches_of([[1, 0]] * 3, [0, 0, 1], [1] * 3)
    ).scores
    assert scores["class"]["top1"] == pytest.approx(2 / 3)


def test_dropout_is_off():
    image = keras.Input((1, 2, 1))
    logits = keras.layers.Dropout(0.9)(keras.layers.Reshape((2,))(image))
    batches = batches_of([[0, 1]] * 40, [1] * 40, [1] * 40, batch_size=40)
    assert evaluate(keras.Model(image, logits), batches).scores["class"]["top1"] == 1


def test_the_speed_is_a_positive_number():
    assert images_per_second(logits_model(3), batch_size=4, rounds=3) > 0


def test_the_confusion_counts_what_was_taken_for_what():
    # Decisions 0, 2, 2, 1; the third image has weight 0.
    logits = [[3, 1, 0], [0, 1, 3], [0, 1, 3], [0, 3, 1]]
    batches = batches_of(logits, [0, 0, 1, 1], [1, 1, 0, 1], batch_size=3)
    confusion = evaluate(logits_model(3), batches).confusion
    assert confusion == {(0, 0): 1, (0, 2): 1, (1, 1): 1}
    assert {type(n) for pair in confusion for n in pair} == {int}


def test_the_confusion_is_that_of_the_fused_head():
    # The class head says 0, the distillation head 0.9 [0, 3.9, 4]: 2, and both
    # ([4, 3.9, 0] + [0, 3.51, 3.6]) / 2 = [2, 3.7, 1.8]: 1.
    model = logits_model(3, heads=2)
    found = evaluate(model, batches_of([[4, 3.9, 0]] * 2, [0, 1], [1, 1]))
    assert found.confusion == {(0, 1): 1, (1, 1): 1}
    assert [s["top1"] for s in found.scores.values()] == [0.5, 0.0, 0.5]


def test_progress_changes_no_score_and_keeps_still_where_nobody_looks(capsys):
    batches = batches_of([[2, 1, 0], [0, 1, 2]] * 2, [2, 2, 0, 1], [1] * 4)
    model = logits_model(3)
    assert evaluate(model, batches, progress=True) == evaluate(model, batches)
    assert capsys.readouterr() == ("", "")


def test_the_precision_is_that_of_the_scores():
    # 257 is 256 in bfloat16, and both of two alike are among the best.
    image = keras.Input((1, 2, 1))
    x = keras.layers.Reshape((2,))(image)
    x = keras.layers.Dense(2, kernel_initializer="identity")(x)
    model = keras.Model(image, keras.layers.Dense(2, kernel_initializer="identity")(x))
    batches = batches_of([[256, 257]], [0], [1])
    for precision, share in (("float32", 0), ("bfloat16", 1)):
        scores = evaluate(model, batches, precision=precision).scores
        assert scores["class"]["top1"] == share
    with pytest.raises(ValueError, match="`precision` must be one of"):
        evaluate(model, batches, precision="float16")


def test_an_evaluator_sees_what_training_has_changed():
    image = keras.Input((1, 2, 1))
    dense = keras.layers.Dense(2, use_bias=False, kernel_initializer="identity")
    model = keras.Model(image, dense(keras.layers.Reshape((2,))(image)))
    evaluator, batches = Evaluator(model), batches_of([[0, 1]], [1], [1])
    assert evaluator(batches).scores["class"]["top1"] == 1
    dense.kernel.assign([[0, 1], [1, 0]])
    assert evaluator(batches).scores["class"]["top1"] == 0


@pytest.mark.parametrize("is_known", [True, False])
def test_progress_is_shown_on_a_terminal(capsys, monkeypatch, is_known):
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich, standard error is a terminal
    batches = batches_of([[2, 1, 0]] * 4, [0, 0, 1, 2], [1] * 4)
    if not is_known:  # how many batches there are
        batches = batches.filter(lambda *_: True)
    scores = evaluate(logits_model(3), batches, progress=True).scores
    assert scores["class"]["top1"] == 0.5
    said = capsys.readouterr()
    assert said.out == ""
    assert "Evaluating" in said.err
    assert ("100%" in said.err) is is_known


def test_without_asking_no_progress_is_shown(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    evaluate(logits_model(3), batches_of([[2, 1, 0]], [0], [1]))
    assert capsys.readouterr() == ("", "")


def test_the_worst_classes_are_worked_out_by_hand():
    confusion = Counter(
        {
            (0, 0): 3,  # class 0 is known: it is not listed
            (1, 1): 1,  # class 1: one of four, twice taken for 2, once for 0
            (1, 2): 2,
            (1, 0): 1,
            (2, 2): 3,  # class 2: three of four
            (2, 1): 1,
            (3, 4): 1,  # class 3: none of two, taken for 4 and 5: the first is named
            (3, 5): 1,
        }
    )
    worst = worst_classes(confusion, 10)
    assert worst == [
        ClassScore(label=3, num_images=2, top1=0.0, mistaken_for=4),
        ClassScore(label=1, num_images=4, top1=0.25, mistaken_for=2),
        ClassScore(label=2, num_images=4, top1=0.75, mistaken_for=1),
    ]
    assert worst_classes(confusion, 2) == worst[:2]
    assert worst_classes(confusion, 0) == []


def test_of_classes_known_alike_that_with_more_images_comes_first():
    confusion = Counter({(7, 1): 2, (5, 1): 3, (4, 9): 2, (4, 3): 1, (2, 1): 2})
    order = [(score.label, score.num_images) for score in worst_classes(confusion, 4)]
    assert order == [(4, 3), (5, 3), (2, 2), (7, 2)]


def test_of_equal_mistakes_the_first_class_is_named_in_any_order_of_counting():
    for pairs in ([(0, 2), (0, 1)], [(0, 1), (0, 2)]):
        (worst,) = worst_classes(Counter(pairs), 1)
        assert worst.mistaken_for == 1


def test_a_model_of_other_classes_is_refused():
    rule = (
        r"Model and dataset must have the same classes\. Received: model_classes=3, "
        r"dataset_classes=2\."
    )
    image = keras.Input((1, 2, 1))
    three = keras.layers.Dense(3)(keras.layers.Reshape((2,))(image))
    for output in (three, {"class": three, "distillation": three}):
        with pytest.raises(ValueError, match=rule):
            evaluate(keras.Model(image, output), batches_of([[1, 0]], [0], [1]))
