"""Compute what a run needs on given devices: time, memory, input, files.

Nothing is run and no dataset is read. The models of the recipe are built with random
weights, their multiply-adds and the tensors of a training step are counted, and the
rest is arithmetic. Every assumption is printed below the tables.

Examples:
  python -m trainers plan --recipe=imagenet_deit_small_distilled_hard
      --teacher=regnety_160 --devices=8xA100
  python -m trainers plan --recipe=imagenet_deit_small --devices=4x8xH100
      --set=precision=mixed_bfloat16 --json=plan.json
  python -m trainers plan --recipe=imagenet_deit_tiny --devices=tpu-v4-8
  python -m trainers plan --recipe=digits_plain --devices=1xcpu --peak_tflops=0.3
      --memory_gb=16
"""

from dataclasses import asdict
from pathlib import Path

from absl import flags

from trainers._recipe_flags import (
    define_choice_flags,
    define_computing_flags,
    define_teacher_flags,
    effective_recipe,
    teacher_of,
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    define_choice_flags(values, "imagenet_deit_small")
    define_computing_flags(values)
    define_teacher_flags(values)
    flags.DEFINE_string(
        "teacher_cache", None, "In place of the recipe's.", flag_values=values
    )
    flags.DEFINE_integer(
        "epochs", None, "In place of the recipe's.", flag_values=values
    )
    _define_device_flags(values)
    _define_data_flags(values)
    flags.DEFINE_string(
        "json", None, "File for the same numbers as JSON.", flag_values=values
    )


def _define_device_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "devices",
        None,
        "8xA100 (one host), 4x8xH100 (4 hosts of 8), tpu-v4-8 (a slice by its cores), "
        "1xcpu; required.",
        flag_values=values,
    )
    flags.mark_flag_as_required("devices", flag_values=values)
    flags.DEFINE_float(
        "peak_tflops",
        None,
        "Peak of a device in 10^12 operations a second, in place of its data sheet's.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "memory_gb",
        None,
        "Memory of a device in 10^9 bytes, in place of its data sheet's.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "utilization",
        ["0.25", "0.45"],
        "Least and largest share of the peak that a step reaches.",
        flag_values=values,
    )


def _define_data_flags(values: flags.FlagValues) -> None:
    for name, what in (
        ("num_examples", "Training images, of a dataset that no recipe here names."),
        ("num_classes", "Its classes."),
    ):
        flags.DEFINE_integer(name, None, what, flag_values=values)
    flags.DEFINE_float(
        "file_kilobytes",
        None,
        "Mean size of an image file, in 10^3 bytes; known of ImageNet.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "images_per_core",
        None,
        "Training views that a core makes in a second. Without it that of "
        "docs/PERFORMANCE.md; `benchmark --what=input` measures yours.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Prints the plan."""
    from keras_deit.training.accelerators import read_fleet
    from keras_deit.training.dataset_sizes import dataset_size
    from keras_deit.training.plan_speed import Rates
    from keras_deit.training.planning import plan
    from keras_deit.training.run_folder import write_json
    from trainers._plan_tables import command_lines, print_plan

    recipe = effective_recipe(
        values,
        values.epochs,
        teacher=teacher_of(values),
        teacher_cache=values.teacher_cache,
    )
    fleet = read_fleet(values.devices, values.peak_tflops, values.memory_gb)
    dataset = dataset_size(
        recipe.dataset, values.num_examples, values.num_classes, values.file_kilobytes
    )
    rates = {"utilization": _shares(values.utilization)}
    if values.images_per_core is not None:
        rates["images_per_core"] = values.images_per_core
    result = plan(recipe, fleet, dataset, Rates(**rates))
    print_plan(recipe, result, command_lines(values, fleet))
    if values.json is not None:
        record = {"recipe": asdict(recipe), **asdict(result)}
        record["memory"] |= {"total": result.memory.total, "fits": result.memory.fits}
        write_json(Path(values.json).expanduser(), record)


def _shares(texts: list[str]) -> tuple[float, ...]:
    try:
        return tuple(map(float, texts))
    except ValueError as error:
        raise ValueError(f"--utilization needs two numbers: {error}.") from error
