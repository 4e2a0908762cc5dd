from collections import Counter

import pytest

from keras_deit.training.report_comparison import page_of_runs
from keras_deit.training.report_record import read_run
from tests.training.report_runs import (
    DISTILLED,
    FACTS,
    PLAIN,
    RESULT,
    Page,
    make_run,
)

FUSED = {
    "scores": {
        "class": {"top1": 0.5, "top5": 1.0},
        "distillation": {"top1": 0.5, "top5": 1.0},
        "fused": {"top1": 0.875, "top5": 1.0},
    },
    "average_scores": {"fused": {"top1": 0.9375, "top5": 1.0}},
    "best_epoch": 3,
}


@pytest.fixture
def side_by_side(tmp_path):
    """The page of runs, each made by hand of its changes."""

    def show(**runs):
        folders = {n: make_run(tmp_path / n, **changes) for n, changes in runs.items()}
        records = {name: read_run(folder) for name, folder in folders.items()}
        return Page(page_of_runs(records))

    return show


@pytest.fixture
def two(side_by_side):
    """The page of a plain and of a distilled run."""
    distilled = {"history": DISTILLED, "result": FUSED, "kind": "hard", "alpha": 0.25}
    distilled |= {"confusion": Counter({(0, 0): 4, (1, 1): 2, (1, 0): 2})}
    plain = {"epochs": 7, "warmup_epochs": 1}
    return side_by_side(
        plain=plain, distilled=distilled | {"facts": FACTS | {"macs": 1}}
    )


def test_three_plots_hold_a_line_for_each_run(two):
    assert two.headings[:2] == [(1, "2 runs side by side"), (2, "Curves")]
    titles = [text for depth, text in two.headings if depth == 3]
    assert titles == ["Training loss", "Test loss", "Test accuracy"]
    training, loss, accuracy = two.attributes("aria-label")
    assert "plain from 2 at epoch 1 to 1.25 at epoch 3" in training
    assert "distilled from 2 at epoch 1 to 1.25 at epoch 3" in training
    assert "plain from 1.75" in loss
    assert "distilled from 1.625 at epoch 1 to 0.875" in loss  # on the labels alone
    assert "plain from 25 % at epoch 1 to 62.5 %" in accuracy
    assert "distilled from 25 % at epoch 1 to 87.5 %" in accuracy  # the fused heads
    assert "not comparable" in two.text
    assert "Cross entropy with the labels alone" in two.text


def test_without_the_loss_on_labels_the_objectives_are_drawn(side_by_side):
    history = {k: v for k, v in DISTILLED.items() if k != "val_label_loss"}
    page = side_by_side(plain={}, distilled={"history": history})
    loss = page.attributes("aria-label")[1]
    assert "distilled from 1.75 at epoch 1 to 1 at epoch 3" in loss
    assert page.text.count("not comparable") == 2
    assert "Cross entropy" not in page.text


def test_results_stand_side_by_side(two):
    rows = {name: rest for name, *rest in two.table_with("", "plain", "distilled")}
    assert rows == {
        "variant": ["deit_tiny_patch16_224"] * 2,
        "dataset": ["pets", "pets"],
        "distillation": ["none", "hard"],
        "alpha": ["–", "0.25"],
        "epochs": ["3 of 7", "3 of 300"],
        "best epoch": ["2", "3"],
        "parameters": ["5.717 M", "5.717 M"],
        "multiply-adds": ["1.254 G", "1"],
        "top-1": ["62.50 %", "87.50 %"],
        "top-5": ["96.88 %", "100.00 %"],
        "top-1, class head": ["62.50 %", "50.00 %"],
        "top-5, class head": ["96.88 %", "100.00 %"],
        "top-1, distillation head": ["–", "50.00 %"],
        "top-5, distillation head": ["–", "100.00 %"],
        "top-1, averaged weights": ["–", "93.75 %"],
        "top-5, averaged weights": ["–", "100.00 %"],
    }
    assert two.attributes("class").count("number best") == 4
    assert "scores are not comparable" not in two.text


def test_a_run_over_all_its_epochs_has_one_number(side_by_side):
    page = side_by_side(a={"epochs": 3, "warmup_epochs": 0}, b={})
    rows = dict(row[:2] for row in page.table_with("", "a", "b"))
    assert rows["epochs"] == "3"


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "pets2"},
        {"facts": FACTS | {"dataset": FACTS["dataset"] | {"digest": "d2"}}},
    ],
)
def test_scores_on_different_data_are_called_so(side_by_side, changes):
    page = side_by_side(a={}, b=changes)
    assert "different data: their scores are not comparable" in page.text


def test_the_largest_differences_between_classes_come_first(two):
    assert two.table_with("class", "images", "plain", "distilled", "difference") == [
        ["dog", "4", "100.00 %", "50.00 %", "-50.00"],
        ["cat", "4", "75.00 %", "100.00 %", "+25.00"],
    ]


def test_of_three_runs_the_spread_counts(side_by_side):
    worse = Counter({(0, 0): 1, (0, 1): 3, (1, 1): 4})
    best = Counter({(0, 0): 4, (1, 1): 4})
    page = side_by_side(a={}, b={"confusion": worse}, c={"confusion": best})
    assert page.table_with("class", "images", "a", "b", "c", "spread") == [
        ["cat", "4", "75.00 %", "25.00 %", "100.00 %", "75.00"],
        ["dog", "4", "100.00 %", "100.00 %", "100.00 %", "0.00"],
    ]


def test_of_many_classes_those_that_differ_most_are_listed(side_by_side):
    names = [f"class {i}" for i in range(40)]
    perfect = Counter({(i, i): 100 for i in range(40)})
    worse = Counter({(i, i): 100 - i for i in range(40)})
    worse.update({(i, (i + 1) % 40): i for i in range(1, 40)})
    runs = {"a": perfect, "b": worse}
    page = side_by_side(
        **{k: {"confusion": v, "class_names": names} for k, v in runs.items()}
    )
    rows = page.table_with("class")
    assert [row[0] for row in rows] == names[:9:-1]
    assert "10 classes that differ less are left out" in page.text


def test_a_class_without_images_is_not_compared(side_by_side):
    names = ("cat", "dog", "eel")
    page = side_by_side(a={"class_names": names}, b={"class_names": names})
    assert [row[0] for row in page.table_with("class")] == ["cat", "dog"]


@pytest.mark.parametrize(
    "changes",
    [{"class_names": ("dog", "cat")}, {"confusion": Counter({(0, 0): 5, (1, 1): 4})}],
)
def test_different_classes_or_images_are_not_compared(side_by_side, changes):
    page = side_by_side(a={}, b=changes)
    assert "different classes or images: they are not compared" in page.text
    assert [t for t in page.tables if t[0][0] == "class"] == []


def test_only_the_fields_in_which_recipes_differ_are_listed(two):
    assert two.table_with("field", "plain", "distilled") == [
        ["epochs", "7", "300"],
        ["warmup_epochs", "1", "5"],
        ["kind", '"none"', '"hard"'],
        ["alpha", "0.5", "0.25"],
    ]


def test_equal_recipes_are_called_so(side_by_side):
    page = side_by_side(a={}, b={})
    assert "Where the recipes differ In no field." in page.text


def test_a_run_that_lacks_files_is_named(side_by_side):
    bare = dict.fromkeys(("history", "facts", "result", "confusion"))
    page = side_by_side(a={}, b=bare)
    for name in ("history.csv", "result.json", "run.json", "per_class.csv"):
        assert f"b, {name}: " in page.text
    assert "views.png" not in page.text
    assert "Classes" not in page.text
    assert "b from" not in " ".join(page.attributes("aria-label"))
    rows = {name: rest for name, *rest in page.table_with("", "a", "b")}
    assert rows["top-1"] == ["62.50 %", "–"]
    assert rows["parameters"] == ["5.717 M", "–"]


def test_runs_before_their_first_epoch_have_no_curves(side_by_side):
    bare = {"history": None, "result": None}
    page = side_by_side(a=bare, b=bare)
    assert "Curves" not in page.text
    assert page.table_with("", "a", "b")[4] == ["epochs", "0 of 300", "0 of 300"]


def test_names_and_texts_are_text(tmp_path):
    evil = "<script>alert(1)"
    record = read_run(make_run(tmp_path / "run", dataset=evil, class_names=(evil, "b")))
    page = Page(page_of_runs({evil: record, "b": record}))
    assert "script" not in {name for name, _ in page.elements}
    assert page.text.count(evil) > 6


def test_a_row_of_equal_scores_has_two_best(side_by_side):
    page = side_by_side(a={"history": PLAIN}, b={"result": RESULT})
    assert page.attributes("class").count("number best") == 8
