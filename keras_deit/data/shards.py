"""Which part of each batch a worker makes, where several share the work."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_deit._checks import check


def training_places(batch_size: int, shard: int, num_shards: int) -> np.ndarray:
    """Lists the places of a training batch whose views a shard makes.

    Mixing pairs place p with place B - 1 - p, so a shard of K has B / 2K whole pairs.

    Args:
        batch_size: B, views in a batch of all shards together.
        shard: Number of the shard, from 0.
        num_shards: K.

    Returns:
        The B / K places, rising.

    Raises:
        ValueError: If `shard` is out of range, or `batch_size` no multiple of 2 K with
            more than one shard.

    Example:
    >>> [training_places(8, shard, 2).tolist() for shard in range(2)]
    [[0, 1, 6, 7], [2, 3, 4, 5]]
    """
    check_shard(batch_size, shard, num_shards, whole_pairs=True)
    places = np.arange(batch_size)
    pairs = np.minimum(places, batch_size - 1 - places)
    return np.flatnonzero(pairs * 2 * num_shards // batch_size == shard)


def check_shard(
    batch_size: int, shard: int, num_shards: int, whole_pairs: bool = False
) -> None:
    """Raises `ValueError` unless there is such a shard, and all can be of one size."""
    rule = "`shard` must be at least 0 and less than `num_shards`."
    check(0 <= shard < num_shards, rule, shard=shard, num_shards=num_shards)
    divisor = num_shards * (2 if whole_pairs else 1)
    number = "twice their number" if whole_pairs else "their number"
    check(
        num_shards == 1 or batch_size % divisor == 0,
        f"With several shards, `batch_size` must be a multiple of {number}.",
        batch_size=batch_size,
        num_shards=num_shards,
    )


def of_places(
    records: tf.data.Dataset,
    places: np.ndarray,
    batch_size: int,
    read: Callable | None = None,
) -> tf.data.Dataset:
    """Keeps the records in some places of each batch.

    Args:
        records: (place, record), from the beginning of a batch on; what is less than a
            batch at the end is left out.
        places: Which to keep, b of the B places; b divides B.
        batch_size: B.
        read: `Source.read`, if the ids of the whole batch are wanted; None if not. Of
            what it reads only the id is computed, so that no image is.

    Returns:
        (place, record), with `read` (place, record, {"batch_ids": int64 (B / b,)}):
        these ids are a row of the batch's, b rows are all of them in their places.
    """

    def with_id(place, record):
        return place, record, {"batch_ids": read(record)["id"]}

    def choose(place, record, *ids):
        kept = tf.nest.map_structure(lambda x: tf.gather(x, places), (place, record))
        rows = tf.nest.map_structure(lambda x: tf.reshape(x, (len(places), -1)), ids)
        return tf.data.Dataset.from_tensor_slices((*kept, *rows))

    records = records if read is None else records.map(with_id)
    return records.batch(batch_size, drop_remainder=True).flat_map(choose)
