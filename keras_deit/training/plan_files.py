"""How large the files of a run get: checkpoints, models, teacher caches."""

from dataclasses import dataclass

from keras_deit.distillation.cache_index import Shard, codec_of, shard_bytes
from keras_deit.training.caching import USUAL
from keras_deit.training.plan_memory import MOMENTS
from keras_deit.training.recipe import Recipe
from keras_deit.training.workload import Workload

TENSOR_BYTES = 78  # of the name, type, shape and place of a tensor in a checkpoint
COUNT_BYTES = 4  # AdamW counts the steps of each weight


@dataclass(frozen=True)
class Cache:
    """A teacher cache.

    Attributes:
        keep_logits: "hard", a number, or "all".
        bytes_per_view: Of what is kept of the logits of a view.
        epoch_bytes: Of the files of an epoch.
        run_bytes: Of those of all epochs.
    """

    keep_logits: str | int
    bytes_per_view: float
    epoch_bytes: int
    run_bytes: int


def caches_of(
    recipe: Recipe, steps_per_epoch: int, num_classes: int
) -> tuple[Cache, ...]:
    """Computes the sizes of the usual kinds of teacher caches.

    Args:
        recipe: Says the batch and the epochs.
        steps_per_epoch: Steps of an epoch.
        num_classes: Classes of the dataset.

    Returns:
        A cache of each kind that there can be with so many classes, the index left out.
    """
    caches = []
    for keep in USUAL:
        if isinstance(keep, int) and keep >= num_classes:
            continue
        header = {
            "keep_logits": keep,
            "temperature": 1.0,
            "class_names": range(num_classes),
            "batch_size": recipe.batch_size,
        }
        epoch = shard_bytes(header, Shard(0, 0, steps_per_epoch))
        size = codec_of(header).bytes_per_view
        caches.append(Cache(keep, size, epoch, epoch * recipe.epochs))
    return tuple(caches)


def checkpoint_bytes(recipe: Recipe, workload: Workload) -> int:
    """Computes the size of a checkpoint.

    It holds the student, its optimizer, its average, and a teacher that is trained with
    its optimizer; seeds and means are nothing beside these.

    Args:
        recipe: Says which of them there are.
        workload: What student and teacher cost.

    Returns:
        Bytes of the file.
    """
    student = workload.student
    size, tensors = student.bytes, student.num_tensors
    if recipe.ema_decay is not None:
        size, tensors = 2 * size, 2 * tensors
    moments, count = _optimizer(recipe, student)
    size, tensors = size + moments, tensors + count
    if recipe.train_teacher and workload.teacher is not None:
        size += workload.teacher.bytes
        tensors += workload.teacher.num_tensors
    if recipe.train_teacher is True and workload.teacher is not None:
        moments, count = _optimizer(recipe, workload.teacher)
        size, tensors = size + moments, tensors + count
    return size + TENSOR_BYTES * tensors


def _optimizer(recipe: Recipe, costs) -> tuple[int, int]:
    """Bytes and tensors of an optimizer."""
    moments = MOMENTS[recipe.optimizer]
    size, tensors = moments * costs.trainable_bytes, moments * costs.num_trainable
    if recipe.optimizer == "adamw":
        size += COUNT_BYTES * costs.num_trainable
        tensors += costs.num_trainable
    return size, tensors
