"""Where images come from: the embedded digits, a folder, or TensorFlow Datasets."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_deit._checks import check, check_choice
from keras_deit.data.geometry import decode_image
from keras_deit.data.views import epoch_order, epoch_start

SPLITS = ("train", "validation")
VALIDATION_NAMES = ("validation", "val", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
SHUFFLE_WINDOW = 10_000  # examples of a stream that are shuffled together
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


def load_source(name: str, split: str, download: bool = False) -> Source:
    """Finds a dataset.

    Args:
        name: "digits" (1,797 handwritten digits, embedded in scikit-learn), a folder,
            or a name of TensorFlow Datasets. A folder holds one folder of images for
            each class, or such folders in `train` and in `validation`, `val` or `test`.
        split: "train" or "validation". Where a dataset has no second split, a fifth of
            the images (a tenth for TensorFlow Datasets) is held out, always the same.
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
        return _folder(Path(name).expanduser(), split)
    return _tensorflow_datasets(name, split, download)


def _indexed(name, class_names, labels, load_image, paths=()) -> Source:
    """A source whose images can be read in any order, `load_image(index)`."""
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


def _hold_out(labels) -> dict[str, np.ndarray]:
    """Indices of both splits: a fifth of each class, rounded, is held out."""
    labels = np.asarray(labels)
    order = np.array(random.Random(SPLIT_SEED).sample(range(len(labels)), len(labels)))
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        held_out[members[: round(len(members) / 5)]] = True
    return {"train": np.flatnonzero(~held_out), "validation": np.flatnonzero(held_out)}


def _digits(split: str) -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    indices = _hold_out(digits.target)[split]
    grey = np.round(digits.images[indices] * (255 / 16))[..., None]  # (n, 8, 8, 1)
    images = tf.cast(tf.image.resize(grey, (32, 32), method="bilinear"), tf.uint8)
    images = tf.repeat(images, 3, axis=-1)  # (n, 32, 32, 3)
    return _indexed(
        "digits",
        [str(digit) for digit in digits.target_names],
        digits.target[indices],
        lambda index: tf.gather(images, index),
    )


def _folder(root: Path, split: str) -> Source:
    second = next((n for n in VALIDATION_NAMES if (root / n).is_dir()), None)
    train = root / "train"
    has_splits = train.is_dir() and any(p.is_dir() for p in train.iterdir())
    check(
        second is not None or not has_splits,
        f"A folder with `train` must also hold one of {list(VALIDATION_NAMES)}.",
        folder=str(root),
    )
    class_names = _class_folders(root / "train" if has_splits else root)
    if has_splits:
        theirs = _class_folders(root / second)
        check(
            theirs == class_names,
            f"`{root / 'train'}` and `{root / second}` must hold the same classes.",
            only_in_train=sorted(set(class_names) - set(theirs)),
            only_in_validation=sorted(set(theirs) - set(class_names)),
        )
        root = root / ("train" if split == "train" else second)
    files = [
        (p, label) for label, c in enumerate(class_names) for p in _images(root / c)
    ]
    labels = np.array([label for _, label in files])
    indices = np.arange(len(files)) if has_splits else _hold_out(labels)[split]
    check(
        len(indices) > 0,
        "The folder holds too few images to hold out a fifth of each class; give some "
        "in train/ and some in val/.",
        folder=str(root),
        images=len(files),
    )
    paths = [str(files[index][0]) for index in indices]
    path_tensor = tf.constant(paths)
    return _indexed(
        str(root),
        class_names,
        labels[indices],
        lambda index: decode_image(tf.io.read_file(tf.gather(path_tensor, index))),
        paths,
    )


def _class_folders(folder: Path) -> list[str]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    check(
        len(names) >= 2,
        "A folder of images must hold one folder for each of at least two classes.",
        folder=str(folder),
        classes=names,
    )
    return names


def _images(folder: Path) -> list[Path]:
    files = [
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in IMAGE_SUFFIXES
        and not p.is_dir()
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    ]
    check(
        bool(files),
        f"Each class folder must hold images ({', '.join(IMAGE_SUFFIXES)}).",
        folder=str(folder),
    )
    return sorted(files)


def _tensorflow_datasets(name: str, split: str, download: bool) -> Source:
    builder = _builder(name, download)
    info = builder.info
    check(
        {"image", "label"} <= set(info.features or {}),
        "The dataset must have the features 'image' and 'label'.",
        dataset=name,
        features=list(info.features or {}),
    )
    second = next((n for n in VALIDATION_NAMES if n in info.splits), None)
    if split == "train":
        spec = "train" if second else "train[:90%]"
    else:
        spec = second or "train[90%:]"
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


@contextmanager
def naming_unreadable_images(*sources: Source) -> Iterator[None]:
    """Turns TensorFlow's error about an image into one that names the files.

    Raises:
        ValueError: If files of `sources` cannot be decoded; it names up to five.
    """
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        paths = [path for source in sources for path in source.paths]
        print(f"Looking for unreadable images among {len(paths):,} ...", flush=True)
        unreadable = [path for path in paths if not _is_readable(path)]
        if not unreadable:
            raise
        raise ValueError(
            f"{len(unreadable)} of {len(paths)} images cannot be decoded; remove or "
            f"repair them: {', '.join(unreadable[:5])}"
        ) from error


def _is_readable(path: str) -> bool:
    try:
        decode_image(tf.io.read_file(path))
    except tf.errors.OpError:
        return False
    return True
