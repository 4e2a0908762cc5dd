"""A teacher's logits, written by several processes, and again after a crash."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_deit._checks import check
from keras_deit._files import replacing
from keras_deit.distillation.cache_index import (
    FORMAT,
    INDEX,
    Shard,
    checked_header,
    codec_of,
    differences,
    fault_of_size,
    read_index,
    sha256_of,
    shard_bytes,
    shards_of,
    whole_epochs,
)
from keras_deit.distillation.teacher_cache import fingerprint

_PARTIAL = ".partial-"


class CacheWriter:
    """Makes a teacher cache, or goes on with one; several processes may at a time.

    A shard is whole and in the index, or it does not count: whatever is killed, at any
    point, the next one goes on. What a killed process left is cleared away.

    Args:
        path: The folder; made if missing.
        header: What the logits are made of: "views" (a flat dict of what determines
            views and batches), "dataset" (a digest), "teacher" ("digest" and "name"),
            "keep_logits" ("all", "hard" or a number), "temperature" (1 unless
            "keep_logits" is a number), "class_names", "batch_size", "steps_per_epoch"
            and "shard_steps" (most steps in a shard).
        facts: What is told about the cache and decides nothing, added to what the index
            has.

    Raises:
        ValueError: If the header is refused, or differs from that of the cache in the
            folder in more than the teacher's name; if the folder has other files, or
            the index is damaged.
        OSError: If the folder cannot be written.
    """

    def __init__(self, path: str | Path, header: dict, facts: dict | None = None):
        self.path = Path(path)
        self.header = checked_header(header)
        self.path.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if (self.path / INDEX).exists():
                index = read_index(self.path)
            else:
                foreign = [p.name for p in self.path.iterdir() if p.name[0] != "."]
                rule = "`path` must be a teacher cache, or an empty or a new folder."
                check(not foreign, rule, path=str(path), files=sorted(foreign)[:5])
                index = {"format": FORMAT, "header": self.header, "facts": {}}
                index["shards"] = {}
            found = differences(index["header"], self.header)
            check(
                not found,
                f"The teacher cache {str(path)!r} is there already and must have the "
                f"same header: {'; '.join(found)}.",
                differences=len(found),
            )
            index["facts"].update(facts or {})
            self.facts = index["facts"]
            self._sweep()
            self._write(index)

    def missing(self, epochs: int) -> list[Shard]:
        """Lists the shards that are still to be made.

        Args:
            epochs: Number of epochs that the cache is to have.

        Returns:
            The shards of these epochs that are not in the index, or whose file is gone
            or has another size; in order.
        """
        entries = read_index(self.path)["shards"]
        shards = (s for epoch in range(epochs) for s in shards_of(self.header, epoch))
        return [shard for shard in shards if not self._is_done(entries, shard)]

    @contextmanager
    def claim(self, shard: Shard) -> Iterator["ShardFile | None"]:
        """Makes a shard, unless another process does.

        Args:
            shard: One of `missing`.

        Yields:
            None if another process is at it or the shard is there meanwhile; else the
            file, which must have got all steps when the block ends. It is in the cache
            after that. After an exception nothing of it is left.

        Raises:
            ValueError: If the file has not got all steps.
            OSError: If it cannot be written, as on a full disk; says what there is.
        """
        partial = self.path / f"{_PARTIAL}{shard.name}"
        with self._locked():
            done = self._is_done(read_index(self.path)["shards"], shard)
            lock = None if done else _try_to_lock(partial)
        if lock is None:
            yield None
            return
        try:
            file = ShardFile(self, shard, partial)
            try:
                yield file
                file.close()
            finally:
                file.release()
            self._enter(shard, partial)
        except BaseException:
            with self._locked():  # lest another opens what is being deleted
                partial.unlink(missing_ok=True)
            raise
        finally:
            os.close(lock)

    def _is_done(self, entries: dict, shard: Shard) -> bool:
        entry = entries.get(shard.name)
        fault = entry and fault_of_size(self.path / shard.name, entry["bytes"])
        return entry is not None and not fault

    def _enter(self, shard: Shard, partial: Path) -> None:
        """Moves a whole file into place and into the index: both or none."""
        path = self.path / shard.name
        entry = {**vars(shard), "bytes": shard_bytes(self.header, shard)}
        entry["sha256"] = sha256_of(partial)
        with self._telling_what_is_there(shard), self._locked():
            partial.replace(path)
            try:
                index = read_index(self.path)
                index["shards"][shard.name] = entry
                self._write(index)
            except BaseException:
                path.replace(partial)  # ours again, before another may claim it
                raise

    def _write(self, index: dict) -> None:
        with replacing(self.path / INDEX) as partial, partial.open("w") as file:
            json.dump(index, file)
            file.flush()
            os.fsync(file.fileno())

    def _sweep(self) -> None:
        """Deletes what killed processes left; what has an owner is locked."""
        for partial in self.path.glob(f"{_PARTIAL}epoch-*"):
            lock = _try_to_lock(partial)
            if lock is not None:
                partial.unlink()
                os.close(lock)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Waits for the index; nobody else claims, enters or sweeps in the block."""
        with (self.path / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _telling_what_is_there(self, shard: Shard) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            is_full = isinstance(error, tf.errors.ResourceExhaustedError)
            fallback = errno.ENOSPC if is_full else errno.EIO
            number = getattr(error, "errno", None) or fallback
            entries = read_index(self.path)["shards"]
            raise OSError(
                number,
                f"{os.strerror(number)}: could not write the shard {shard.name!r} of "
                f"the teacher cache {str(self.path)!r}. Its {len(entries)} shards are "
                f"whole, and so are {whole_epochs(self.header, entries)} epochs, which "
                "can be used. Make room and run this again: it goes on from there",
            ) from error


class ShardFile:
    """The file of a shard, open for writing; see `CacheWriter.claim`."""

    def __init__(self, writer: CacheWriter, shard: Shard, partial: Path):
        self._header, self._codec = writer.header, codec_of(writer.header)
        self._shard, self._partial, self._written = shard, partial, 0
        self._telling = writer._telling_what_is_there
        with self._telling(shard):
            self._records = tf.io.TFRecordWriter(str(partial))

    def write(self, ids: np.ndarray, logits: np.ndarray) -> None:
        """Writes the next step.

        Args:
            ids: Of the examples of the batch, int64, shape (B,).
            logits: Of the teacher, float32, shape (B, Y).

        Raises:
            ValueError: If the shard has all its steps, a shape is another one, or
                logits are NaN or infinite.
            OSError: If the file cannot be written.
        """
        rule = f"The shard {self._shard.name!r} has no more than {self._shard.steps} "
        check(self._written < self._shard.steps, f"{rule}steps.", written=self._written)
        ids, shape = np.asarray(ids), (self._header["batch_size"],)
        check(
            ids.shape == shape and ids.dtype == np.int64 and len(logits) == len(ids),
            f"`ids` must be int64 of shape {shape}, and `logits` as many.",
            ids=(ids.dtype.name, ids.shape),
            logits=np.shape(logits),
        )
        payload = self._codec.encode(logits)
        with self._telling(self._shard):
            self._records.write(fingerprint(ids).numpy().tobytes() + payload)
        self._written += 1

    def close(self) -> None:
        """Refuses a file that is not whole, and has it written to the disk."""
        check(
            self._written == self._shard.steps,
            f"The shard {self._shard.name!r} must have {self._shard.steps} steps.",
            written=self._written,
        )
        with self._telling(self._shard):
            self._records.close()
            with self._partial.open("rb") as file:
                os.fsync(file.fileno())

    def release(self) -> None:
        """Closes the file, whatever is in it."""
        with suppress(tf.errors.OpError):  # what cannot be written will be deleted
            self._records.close()


def _try_to_lock(path: Path) -> int | None:
    """Opens a file, made if missing, as its only owner; None if there is one already.

    The kernel releases the lock when the process ends, however it does.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file
