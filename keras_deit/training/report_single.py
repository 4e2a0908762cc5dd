"""The page of one run."""

import base64
import json
from collections.abc import Sequence

from keras_deit.training.report import percent
from keras_deit.training.report_charts import Line, histogram, line_chart
from keras_deit.training.report_markup import Markup, page, table, tag
from keras_deit.training.report_record import (
    FILES,
    ClassAccuracy,
    RunRecord,
    default_values,
    flat,
)

MANY_CLASSES = 30  # more are not listed one by one
WORST, BEST = 20, 5
LONGEST_VALUE = 160  # letters of a recipe's field that are shown

# Title, what the columns are called, whether they are shares, what one has to know.
PANELS = (
    (
        "Loss",
        {"loss": "training", "val_loss": "validation"},
        False,
        "Training: on augmented views, while the weights change.",
    ),
    (
        "Validation accuracy",
        {
            "val_accuracy": "weights as they are",
            "val_fused_accuracy": "fused heads",
            "val_class_accuracy": "class head",
            "val_distillation_accuracy": "distillation head",
            "val_average_accuracy": "averaged weights",
            "val_average_fused_accuracy": "averaged weights, fused heads",
        },
        True,
        "Top-1, on the validation images.",
    ),
    (
        "Agreement with the teacher",
        {
            "val_agreement": "weights as they are",
            "val_fused_agreement": "fused heads",
            "val_class_agreement": "class head",
            "val_distillation_agreement": "distillation head",
        },
        True,
        "Share of the validation images that both take for the same class.",
    ),
    (
        "Parts of the training loss",
        {"label_loss": "labels", "distillation_loss": "teacher"},
        False,
        None,
    ),
    ("Learning rate", {"learning_rate": "learning rate"}, False, None),
    ("Keep rate", {"keep_rate": "share of the patch tokens kept"}, True, None),
)


def page_of_run(name: str, run: RunRecord) -> str:
    """Writes the page of a run.

    Args:
        name: What the run is called.
        run: What its folder says.
    """
    recipe = run.recipe
    variant, dataset = recipe.get("variant", "?"), recipe.get("dataset", "?")
    kind = recipe.get("kind", "none")
    taught = "labels only" if kind == "none" else f"{kind} distillation"
    return page(
        f"{name}: {variant} on {dataset}",
        tag("h1", name),
        tag("p", f"{variant} on {dataset}, {taught}", class_="quiet"),
        *_missing(run),
        *_results(run),
        *_curves(run),
        *_classes(run.classes),
        *_views(run),
        *_recipe(recipe),
        *_facts(run.facts),
    )


def _missing(run: RunRecord) -> list[Markup]:
    if not run.missing:
        return []
    items = [tag("li", tag("b", name), f": {FILES[name]}") for name in run.missing]
    said = tag("p", "Not in the folder, and so not on this page:")
    return [tag("div", said, tag("ul", *items), class_="notice")]


def _results(run: RunRecord) -> list[Markup]:
    tiles = [*_score_tiles(run), *_other_tiles(run)]
    if not tiles:
        return []
    return [tag("h2", "Results"), tag("div", *tiles, class_="tiles"), *_scores(run)]


def _score_tiles(run: RunRecord) -> list[Markup]:
    """The accuracy that counts, with the raw and with the averaged weights."""
    when = "weights of the last epoch"
    if not run.result and run.epochs:
        when = f"after epoch {run.epochs[-1]:g}, the last so far"
    tiles = []
    for weights, scores in (
        (when, run.scores),
        ("averaged weights", run.average_scores),
    ):
        if scores:
            title = "Top-1, fused heads" if "fused" in scores else "Top-1"
            score = scores.get("fused") or scores["class"]
            tiles.append(_tile(title, percent(score["top1"]), weights))
    return tiles


def _other_tiles(run: RunRecord) -> list[Markup]:
    tiles = []
    if "best_epoch" in run.result:
        epochs = f"{run.result['best_epoch']} of {len(run.epochs) or '?'}"
        accuracy = written(run.result.get("best_accuracy"))
        tiles.append(_tile("Best epoch", epochs, f"{accuracy} (best.keras)"))
    if "parameters" in run.facts:
        macs = scaled(run.facts.get("macs"))
        size = scaled(run.facts["parameters"])
        tiles.append(_tile("Parameters", size, f"{macs} multiply-adds an image"))
    if run.facts.get("teacher"):
        accuracy = written(run.facts["teacher"].get("accuracy"))
        tiles.append(
            _tile("Top-1, teacher", accuracy, "on the first validation images")
        )
    return tiles


def scaled(number: float | None) -> str:
    """Writes a large number with a unit, or that there is none.

    Example:
    >>> scaled(321), scaled(5_717_416), scaled(4_608_338_304)
    ('321', '5.717 M', '4.608 G')
    """
    if number is None:
        return "–"
    for unit in ("", " k", " M", " G"):
        if number < 1000:
            return f"{number:.4g}{unit}"
        number /= 1000
    return f"{number:.4g} T"


def _tile(title: str, value: str, said: str) -> Markup:
    content = (tag("span", title), tag("strong", value), tag("span", said))
    return tag("div", *content, class_="tile")


def _scores(run: RunRecord) -> list[Markup]:
    if not run.scores:
        return []
    columns = ["head", "top-1", "top-5"]
    if run.average_scores:
        columns += ["top-1, averaged weights", "top-5, averaged weights"]
    rows = []
    for head, score in run.scores.items():
        both = [score] + [run.average_scores.get(head, {})] * bool(run.average_scores)
        rows.append(
            (head, *(written(s.get(k)) for s in both for k in ("top1", "top5")))
        )
    return [table(columns, rows, numbers=range(1, len(columns)))]


def written(score: float | None) -> str:
    """Writes a share as a percentage, or that there is none."""
    return "–" if score is None else percent(score)


def _curves(run: RunRecord) -> list[Markup]:
    panels = []
    for title, names, shares, note in PANELS:
        lines = [
            Line(called, run.epochs, run.history[column])
            for column, called in names.items()
            if column in run.history
        ]
        if lines and not (title.startswith("Parts") and len(lines) == 1):
            panels.append(line_chart(title, lines, shares, note))
    if not run.epochs:
        return []
    return [tag("h2", "Curves"), *in_panels(panels)]


def in_panels(charts: Sequence[Markup]) -> list[Markup]:
    """Puts charts beside each other, two or three in a row."""
    three = " three" if len(charts) in (3, 5, 6) else ""
    return [
        tag("p", "Beside each name stands its last value.", class_="quiet"),
        tag("div", *charts, class_=f"panels{three}"),
    ]


def _classes(classes: Sequence[ClassAccuracy]) -> list[Markup]:
    known = [c for c in classes if c.top1 is not None]
    if not known:
        return []
    known.sort(key=lambda c: (c.top1, -c.images, c.name))
    parts = [tag("h2", "Classes")]
    if len(known) < len(classes):
        without = f"{len(classes) - len(known):,} of {len(classes):,} classes"
        parts.append(tag("p", f"{without} have no validation images."))
    if len(known) <= MANY_CLASSES:
        return [*parts, _class_table(known, None)]
    note = f"Number of classes by their top-1 accuracy; {len(known):,} classes in all."
    chart = histogram("How well the classes are known", [c.top1 for c in known], note)
    best = _class_table(known[: -BEST - 1 : -1], f"The {BEST} that are known best")
    worst = _class_table(known[:WORST], f"The {WORST} that are known least")
    return [*parts, chart, worst, best]


def _class_table(classes: Sequence[ClassAccuracy], caption: str | None) -> Markup:
    rows = [
        (c.name, f"{c.images:,}", percent(c.top1), _bar(c.top1), c.mistaken_for or "–")
        for c in classes
    ]
    columns = ("class", "images", "top-1", "", "most often taken for")
    return table(columns, rows, numbers=(1, 2), caption=caption)


def _bar(top1: float) -> Markup:
    """A cell with a bar that says again what the number beside it says."""
    bar = tag("div", tag("i", style=f"width:{100 * top1:.1f}%"))
    return tag("td", bar, class_="bar", aria_hidden="true")


def _views(run: RunRecord) -> list[Markup]:
    if run.views is None:
        return []
    data = base64.b64encode(run.views).decode()
    said = "The first training views as the student sees them, each with the largest "
    said += "shares of its label."
    picture = tag("img", src=f"data:image/png;base64,{data}", alt=said, class_="views")
    return [
        tag("h2", "Training views"),
        tag("p", said),
        tag("div", picture, class_="scroll", tabindex="0"),
    ]


def _recipe(recipe: dict) -> list[Markup]:
    defaults = default_values()
    rows, changed = [], []
    for index, (name, value) in enumerate(recipe.items()):
        differs = name in defaults and defaults[name] != value
        changed += [index] * differs
        rows.append((name, as_json(value), as_json(defaults[name]) if differs else ""))
    said = (
        f"Marked: what differs from the defaults, {len(changed)} of {len(rows)} fields."
    )
    columns = ("field", "value", "default")
    return [tag("h2", "Recipe"), tag("p", said), table(columns, rows, marked=changed)]


def as_json(value: object) -> str:
    """Writes a value of a recipe; a very long one is cut."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} …"


def _facts(facts: dict) -> list[Markup]:
    if not facts:
        return []
    versions = facts.get("versions", {})
    others = flat({k: v for k, v in facts.items() if k != "versions"})
    rows = [(name, _fact(value)) for name, value in others.items()]
    tables = [table(("fact", "value"), rows, caption="Data and models")]
    if versions:
        rows = sorted(versions.items())
        tables.append(table(("package", "version"), rows, caption="Versions"))
    return [tag("h2", "Facts"), *tables]


def _fact(value: object) -> str:
    if isinstance(value, float) and 0 <= value <= 1:
        return percent(value)
    if type(value) is int:
        return f"{value:,}"
    return "none" if value is None else str(value)
