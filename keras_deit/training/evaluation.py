"""How good a model is."""

import time

import keras
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.models.inference import head_logits, model_output

HEAD_NAMES = ("class", "distillation", "fused")


def heads_of(model: keras.Model) -> tuple[str, ...]:
    """Names the heads that can be evaluated: one, or three with a distillation head."""
    return HEAD_NAMES if isinstance(model_output(model), dict) else ("class",)


def evaluate(model: keras.Model, batches: tf.data.Dataset) -> dict[str, dict]:
    """Measures the accuracy of each head.

    Args:
        model: A one-head or a distilled model.
        batches: (pixels, labels, sample_weight), labels (B, Y); images of weight 0 are
            not counted.

    Returns:
        For each head, `top1` and `top5`: shares of the images whose class is the best,
        or among the five best, in [0, 1].

    Raises:
        ValueError: If model and dataset differ in their number of classes.
    """
    heads = heads_of(model)
    model_classes = head_logits(model_output(model), heads[-1]).shape[-1]
    data_classes = batches.element_spec[1].shape[-1]
    check(
        model_classes == data_classes,
        "Model and dataset must have the same classes.",
        model_classes=model_classes,
        dataset_classes=data_classes,
    )

    @tf.function(autograph=False)
    def count(pixels, labels, weight):
        outputs = model(pixels, training=False)
        classes = tf.argmax(labels, axis=-1)
        counts = {}
        for head in heads:
            logits = tf.cast(head_logits(outputs, head), tf.float32)
            for k in (1, 5):
                hit = tf.math.in_top_k(classes, logits, min(k, logits.shape[-1]))
                counts[head, k] = tf.reduce_sum(tf.cast(hit, tf.float32) * weight)
        return counts, tf.reduce_sum(weight)

    total, sums = 0.0, dict.fromkeys([(h, k) for h in heads for k in (1, 5)], 0.0)
    for batch in batches:
        counts, weight = count(*batch)
        total += float(weight)
        sums = {key: sums[key] + float(counts[key]) for key in sums}
    return {
        head: {"top1": sums[head, 1] / total, "top5": sums[head, 5] / total}
        for head in heads
    }


def images_per_second(model: keras.Model, batch_size: int = 64, rounds: int = 9):
    """Measures how fast a model is on this machine, now.

    Args:
        model: The model; it is compiled into one function.
        batch_size: Images in a batch.
        rounds: How often a batch is timed; the median counts.

    Returns:
        Images per second. On a shared machine it is worth little by itself: compare two
        models measured in one run.
    """
    pixels = tf.zeros((batch_size, *model.inputs[0].shape[1:]))
    run = tf.function(lambda x: model(x, training=False), autograph=False)
    run(pixels)  # traced and warm
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        tf.nest.flatten(run(pixels))[0].numpy()  # waits until it is done
        seconds.append(time.perf_counter() - start)
    return batch_size / sorted(seconds)[rounds // 2]
