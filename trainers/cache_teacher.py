"""Ask a teacher once about the views that students will be trained on.

The teacher is most of the bill of distillation. This program shows it exactly the
training views of a recipe (crops, RandAugment, erasing, who is mixed with whom), and
writes down what it says; `train --teacher_cache=FOLDER` then needs no teacher. What is
written is good for any student, optimizer or length, but for these views, images and
this teacher alone: anything else is refused, and what differs is named.

A job that was interrupted goes on when the same command is given again; given several
times at once, the processes share the work; with more --epochs the cache grows. A
student that is trained for more epochs than there are sees these again, in their order.

Examples:
  python -m trainers cache_teacher --recipe=digits_distilled
      --teacher=runs/teacher/last.keras --output=caches/digits
  python -m trainers cache_teacher --recipe=imagenet_deit_tiny_distilled_hard
      --teacher=regnety_160 --epochs=30 --keep_logits=16 --output=caches/imagenet
  python -m trainers cache_teacher --verify --output=caches/imagenet
"""

from pathlib import Path

from absl import flags

from trainers._recipe_flags import (
    define_recipe_flags,
    define_teacher_flags,
    effective_recipe,
    teacher_of,
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    define_recipe_flags(values, "digits_distilled", output="Folder of the cache")
    define_teacher_flags(values)
    flags.DEFINE_integer(
        "epochs",
        None,
        "Epochs of views to show to the teacher; without it the recipe's.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "keep_logits",
        "all",
        "What to keep of what the teacher says of a view: 'all' logits; a number, the "
        "so many largest and how much is left for the rest at the recipe's "
        "temperature; or 'hard', the best class alone.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "verify",
        False,
        "Read the cache at --output and compare it with its checksums instead.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Makes the cache, or verifies it.

    Raises:
        ValueError: If a shard of it is damaged; names all of them.
    """
    output = Path(values.output).expanduser()
    if values.verify:
        _verify(output)
        return
    from keras_deit.training.caching import cache_teacher

    keep = values.keep_logits
    cache_teacher(
        effective_recipe(values, teacher=teacher_of(values)),
        output,
        values.epochs,
        int(keep) if keep.isdecimal() else keep,
        values.download,
        values.unreadable,
    )


def _verify(path: Path) -> None:
    from keras_deit.distillation.teacher_cache import TeacherCache

    cache = TeacherCache(path)
    cache.verify()
    print(f"{path}: {cache.epochs} whole epochs, all shards are as they were written.")
