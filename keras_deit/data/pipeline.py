"""From sources to batches."""

from dataclasses import dataclass

import tensorflow as tf

from keras_deit._checks import check, check_share
from keras_deit.data.augmentation import Augmentation, training_view
from keras_deit.data.geometry import evaluation_view, pixels_of
from keras_deit.data.mixing import Mixing, mix_batch
from keras_deit.data.shards import check_shard, of_places, training_places
from keras_deit.data.source import Source
from keras_deit.data.sources import load_source
from keras_deit.data.views import mix_key, view_key
from keras_deit.models.factory import image_height_and_width


@dataclass(frozen=True)
class Batches:
    """Both splits of a dataset, in batches for `fit`.

    Batches are (pixels, labels, sample_weight): uint8 (B, H, W, 3), float32 (B, Y)
    and float32 (B,).

    Attributes:
        train: Endless: epoch after epoch, each in its own order with its own views.
        validation: Every held-out image once; the last batch is filled up with images
            of weight 0, so that all batches have one shape.
        steps_per_epoch: Batches in an epoch of `train`; the rest of the images, less
            than a batch, is left out, other ones in each epoch.
        class_names: Name of each class, in the order of the labels.
        sources: The images of both splits.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset
    steps_per_epoch: int
    class_names: tuple[str, ...]
    sources: tuple[Source, Source]


def load(
    name: str,
    image_size: int | tuple[int, int],
    batch_size: int,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    mixing: Mixing | None = None,
    crop_ratio: float = 1.0,
    label_smoothing: float = 0.0,
    repeats: int = 1,
    download: bool = False,
    unreadable: str = "refuse",
) -> Batches:
    """Loads both splits of a dataset.

    Args:
        name: "digits", a folder, or a name of TensorFlow Datasets; see `load_source`.
        image_size: Side of the views or (height, width), in pixels.
        batch_size: B, images in a batch.
        seed: Every view is a function of (seed, epoch, example id, repeat).
        augmentation: What a training view goes through; None takes the papers' crop and
            flip.
        mixing: How the views of a batch are mixed; None for not at all.
        crop_ratio: Of the center crop at evaluation, in (0, 1].
        label_smoothing: Share of a training label spread evenly over all classes.
        repeats: Views of an image in a batch; see `training_batches`.
        download: Whether a dataset of TensorFlow Datasets may be downloaded.
        unreadable: What to do with image files that cannot be decoded; see
            `load_source`.

    Returns:
        The batches of both splits.

    Raises:
        ValueError: If a value is refused, or a batch is larger than the training split.
        FileNotFoundError: If the dataset cannot be reached.
    """
    image_size = image_height_and_width(image_size)
    train = load_source(name, "train", download, unreadable)
    validation = load_source(name, "validation", download, unreadable)
    return Batches(
        training_batches(
            train,
            image_size,
            batch_size,
            seed,
            augmentation or Augmentation(),
            mixing,
            label_smoothing,
            repeats,
        ),
        evaluation_batches(validation, image_size, batch_size, crop_ratio),
        train.num_examples // batch_size,
        train.class_names,
        (train, validation),
    )


def training_batches(
    source: Source,
    image_size: tuple[int, int],
    batch_size: int,
    seed: int,
    augmentation: Augmentation,
    mixing: Mixing | None = None,
    label_smoothing: float = 0.0,
    repeats: int = 1,
    first_epoch: int = 0,
    first_step: int = 0,
    shard: int = 0,
    num_shards: int = 1,
    parallel_calls: int = tf.data.AUTOTUNE,
    ids: bool = False,
    cycle: int | None = None,
) -> tf.data.Dataset:
    """Makes endless batches of random views; see `Batches.train`.

    What is in a batch depends on the seed, the epoch and the step alone: not on the
    parallelism, nor on where the batches begin, nor on the number of shards.

    With `repeats`, an image has so many views, one after the other, in the same batch
    but at its borders. An epoch keeps its length and has other images each time.

    Args:
        source: The images.
        image_size: Height and width of the views, in pixels.
        batch_size: B, images in a batch of all shards together.
        seed: Every view is a function of (seed, epoch, example id, repeat), every
            mixing of (seed, epoch, step).
        augmentation: What a view goes through.
        mixing: How the views of a batch are mixed: that in place p with that in place
            B - 1 - p. None for not at all.
        label_smoothing: Share of a label spread evenly over all classes, in [0, 1].
        repeats: Views of an image, at least 1.
        first_epoch: Number of the epoch to begin with.
        first_step: Number of the step of that epoch to begin with.
        shard: Number of the shard, from 0, of which to make batches.
        num_shards: K, how many there are. A shard has B / K views of each batch, those
            in B / 2K places and in the places that these are mixed with; see
            `training_places`.
        parallel_calls: How many views are made at the same time.
        ids: Whether the labels come in a dict with the ids of the examples:
            `{"label": (B, Y), "id": int64 (B,)}`. With more than one shard, each has
            its own, and "batch_ids", int64 (B / K, K): row for row, those of the whole
            batch in their places.
        cycle: Number of epochs after which the same views begin again: epoch e has
            those of epoch `e % cycle`. None, or 0, for never.

    Returns:
        The batches, of B / K views.

    Raises:
        ValueError: If `batch_size` is not between 1 and the number of images, or no
            multiple of 2 K with more than one shard; if `label_smoothing` is outside
            [0, 1], or a number is out of range.

    Reference:
        Hoffer et al., repeated augmentation (arXiv:1901.09335). The official DeiT
        `samplers.py`, `RASampler`, cuts an epoch to a multiple of 256 views, repeats
        nothing in a single process, and deals the views of an image to different
        processes of the same step.
    """
    check_share("label_smoothing", label_smoothing)
    for name, count in (("repeats", repeats), ("cycle", cycle or 1)):
        check(count >= 1, f"`{name}` must be at least 1.", **{name: count})
    places = training_places(batch_size, shard, num_shards)
    steps = _steps_per_epoch(source, batch_size, first_step)
    num_classes = len(source.class_names)

    def epoch_of_batches(number):
        epoch = number % (cycle or tf.int64.max)

        def view(place, record, of_batch=None):
            example = source.read(record)
            key = view_key(seed, epoch, example["id"], place % repeats)
            image = training_view(example["image"], key, image_size, augmentation)
            label = _smoothed(example["label"], num_classes, label_smoothing)
            return image, {"label": label, "id": example["id"], **(of_batch or {})}, 1.0

        def mix(step, views):
            images, y, weights = views
            key = mix_key(seed, epoch, step)
            images, labels = mix_batch(images, y["label"], key, mixing)
            return images, {**y, "label": labels}, weights

        step = tf.where(number == first_epoch, tf.constant(first_step, tf.int64), 0)
        records = _places(source, seed, epoch, step * batch_size, repeats)
        if num_shards > 1:
            read = source.read if ids else None
            records = of_places(records, places, batch_size, read)
        views = records.map(view, parallel_calls, deterministic=True)
        batches = views.batch(batch_size // num_shards, drop_remainder=True)
        if mixing is not None:
            batches = batches.enumerate(step)
            batches = batches.map(mix, parallel_calls, deterministic=True)
        return batches.take(steps - step)

    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
    batches = epochs.flat_map(epoch_of_batches)
    return (batches if ids else batches.map(_without_ids)).prefetch(tf.data.AUTOTUNE)


def _smoothed(label, num_classes: int, label_smoothing: float):
    one_hot = tf.one_hot(label, num_classes)
    return (1 - label_smoothing) * one_hot + label_smoothing / num_classes


def _without_ids(images, y, weights):
    return images, y["label"], weights


def _steps_per_epoch(source: Source, batch_size: int, first_step: int) -> int:
    check(
        1 <= batch_size <= source.num_examples,
        f"`batch_size` must be between 1 and the {source.num_examples} images of "
        f"{source.name!r}.",
        batch_size=batch_size,
    )
    steps = source.num_examples // batch_size
    rule = f"`first_step` must be at least 0 and less than the {steps} of an epoch."
    check(0 <= first_step < steps, rule, first_step=first_step)
    return steps


def _places(source: Source, seed: int, epoch, first, repeats: int) -> tf.data.Dataset:
    """The places of an epoch from `first` on, each with its number and its record."""
    records = source.permuted(seed, epoch, first // repeats)
    if repeats > 1:
        records = records.flat_map(
            lambda record: tf.data.Dataset.from_tensors(record).repeat(repeats)
        )
    return records.skip(first % repeats).enumerate(first)


def batch_ids(
    source: Source, batch_size: int, seed: int, repeats: int, epoch: int, step: int
) -> list[int]:
    """Names the examples of a training batch, in their places; for messages.

    Args:
        source: The images.
        batch_size: B, images in a batch of all shards together.
        seed: Seed of the run.
        repeats: Views of an image.
        epoch: Number of the epoch, from 0.
        step: Number of the step in it, from 0.

    Returns:
        The ids of the B examples.
    """
    epoch = tf.constant(epoch, tf.int64)
    first = tf.constant(step * batch_size, tf.int64)
    places = _places(source, seed, epoch, first, repeats).take(batch_size)
    return [int(source.read(record)["id"]) for _, record in places]


def evaluation_batches(
    source: Source,
    image_size: tuple[int, int],
    batch_size: int,
    crop_ratio: float,
    shard: int = 0,
    num_shards: int = 1,
) -> tf.data.Dataset:
    """Makes batches of every image once; see `Batches.validation`.

    Args:
        source: The images.
        image_size: Height and width of the views, in pixels.
        batch_size: B, images in a batch of all shards together.
        crop_ratio: Of the center crop, in (0, 1].
        shard: Number of the shard, from 0, of which to make batches.
        num_shards: K, how many there are. A shard has B / K images of each batch, those
            in the places p with p % K = `shard`; all have as many batches.

    Returns:
        The batches, of B / K images.

    Raises:
        ValueError: If `batch_size` is below 1 or no multiple of `num_shards`, if
            `shard` is out of range, or `crop_ratio` is outside (0, 1].
    """
    check(batch_size >= 1, "`batch_size` must be at least 1.", batch_size=batch_size)
    check(0 < crop_ratio <= 1, "`crop_ratio` must be in (0, 1].", crop_ratio=crop_ratio)
    check_shard(batch_size, shard, num_shards)
    num_classes = len(source.class_names)

    def view(record):
        example = source.read(record)
        image = evaluation_view(pixels_of(example["image"]), image_size, crop_ratio)
        image = tf.ensure_shape(image, (*image_size, 3))
        return image, tf.one_hot(example["label"], num_classes), 1.0

    views = source.natural().shard(num_shards, shard).map(view, tf.data.AUTOTUNE)
    filler = tf.zeros((*image_size, 3), tf.uint8), tf.one_hot(0, num_classes), 0.0
    steps = -(-source.num_examples // batch_size)
    own = len(range(shard, source.num_examples, num_shards))
    missing = steps * batch_size // num_shards - own
    views = views.concatenate(tf.data.Dataset.from_tensors(filler).repeat(missing))
    batches = views.batch(batch_size // num_shards, drop_remainder=True)
    batches = batches.prefetch(tf.data.AUTOTUNE)
    return batches.apply(tf.data.experimental.assert_cardinality(steps))
