"""The processes of a run: what they tell one another, and who is missed."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_deit._checks import check
from keras_deit.distillation.keras_fit import num_workers

PIECE_BYTES = 64 * 2**20  # of a file on its way
# What TensorFlow raises where another process is gone.
_GONE = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
)


class Workers:
    """The processes that a strategy spreads a run over; often there is but one.

    All methods must be called by all of them, in the same order.

    Args:
        strategy: The strategy of the run.

    Attributes:
        strategy: The same.
        count: Number of processes.
        index: Which of them this is; 0 is the chief, which alone leaves files.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self.count, self.index = num_workers(strategy), 0
        if self.count > 1:
            resolver = strategy.cluster_resolver
            chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
            first = chiefs if resolver.task_type == "worker" else 0
            self.index = first + resolver.task_id

    @property
    def is_chief(self) -> bool:
        """Whether this is the process that leaves files."""
        return self.index == 0

    def gather(self, value) -> list:
        """Returns what each worker has, in their order.

        Args:
            value: What this one has, in JSON's terms.
        """
        if self.count == 1:
            return [value]
        texts = [self._sent(json.dumps(value).encode(), i) for i in range(self.count)]
        return [json.loads(text) for text in texts]

    def agree(self, facts: dict) -> None:
        """Refuses a run whose workers compute different things.

        Args:
            facts: What must be the same on all workers, in JSON's terms.

        Raises:
            ValueError: On all of them, naming what differs.
        """
        first, *others = self.gather(json.loads(json.dumps(facts)))
        differences = [
            f"{name}: {first.get(name)!r} on worker 0, {theirs.get(name)!r} on worker "
            f"{number}"
            for number, theirs in enumerate(others, start=1)
            for name in dict.fromkeys((*first, *theirs))
            if first.get(name) != theirs.get(name)
        ]
        check(
            not differences,
            "All workers must compute the same run, but they differ in "
            f"{'; '.join(differences)}.",
            workers=self.count,
        )

    def copy(self, folder: Path, names: Sequence[str]) -> None:
        """Copies files of the chief to the others.

        Args:
            folder: Where they are, or go to; another one on each worker.
            names: What the files are called in it.
        """
        if self.count == 1:
            return
        for name in names:
            content = self._sent(
                (folder / name).read_bytes() if self.is_chief else b"", sender=0
            )
            if not self.is_chief:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)

    def _sent(self, content: bytes, sender: int) -> bytes:
        """Bytes of one worker, on all of them."""
        own = self.index == sender
        sizes = np.array([len(content) if own else 0], np.int64)
        size = int(self._sum(sizes)[0])
        received = bytearray()
        while len(received) < size:
            length = min(PIECE_BYTES, size - len(received))
            words = np.zeros(-(-length // 4), np.int32)
            if own:
                piece = content[len(received) : len(received) + length]
                words.view(np.uint8)[:length] = np.frombuffer(piece, np.uint8)
            received += self._sum(words).tobytes()[:length]
        return bytes(received)

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """The sum over the workers, exact, for whole numbers."""
        replicas = self.strategy.num_replicas_in_sync // self.count
        arguments = tf.constant(values), tf.constant(replicas)
        total = self.strategy.run(_sum_of_first_replicas, args=arguments)
        return self.strategy.experimental_local_results(total)[0].numpy()


@tf.function(autograph=False, reduce_retracing=True)
def _sum_of_first_replicas(value, replicas):
    """Of the replicas of each worker the first one counts."""
    context = tf.distribute.get_replica_context()
    is_first = context.replica_id_in_sync_group % replicas == 0
    value = tf.where(is_first, value, tf.zeros_like(value))
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


@contextmanager
def naming_lost_workers(workers: Workers) -> Iterator[None]:
    """Says what to do where another worker is gone.

    Raises:
        RuntimeError: In place of what TensorFlow raises then. Any other error goes
            through.
    """
    try:
        yield
    except _GONE as error:
        if workers.count == 1:
            raise
        raise RuntimeError(
            "Another worker stopped or cannot be reached; its own output says why. "
            "Start all workers again, each with the same command as before: the run "
            "goes on from its last checkpoint. TensorFlow says: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error


def code_digest() -> str:
    """A digest of the package's own code."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]
