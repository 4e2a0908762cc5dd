"""Train a convolutional teacher on labels.

The run's folder holds the teacher as last.keras (and best.keras), the curves, the log
of each epoch, and the recipe, so that the run can be repeated.

Example:
  python -m trainers train_teacher --recipe=digits_teacher --output=runs/teacher
"""

from dataclasses import replace

from absl import flags

from trainers._recipe_flags import (
    carry_out,
    define_recipe_flags,
    effective_recipe,
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    define_recipe_flags(values, default_recipe="digits_teacher")


def main(values: flags.FlagValues) -> None:
    """Trains the teacher."""
    recipe = replace(effective_recipe(values, kind="none"), teacher=None)
    carry_out(values, recipe)
