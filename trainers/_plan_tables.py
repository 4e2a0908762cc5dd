"""How a plan is printed: commands, tables, and what was assumed."""

import shlex
from pathlib import Path

from trainers._recipe_flags import OWN_FLAGS

PORT = 12345
AS_GIVEN = ("recipe", *OWN_FLAGS, "teacher", "teacher_cache", "epochs", "set")


def command_lines(values, fleet) -> list[str]:
    """Writes down what to start, and where.

    Args:
        values: The flags of `plan`.
        fleet: The devices.

    Returns:
        Lines: the command, and what is different on the other hosts.
    """
    words = ["python -m trainers train"]
    for name in AS_GIVEN:
        given = values[name].value if name in values else None
        if given not in (None, []):
            given = given if isinstance(given, list) else [given]
            words += [shlex.quote(f"--{name}={value}") for value in given]
    words.append(f"--output=runs/{Path(values.recipe).stem}")
    if fleet.accelerator.is_tpu:
        return [_wrapped([*words, "--strategy=tpu", "--tpu=NAME"])]
    if fleet.hosts == 1:
        strategy = "none" if fleet.num_devices == 1 else "mirrored"
        return [_wrapped([*words, f"--strategy={strategy}"])]
    hosts = [f"host{index}" for index in range(fleet.hosts)]
    workers = ",".join(f"{host}:{PORT}" for host in hosts)
    words += ["--strategy=multiworker", f"--workers={workers}"]
    others = ", ".join(
        f"{host}: --worker_index={index}" for index, host in enumerate(hosts) if index
    )
    return [
        _wrapped([*words, "--worker_index=0"]),
        f"That is on host0; the same on the others, all within minutes: {others}",
    ]


def _wrapped(words: list[str]) -> str:
    """A command in lines of up to 100 letters."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) > 97:
            lines[-1] += " \\"
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def print_plan(recipe, plan, commands: list[str]) -> None:
    """Prints a plan.

    Args:
        recipe: What is trained.
        plan: What it needs.
        commands: Lines that say how to start it.
    """
    from keras_deit.training.report import print_table

    print("\n".join(commands))
    fleet = plan.fleet
    hosts = "1 host" if fleet.hosts == 1 else f"{fleet.hosts} hosts"
    title = f"{recipe.variant} on {fleet.num_devices} x {fleet.accelerator.name}, "
    print_table(title + hosts, ("the run", ""), _run_rows(recipe, plan))
    low, high = (f"{u:.0%}" for u in plan.rates.utilization)
    columns = ("at a utilization of", low, high)
    print_table("Time and input, computed", columns, _speed_rows(plan))
    print_table("Memory of a device", ("what", ""), _memory_rows(plan))
    for line in plan.advice:
        print(f"It does not fit. {line}")
    if plan.caches:
        rows = [
            (c.keep_logits, f"{c.bytes_per_view:,}", *map(_bytes, _sizes(c)))
            for c in plan.caches
        ]
        columns = ("keep_logits", "bytes a view", "an epoch", "all epochs")
        print_table("Teacher cache", columns, rows)
    print("\nAssumed:")
    for line in _assumptions(recipe, plan):
        print(f"- {line}")


def _sizes(cache) -> tuple[int, int]:
    return cache.epoch_bytes, cache.run_bytes


def _run_rows(recipe, plan) -> list[tuple]:
    steps, arithmetic = plan.steps, plan.arithmetic
    rate = f"{steps.learning_rate:.3g}"
    if recipe.learning_rate_batch is not None:
        batch = f"{recipe.batch_size} / {recipe.learning_rate_batch}"
        rate += f" = {recipe.learning_rate:g} x {batch}"
    rows = [
        ("views in a step: all, a device, at a time", _batches(steps)),
        ("peak learning rate", rate),
        ("steps: an epoch, all", _pair(steps.per_epoch, steps.epochs)),
        ("views: an epoch, all", _pair(steps.views_per_epoch, steps.epochs)),
        ("GFLOP a view: student, forward and backward", _giga(arithmetic.student)),
    ]
    if arithmetic.recomputed:
        rows.append(
            ("GFLOP a view: blocks computed again", _giga(arithmetic.recomputed))
        )
    if recipe.kind != "none":
        share = arithmetic.teacher / arithmetic.total
        cost = f"{_giga(arithmetic.teacher)} ({share:.0%} of all)"
        rows.append(("GFLOP a view: teacher", cost))
    return [
        *rows,
        ("a checkpoint (the last two are kept)", _bytes(plan.checkpoint_bytes)),
        ("a .keras file, or the weights of a SavedModel", _bytes(plan.model_bytes)),
    ]


def _batches(steps) -> str:
    return f"{steps.batch_size:,}, {steps.per_device:,}, {steps.micro_batch:,}"


def _pair(of_an_epoch: int, epochs: int) -> str:
    return f"{of_an_epoch:,}, {of_an_epoch * epochs:,}"


def _giga(operations: int) -> str:
    return f"{operations / 1e9:,.3g}"


def _bytes(size: int) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9)):
        if size >= scale:
            return f"{size / scale:,.2f} {unit}"
    return f"{size / 1e6:,.1f} MB"


def _speed_rows(plan) -> list[tuple]:
    rows = [
        ("images/s, all devices", *_each(plan.images_per_second, "{:,.0f}")),
        ("the whole run", *map(_time, plan.hours)),
        ("device-hours", *_each(plan.device_hours, "{:,.0f}")),
        ("views/s to make, a host", *_each(plan.host_images_per_second, "{:,.0f}")),
        ("cores for that, a host", *_each(plan.host_cores, "{:,}")),
    ]
    disk = plan.host_disk_megabytes or ("not known", "not known")
    if plan.host_disk_megabytes is not None:
        disk = _each(disk, "{:,.0f} MB/s")
    rows.append(("read from disk, a host", *disk))
    if plan.cache_hours is not None:
        epochs = plan.steps.epochs
        of_epoch = (time / epochs for time in plan.cache_hours)
        rows.append(("to ask the teacher, an epoch", *map(_time, of_epoch)))
        rows.append(("to ask the teacher, all epochs", *map(_time, plan.cache_hours)))
    return rows


def _each(pair, form: str) -> list[str]:
    return [form.format(number) for number in pair]


def _time(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.1f} s"


def _memory_rows(plan) -> list[tuple]:
    memory = plan.memory
    rows = [(name, _bytes(size)) for name, size in memory.parts.items() if size]
    rows.append(("at the worst moment", _fitting(memory)))
    if plan.memory_checkpointed.total < memory.total:
        less = _fitting(plan.memory_checkpointed)
        rows.append(("with gradient_checkpointing", less))
    return [*rows, ("the device has", f"{memory.device_bytes / 1e9:.0f} GB")]


def _fitting(memory) -> str:
    does = "fits" if memory.fits else "does not fit"
    return f"{_bytes(memory.total)}, {does}"


def _assumptions(recipe, plan) -> list[str]:
    from keras_deit.training.plan_memory import TEMPORARIES, USABLE

    device, dataset, rates = plan.fleet.accelerator, plan.dataset, plan.rates
    low, high = (f"{u:.0%}" for u in rates.utilization)
    lines = [
        "Nothing was run. A multiply-add is two operations, backward is twice forward; "
        "validation, checkpoints, the start and what devices say to each other are in "
        "no row.",
        f"{device.name}: {_peaks(recipe, plan)} at most, {device.memory_gb:g} GB.",
        f"Utilization {low} to {high}: not measured; large language models reach 21 to "
        "46 % (PaLM, arXiv:2204.02311, table 3), small models less.",
        f"{recipe.dataset}: {dataset.num_examples:,} training images of "
        f"{dataset.num_classes:,} classes, {_files(dataset)}. The views of an image in "
        "a batch are of one reading. Of a folder a host reads the images of its own "
        "views, of TensorFlow Datasets all.",
        f"A core makes {rates.images_per_core:,.0f} views/s: measure yours by "
        "`benchmark --what=input`, and give --images_per_core. The default is of one "
        "core, files with a shorter side of 256 pixels, DeiT's augmentation, views of "
        "224.",
        "Activations: what the gradient of the traced step reads, and "
        f"{TEMPORARIES} times the largest tensor; XLA may need less. "
        f"{1 - USABLE:.0%} of the memory is left free.",
    ]
    if device.is_tpu:
        lines.append("A chip of a TPU, with both its cores, is one device.")
    if plan.cache_hours is not None:
        lines.append(
            "To ask the teacher: all devices at it, one process each, and the views "
            "are made as fast as it answers."
        )
    return lines


def _peaks(recipe, plan) -> str:
    """The formats that are computed in, and their peaks."""
    device = plan.fleet.accelerator
    precisions = [recipe.precision]
    if plan.arithmetic.teacher_forward:
        precisions.append(recipe.teacher_precision or "float32")
    formats = dict.fromkeys(map(device.format_of, precisions))
    peaks = (f"{device.tflops[name]:g} TFLOP/s in {name}" for name in formats)
    return " and ".join(peaks)


def _files(dataset) -> str:
    if dataset.file_kilobytes is None:
        return "of unknown size on disk (--file_kilobytes)"
    return f"{dataset.file_kilobytes:g} kB each"
