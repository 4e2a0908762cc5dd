"""How good a model is."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.models.inference import head_logits, model_output, num_classes
from keras_deit.training.compiled import frozen
from keras_deit.training.progress import tracked

HEAD_NAMES = ("class", "distillation", "fused")


def heads_of(model: keras.Model) -> tuple[str, ...]:
    """Names the heads that can be evaluated: one, or three with a distillation head."""
    return HEAD_NAMES if isinstance(model_output(model), dict) else ("class",)


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        scores: For each head, `top1` and `top5`: shares of the images whose class is
            the best, or among the five best, in [0, 1].
        confusion: How often the last of the heads took a class for a class: number of
            images by (label, decision).
    """

    scores: dict[str, dict[str, float]]
    confusion: Counter


@dataclass(frozen=True)
class ClassScore:
    """How well a class is known.

    Attributes:
        label: The class.
        num_images: How many images of it there were.
        top1: Share of them that was known, in [0, 1].
        mistaken_for: What they were taken for most often, when not for themselves.
    """

    label: int
    num_images: int
    top1: float
    mistaken_for: int


def evaluate(
    model: keras.Model,
    batches: tf.data.Dataset,
    progress: bool = False,
    precision: str = "float32",
) -> Evaluation:
    """Measures the accuracy of each head.

    Args:
        model: A one-head or a distilled model.
        batches: (pixels, labels, sample_weight), labels (B, Y); images of weight 0 are
            not counted.
        progress: Whether to show a bar on standard error, if that is a terminal.
        precision: In which the model computes, as in `compiled`, whatever its policy.

    Returns:
        The scores of each head, and the confusion of the last.

    Raises:
        ValueError: If model and dataset differ in their number of classes, or there is
            no such precision.
    """
    return Evaluator(model, function=frozen(model, precision))(batches, progress)


class Evaluator:
    """Measures the accuracy of each head, again and again with one graph.

    Args:
        model: A one-head or a distilled model.
        gather: Called with what this process counted, in JSON's terms, returns what
            each process of the run did; see `Workers.gather`.
        function: What answers in the model's place, such as its `frozen` copy: takes
            pixels, float32, returns what the model does. None asks the model itself,
            whose weights may change from time to time.
    """

    def __init__(
        self,
        model: keras.Model,
        gather: Callable = lambda value: [value],
        function: Callable | None = None,
    ):
        self.model = model
        self.function = function or partial(model, training=False)
        self.heads = heads_of(model)
        self.gather = gather

    def __call__(self, batches: tf.data.Dataset, progress: bool = False) -> Evaluation:
        """Measures it on batches; see `evaluate`."""
        data_classes = batches.element_spec[1].shape[-1]
        check(
            num_classes(self.model) == data_classes,
            "Model and dataset must have the same classes.",
            model_classes=num_classes(self.model),
            dataset_classes=data_classes,
        )
        columns = [(head, k) for head in self.heads for k in (1, 5)]
        sums, confusion = np.zeros(1 + len(columns)), Counter()
        length = int(batches.cardinality())
        for batch in tracked(batches, "Evaluating", length, progress):
            counts, weight, pairs = self._count(*batch)
            sums += [float(weight), *(float(counts[column]) for column in columns)]
            confusion.update(map(tuple, pairs.numpy().tolist()))
        parts = self.gather([sums.tolist(), [*map(list, confusion.items())]])
        total, *hits = np.sum([sums for sums, _ in parts], axis=0).tolist()
        confusion = Counter()
        for _, pairs in parts:
            confusion.update({tuple(pair): number for pair, number in pairs})
        share = dict(zip(columns, (number / total for number in hits), strict=True))
        scores = {
            head: {"top1": share[head, 1], "top5": share[head, 5]}
            for head in self.heads
        }
        return Evaluation(scores, confusion)

    @tf.function(autograph=False)
    def _count(self, pixels, labels, weight):
        outputs = self.function(tf.cast(pixels, tf.float32))
        classes = tf.argmax(labels, axis=-1)
        counts = {}
        for head in self.heads:
            logits = tf.cast(head_logits(outputs, head), tf.float32)
            for k in (1, 5):
                hit = tf.math.in_top_k(classes, logits, min(k, logits.shape[-1]))
                counts[head, k] = tf.reduce_sum(tf.cast(hit, tf.float32) * weight)
        pairs = tf.stack([classes, tf.argmax(logits, axis=-1)], axis=-1)  # (B, 2)
        return counts, tf.reduce_sum(weight), tf.boolean_mask(pairs, weight > 0)


def worst_classes(confusion: Counter, count: int) -> list[ClassScore]:
    """Lists the classes that are known least.

    Args:
        confusion: Number of images by (label, decision).
        count: How many classes to list; only those with mistakes are.

    Returns:
        The classes, the worst first; of two alike that with more images.
    """
    images, mistakes = Counter(), {}
    for (label, decision), number in confusion.items():
        images[label] += number
        if decision != label:
            mistakes.setdefault(label, Counter())[decision] += number
    scores = [
        ClassScore(
            label,
            images[label],
            top1=1 - wrong.total() / images[label],
            mistaken_for=min(wrong, key=lambda other: (-wrong[other], other)),
        )
        for label, wrong in mistakes.items()
    ]
    scores.sort(key=lambda score: (score.top1, -score.num_images, score.label))
    return scores[:count]


def compare(
    teacher,
    student: keras.Model | None,
    batches: tf.data.Dataset,
    gather: Callable = lambda value: [value],
):
    """Measures a teacher, and how often a student agrees with it.

    Args:
        teacher: Called with pixels, returns logits (B, Y).
        student: A one-head or a distilled model, whose fused head counts; None for
            none, and an agreement of 0.
        batches: (pixels, labels, sample_weight), labels (B, Y).
        gather: See `Evaluator`.

    Returns:
        The teacher's accuracy and the agreement: shares of the images, in [0, 1].
    """

    @tf.function(autograph=False)
    def count(pixels, labels, weight):
        taught = tf.argmax(teacher(pixels), axis=-1)
        right = tf.equal(taught, tf.argmax(labels, axis=-1))
        agreed = tf.zeros_like(right)
        if student is not None:
            logits = head_logits(student(pixels, training=False), "fused")
            agreed = tf.equal(taught, tf.argmax(logits, axis=-1))
        hits = tf.stack([tf.ones_like(right), right, agreed])  # (3, B)
        return tf.reduce_sum(tf.cast(hits, tf.float32) * weight, axis=-1)

    parts = gather(np.sum([count(*batch) for batch in batches], axis=0).tolist())
    total, right, agreed = np.sum(parts, axis=0).tolist()
    return right / total, agreed / total


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
