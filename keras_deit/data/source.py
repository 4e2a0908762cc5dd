"""What a dataset of labeled images is to the pipeline: one split of it."""

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_deit.data.geometry import pixels_of
from keras_deit.data.views import epoch_order

VALIDATION_NAMES = ("validation", "val", "test")  # the first that there is
_DAMAGE = r"\w+ record at \d+|expected to contain \d+ elements but contained only \d+"
SPLIT_SEED = 0  # of the held-out part, where a source has none of its own


@dataclass(frozen=True)
class Source:
    """One split of a dataset of labeled images.

    The order of the images is a matter of records, which are small; an image is read
    when its turn comes, by `read`, so that skipping images and leaving those of other
    shards alone costs nothing.

    Attributes:
        name: What was asked for, for messages.
        class_names: Name of each class, in the order of the labels.
        num_examples: How many images there are.
        digest: Of all that decides the images and labels: another digest, another
            dataset.
        natural: Returns the records in their natural order.
        permuted: Called with (seed, epoch, first), returns the records in the order of
            that epoch, the same at every call, from number `first` on.
        read: Turns a record into an example: a dict of `image` (encoded, or pixels,
            uint8, (rows, columns, 3)), `label` (int64) and `id` (int64, which names the
            example whatever the order).
        paths: The image files, for messages; empty if there are none.
    """

    name: str
    class_names: tuple[str, ...]
    num_examples: int
    digest: str
    natural: Callable[[], tf.data.Dataset]
    permuted: Callable[..., tf.data.Dataset]
    read: Callable
    paths: tuple[str, ...] = ()

    def in_order(self) -> tf.data.Dataset:
        """All examples in their natural order, the images decoded."""
        return self.natural().map(self._decoded, tf.data.AUTOTUNE)

    def shuffled(self, seed: int, epoch: int) -> tf.data.Dataset:
        """All examples in the order of an epoch, the images decoded."""
        return self.permuted(seed, epoch, 0).map(self._decoded, tf.data.AUTOTUNE)

    def _decoded(self, record):
        example = self.read(record)
        return {**example, "image": pixels_of(example["image"])}


def indexed_source(
    name, class_names, labels, load_image, digest, paths=(), ids=None
) -> Source:
    """Makes a source whose images can be read in any order.

    Args:
        name: What was asked for, for messages.
        class_names: Name of each class, in the order of the labels.
        labels: The label of each image.
        load_image: Called with an index, a symbolic tensor, returns the image, encoded
            or as pixels.
        digest: Of all images; the labels and classes are added to it.
        paths: The image files, for messages.
        ids: What names each image, whatever is read beside it; None takes the index.
    """
    labels = np.asarray(labels, np.int64)
    count = len(labels)
    ids = np.arange(count) if ids is None else np.asarray(ids, np.int64)

    def read(index):
        label, name = tf.gather(labels, index), tf.gather(ids, index)
        return {"image": load_image(index), "label": label, "id": name}

    def permuted(seed, epoch, first):
        order = epoch_order(seed, epoch, count)
        return tf.data.Dataset.from_tensor_slices(order[first:])

    return Source(
        name,
        tuple(class_names),
        count,
        digest_of(digest, *class_names, labels.tobytes()),
        natural=lambda: tf.data.Dataset.range(count),
        permuted=permuted,
        read=read,
        paths=tuple(paths),
    )


def digest_of(*parts: str | bytes) -> str:
    """Condenses texts and bytes, in their order, to 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            part = part.encode(errors="surrogateescape")  # of a file's odd name
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def damage_of(error: tf.errors.OpError) -> str | None:
    """What TensorFlow says of a damaged record file; None of anything else."""
    damage = re.search(_DAMAGE, error.message)
    return damage and damage[0]


def split_indices(labels, split: str) -> np.ndarray:
    """Chooses the images of a split: a fifth of each class, rounded, is held out.

    Of a class with one or two images that is none: all of them are for training.

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
    order = order[np.argsort(labels[order], kind="stable")]  # class after class
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    ranks = np.arange(len(labels)) - np.repeat(starts, counts)  # in the own class
    held_out = np.zeros(len(labels), bool)
    held_out[order] = ranks < np.repeat(np.rint(counts / 5), counts)
    return np.flatnonzero(held_out if split == "validation" else ~held_out)
