"""Images of TensorFlow Datasets, read from the record files they were prepared in."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.data.source import (
    VALIDATION_NAMES,
    Source,
    damage_of,
    digest_of,
    indexed_source,
)
from keras_deit.data.tfds_builder import prepared_builder
from keras_deit.data.views import epoch_order

IN_MEMORY = 2**30  # bytes of record files up to which a split is kept in memory
SHUFFLE_WINDOW = 10_000  # examples of a stream that are shuffled together
SHARD_STRIDE = 2**32  # between the ids of two record files; none holds that many


@dataclass(frozen=True)
class _RecordFiles:
    """The record files of a split, or of the part of each that belongs to it.

    Attributes:
        paths: The files.
        shards: Number of each among all files of the dataset's split.
        skips: Records of each that come before the part.
        counts: Records of the part.
        sizes: Bytes of each file.
        num_bytes: Bytes of all records, about.
    """

    paths: list[str]
    shards: np.ndarray
    skips: np.ndarray
    counts: np.ndarray
    sizes: np.ndarray
    num_bytes: float

    def records(self, order, first) -> tf.data.Dataset:
        """The serialized examples, file after file, from number `first` on.

        The files before it are not opened, its predecessors in the file not parsed.

        Args:
            order: Order of the files, int64.
            first: Number of the first record in that order, int64.

        Returns:
            Dicts of `example`, a string, and `id`, int64: number of the file times
            `SHARD_STRIDE` plus number of the record in the file, as `tfds_id` has them.
        """
        ends = tf.cumsum(tf.gather(self.counts, order))
        begin = tf.searchsorted(ends, [first], side="right")[0]
        passed = first - tf.concat([[0], ends], axis=0)[begin]

        def of_file(place, number):
            offset = tf.where(place == 0, passed, 0)
            skip = tf.gather(self.skips, number) + offset
            count = tf.gather(self.counts, number) - offset
            records = tf.data.TFRecordDataset(tf.gather(self.paths, number)).skip(skip)
            # A file that ends too early is an error, not the end of an epoch.
            records = records.take(count).apply(
                tf.data.experimental.assert_cardinality(count)
            )
            records = records.enumerate(
                tf.gather(self.shards, number) * SHARD_STRIDE + skip
            )
            return records.map(lambda name, example: {"example": example, "id": name})

        files = tf.data.Dataset.from_tensor_slices(order[begin:])
        return files.enumerate().flat_map(of_file)

    def in_order(self) -> tf.data.Dataset:
        """All records in their natural order."""
        files = tf.range(len(self.paths), dtype=tf.int64)
        return self.records(files, tf.constant(0, tf.int64))

    def permuted(self, seed, epoch, first) -> tf.data.Dataset:
        """The records in the order of an epoch; see `tfds_source`."""
        # The files are ordered as a window with a number that no window has.
        order = epoch_order(seed, epoch, len(self.paths), window=-1)
        first = tf.cast(first, tf.int64)
        window, offset = first // SHUFFLE_WINDOW, first % SHUFFLE_WINDOW

        def shuffle(window, records):
            size = tf.shape(records["id"])[0]
            order = epoch_order(seed, epoch, size, window)
            return {name: tf.gather(x, order) for name, x in records.items()}

        windows = self.records(order, window * SHUFFLE_WINDOW).batch(SHUFFLE_WINDOW)
        windows = windows.enumerate(window).map(shuffle)
        # While one window is used up, the next is read.
        return windows.prefetch(1).unbatch().skip(offset)


def tfds_source(name: str, split: str, download: bool) -> Source:
    """Finds a split in TensorFlow Datasets; see `load_source`.

    A split of up to 1 GiB is kept in memory, encoded, and an epoch is a permutation of
    it. A larger one is streamed: the files follow each other in an order of the epoch,
    and each 10,000 examples of that stream are shuffled together; an epoch can begin
    anywhere without reading more than one window for it. Two windows and what is being
    shuffled are in memory: about 3.5 GB for ImageNet.

    Args:
        name: Name of the dataset, with a config or version if wanted.
        split: "train", "validation" or "all".
        download: Whether it may be downloaded.

    Returns:
        The split; an id is the same in any order and in any part of a split.

    Raises:
        ValueError: If the dataset is no image classification, has no such split, or
            its files are damaged or of another kind than TFRecord.
        FileNotFoundError: If the dataset is not there; the message says what to do.
    """
    builder = prepared_builder(name, download)
    info = builder.info
    encoded = _encoded_features(info.features, name)
    spec = _spec(info.splits, split, name)
    files = _record_files(builder, spec, name)
    class_names = tuple(info.features["label"].names)
    count = int(files.counts.sum())
    rule = "The dataset must have images for each split."
    check(count > 0, rule, dataset=name, split=spec)
    digest = digest_of(
        info.full_name,
        spec,
        *class_names,
        *(x.tobytes() for x in (files.skips, files.counts, files.sizes)),
    )

    def read(record):
        example = tf.io.parse_single_example(record["example"], encoded)
        return {**example, "id": record["id"]}

    if files.num_bytes > IN_MEMORY:
        return Source(
            name,
            class_names,
            count,
            digest,
            natural=files.in_order,
            permuted=files.permuted,
            read=read,
        )
    try:
        records = files.in_order().batch(count).get_single_element()
        examples = tf.io.parse_example(records["example"], encoded)
    except tf.errors.OpError as error:
        raise ValueError(
            f"The record files of {name!r} in {builder.data_path} are damaged; remove "
            f"them and prepare the dataset anew: {damage_of(error) or error.message}"
        ) from error
    labels = examples["label"].numpy()
    check(
        labels.min() >= 0,
        "Every image must have a label.",
        dataset=name,
        without=int((labels < 0).sum()),
    )
    return indexed_source(
        name,
        class_names,
        labels,
        lambda index: tf.gather(examples["image"], index),
        digest,
        ids=records["id"].numpy(),
    )


def _encoded_features(features, name: str) -> dict:
    """How the encoded image and the label lie in a serialized example."""
    import tensorflow_datasets as tfds

    features = dict(features or {})
    check(
        isinstance(features.get("image"), tfds.features.Image)
        and isinstance(features.get("label"), tfds.features.ClassLabel),
        "The dataset must have the features 'image', an image, and 'label', a class.",
        dataset=name,
        features=sorted(features),
    )
    wanted = {key: features[key] for key in ("image", "label")}
    return tfds.features.FeaturesDict(wanted).tf_example_spec


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


def _record_files(builder, spec: str, name: str) -> _RecordFiles:
    """The record files of a split, which must be there and be TFRecord."""
    info = builder.info
    check(
        info.file_format.value == "tfrecord",
        "The files of the dataset must be of the format 'tfrecord'; prepare it anew.",
        dataset=name,
        folder=str(builder.data_path),
        format=info.file_format.value,
    )
    parts = info.splits[spec].file_instructions
    everything = [str(path) for path in info.splits[spec.partition("[")[0]].filepaths]
    paths = [str(part.filename) for part in parts]
    missing = [path for path in paths if not tf.io.gfile.exists(path)]
    if missing:
        raise FileNotFoundError(
            f"Of {name!r}, {len(missing)} of {len(paths)} record files are missing: "
            f"{', '.join(missing[:5])}"
        )
    numbers = {path: number for number, path in enumerate(everything)}
    sizes = np.array([tf.io.gfile.stat(path).length for path in paths], np.int64)
    shares = [part.take / part.examples_in_shard for part in parts]
    return _RecordFiles(
        paths,
        np.array([numbers[path] for path in paths], np.int64),
        np.array([part.skip for part in parts], np.int64),
        np.array([part.take for part in parts], np.int64),
        sizes,
        float(sizes @ shares) if paths else 0.0,
    )
