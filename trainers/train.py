"""Train a student, on labels alone or with a teacher.

The run's folder holds the student as last.keras (and best.keras), the curves, the log
of each epoch, and the recipe, so that the run can be repeated. The final table shows
each head on the validation images, with the weights of the last epoch.

The teacher is a .keras file, the folder of a SavedModel, the name of a variant, or
several of these (an ensemble); it may learn in the same run (--train_teacher, then it
is saved as teacher.keras), or have been asked before (--teacher_cache).

Examples:
  python -m trainers train --teacher=runs/teacher/last.keras --output=runs/student
  python -m trainers train --teacher_cache=caches/digits --output=runs/student
  python -m trainers train --recipe=digits_plain --output=runs/plain
"""

from absl import flags

from trainers._recipe_flags import (
    carry_out,
    define_recipe_flags,
    define_run_flags,
    define_teacher_flags,
    effective_recipe,
    teacher_of,
)

TRAINED = {"no": False, "all": True, "head": "head"}


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    define_recipe_flags(values, "digits_distilled", output="Folder of the run")
    define_run_flags(values)
    define_teacher_flags(values)
    flags.DEFINE_string(
        "teacher_cache",
        None,
        "Folder that cache_teacher made for this recipe; no teacher is loaded then. If "
        "--teacher is given as well, the cache must be of it.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "train_teacher",
        None,
        list(TRAINED),
        "Whether the teacher learns from the labels in the same run, all of it or its "
        "head alone; in place of the recipe's.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "kind",
        None,
        ["none", "soft", "hard"],
        "What the student learns from the teacher; in place of the recipe's.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Trains the student."""
    recipe = effective_recipe(
        values,
        values.epochs,
        teacher=teacher_of(values),
        teacher_cache=values.teacher_cache,
        train_teacher=TRAINED.get(values.train_teacher),
        kind=values.kind,
    )
    if values.teacher_cache is not None and values.teacher is None:
        recipe = recipe.without_live_teacher()
    carry_out(values, recipe)
