"""The page of several runs, side by side."""

import math
from collections.abc import Callable, Sequence

from keras_deit.training.report import percent
from keras_deit.training.report_charts import Line, line_chart
from keras_deit.training.report_markup import Markup, page, table, tag
from keras_deit.training.report_record import FILES, RunRecord
from keras_deit.training.report_single import as_json, in_panels, scaled, written

MOST_CLASSES = 30  # that are listed
# The score that counts has no head in its name.
ROWS_OF_SCORES = {
    "": ("fused", "class"),
    ", class head": ("class",),
    ", distillation head": ("distillation",),
}

Runs = dict[str, RunRecord]


def page_of_runs(runs: Runs) -> str:
    """Writes the page of several runs.

    Args:
        runs: What the folders say, by the names of the runs.
    """
    names = ", ".join(runs)
    return page(
        f"{names} side by side",
        tag("h1", f"{len(runs)} runs side by side"),
        tag("p", names, class_="quiet"),
        *_missing(runs),
        *_curves(runs),
        *_results(runs),
        *_classes(runs),
        *_recipes(runs),
    )


def _missing(runs: Runs) -> list[Markup]:
    items = [
        tag("li", tag("b", f"{name}, {file}"), f": {FILES[file]}")
        for name, run in runs.items()
        for file in run.missing
        if file != "views.png"  # not on this page anyway
    ]
    if not items:
        return []
    said = tag("p", "Not in the folders, and so not on this page:")
    return [tag("div", said, tag("ul", *items), class_="notice")]


def _curves(runs: Runs) -> list[Markup]:
    with_epochs = {name: run for name, run in runs.items() if run.epochs}
    if not with_epochs:
        return []

    def chart(title: str, column_of: Callable, shares: bool, note: str) -> Markup:
        lines = [
            Line(name, run.epochs, run.history[column_of(run)])
            for name, run in with_epochs.items()
            if column_of(run) in run.history
        ]
        return line_chart(title, lines, shares, note)

    comparable = all("val_label_loss" in run.history for run in with_epochs.values())
    test_loss = "val_label_loss" if comparable else "val_loss"
    charts = [
        chart(
            "Training loss",
            lambda run: "loss",
            False,
            "What each run minimizes, on its augmented views. Losses of different "
            "objectives (a teacher, mixing, smoothing) are not comparable.",
        ),
        chart(
            "Test loss",
            lambda run: test_loss,
            False,
            "Cross entropy with the labels alone, on the validation images."
            if comparable
            else "What each run minimizes, on the validation images; not comparable "
            "between different objectives.",
        ),
        chart(
            "Test accuracy",
            accuracy_column,
            True,
            "Top-1 on the validation images; of the fused heads where there are two.",
        ),
    ]
    return [tag("h2", "Curves"), *in_panels(charts)]


def accuracy_column(run: RunRecord) -> str:
    """Names the validation accuracy that counts: of the fused heads, or the only."""
    fused = "val_fused_accuracy"
    return fused if fused in run.history else "val_accuracy"


def _results(runs: Runs) -> list[Markup]:
    rows = [
        (title, *map(of, runs.values()))
        for title, of in (
            ("variant", lambda run: run.recipe.get("variant", "–")),
            ("dataset", lambda run: run.recipe.get("dataset", "–")),
            ("distillation", lambda run: run.recipe.get("kind", "–")),
            ("alpha", _alpha),
            ("epochs", _epochs),
            ("best epoch", lambda run: run.result.get("best_epoch", "–")),
            ("parameters", lambda run: scaled(run.facts.get("parameters"))),
            ("multiply-adds", lambda run: scaled(run.facts.get("macs"))),
        )
    ]
    rows += _score_rows("", [run.scores for run in runs.values()])
    averages = [run.average_scores for run in runs.values()]
    rows += _score_rows(", averaged weights", averages)
    parts = [tag("h2", "Results")]
    if not _same_data(runs):
        said = "The runs have different data: their scores are not comparable."
        parts.append(tag("p", said, class_="notice"))
    said = (
        "On the validation images; without the name of a head, of the fused heads or "
    )
    said += "the only one. Bold: the best of its row."
    parts.append(tag("p", said))
    return [*parts, table(["", *runs], rows, numbers=range(1, len(runs) + 1))]


def _alpha(run: RunRecord) -> object:
    distilled = run.recipe.get("kind", "none") != "none"
    return run.recipe.get("alpha", "–") if distilled else "–"


def _epochs(run: RunRecord) -> str:
    planned, done = run.recipe.get("epochs", "?"), len(run.epochs)
    return str(planned) if done == planned else f"{done} of {planned}"


def _score_rows(weights: str, scores: Sequence[dict]) -> list[tuple]:
    """A row of all runs for each score that one of them has."""
    rows = []
    for title, heads in ROWS_OF_SCORES.items():
        of_runs = [next((s[h] for h in heads if h in s), {}) for s in scores]
        for key, name in (("top1", "top-1"), ("top5", "top-5")):
            values = [score.get(key) for score in of_runs]
            if any(value is not None for value in values):
                rows.append((f"{name}{title}{weights}", *_best_marked(values)))
    return rows


def _best_marked(values: Sequence[float | None]) -> list[Markup]:
    known = [value for value in values if value is not None]
    best = max(known) if len(known) > 1 else math.nan  # equal to nothing
    return [
        tag("td", written(v), class_="number best" if v == best else "number")
        for v in values
    ]


def _same_data(runs: Runs) -> bool:
    """Whether nothing says that the runs differ in their data."""
    named = {run.recipe.get("dataset") for run in runs.values()}
    digests = {
        run.facts["dataset"].get("digest")
        for run in runs.values()
        if "dataset" in run.facts
    }
    return len(named) == 1 and len(digests) <= 1


def _classes(runs: Runs) -> list[Markup]:
    measured = {name: run.classes for name, run in runs.items() if run.classes}
    if len(measured) < 2:
        return []
    heading = tag("h2", "Classes")
    first, *others = ([(c.name, c.images) for c in cs] for cs in measured.values())
    if any(other != first for other in others):
        said = "The runs have different classes or images: they are not compared."
        return [heading, tag("p", said, class_="notice")]
    rows = [
        (*cs[:1], [c.top1 for c in cs])
        for cs in zip(*measured.values(), strict=True)
        if cs[0].images
    ]
    rows.sort(key=lambda row: min(row[1]) - max(row[1]))  # a stable order
    difference = "difference" if len(measured) == 2 else "spread"
    shown = [
        (c.name, f"{c.images:,}", *map(percent, shares), _difference(shares))
        for c, shares in rows[:MOST_CLASSES]
    ]
    said = f"Top-1 accuracy, the largest {difference} (in percentage points) first"
    if len(rows) > MOST_CLASSES:
        said += f"; {len(rows) - MOST_CLASSES:,} classes that differ less are left out"
    columns = ("class", "images", *measured, difference)
    numbers = range(1, len(columns))
    return [heading, tag("p", f"{said}."), table(columns, shown, numbers=numbers)]


def _difference(shares: Sequence[float]) -> str:
    """From the first of two to the second, or between the extremes of more."""
    if len(shares) == 2:
        return f"{100 * (shares[1] - shares[0]):+.2f}"
    return f"{100 * (max(shares) - min(shares)):.2f}"


def _recipes(runs: Runs) -> list[Markup]:
    fields = dict.fromkeys(f for run in runs.values() for f in run.recipe)
    rows = []
    for field in fields:
        values = [
            as_json(run.recipe[field]) if field in run.recipe else "–"
            for run in runs.values()
        ]
        if len(set(values)) > 1:
            rows.append((field, *values))
    heading = tag("h2", "Where the recipes differ")
    if not rows:
        return [heading, tag("p", "In no field.")]
    return [heading, table(["field", *runs], rows)]
