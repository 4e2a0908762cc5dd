"""Train a convolutional teacher on labels.

The run's folder holds the teacher as last.keras (and best.keras), the curves, the log
of each epoch, and the recipe, so that the run can be repeated.

Example:
  python -m trainers train_teacher --recipe=digits_teacher --output=runs/teacher
"""

from absl import flags

from trainers._recipe_flags import (
    carry_out,
    define_recipe_flags,
    define_run_flags,
    effective_recipe,
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    define_recipe_flags(values, "digits_teacher", output="Folder of the run")
    define_run_flags(values)


def main(values: flags.FlagValues) -> None:
    """Trains the teacher."""
    recipe = effective_recipe(values, values.epochs, kind="none")
    carry_out(values, recipe.without_teacher())
