"""Where images come from: the embedded digits, a folder, or TensorFlow Datasets."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_deit._checks import check, check_choice
from keras_deit.data.image_folder import image_folder
from keras_deit.data.inaturalist import inaturalist, is_inaturalist
from keras_deit.data.source import Source, digest_of, indexed_source, split_indices
from keras_deit.data.tfds_source import tfds_source

SPLITS = ("train", "validation", "all")


def load_source(
    name: str, split: str, download: bool = False, unreadable: str = "refuse"
) -> Source:
    """Finds a dataset.

    Args:
        name: "digits" (1,797 handwritten digits, embedded in scikit-learn), a folder,
            or a name of TensorFlow Datasets. A folder holds one folder of images for
            each class, or such folders in `train` and in `validation`, `val` or `test`
            (for evaluation one of the latter is enough), or the official files of
            iNaturalist: images, `train2019.json` and `val2019.json`.
        split: "train", "validation" or "all". Where a dataset has no second split, a
            fifth of the images of each class (a tenth of all for TensorFlow Datasets)
            is held out, always the same; a class with one or two images is then for
            training alone. "all" is for a dataset without a second split.
        download: Whether a dataset of TensorFlow Datasets may be downloaded.
        unreadable: What to do with image files that cannot be decoded: "refuse" makes
            them an error of the run, "skip" decodes each file once beforehand and
            leaves them out. It is without effect on TensorFlow Datasets.

    Returns:
        The split. An epoch is a permutation of all examples; of a split of TensorFlow
        Datasets larger than 1 GiB, see `tfds_source`. The id of an example is the same
        in every order and, but for the digits, in every split it is in.

    Raises:
        ValueError: If there is no such split, the name is that of a file, a folder does
            not hold what it must, or the dataset is no image classification.
        FileNotFoundError: If the dataset cannot be reached; the message says what was
            tried and what to do.
    """
    check_choice("split", split, SPLITS)
    check_choice("unreadable", unreadable, ("refuse", "skip"))
    if name == "digits":
        return _digits(split)
    folder = Path(name).expanduser()
    check(not folder.is_file(), "A dataset must be a folder, not a file.", dataset=name)
    if not folder.is_dir():
        return tfds_source(name, split, download)
    if is_inaturalist(folder):
        return inaturalist(folder, split, unreadable)
    return image_folder(folder, split, unreadable)


def _digits(split: str) -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    indices = split_indices(digits.target, split)
    grey = np.round(digits.images[indices] * (255 / 16))[..., None]  # (n, 8, 8, 1)
    images = tf.cast(tf.image.resize(grey, (32, 32), method="bilinear"), tf.uint8)
    images = tf.repeat(images, 3, axis=-1)  # (n, 32, 32, 3)
    return indexed_source(
        "digits",
        [str(digit) for digit in digits.target_names],
        digits.target[indices],
        lambda index: tf.gather(images, index),
        digest_of(images.numpy().tobytes()),
    )
