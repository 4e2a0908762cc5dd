"""Make a page of a run, or of several side by side, to open in a browser.

The page is one file without scripts that loads nothing from anywhere. Of one run it
shows results, curves, the accuracy of each class, training views and the recipe;
of several the curves in common plots, a table of results, the classes in which they
differ most, and the fields in which their recipes differ. A run that is still going on
has a page too.

Examples:
  python -m trainers report runs/student
  python -m trainers report runs/plain runs/distilled --output=comparison.html
"""

from absl import flags

ARGUMENTS = "RUN ..."


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of this program."""
    flags.DEFINE_string(
        "output",
        None,
        "The file to write; by default report.html in the folder of the run, or in the "
        "current folder for several runs. An earlier report is replaced.",
        flag_values=values,
    )


def main(values: flags.FlagValues, runs: list[str]) -> None:
    """Writes the page."""
    from pathlib import Path

    from keras_deit._checks import check
    from keras_deit.training.report_page import write_report

    check(bool(runs), "Give at least one folder of a run.", runs=runs)
    folder = Path(runs[0]) if len(runs) == 1 else Path()
    path = folder / "report.html" if values.output is None else Path(values.output)
    write_report(runs, path)
    print(f"Saved {path}")
