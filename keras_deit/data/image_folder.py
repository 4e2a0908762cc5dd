"""A folder of images, sorted into a folder for each class."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.data.geometry import decode_image
from keras_deit.data.source import Source, indexed_source, split_indices

VALIDATION_NAMES = ("validation", "val", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


def image_folder(root: Path, split: str) -> Source:
    """Finds the images of a split in a folder; see `load_source`.

    Raises:
        ValueError: If the folder holds fewer than two classes, a class without images,
            or splits that do not fit.
    """
    root, class_names, is_split = _split_folder(root, split)
    files = [
        (p, label) for label, c in enumerate(class_names) for p in _images(root / c)
    ]
    labels = np.array([label for _, label in files])
    indices = split_indices(labels, "all" if is_split else split)
    check(
        len(indices) > 0,
        "The folder holds too few images to hold out a fifth of each class; give some "
        "in train/ and some in val/.",
        folder=str(root),
        images=len(files),
    )
    paths = [str(files[index][0]) for index in indices]
    path_tensor = tf.constant(paths)
    return indexed_source(
        str(root),
        class_names,
        labels[indices],
        lambda index: decode_image(tf.io.read_file(tf.gather(path_tensor, index))),
        paths,
    )


def _split_folder(root: Path, split: str) -> tuple[Path, list[str], bool]:
    """The folder of class folders, its classes, and whether it is one split of two."""
    second = next((n for n in VALIDATION_NAMES if (root / n).is_dir()), None)
    train = root / "train"
    if second and {p.name for p in _folders(root)} <= {*VALIDATION_NAMES}:
        rule = (
            f"A folder with `{second}` and no `train` is for evaluation: `split` must "
            "be 'validation'."
        )
        check(split == "validation", rule, folder=str(root), split=split)
        return root / second, _class_folders(root / second), True
    if not (train.is_dir() and _folders(train)):
        return root, _class_folders(root), False
    check(
        second is not None,
        f"A folder with `train` must also hold one of {list(VALIDATION_NAMES)}.",
        folder=str(root),
    )
    check(
        split != "all",
        "`split` 'all' is for a folder without `train`.",
        folder=str(root),
    )
    class_names, theirs = _class_folders(train), _class_folders(root / second)
    check(
        theirs == class_names,
        f"`{train}` and `{root / second}` must hold the same classes.",
        only_in_train=sorted(set(class_names) - set(theirs)),
        only_in_validation=sorted(set(theirs) - set(class_names)),
    )
    return root / ("train" if split == "train" else second), class_names, True


def _folders(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.is_dir() and p.name[0] != "."]


def _class_folders(folder: Path) -> list[str]:
    names = sorted(p.name for p in _folders(folder))
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
