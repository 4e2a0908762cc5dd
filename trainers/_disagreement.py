"""Where the two heads of a distilled model say different things."""

import csv
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_deit._checks import check
from keras_deit._files import replacing
from keras_deit.data.geometry import evaluation_view
from keras_deit.data.pipeline import evaluation_batches
from keras_deit.data.source import Source, pixels_of
from keras_deit.models.inference import (
    head_logits,
    input_size,
    model_output,
    num_classes,
)
from keras_deit.models.preprocessing import preprocessing_of
from keras_deit.training.progress import tracked
from keras_deit.training.report import percent, print_table

CLASS, DISTILLATION, FUSED = HEADS = ("class", "distillation", "fused")


@dataclass(frozen=True)
class Answers:
    """What the heads say of each of n images.

    Attributes:
        label: The class of each image, shape (n,).
        best: By head, what it takes each image for, shape (n,).
        probability: By head, how sure it is, in [0, 1], shape (n,).
    """

    label: np.ndarray
    best: dict[str, np.ndarray]
    probability: dict[str, np.ndarray]

    @property
    def differ(self) -> np.ndarray:
        """Whether the class and the distillation head differ, shape (n,)."""
        return self.best[CLASS] != self.best[DISTILLATION]

    def right(self, head: str) -> np.ndarray:
        """Whether a head is right, shape (n,)."""
        return self.best[head] == self.label

    def outcomes(self) -> dict[str, np.ndarray]:
        """Which images are which case; each image is one of the five."""
        a, b = self.right(CLASS), self.right(DISTILLATION)
        return {
            "both right": a & b,
            "only the class head right": a & ~b,
            "only the distillation head right": ~a & b,
            "both wrong, the same answer": ~a & ~b & ~self.differ,
            "both wrong, different answers": ~a & ~b & self.differ,
        }

    def surest(self, count: int) -> np.ndarray:
        """The images where the heads differ, first those where both are sure."""
        sure = np.minimum(self.probability[CLASS], self.probability[DISTILLATION])
        found = np.flatnonzero(self.differ)
        return found[np.argsort(-sure[found], kind="stable")][:count]

    def worst_classes(self, count: int) -> list[tuple]:
        """The classes on whose images the heads differ most.

        Returns:
            For each (class, number of images, and the shares of them where the heads
            differ, the class head is right, the distillation head is right), the worst
            first; of two alike that with more images.
        """
        columns = (self.differ, self.right(CLASS), self.right(DISTILLATION))
        rows = []
        for label in np.unique(self.label[self.differ]):
            mine = self.label == label
            shares = (float(column[mine].mean()) for column in columns)
            rows.append((int(label), int(mine.sum()), *shares))
        return sorted(rows, key=lambda row: (-row[2], -row[1], row[0]))[:count]


def answers_of(
    model: keras.Model,
    source: Source,
    batch_size: int,
    names: list[str] | None = None,
) -> Answers:
    """Asks both heads about every image of a dataset, in its order.

    Args:
        model: A distilled model.
        source: The dataset.
        batch_size: Images in a batch, at least 1.
        names: Name of each class that the model was trained on; None if it is not
            known, and then the numbers are taken to be those of the dataset.

    Raises:
        ValueError: If the model has one head, or other classes than the dataset.
    """
    check(
        isinstance(model_output(model), dict),
        "To compare its heads, a model must have two: a distilled one.",
        model=model.name,
    )
    _check_classes(num_classes(model), names, source.class_names)

    @tf.function(autograph=False)
    def ask(pixels, labels, weight):
        outputs = model(pixels, training=False)
        logits = [tf.cast(head_logits(outputs, head), tf.float32) for head in HEADS]
        best = [tf.argmax(x, axis=-1) for x in (labels, *logits)]
        sure = [tf.reduce_max(tf.nn.softmax(x), axis=-1) for x in logits]
        stacked = tf.stack(best, axis=1), tf.stack(sure, axis=1)
        return [tf.boolean_mask(x, weight > 0) for x in stacked]  # without the filler

    crop_ratio = preprocessing_of(model).crop_ratio
    batches = evaluation_batches(source, input_size(model), batch_size, crop_ratio)
    batches = tracked(batches, "Asking both heads", len(batches))
    asked = [ask(*batch) for batch in batches]
    best, sure = (np.concatenate(columns).T for columns in zip(*asked, strict=True))
    return Answers(
        best[0],
        dict(zip(HEADS, best[1:], strict=True)),
        dict(zip(HEADS, sure, strict=True)),
    )


def _check_classes(count: int, names, of_dataset) -> None:
    check(
        count == len(of_dataset),
        "Model and dataset must have the same classes.",
        model_classes=count,
        dataset_classes=len(of_dataset),
    )
    pairs = () if names is None else zip(names, of_dataset, strict=True)
    for label, (model_class, dataset_class) in enumerate(pairs):
        check(
            model_class == dataset_class,
            "Model and dataset must have the same classes, in the same order.",
            label=label,
            model_class=model_class,
            dataset_class=dataset_class,
        )


def views_of(model: keras.Model, source: Source, places) -> dict[int, np.ndarray]:
    """Reads the images at some places of a dataset, as a model sees them, uint8."""
    size, crop_ratio = input_size(model), preprocessing_of(model).crop_ratio

    def is_wanted(place, _):
        return tf.reduce_any(place == tf.constant(places, tf.int64))

    def view(place, record):
        pixels = pixels_of(source.read(record)["image"])
        return place, evaluation_view(pixels, size, crop_ratio)

    found = source.natural().enumerate().filter(is_wanted).map(view)
    return {int(place): view.numpy() for place, view in found}


def print_tables(answers: Answers, names: list[str], title: str, worst: int) -> None:
    """Prints who is right how often, and the classes that the heads differ on most."""
    fused, differ = answers.right(FUSED), answers.differ
    cases = {**answers.outcomes(), "the heads differ": differ}
    rows = [
        (name, case.sum(), percent(case.mean()), (case & fused).sum())
        for name, case in cases.items()
    ]
    print_table(title, ("case", "images", "share", "fused is right"), rows)
    rows = [
        (names[label], count, *map(percent, shares))
        for label, count, *shares in answers.worst_classes(worst)
    ]
    if rows:
        columns = ("class", "images", "differ", "class right", "distillation right")
        print_table("The classes that the heads differ on most", columns, rows)


def write_csv(answers: Answers, names: list[str], paths, file: Path) -> None:
    """Writes a row for each image where the heads differ.

    Args:
        answers: What they said.
        names: Name of each class.
        paths: The file of each image; none if they have no files.
        file: What to write.
    """
    heading = ["index", "image", "label"]
    for head in HEADS:
        heading += [head, f"{head}_probability", f"{head}_right"]
    with replacing(file) as partial, partial.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(heading)
        right = {head: answers.right(head) for head in HEADS}
        for index in np.flatnonzero(answers.differ):
            row = [index, paths[index] if paths else "", names[answers.label[index]]]
            for head in HEADS:
                probability = f"{answers.probability[head][index]:.4f}"
                said = names[answers.best[head][index]]
                row += [said, probability, int(right[head][index])]
            writer.writerow(row)
