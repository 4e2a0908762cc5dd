"""Make the comparisons that the project started from, on CIFAR-10 at 32 pixels.

Trains a small CNN, asks it once about all training views, and trains small students
without and with it: DeiT and EViT, no, soft and hard distillation, without and with the
distillation token, from the cache and from the live teacher, from a transformer in
place of the CNN, T2T-ViT, and all together. The table of results is written in
Markdown, and again after each run. A command that was interrupted goes on when it is
given again; runs that came to their end stay.

Examples:
  python -m trainers compare --output=runs/compare --table=docs/COMPARISONS.md
  python -m trainers compare --output=runs/compare --only=deit,deit_token_hard
  python -m trainers compare --output=runs/try --smoke
"""

import shlex
from pathlib import Path

from absl import flags


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string(
        "output", None, "Folder of the runs; required.", flag_values=values
    )
    flags.mark_flag_as_required("output", flag_values=values)
    flags.DEFINE_string(
        "table",
        None,
        "The Markdown file to write, or to replace if this program wrote it; without "
        "it COMPARISONS.md among the runs.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "dataset",
        "cifar10",
        "'digits', a folder of class folders (or of train/ and val/), or a name of "
        "TensorFlow Datasets.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "epochs",
        None,
        "Epochs of each student; without it 6. The CNN has always 4.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_list(
        "only",
        [],
        "Names of runs, with commas between them: make these and the teachers that "
        "they need. The table has all that are there.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "note", None, "A line about the dataset, for the page.", flag_values=values
    )
    flags.DEFINE_bool(
        "download",
        False,
        "Allow a dataset of TensorFlow Datasets to be downloaded.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "smoke",
        False,
        "Make everything in a few minutes, to see that it works: the embedded digits, "
        "one epoch, students of two blocks.",
        flag_values=values,
    )


def main(values: flags.FlagValues) -> None:
    """Makes the runs that are missing, and writes the table."""
    from keras_deit._checks import check
    from keras_deit.training.run_folder import held
    from trainers._comparison_runs import Comparison
    from trainers._comparisons import recipes_of, selected

    check(
        not values.smoke
        or (values["dataset"].using_default_value and values.epochs is None),
        "--smoke says by itself what is trained on, and how long.",
        dataset=values.dataset,
        epochs=values.epochs,
    )
    output = Path(values.output).expanduser()
    table = output / "COMPARISONS.md"
    if values.table is not None:
        table = Path(values.table).expanduser()
    _check_table(table)
    runs = selected(values.only)
    dataset = "digits" if values.smoke else values.dataset
    recipes = recipes_of(output, dataset, values.epochs, values.smoke)
    comparison = Comparison(output, recipes, values.download)
    of_page = (table, _command(values), values.note)
    with held(output):
        for index, run in enumerate(runs):
            if not comparison.is_finished(run.name):
                left = comparison.time_left(runs[index:])
                place = f"Run {index + 1} of {len(runs)}"
                print(f"\n--- {place}: {run.name}. {left}", flush=True)
                comparison.make(run)
            comparison.compare_with_teachers(run)
            comparison.write(*of_page)
    print(f"\nAll {len(runs)} runs are there. Table: {table}")


def _check_table(table: Path) -> None:
    """Refuses to replace what this program did not write."""
    from keras_deit._checks import check
    from trainers._comparison_table import HEADING

    check(
        not table.exists()
        or (table.is_file() and table.read_text().startswith(f"{HEADING}\n")),
        f"`table` must be a new file, or one that this program wrote: {HEADING!r}.",
        table=str(table),
    )


def _command(values: flags.FlagValues) -> str:
    """The command as it was given, but for the order of its flags."""
    of_program = flags.FlagValues()
    define_flags(of_program)
    given = [values[n] for n in of_program if not values[n].using_default_value]
    words = ("python", "-m", "trainers", "compare", *(f.serialize() for f in given))
    return shlex.join(words)
