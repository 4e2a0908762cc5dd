"""From sources to batches."""

from dataclasses import dataclass

import tensorflow as tf

from keras_deit._checks import check, check_share
from keras_deit.data.augmentation import Augmentation, training_view
from keras_deit.data.geometry import evaluation_view
from keras_deit.data.source import Source
from keras_deit.data.sources import load_source
from keras_deit.data.views import view_key
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
    crop_ratio: float = 1.0,
    label_smoothing: float = 0.0,
    download: bool = False,
) -> Batches:
    """Loads both splits of a dataset.

    Args:
        name: "digits", a folder, or a name of TensorFlow Datasets; see `load_source`.
        image_size: Side of the views or (height, width), in pixels.
        batch_size: B, images in a batch.
        seed: Every view is a function of (seed, epoch, example id).
        augmentation: What a training view goes through; None takes the papers' crop and
            flip.
        crop_ratio: Of the center crop at evaluation, in (0, 1].
        label_smoothing: Share of a training label spread evenly over all classes.
        download: Whether a dataset of TensorFlow Datasets may be downloaded.

    Returns:
        The batches of both splits.

    Raises:
        ValueError: If a value is refused, or a batch is larger than the training split.
        FileNotFoundError: If the dataset cannot be reached.
    """
    image_size = image_height_and_width(image_size)
    train = load_source(name, "train", download)
    validation = load_source(name, "validation", download)
    return Batches(
        training_batches(
            train,
            image_size,
            batch_size,
            seed,
            augmentation or Augmentation(),
            label_smoothing,
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
    label_smoothing: float = 0.0,
    first_epoch: int = 0,
) -> tf.data.Dataset:
    """Makes endless batches of random views; see `Batches.train`.

    Args:
        source: The images.
        image_size: Height and width of the views, in pixels.
        batch_size: B, images in a batch.
        seed: Every view is a function of (seed, epoch, example id).
        augmentation: What a view goes through.
        label_smoothing: Share of a label spread evenly over all classes, in [0, 1].
        first_epoch: Number of the epoch to begin with.

    Returns:
        The batches.

    Raises:
        ValueError: If `batch_size` is not between 1 and the number of images, or
            `label_smoothing` is outside [0, 1].
    """
    check_share("label_smoothing", label_smoothing)
    check(
        1 <= batch_size <= source.num_examples,
        f"`batch_size` must be between 1 and the {source.num_examples} images of "
        f"{source.name!r}.",
        batch_size=batch_size,
    )
    num_classes = len(source.class_names)

    def epoch_of_batches(epoch):
        def view(example):
            key = view_key(seed, epoch, example["id"])
            image = training_view(example["image"], key, image_size, augmentation)
            label = tf.one_hot(example["label"], num_classes)
            label = (1 - label_smoothing) * label + label_smoothing / num_classes
            return image, label, 1.0

        views = source.shuffled(seed, epoch).map(view, tf.data.AUTOTUNE)
        return views.batch(batch_size, drop_remainder=True)

    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
    return epochs.flat_map(epoch_of_batches).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(
    source: Source, image_size: tuple[int, int], batch_size: int, crop_ratio: float
) -> tf.data.Dataset:
    """Makes batches of every image once; see `Batches.validation`.

    Args:
        source: The images.
        image_size: Height and width of the views, in pixels.
        batch_size: B, images in a batch.
        crop_ratio: Of the center crop, in (0, 1].

    Returns:
        The batches.

    Raises:
        ValueError: If `batch_size` is below 1, or `crop_ratio` is outside (0, 1].
    """
    check(batch_size >= 1, "`batch_size` must be at least 1.", batch_size=batch_size)
    check(0 < crop_ratio <= 1, "`crop_ratio` must be in (0, 1].", crop_ratio=crop_ratio)
    num_classes = len(source.class_names)

    def view(example):
        image = evaluation_view(example["image"], image_size, crop_ratio)
        image = tf.ensure_shape(image, (*image_size, 3))
        return image, tf.one_hot(example["label"], num_classes), 1.0

    views = source.in_order().map(view, tf.data.AUTOTUNE)
    filler = (
        tf.zeros((*image_size, 3), tf.uint8),
        tf.one_hot(0, num_classes),
        0.0,
    )
    missing = -source.num_examples % batch_size
    views = views.concatenate(tf.data.Dataset.from_tensors(filler).repeat(missing))
    steps = (source.num_examples + missing) // batch_size
    batches = views.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return batches.apply(tf.data.experimental.assert_cardinality(steps))
