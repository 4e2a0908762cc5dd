"""What a run needs on given devices, computed beforehand from its recipe."""

import math
from dataclasses import dataclass, replace

from keras_deit._checks import check
from keras_deit.training.accelerators import Fleet
from keras_deit.training.dataset_sizes import DatasetSize
from keras_deit.training.plan_files import Cache, caches_of, checkpoint_bytes
from keras_deit.training.plan_memory import Memory, advice, memory_of
from keras_deit.training.plan_speed import (
    Arithmetic,
    Rates,
    arithmetic_of,
    disk_megabytes,
    images_per_second,
)
from keras_deit.training.recipe import Recipe
from keras_deit.training.workload import Workload, workload_of


@dataclass(frozen=True)
class Steps:
    """How the views are dealt out.

    Attributes:
        batch_size: Views of a step, over all devices.
        per_device: Those of a device.
        micro_batch: Those that a device takes at a time.
        per_epoch: Steps of an epoch.
        epochs: Epochs.
        learning_rate: The peak, scaled to the batch.
    """

    batch_size: int
    per_device: int
    micro_batch: int
    per_epoch: int
    epochs: int
    learning_rate: float

    @property
    def views_per_epoch(self) -> int:
        """Views of an epoch."""
        return self.per_epoch * self.batch_size


@dataclass(frozen=True)
class Plan:
    """What a run needs; pairs are for the least and the largest utilization.

    Attributes:
        fleet: The devices.
        dataset: The training images.
        rates: What was assumed.
        steps: How the views are dealt out.
        arithmetic: Operations for a view.
        images_per_second: Views a second, over all devices.
        hours: Of the whole run.
        device_hours: Times the devices.
        host_images_per_second: Views that a host has to make in a second.
        host_cores: Cores that this takes.
        host_disk_megabytes: What it reads in a second, in 10^6 bytes; None if the size
            of the files is not known, 0 if they stay in memory.
        cache_hours: What the teacher takes for all epochs of a cache, on all devices;
            None without one.
        caches: Teacher caches of the usual kinds; empty without distillation.
        checkpoint_bytes: Of a checkpoint.
        model_bytes: Of the weights in a `.keras` file or a SavedModel in float32.
        memory: What lies on a device.
        memory_checkpointed: The same with `gradient_checkpointing`.
        advice: What would make it fit, if it does not.
    """

    fleet: Fleet
    dataset: DatasetSize
    rates: Rates
    steps: Steps
    arithmetic: Arithmetic
    images_per_second: tuple[float, float]
    hours: tuple[float, float]
    device_hours: tuple[float, float]
    host_images_per_second: tuple[float, float]
    host_cores: tuple[int, int]
    host_disk_megabytes: tuple[float, float] | None
    cache_hours: tuple[float, float] | None
    caches: tuple[Cache, ...]
    checkpoint_bytes: int
    model_bytes: int
    memory: Memory
    memory_checkpointed: Memory
    advice: tuple[str, ...]


def plan(
    recipe: Recipe, fleet: Fleet, dataset: DatasetSize, rates: Rates | None = None
) -> Plan:
    """Computes what a run needs.

    Args:
        recipe: What is trained.
        fleet: On what.
        dataset: How many images there are.
        rates: What is assumed; None takes the defaults.

    Returns:
        The plan.

    Raises:
        ValueError: If the batch cannot be dealt out, a teacher is missing or of a kind
            that cannot be measured, or a device does not compute in the precision.
        FileNotFoundError: If there is no such teacher.
    """
    check(
        recipe.kind == "none" or bool(recipe.teacher or recipe.teacher_cache),
        "`teacher` or `teacher_cache` must be there unless `kind` is 'none'.",
        teacher=recipe.teacher,
        kind=recipe.kind,
    )
    steps = steps_of(recipe, fleet, dataset.num_examples)
    fleet.accelerator.format_of(recipe.precision)  # refuses before models are built
    workload = workload_of(recipe, dataset.num_classes)
    return plan_of(recipe, fleet, dataset, rates or Rates(), steps, workload)


def steps_of(recipe: Recipe, fleet: Fleet, num_examples: int) -> Steps:
    """Deals out the views of a recipe.

    Args:
        recipe: Says the batch and the micro-batches.
        fleet: The devices.
        num_examples: Training images.

    Returns:
        What each device gets.

    Raises:
        ValueError: If it does not come out even, or a batch is larger than the dataset.
    """
    batch_size, devices = recipe.batch_size, fleet.num_devices
    check(
        batch_size % (devices * recipe.accumulate_steps) == 0,
        "`batch_size` must be a multiple of the number of devices times "
        "`accumulate_steps`.",
        batch_size=batch_size,
        devices=devices,
        accumulate_steps=recipe.accumulate_steps,
    )
    check(
        fleet.hosts == 1 or batch_size % (2 * fleet.hosts) == 0,
        "With several hosts, `batch_size` must be a multiple of twice their number.",
        batch_size=batch_size,
        hosts=fleet.hosts,
    )
    check(
        batch_size <= num_examples,
        "`batch_size` must be at most the number of training images.",
        batch_size=batch_size,
        num_examples=num_examples,
    )
    on_device = batch_size // devices
    return Steps(
        batch_size,
        on_device,
        on_device // recipe.accumulate_steps,
        num_examples // batch_size,
        recipe.epochs,
        recipe.peak_learning_rate,
    )


def plan_of(
    recipe: Recipe,
    fleet: Fleet,
    dataset: DatasetSize,
    rates: Rates,
    steps: Steps,
    workload: Workload,
) -> Plan:
    """Computes a plan from what its models cost; see `plan`."""
    arithmetic = arithmetic_of(recipe, workload)
    views = steps.views_per_epoch * steps.epochs
    speed = images_per_second(recipe, fleet, arithmetic, rates)
    hours = tuple(views / rate / 3600 for rate in speed)
    host_speed = tuple(rate / fleet.hosts for rate in speed)
    asking = None
    if arithmetic.teacher_forward:
        alone = Arithmetic(0, 0, arithmetic.teacher_forward, arithmetic.teacher_forward)
        asking = images_per_second(recipe, fleet, alone, rates)
        asking = tuple(views / rate / 3600 for rate in asking)
    memory = memory_of(recipe, fleet, workload)
    checkpointed = replace(recipe, gradient_checkpointing=True)
    caches = ()
    if recipe.kind != "none" and not recipe.train_teacher:
        caches = caches_of(recipe, steps.per_epoch, dataset.num_classes)
    return Plan(
        fleet=fleet,
        dataset=dataset,
        rates=rates,
        steps=steps,
        arithmetic=arithmetic,
        images_per_second=speed,
        hours=hours,
        device_hours=tuple(fleet.num_devices * time for time in hours),
        host_images_per_second=host_speed,
        host_cores=tuple(math.ceil(r / rates.images_per_core) for r in host_speed),
        host_disk_megabytes=disk_megabytes(recipe, fleet, dataset, speed),
        cache_hours=asking if caches else None,
        caches=caches,
        checkpoint_bytes=checkpoint_bytes(recipe, workload),
        model_bytes=workload.student.bytes,
        memory=memory,
        memory_checkpointed=memory_of(checkpointed, fleet, workload),
        advice=() if memory.fits else tuple(advice(recipe, fleet, workload)),
    )
