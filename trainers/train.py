"""Train a student, on labels alone or with a teacher.

The run's folder holds the student as last.keras (and best.keras), the curves, the log
of each epoch, and the recipe, so that the run can be repeated. The final table shows
each head on the validation images, with the weights of the last epoch.

Examples:
  python -m trainers train --teacher=runs/teacher/last.keras --output=runs/student
  python -m trainers train --recipe=digits_plain --output=runs/plain
"""

from absl import flags

from trainers._recipe_flags import (
    carry_out,
    define_recipe_flags,
    effective_recipe,
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    define_recipe_flags(values, default_recipe="digits_distilled")
    flags.DEFINE_string(
        "teacher", None, "The teacher's .keras file.", flag_values=values
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
    recipe = effective_recipe(values, teacher=values.teacher, kind=values.kind)
    carry_out(values, recipe)
