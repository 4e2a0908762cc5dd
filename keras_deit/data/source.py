"""What a dataset of labeled images is to the pipeline: one split of it."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_deit.data.views import epoch_order

SPLIT_SEED = 0  # of the held-out part, where a source has none of its own


@dataclass(frozen=True)
class Source:
    """One split of a dataset of labeled images.

    Attributes:
        name: What was asked for, for messages.
        class_names: Name of each class, in the order of the labels.
        num_examples: How many images there are.
        in_order: Returns all examples in their natural order.
        shuffled: Called with (seed, epoch), returns all examples in the order of that
            epoch, the same at every call.
        paths: The image files, for messages; empty if there are none.

    An example is a dict of `image` (uint8, (rows, columns, 3)), `label` (int64) and
    `id` (int64, the number of the example in the source).
    """

    name: str
    class_names: tuple[str, ...]
    num_examples: int
    in_order: Callable[[], tf.data.Dataset]
    shuffled: Callable[..., tf.data.Dataset]
    paths: tuple[str, ...] = ()


def indexed_source(name, class_names, labels, load_image, paths=()) -> Source:
    """Makes a source whose images can be read in any order.

    Args:
        name: What was asked for, for messages.
        class_names: Name of each class, in the order of the labels.
        labels: The label of each image.
        load_image: Called with an index, returns the image, a symbolic tensor.
        paths: The image files, for messages.
    """
    labels = np.asarray(labels, np.int64)

    def example(index):
        label = tf.gather(labels, index)
        return {"image": load_image(index), "label": label, "id": index}

    def examples(order):
        dataset = tf.data.Dataset.from_tensor_slices(order)
        return dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE)

    return Source(
        name,
        tuple(class_names),
        len(labels),
        in_order=lambda: examples(tf.range(len(labels), dtype=tf.int64)),
        shuffled=lambda seed, epoch: examples(epoch_order(seed, epoch, len(labels))),
        paths=tuple(paths),
    )


def split_indices(labels, split: str) -> np.ndarray:
    """Chooses the images of a split: a fifth of each class, rounded, is held out.

    Args:
        labels: The label of each image.
        split: "train", "validation" or "all".

    Returns:
        Their indices, rising; the same at every call.
    """
    labels = np.asarray(labels)
    if split == "all":
        return np.arange(len(labels))
    order = np.array(random.Random(SPLIT_SEED).sample(range(len(labels)), len(labels)))
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        held_out[members[: round(len(members) / 5)]] = True
    return np.flatnonzero(held_out if split == "validation" else ~held_out)
