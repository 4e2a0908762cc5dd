"""The classes of ImageNet-1k, in the order of the published weights."""

import sys
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.data.source import Source

NUM_CLASSES = 1000


def imagenet_synsets() -> tuple[str, ...]:
    """WordNet ids of the classes, for instance "n01440764" for class 0."""
    import tensorflow_datasets as tfds

    return tuple(tfds.builder("imagenet2012").info.features["label"].names)


def imagenet_names() -> tuple[str, ...]:
    """English names of the classes, for instance "great white shark" for class 2.

    Keras fetches them once (35 kB, verified) into its cache. Where that fails, the
    WordNet ids are returned, and a line on standard error says so.
    """
    from keras.applications.imagenet_utils import decode_predictions

    falling = np.arange(NUM_CLASSES, 0, -1, dtype="float32")[None]
    try:
        with redirect_stdout(sys.stderr):  # Keras tells of its download
            (classes,) = decode_predictions(falling, top=NUM_CLASSES)
    except Exception as error:  # of many kinds: no network, a full disk, a wrong hash
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"No names for ImageNet's classes, only ids: {reason}", file=sys.stderr)
        return imagenet_synsets()
    return tuple(name.replace("_", " ") for _, name, _ in classes)


def among_imagenet(source: Source) -> Source:
    """Numbers the classes of a dataset as ImageNet does, for a model of 1000 classes.

    Args:
        source: A dataset whose classes are called by WordNet ids, some of ImageNet's or
            all, as the folders of the official files are.

    Returns:
        The same images, with the labels of ImageNet.

    Raises:
        ValueError: If a class is called otherwise.
    """
    synsets = imagenet_synsets()
    unknown = sorted(set(source.class_names) - set(synsets))
    check(
        not unknown,
        "For a model of ImageNet's 1000 classes, the classes of a dataset must be "
        "called by their WordNet ids, for instance n01440764.",
        dataset=source.name,
        unknown=unknown[:5],
    )
    labels = tf.constant([synsets.index(name) for name in source.class_names], tf.int64)

    def relabeled(record):
        example = source.read(record)
        return {**example, "label": tf.gather(labels, example["label"])}

    return replace(source, class_names=synsets, read=relabeled)
