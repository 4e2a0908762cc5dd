"""A folder of images, sorted into a folder for each class."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import compress
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.data.geometry import decode_image
from keras_deit.data.source import (
    VALIDATION_NAMES,
    Source,
    damage_of,
    digest_of,
    indexed_source,
    split_indices,
)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
# Of images that TensorFlow does not decode: to leave them out is worth a word.
OTHER_SUFFIXES = (".avif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".tif", ".tiff")


def image_folder(root: Path, split: str, unreadable: str = "refuse") -> Source:
    """Finds the images of a split in a folder; see `load_source`.

    Images are found by their endings, in folders of any depth within that of their
    class; links are followed, what begins with a dot is left alone. The id of an image
    is its number among all of the folder, sorted, whether they are in the split or
    can be decoded or not.

    Raises:
        ValueError: If the folder holds fewer than two classes, a class without images,
            splits that do not fit, or links in a circle.
    """
    root, class_names, is_split = _split_folder(root, split)
    paths, labels, others = [], [], Counter()
    for label, name in enumerate(class_names):
        images, rest = _images(root / name)
        others += rest
        check(
            bool(images),
            f"Each class folder must hold images ({', '.join(IMAGE_SUFFIXES)}).",
            folder=str(root / name),
            others=dict(rest),
        )
        paths += images
        labels += [label] * len(images)
    if others:
        found = ", ".join(f"{count:,} {suffix}" for suffix, count in others.items())
        _say(f"Left out of {root}, for TensorFlow cannot decode them: {found}")
    indices = split_indices(labels, "all" if is_split else split)
    check(
        len(indices) > 0,
        "The folder holds too few images to hold out a fifth of each class; give some "
        "in train/ and some in val/.",
        folder=str(root),
        images=len(paths),
    )
    return source_of_files(
        root,
        class_names,
        [paths[index] for index in indices],
        np.array(labels)[indices],
        indices,
        unreadable,
    )


def source_of_files(
    root: Path, class_names, paths, labels, ids, unreadable: str
) -> Source:
    """Makes a source of image files.

    Args:
        root: Folder that the paths begin with; it is no part of the digest.
        class_names: Name of each class, in the order of the labels.
        paths: The files.
        labels: The label of each.
        ids: The id of each.
        unreadable: "refuse" or "skip"; see `load_source`.

    Raises:
        ValueError: If all images of a class would be skipped.
    """
    if unreadable == "skip":
        kept = _can_be_decoded(paths)
        lost = np.setdiff1d(labels, labels[kept])
        check(
            len(lost) == 0,
            "Each class must have an image that can be decoded.",
            folder=str(root),
            without=[class_names[label] for label in lost[:5]],
        )
        skipped = list(compress(paths, ~kept))
        if skipped:
            named = ", ".join(skipped[:5])
            _say(f"Left out {len(skipped):,} images that cannot be decoded: {named}")
        paths, labels, ids = list(compress(paths, kept)), labels[kept], ids[kept]
    names = tf.constant([os.fsencode(path) for path in paths])
    begin = len(str(root / "_")) - 1
    return indexed_source(
        str(root),
        class_names,
        labels,
        lambda index: tf.io.read_file(tf.gather(names, index)),
        digest_of(*(os.fsencode(f"{path[begin:]} {_size(path)}") for path in paths)),
        paths,
        ids,
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


def _images(folder: Path) -> tuple[list[str], Counter]:
    """The images of a class, sorted, and how many of what endings are none to us."""
    images, others = [], Counter()
    for path in _files(str(folder)):
        suffix = f".{path.rpartition('.')[2].lower()}"
        if suffix in IMAGE_SUFFIXES:
            images.append(path)
        elif suffix in OTHER_SUFFIXES:
            others[suffix] += 1
    return sorted(images), others


def _files(folder: str, around: tuple[str, ...] = ()) -> Iterator[str]:
    """All files in a folder and in those within, through links."""
    here = os.path.realpath(folder)
    rule = "A link in a folder of images must not lead to a folder around it."
    check(here not in around, rule, link=folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _files(entry.path, (*around, here))
            else:
                yield entry.path


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # a link to nothing, say: an unreadable image
        return -1


@cache  # once for both splits
def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def naming_unreadable_images(*sources: Source) -> Iterator[None]:
    """Turns TensorFlow's error about an image into one that names the files.

    Raises:
        ValueError: If files of `sources` cannot be decoded; it names up to five. If a
            record file is damaged; it names the dataset.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.FailedPreconditionError) as error:
        if damage_of(error) is None:
            raise
        names = " or ".join(sorted({repr(source.name) for source in sources}))
        raise ValueError(
            f"The record files of {names} are damaged; remove them and prepare the "
            f"dataset anew: {damage_of(error)}"
        ) from error
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        paths = [path for source in sources for path in source.paths]
        print(f"Looking for unreadable images among {len(paths):,} ...", flush=True)
        unreadable = list(compress(paths, ~_can_be_decoded(paths)))
        if not unreadable:
            raise
        raise ValueError(
            f"{len(unreadable)} of {len(paths)} images cannot be decoded; remove, "
            f"repair or skip them (--unreadable=skip): {', '.join(unreadable[:5])}"
        ) from error


def _can_be_decoded(paths) -> np.ndarray:
    """Decodes each file; shows on a terminal how far it is."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    with ThreadPool() as pool:
        readable = track(
            pool.imap(_is_readable, paths, chunksize=16),
            "Decoding each image once",
            total=len(paths),
            console=console,
            disable=not console.is_terminal,
        )
        return np.array(list(readable), bool)


def _is_readable(path: str) -> bool:
    try:
        decode_image(tf.io.read_file(os.fsencode(path)))
    except tf.errors.OpError:
        return False
    return True
