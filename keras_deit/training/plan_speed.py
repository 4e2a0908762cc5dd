"""How much arithmetic a view is, and how many views a second that makes."""

from dataclasses import dataclass
from pathlib import Path

from keras_deit._checks import check
from keras_deit.training.accelerators import Fleet
from keras_deit.training.dataset_sizes import DatasetSize
from keras_deit.training.recipe import Recipe
from keras_deit.training.workload import Workload

IN_MEMORY = 2**30  # bytes up to which a split of TensorFlow Datasets is kept there


@dataclass(frozen=True)
class Rates:
    """What is assumed and not computed.

    Attributes:
        utilization: Least and largest share of the peak that a step reaches, in (0, 1].
        images_per_core: Views that a core makes in a second.
    """

    # Large language models: 21 to 46 % (PaLM, arXiv:2204.02311, table 3).
    utilization: tuple[float, float] = (0.25, 0.45)
    # Three runs of docs/PERFORMANCE.md, "Training input", had 302, 318 and 406.
    images_per_core: float = 318.0

    def __post_init__(self):
        shares = self.utilization
        check(
            len(shares) == 2 and 0 < shares[0] <= shares[1] <= 1,
            "`utilization` must be two rising shares in (0, 1].",
            utilization=self.utilization,
        )
        rule = "`images_per_core` must be positive."
        check(self.images_per_core > 0, rule, images_per_core=self.images_per_core)


@dataclass(frozen=True)
class Arithmetic:
    """Operations for a view in training; a multiply-add is two.

    Attributes:
        student: Forward and backward, which is twice forward.
        recomputed: Blocks that are computed again for the gradient.
        teacher: Forward; and backward if all of it is trained.
        teacher_forward: Forward, also of a teacher whose answers are in a cache.
    """

    student: int
    recomputed: int
    teacher: int
    teacher_forward: int

    @property
    def total(self) -> int:
        """All that a training step does for a view."""
        return self.student + self.recomputed + self.teacher


def arithmetic_of(recipe: Recipe, workload: Workload) -> Arithmetic:
    """Counts the operations of a training step for a view."""
    student, teacher = workload.student, workload.teacher
    forward = 0 if teacher is None else 2 * teacher.macs
    asked = forward if recipe.teacher_cache is None else 0
    return Arithmetic(
        student=3 * 2 * student.macs,
        recomputed=2 * student.block_macs if recipe.gradient_checkpointing else 0,
        teacher=3 * asked if recipe.train_teacher is True else asked,
        teacher_forward=forward,
    )


def images_per_second(
    recipe: Recipe, fleet: Fleet, arithmetic: Arithmetic, rates: Rates
) -> tuple[float, float]:
    """Computes how many views all devices get through in a second.

    Args:
        recipe: Says what student and teacher compute in.
        fleet: The devices.
        arithmetic: Operations for a view.
        rates: The utilizations.

    Returns:
        Views a second at the least and at the largest utilization.
    """
    device = fleet.accelerator
    seconds = (arithmetic.student + arithmetic.recomputed) / device.peak(
        recipe.precision
    )
    if arithmetic.teacher:
        seconds += arithmetic.teacher / device.peak(
            recipe.teacher_precision or "float32"
        )
    return tuple(fleet.num_devices * u / seconds for u in rates.utilization)


def disk_megabytes(
    recipe: Recipe, fleet: Fleet, dataset: DatasetSize, speed: tuple[float, float]
) -> tuple[float, float] | None:
    """Computes what a host reads in a second, in 10^6 bytes.

    Of a folder it reads the files of its own views; of TensorFlow Datasets all records,
    and decodes its own. The views of an image in a batch are of one reading.

    Args:
        recipe: Says the dataset and the repeats.
        fleet: The devices.
        dataset: Its size.
        speed: Views a second, over all devices.

    Returns:
        The same for each speed; None if the size of the files is not known.
    """
    if dataset.file_kilobytes is None:
        return None
    is_folder = recipe.dataset.startswith(("/", "~", ".")) or (
        Path(recipe.dataset).is_dir()
    )
    num_bytes = 1e3 * dataset.file_kilobytes * dataset.num_examples
    if not is_folder and num_bytes <= IN_MEMORY:
        return tuple(0.0 for _ in speed)
    share = fleet.hosts if is_folder else 1
    megabytes = dataset.file_kilobytes / 1e3 / recipe.repeats / share
    return tuple(rate * megabytes for rate in speed)
