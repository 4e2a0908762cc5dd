"""The logits of a teacher, read from disk in step with the training batches."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from keras_deit._checks import check, check_choice
from keras_deit.data.shards import training_places
from keras_deit.distillation.cache_index import (
    FINGERPRINT_BYTES,
    codec_of,
    differences,
    fault_of_size,
    read_index,
    sha256_of,
    shards_of,
    whole_epochs,
)
from keras_deit.distillation.cache_index import FORMAT as FORMAT
from keras_deit.distillation.logit_codec import KEEP_LOGITS as KEEP_LOGITS


class TeacherCache:
    """The logits of a teacher for the training batches of whole epochs, for reading.

    A cache is a folder: `index.json` with the header, which says what the logits were
    made of, and shards with one record for each training step. The logits belong to
    views, so they are good only for the very batches that they were made for: `check`
    compares what determines these, `join` compares the ids of each batch.

    Args:
        path: The folder, as `CacheWriter` makes it.

    Attributes:
        path: The folder.
        header: What the cache was made of; see `CacheWriter`.
        facts: What is told about it and decides nothing.
        num_classes: Y.
        batch_size: B, views in a step.
        steps_per_epoch: Steps of an epoch.
        codec: How logits are stored.
        epochs: Number of whole epochs, from epoch 0 on; what is beyond is not used.
        digest: SHA-256 of the header and of the shards of these epochs, 64 hex digits.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no cache, one of a newer format or a damaged one, a shard
            is missing or has another size than the index says, or no epoch is whole.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        index = read_index(self.path)
        self.header, self.facts = index["header"], index["facts"]
        self.codec = codec_of(self.header)
        self.num_classes = self.codec.num_classes
        self.batch_size = self.header["batch_size"]
        self.steps_per_epoch = self.header["steps_per_epoch"]
        self._entries = index["shards"]
        self.epochs = whole_epochs(self.header, self._entries)
        check(
            self.epochs > 0,
            "The teacher cache must have a whole epoch: run `cache_teacher` again, it "
            "goes on where it ended.",
            path=str(path),
            shards=len(self._entries),
        )
        self._refuse_damaged(self._faults(read=False))
        used = [self._entries[name]["sha256"] for name in sum(self._names(), [])]
        content = json.dumps([self.header, used], sort_keys=True)
        self.digest = hashlib.sha256(content.encode()).hexdigest()

    def check(
        self,
        views: dict,
        dataset: str,
        class_names: Sequence[str],
        teacher_digest: str | None,
    ) -> None:
        """Compares what the cache was made of with what a run has.

        Args:
            views: What determines views and batches, as in the header.
            dataset: Digest of the dataset.
            class_names: Name of each class, in the order of the labels.
            teacher_digest: Of the teacher, or None if any will do.

        Raises:
            ValueError: If there is a difference; names all of them.
        """
        now = {"views": views, "dataset": dataset, "class_names": class_names}
        if teacher_digest is not None:
            now["teacher"] = {"digest": teacher_digest}
        self._refuse(differences(self.header, {**self.header, **now}))

    def check_loss(self, kind: str, temperature: float) -> None:
        """Compares the logits that are kept with what a loss needs.

        The hard loss does with any. The soft one needs all logits, or a number of them
        that were kept for its own temperature.

        Args:
            kind: Of distillation, "none", "soft" or "hard".
            temperature: T of the soft loss.

        Raises:
            ValueError: If the loss needs others.
        """
        check_choice("kind", kind, ("none", "soft", "hard"))
        if kind != "soft" or self.codec.keep == "all":
            return
        if self.codec.keep == "hard":
            self._refuse(["keep_logits: 'hard' in the cache, soft distillation now"])
        now = {**self.header, "temperature": temperature}
        self._refuse(differences(self.header, now))

    def join(
        self,
        batches: tf.data.Dataset,
        first_epoch: int = 0,
        first_step: int = 0,
        shard: int = 0,
        num_shards: int = 1,
    ) -> tf.data.Dataset:
        """Adds the teacher's logits to training batches.

        Epoch e gets the logits of epoch `e % epochs`: its views must be those of that
        epoch, see `cycle` of `training_batches`. A few steps at a time are in memory.

        Args:
            batches: (pixels, {"label": ..., "id": int64 (B / K,)}, weight), epoch after
                epoch, with `steps_per_epoch` each. With more than one shard, the dict
                has the ids of the whole batch as well: "batch_ids", int64 (B / K, K).
            first_epoch: Number of the epoch that they begin with.
            first_step: Number of the step of that epoch that they begin with.
            shard: Which part of each batch they are; see `training_batches`.
            num_shards: K, how many parts there are.

        Returns:
            The batches; their dict has "teacher_logits", float32 (B / K, Y), as well,
            and no "batch_ids" any more. A batch with other ids than the cached one
            raises `tf.errors.InvalidArgumentError`, as that of another shard does; a
            damaged file raises `tf.errors.DataLossError`.

        Raises:
            ValueError: If the batches have no ids or not B / K views each, the
                beginning or `shard` is out of range, or B is no multiple of 2 K with
                more than one shard.
        """
        places = training_places(self.batch_size, shard, num_shards)
        rule = f"`first_step` must be at least 0 and below {self.steps_per_epoch}."
        check(0 <= first_step < self.steps_per_epoch, rule, first_step=first_step)
        rule = "`first_epoch` must be at least 0."
        check(first_epoch >= 0, rule, first_epoch=first_epoch)
        self._check_ids(batches.element_spec[1], num_shards)

        def add(batch, record):
            pixels, y, weight = batch
            y = dict(y)
            batch_ids = tf.reshape(y.pop("batch_ids", y["id"]), [-1])  # (B,)
            logits = self._read(y["id"], batch_ids, record, places)
            return pixels, {**y, "teacher_logits": logits}, weight

        records = self._records(first_epoch, first_step)
        joined = tf.data.Dataset.zip((batches, records))
        joined = joined.map(add, tf.data.AUTOTUNE, deterministic=True)
        return joined.prefetch(tf.data.AUTOTUNE)

    def digest_of_epochs(self, epochs: int) -> str:
        """What a run of so many epochs learns from: the header, and how many it has.

        A cache that grows changes nothing for a run that it was long enough for.
        """
        text = json.dumps(self.header, sort_keys=True)
        header = hashlib.sha256(text.encode()).hexdigest()
        return f"{header}, {min(epochs, self.epochs)} epochs"

    def verify(self) -> None:
        """Reads all shards, and compares them with the index.

        Raises:
            ValueError: If one is damaged; names all of them.
        """
        self._refuse_damaged(self.damaged())

    def damaged(self) -> list[str]:
        """Reads all shards and compares them with the index.

        Returns:
            The name of each damaged shard and what is wrong with it.
        """
        return self._faults(read=True)

    def _names(self) -> list[list[str]]:
        """The names of the shards, epoch for epoch."""
        epochs = range(self.epochs)
        return [[shard.name for shard in shards_of(self.header, e)] for e in epochs]

    def _faults(self, read: bool) -> list[str]:
        found = []
        for name, entry in sorted(self._entries.items()):
            fault = fault_of_size(self.path / name, entry["bytes"])
            if read and not fault and sha256_of(self.path / name) != entry["sha256"]:
                fault = "its SHA-256 is not that of the index"
            if fault:
                found.append(f"{name}: {fault}")
        return found

    def _refuse(self, found: list[str]) -> None:
        check(
            not found,
            f"The teacher cache {str(self.path)!r} must be of this run's views, "
            f"teacher and loss: {'; '.join(found)}.",
            differences=len(found),
        )

    def _refuse_damaged(self, faults: list[str]) -> None:
        check(
            not faults,
            f"The teacher cache {str(self.path)!r} is damaged: {'; '.join(faults)}. "
            "Delete these shards and run `cache_teacher` again, it makes them anew.",
            damaged_shards=len(faults),
        )

    def _records(self, first_epoch: int, first_step: int) -> tf.data.Dataset:
        """The records, one for each step, without end."""
        names = [[str(self.path / name) for name in epoch] for epoch in self._names()]
        shard_steps = self.header["shard_steps"]

        def records_of(epoch):
            step = tf.where(epoch == first_epoch, tf.constant(first_step, tf.int64), 0)
            files = tf.constant(names)[epoch % self.epochs][step // shard_steps :]
            return tf.data.TFRecordDataset(files).skip(step % shard_steps)

        return tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(records_of)

    def _check_ids(self, y: object, num_shards: int) -> None:
        """Refuses labels, as an element's specification has them, without all ids."""
        views = self.batch_size // num_shards
        needed = {"id": (views,)}
        if num_shards > 1:
            needed["batch_ids"] = (views, num_shards)
        has = y if isinstance(y, dict) else {}
        found = {name: tuple(has[name].shape) for name in needed if name in has}
        check(
            found == needed,
            f"`batches` must have the ids of {views} views each, as `training_batches` "
            "makes them with `ids=True` and the same `num_shards`.",
            num_shards=num_shards,
            found=found,
        )

    def _read(self, ids: tf.Tensor, batch_ids: tf.Tensor, record: tf.Tensor, places):
        written = tf.strings.substr(record, 0, FINGERPRINT_BYTES)
        same = tf.debugging.assert_equal(
            tf.io.decode_raw(written, tf.uint8),
            fingerprint(batch_ids),
            f"The batches are not those of the teacher cache {str(self.path)!r}: one "
            "has other examples, or another order of them, than the batch that the "
            "logits of this step are of.",
        )
        ours = tf.debugging.assert_equal(
            ids,
            tf.gather(batch_ids, places),
            "The batches must be of the same `shard` as the logits they are joined "
            "with: their examples have other places in the whole batch.",
        )
        with tf.control_dependencies([same, ours]):
            payload = tf.strings.substr(record, FINGERPRINT_BYTES, -1)
        is_whole = len(places) == self.batch_size
        return self.codec.decode(payload, self.batch_size, None if is_whole else places)


@contextmanager
def naming_damaged_shards(cache: TeacherCache | None) -> Iterator[None]:
    """Says which shards are damaged if reading the cache fails in the block.

    Args:
        cache: What is read in the block; None if there is no cache.

    Raises:
        ValueError: If TensorFlow finds damaged data, or none, and shards are not what
            the index says; names them. Any other error goes through.
    """
    try:
        yield
    except (
        tf.errors.DataLossError,
        tf.errors.NotFoundError,
        tf.errors.OutOfRangeError,
    ) as error:
        try:
            if cache is not None:
                cache.verify()
        except ValueError as damage:
            raise damage from error
        raise


def fingerprint(ids: tf.Tensor) -> tf.Tensor:
    """Makes 8 bytes, uint8 (8,), of the ids of a batch, int64 (B,), and their order."""
    return tf.fingerprint(ids[None])[0]
