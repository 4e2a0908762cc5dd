"""Whether a step fits into the memory of a device, and what would make it fit."""

from dataclasses import dataclass, replace

from keras_deit.training.accelerators import Fleet
from keras_deit.training.recipe import Recipe
from keras_deit.training.teachers import view_size
from keras_deit.training.workload import Workload

TEMPORARIES = 3  # largest tensors in use at a time: of an operation what goes in, out
USABLE = 0.9  # of a device's memory; the rest is for its libraries and for gaps
MOMENTS = {"adamw": 2, "sgd": 1}  # numbers that an optimizer has for each weight
BATCHES_AHEAD = 2  # on the device: the one in work and the next

TEACHER, STUDENT = "activations of the teacher", "activations of the student"


@dataclass(frozen=True)
class Memory:
    """What lies in the memory of a device in a training step.

    Attributes:
        parts: Bytes by what they are of. Student and teacher take turns, so of their
            activations the larger ones count.
        device_bytes: Memory of the device.
    """

    parts: dict[str, int]
    device_bytes: float

    @property
    def total(self) -> int:
        """Bytes in use at the worst moment."""
        taking_turns = [self.parts[name] for name in (STUDENT, TEACHER)]
        return sum(self.parts.values()) - min(taking_turns)

    @property
    def fits(self) -> bool:
        """Whether that is at most `USABLE` of the device."""
        return self.total <= USABLE * self.device_bytes


def memory_of(recipe: Recipe, fleet: Fleet, workload: Workload) -> Memory:
    """Adds up what a training step needs on a device.

    Args:
        recipe: Its batch must be a multiple of the micro-batches of all devices.
        fleet: The devices; each holds all weights.
        workload: What student and teacher cost.

    Returns:
        The bytes, by what they are of.
    """
    on_device = recipe.batch_size // fleet.num_devices
    micro = on_device // recipe.accumulate_steps
    student, in_use = workload.student, workload.student_activations
    recomputes = recipe.gradient_checkpointing
    kept = in_use.kept_between_blocks if recomputes else in_use.kept
    sums = 2 if recipe.accumulate_steps > 1 else 1  # of the step, of a micro-batch
    height, width = view_size(recipe)
    parts = {
        "weights": student.bytes,
        "copy of the weights in 16 bits": _copy(student.bytes, recipe.precision),
        "gradients": sums * student.trainable_bytes,
        "optimizer": MOMENTS[recipe.optimizer] * student.trainable_bytes,
        "average of the weights": student.bytes if recipe.ema_decay is not None else 0,
        "teacher": _teacher_bytes(recipe, workload),
        "pixels": BATCHES_AHEAD * on_device * height * width * 3,
        STUDENT: micro * (kept + TEMPORARIES * in_use.largest),
        TEACHER: 0,
    }
    if workload.teacher_activations is not None and recipe.teacher_cache is None:
        in_use = workload.teacher_activations
        parts[TEACHER] = micro * (in_use.kept + TEMPORARIES * in_use.largest)
    return Memory(parts, fleet.accelerator.memory_gb * 1e9)


def _copy(num_bytes: int, precision: str | None) -> int:
    """Bytes of float32 weights that were cast for the products."""
    return num_bytes // 2 if precision in ("mixed_bfloat16", "mixed_float16") else 0


def _teacher_bytes(recipe: Recipe, workload: Workload) -> int:
    teacher = workload.teacher
    if teacher is None or recipe.teacher_cache is not None:
        return 0
    size = teacher.bytes + _copy(teacher.bytes, recipe.teacher_precision)
    if recipe.train_teacher is True:  # gradients and moments
        size += (1 + MOMENTS[recipe.optimizer]) * teacher.trainable_bytes
    return size


def advice(recipe: Recipe, fleet: Fleet, workload: Workload) -> list[str]:
    """Names what would make a step fit that does not, one change at a time.

    Args:
        recipe: What does not fit.
        fleet: The devices.
        workload: What student and teacher cost.

    Returns:
        A line for each change: what it comes to, and whether that fits.
    """

    def line(setting: str, **changes) -> str:
        memory = memory_of(replace(recipe, **changes), fleet, workload)
        does = "fits" if memory.fits else "does not fit either"
        return f"{setting}: {memory.total / 1e9:.1f} GB, {does}"

    lines = []
    on_device = recipe.batch_size // fleet.num_devices
    counts = [n for n in range(2, on_device + 1) if on_device % n == 0]
    is_cut = not recipe.train_teacher  # such a teacher takes whole batches
    counts = [n for n in counts if is_cut and n > recipe.accumulate_steps]
    fitting = [
        n
        for n in counts
        if memory_of(replace(recipe, accumulate_steps=n), fleet, workload).fits
    ]
    if counts:
        count = next(iter(fitting), counts[-1])
        lines.append(line(f"accumulate_steps={count}", accumulate_steps=count))
    in_use = workload.student_activations
    keeps_less = recipe.train_mode and in_use.kept_between_blocks < in_use.kept
    if keeps_less and not recipe.gradient_checkpointing:
        setting = "gradient_checkpointing=true"
        lines.append(line(setting, gradient_checkpointing=True))
    is_live = workload.teacher is not None and recipe.teacher_cache is None
    if is_live and not recipe.train_teacher:
        setting = "a teacher_cache in place of the teacher"
        lines.append(line(setting, teacher_cache="cache"))
    halves = [f for f in ("bfloat16", "float16") if f in fleet.accelerator.tflops]
    if recipe.precision == "float32" and halves:
        lines.append(f"precision=mixed_{halves[0]}: activations of about two thirds")
    return lines
