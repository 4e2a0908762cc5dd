from collections import Counter

import pytest

from keras_deit.training.report_record import default_values, read_run
from keras_deit.training.report_single import page_of_run, scaled
from tests.training.report_runs import (
    DISTILLED,
    FACTS,
    PLAIN,
    RESULT,
    Page,
    make_run,
)


@pytest.fixture
def shown(tmp_path):
    """The page of a run that is made by hand."""

    def show(*arguments, **changes):
        folder = make_run(tmp_path / "run", *arguments, **changes)
        return Page(page_of_run("run", read_run(folder)))

    return show


def titles(parsed, level):
    return [text for depth, text in parsed.headings if depth == level]


def test_the_page_of_a_plain_run_says_what_came_out(shown):
    page = shown()
    assert page.headings[0] == (1, "run")
    assert "deit_tiny_patch16_224 on pets, labels only" in page.text
    for said in (
        "Top-1 62.50 % weights of the last epoch",
        "Best epoch 2 of 3 75.00 % (best.keras)",
        "Parameters 5.717 M 1.254 G multiply-adds an image",
    ):
        assert said in page.text
    assert page.table_with("head", "top-1", "top-5") == [
        ["class", "62.50 %", "96.88 %"]
    ]
    assert titles(page, 2) == [
        "Results",
        "Curves",
        "Classes",
        "Training views",
        "Recipe",
        "Facts",
    ]
    assert titles(page, 3) == ["Loss", "Validation accuracy", "Learning rate"]
    assert "Not in the folder" not in page.text


def test_the_page_of_a_distilled_run_has_heads_teacher_and_averaged_weights(shown):
    score = {"top1": 0.5, "top5": 0.75}
    better = {"top1": 0.625, "top5": 0.875}
    heads = ("class", "distillation", "fused")
    result = {
        "scores": dict.fromkeys(heads, score) | {"fused": {"top1": 0.8, "top5": 1}},
        "average_scores": {"fused": better},
    }
    facts = FACTS | {"teacher": {"path": "t.keras", "accuracy": 0.9}}
    page = shown(DISTILLED, facts, result, kind="hard", teacher="t.keras", alpha=0.25)
    assert "on pets, hard distillation" in page.text
    assert "Top-1, fused heads 80.00 % weights of the last epoch" in page.text
    assert "Top-1, fused heads 62.50 % averaged weights" in page.text
    assert "Top-1, teacher 90.00 %" in page.text
    assert "Best epoch" not in page.text
    rows = page.table_with("head", "top-1", "top-5", "top-1, averaged weights")
    assert rows[0] == ["class", "50.00 %", "75.00 %", "–", "–"]
    assert rows[2] == ["fused", "80.00 %", "100.00 %", "62.50 %", "87.50 %"]
    assert titles(page, 3) == [
        "Loss",
        "Validation accuracy",
        "Agreement with the teacher",
        "Parts of the training loss",
        "Keep rate",
    ]
    for legend in (
        "training 1.25 validation 1 ",
        "fused heads 87.5 % class head 50 % distillation head 50 % "
        "averaged weights, fused heads 93.75 %",
        "fused heads 75 %",
        "labels 1 teacher 1.5",
        "share of the patch tokens kept 50 %",
    ):
        assert legend in page.text


def test_a_run_that_goes_on_shows_what_there_is_so_far(shown):
    page = shown(PLAIN, None, None, None)
    assert "Top-1 62.50 % after epoch 3, the last so far" in page.text
    assert page.table_with("head") == [["class", "62.50 %", "–"]]
    assert titles(page, 2) == ["Results", "Curves", "Recipe"]
    for name in ("result.json: the final", "run.json", "per_class.csv", "views.png"):
        assert name in page.text
    assert "history.csv" not in page.text


def test_a_run_before_its_first_epoch_shows_its_recipe(shown):
    page = shown(None, None, None, None)
    assert titles(page, 2) == ["Recipe"]
    assert "history.csv: the numbers of each epoch: no epoch has ended" in page.text
    assert not page.attributes("src")


def test_facts_that_are_not_known_are_no_error(shown):
    facts = {"parameters": None, "teacher": {"path": "t", "accuracy": None}}
    page = shown(PLAIN, facts, {"scores": RESULT["scores"], "best_epoch": 1})
    assert "Parameters – – multiply-adds" in page.text
    assert "Top-1, teacher –" in page.text
    assert "Best epoch 1 of 3 – (best.keras)" in page.text


def test_fields_that_differ_from_the_defaults_are_marked(shown):
    page = shown(flip=False, epochs=7)
    rows = {name: rest for name, *rest in page.table_with("field", "value", "default")}
    assert rows["epochs"] == ["7", "300"]
    assert rows["flip"] == ["false", "true"]
    assert rows["crop_area"] == ["[0.08, 1.0]", ""]
    assert rows["variant"] == ['"deit_tiny_patch16_224"', ""]
    assert rows.keys() == {"variant", "dataset", *default_values()}
    assert page.attributes("class").count("marked") == 2
    assert f"differs from the defaults, 2 of {len(rows)} fields" in page.text


def test_a_recipe_of_another_version_is_shown_as_it_is(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "recipe.json").write_text('{"gone": [1], "long": "%s"}' % (999 * "x"))
    page = Page(page_of_run("run", read_run(folder)))
    (gone, long) = page.table_with("field")
    assert gone == ["gone", "[1]", ""]
    assert long[1].startswith('"xxx')
    assert long[1].endswith("x …")
    assert len(long[1]) < 200
    assert "? on ?, labels only" in page.text


def test_facts_are_written_for_people(shown):
    page = shown(facts=FACTS | {"teacher": {"agreement": 0.25, "sha256": "ab"}})
    facts = dict(page.table_with("fact", "value"))
    assert facts == {
        "view format": "2",
        "dataset name": "pets",
        "dataset digest": "d1",
        "dataset train examples": "1,438",
        "teacher agreement": "25.00 %",
        "teacher sha256": "ab",
        "parameters": "5,717,416",
        "macs": "1,253,700,000",
    }
    versions = page.table_with("package", "version")
    assert versions == [["keras", "3.15.0"], ["numpy", "2.0.1"]]


def test_a_run_without_teacher_says_so(shown):
    assert dict(shown().table_with("fact"))["teacher"] == "none"


def test_few_classes_are_all_listed_the_worst_first(shown):
    confusion = Counter({(0, 0): 3, (0, 1): 1, (1, 1): 4, (3, 1): 2})
    page = shown(confusion=confusion, class_names=["cat", "dog", "eel", "fox"])
    assert page.table_with("class", "images", "top-1") == [
        ["fox", "2", "0.00 %", "", "dog"],
        ["cat", "4", "75.00 %", "", "dog"],
        ["dog", "4", "100.00 %", "", "–"],
    ]
    assert "1 of 4 classes have no validation images" in page.text
    assert page.attributes("style") == ["width:0.0%", "width:75.0%", "width:100.0%"]


@pytest.mark.parametrize(("count", "tables"), [(30, 1), (31, 2)])
def test_of_many_classes_the_worst_and_the_best_are_listed(shown, count, tables):
    # Class i is known in i of 100 images.
    confusion = Counter()
    for label in range(count):
        confusion[label, label] = label
        confusion[label, 0] += 100 - label
    names = [f"class {label}" for label in range(count)]
    page = shown(confusion=confusion, class_names=names)
    listed = [t[1:] for t in page.tables if t[0][0] == "class"]
    assert len(listed) == tables
    drawn = f"{count} classes in all" in page.text
    assert drawn is (tables == 2)
    if tables == 2:
        worst, best = ([row[0] for row in rows] for rows in listed)
        assert worst == ["class 1", *names[2:20], "class 20", "class 21"][:20]
        assert best == ["class 0", *names[:26:-1]]


def test_the_views_lie_in_the_page(shown, tmp_path):
    page = shown()
    (source,) = page.attributes("src")
    assert source.startswith("data:image/png;base64,iVBORw0KGgo")
    (said,) = page.attributes("alt")
    assert said in page.text


def test_texts_of_files_are_text(shown):
    evil = "<script>alert(1)</script>"
    page = shown(
        facts={"dataset": {"name": evil}, evil: evil, "versions": {evil: evil}},
        class_names=(evil, '"><img src="http://x">'),
        dataset=evil,
        model_overrides={evil: evil},
    )
    names = Counter(name for name, _ in page.elements)
    assert (names["script"], names["img"]) == (0, 1)
    assert page.text.count(evil) >= 8
    assert page.text.count('"><img src="http://x">') == 2  # also what evil is taken for


def test_large_numbers_have_units():
    numbers = (0, 999, 1000, 5_717_416, 86_567_656, 1.25e9, 2e13, None)
    assert [scaled(n) for n in numbers] == [
        "0",
        "999",
        "1 k",
        "5.717 M",
        "86.57 M",
        "1.25 G",
        "20 T",
        "–",
    ]
