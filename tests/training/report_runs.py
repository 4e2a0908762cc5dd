"""Folders of runs made by hand, and pages read back, for the tests of reports."""

import json
from collections import Counter
from html.parser import HTMLParser

import numpy as np

from keras_deit.training.recipe import Recipe
from keras_deit.training.report import write_per_class, write_views

VOID = {"meta", "img"}
PLAIN = {
    "epoch": [0, 1, 2],
    "loss": [2.0, 1.5, 1.25],
    "label_loss": [2.0, 1.5, 1.25],
    "accuracy": [0.25, 0.375, 0.5],
    "val_loss": [1.75, 1.5, 1.0],
    "val_label_loss": [1.75, 1.5, 1.0],
    "val_accuracy": [0.25, 0.75, 0.625],
    "learning_rate": [1e-3, 5e-4, 1e-5],
}
DISTILLED = {
    "epoch": [0, 1, 2],
    "loss": [2.0, 1.5, 1.25],
    "label_loss": [2.5, 1.5, 1.0],
    "distillation_loss": [1.5, 1.5, 1.5],
    "val_loss": [1.75, 1.5, 1.0],
    "val_label_loss": [1.625, 1.5, 0.875],
    "val_class_accuracy": [0.25, 0.5, 0.5],
    "val_distillation_accuracy": [0.25, 0.5, 0.5],
    "val_fused_accuracy": [0.25, 0.5, 0.875],
    "val_fused_agreement": [0.125, 0.5, 0.75],
    "val_average_fused_accuracy": ["", 0.5, 0.9375],
    "keep_rate": [1.0, 0.75, 0.5],
}
FACTS = {
    "view_format": 2,
    "dataset": {"name": "pets", "digest": "d1", "train_examples": 1438},
    "teacher": None,
    "parameters": 5_717_416,
    "macs": 1_253_700_000,
    "versions": {"keras": "3.15.0", "numpy": "2.0.1"},
}
RESULT = {
    "scores": {"class": {"top1": 0.625, "top5": 0.96875}},
    "best_epoch": 2,
    "best_accuracy": 0.75,
}
CONFUSION = Counter({(0, 0): 3, (0, 1): 1, (1, 1): 4})


def write_columns(columns, path):
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def make_run(
    folder,
    history=PLAIN,
    facts=FACTS,
    result=RESULT,
    confusion=CONFUSION,
    class_names=("cat", "dog"),
    **fields,
):
    """Makes the folder of a run; what is None is left out."""
    folder.mkdir(parents=True)
    recipe = Recipe(**{"variant": "deit_tiny_patch16_224", "dataset": "pets"} | fields)
    (folder / "recipe.json").write_text(recipe.to_json())
    if history is not None:
        write_columns(history, folder / "history.csv")
    for name, values in (("run.json", facts), ("result.json", result)):
        if values is not None:
            (folder / name).write_text(json.dumps(values))
    if confusion is not None:
        write_per_class(confusion, class_names, folder / "per_class.csv")
        views = np.zeros((2, 32, 32, 3), np.uint8)
        labels = np.eye(2, len(class_names), dtype="float32")
        write_views(views, labels, class_names, folder / "views.png")
    return folder


class Page(HTMLParser):
    """A page as a browser sees it: elements, attributes, text and tables.

    Attributes:
        elements: (name, attributes) of each element.
        text: What can be read.
        headings: (level, text) of each heading.
        tables: The rows of each table, lists of cells.
    """

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.pieces = [], [], []
        self.headings, self.tables = [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join("".join(self.pieces).split())

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)
        if name in ("h1", "h2", "h3"):
            self.headings.append((int(name[1]), ""))
        if name == "table":
            self.tables.append([])
        if name == "tr":
            self.tables[-1].append([])
        if name in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, name):
        assert self.open.pop() == name
        if name not in ("b", "i"):  # these go on in the same line
            self.pieces.append(" ")

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.pieces.append(data)
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def attributes(self, name):
        """The values of all attributes of that name."""
        return [a[name] for _, a in self.elements if name in a]

    def table_with(self, *columns):
        """The rows of the one table whose columns begin so, without its head."""
        (rows,) = (t for t in self.tables if t[0][: len(columns)] == list(columns))
        return rows[1:]
