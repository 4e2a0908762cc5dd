"""Where images come from: the embedded digits, a folder, or TensorFlow Datasets."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_deit._checks import check, check_choice
from keras_deit.data.geometry import decode_image
from keras_deit.data.image_folder import VALIDATION_NAMES, image_folder
from keras_deit.data.source import Source, indexed_source, split_indices
from keras_deit.data.views import epoch_order, epoch_start

SPLITS = ("train", "validation", "all")
SHUFFLE_WINDOW = 10_000  # examples of a stream that are shuffled together


def load_source(name: str, split: str, download: bool = False) -> Source:
    """Finds a dataset.

    Args:
        name: "digits" (1,797 handwritten digits, embedded in scikit-learn), a folder,
            or a name of TensorFlow Datasets. A folder holds one folder of images for
            each class, or such folders in `train` and in `validation`, `val` or `test`;
            for evaluation one of the latter is enough.
        split: "train", "validation" or "all". Where a dataset has no second split, a
            fifth of the images (a tenth for TensorFlow Datasets) is held out, always
            the same; "all" is for a dataset without a second split.
        download: Whether a dataset of TensorFlow Datasets may be downloaded.

    Returns:
        The split. An epoch of the digits or of a folder is a permutation of all
        examples. TensorFlow Datasets are read in the order of their files, from another
        beginning in each epoch, and shuffled in windows of 10,000.

    Raises:
        ValueError: If there is no such split, the folder holds fewer than two classes,
            or the dataset is no image classification.
        FileNotFoundError: If the dataset cannot be reached; the message says what was
            tried and what to do.
    """
    check_choice("split", split, SPLITS)
    if name == "digits":
        return _digits(split)
    if Path(name).expanduser().is_dir():
        return image_folder(Path(name).expanduser(), split)
    return _tensorflow_datasets(name, split, download)


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
    )


def _tensorflow_datasets(name: str, split: str, download: bool) -> Source:
    builder = _builder(name, download)
    info = builder.info
    check(
        {"image", "label"} <= set(info.features or {}),
        "The dataset must have the features 'image' and 'label'.",
        dataset=name,
        features=list(info.features or {}),
    )
    spec = _spec(info.splits, split, name)
    num_examples = info.splits[spec].num_examples
    numbered = _encoded(builder, spec)

    def decoded(example):
        return {**example, "image": decode_image(example["image"])}

    def shuffled(seed, epoch):
        def shuffle(window, examples):
            size = tf.shape(examples["id"])[0]
            order = epoch_order(seed, epoch, size, window)
            return {name: tf.gather(x, order) for name, x in examples.items()}

        # Another beginning in each epoch, so that windows and the images that are left
        # out at the end are others too.
        start = epoch_start(seed, epoch, num_examples)
        stream = numbered.skip(start).concatenate(numbered.take(start))
        windows = stream.batch(SHUFFLE_WINDOW).enumerate().map(shuffle)
        return windows.unbatch().map(decoded, tf.data.AUTOTUNE)

    return Source(
        name,
        tuple(info.features["label"].names),
        num_examples,
        in_order=lambda: numbered.map(decoded, tf.data.AUTOTUNE),
        shuffled=shuffled,
    )


def _spec(splits, split: str, name: str) -> str:
    """What TensorFlow Datasets calls a split of a dataset."""
    second = next((n for n in VALIDATION_NAMES if n in splits), None)
    check(
        split != "all" or second is None,
        f"`split` 'all' is for a dataset without {second!r}.",
        dataset=name,
    )
    spec = {
        "train": "train" if second else "train[:90%]",
        "validation": second or "train[90%:]",
        "all": "train",
    }[split]
    check(
        spec.partition("[")[0] in splits,
        f"The dataset has no images for {split!r}.",
        dataset=name,
        splits=list(splits),
    )
    return spec


def _encoded(builder, split: str) -> tf.data.Dataset:
    """The examples in the order of their files, numbered, the images not decoded."""
    import tensorflow_datasets as tfds

    dataset = builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},
    )

    def example(index, features):
        return {"image": features["image"], "label": features["label"], "id": index}

    return dataset.enumerate().map(example)


def _builder(name: str, download: bool):
    """The prepared dataset, or an error that says what was tried and what to do."""
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    if name.partition("/")[0].partition(":")[0] not in known:
        raise FileNotFoundError(
            f"There is no folder {name!r}, and TensorFlow Datasets knows no dataset of "
            "that name. Give 'digits', an existing folder, or a name listed at "
            "https://www.tensorflow.org/datasets."
        )
    try:
        builder = tfds.builder(name, try_gcs=False)
    except Exception as error:  # of many kinds, for a wrong version or config
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"TensorFlow Datasets has no {name!r}: {reason}"
        ) from error
    if builder.is_prepared():
        return builder
    if not download:
        raise FileNotFoundError(
            f"There is no folder {name!r}, and the dataset {name!r} of TensorFlow "
            f"Datasets is not prepared in {builder.data_path}. Allow its download "
            "(--download, or download=True), or set TFDS_DATA_DIR to where it is."
        )
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise FileNotFoundError(
            f"TensorFlow Datasets could not prepare {name!r} in {builder.data_path}: "
            f"{error}"
        ) from error
    return builder
