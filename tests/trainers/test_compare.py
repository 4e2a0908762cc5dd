import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from keras_deit.distillation.cache_writer import CacheWriter
from keras_deit.models.factory import variant_config
from keras_deit.training.run_folder import begin, write_json
from keras_deit.training.teachers import views_of
from trainers import _comparison_runs
from trainers._comparison_runs import Comparison
from trainers._comparison_table import Record, page, total_time
from trainers._comparisons import (
    BY_NAME,
    CACHE,
    QUESTIONS,
    RUNS,
    recipes_of,
    selected,
)

FACTS = {
    "parameters": 1234,
    "macs": 5_600_000,
    "dataset": {
        "name": "cifar10",
        "train_examples": 50_000,
        "validation_examples": 10_000,
    },
    "versions": {"keras_deit": "0.1.0"},
}
DIGEST = "a" * 64


def names(runs):
    return [run.name for run in runs]


def record(*top1, agreement=None, attempts=(10.0,)):
    heads = ("class", "distillation", "fused")[: len(top1)]
    scores = dict(zip(heads, top1, strict=True))
    return Record(1234, 5_600_000, scores, agreement or {}, list(attempts))


def rows_of(text, title):
    """The cells of the table below a heading, but for its first two lines."""
    _, _, rest = text.partition(f"## {title}\n\n")
    table = rest.partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[2:]]


# By hand


def test_a_selection_brings_the_teachers_that_it_needs_in_order():
    wanted = selected(["evit", "deit_token_hard_from_deit", "t2t_token_hard"])
    assert names(wanted) == [
        "cnn",
        "deit",
        "deit_token_hard_from_deit",
        "evit",
        "t2t_token_hard",
    ]
    assert names(selected(["deit"])) == ["deit"]
    assert selected([]) == list(RUNS)


def test_the_recipes_say_what_the_runs_are(tmp_path):
    recipes = recipes_of(tmp_path, "flowers")
    assert {recipe.dataset for recipe in recipes.values()} == {"flowers"}
    assert (recipes["cnn"].variant, recipes["cnn"].epochs) == ("regnety_micro_32", 4)
    assert (recipes["deit"].kind, recipes["deit"].epochs) == ("none", 6)
    soft, hard = recipes["deit_token_soft"], recipes["deit_hard"]
    assert (soft.kind, soft.alpha, soft.temperature) == ("soft", 0.1, 3.0)
    assert (soft.reduction, soft.model_overrides) == ("batchmean", {"distilled": True})
    assert (hard.kind, hard.alpha, hard.model_overrides) == ("hard", 0.5, {})
    assert (hard.teacher, hard.teacher_cache) == (None, f"{tmp_path}/{CACHE}")
    live = recipes["deit_token_hard_live"]
    assert (live.teacher, live.teacher_cache) == (f"{tmp_path}/cnn/last.keras", None)
    assert (
        replace(live, teacher=None, teacher_cache=f"{tmp_path}/{CACHE}")
        == (recipes["deit_token_hard"])
    )
    other = recipes["deit_token_hard_from_deit"]
    assert replace(live, teacher=f"{tmp_path}/deit/last.keras") == other


def test_a_page_holds_what_the_runs_came_to():
    text = page(
        {
            "cnn": record(0.66412),
            "deit": record(0.58163, agreement={"cnn": 0.7}, attempts=(60.0, 30.4)),
            "deit_token_hard": record(
                0.5921, 0.5922, 0.5927, agreement={"cnn": 0.75}, attempts=(1500.2, None)
            ),
        },
        ["21 November 2026", "`a command`"],
    )
    assert text.startswith("# Comparisons\n\nWhat the documents ")
    assert "\n- 21 November 2026\n- `a command`\n" in text
    missing = [f"`{run.name}`" for run in RUNS[2:] if run.name != "deit_token_hard"]
    assert f"\n\nNot there yet: {', '.join(missing)}.\n\n" in text
    size = ["1,234", "5.6"]
    learns = "labels, hard: CNN, cached"
    assert rows_of(text, "All runs") == [
        ["`cnn`", "RegNetY, the CNN teacher", "labels", "", ""]
        + [*size, "66.41", "", "", "", "10"],
        ["`deit`", "DeiT", "labels", "", ""]
        + [*size, "58.16", "", "", "70.00", "90 in 2 goes"],
        ["`deit_token_hard`", "DeiT", learns, "yes", ""]
        + [*size, "59.21", "59.22", "59.27", "75.00", "more than 1,500 in 2 goes"],
    ]
    title = "None, soft or hard; without and with the token; which head"
    assert rows_of(text, title) == [
        ["`deit`", "class", "58.16", "", "5.6", "90 in 2 goes", "72.2"],
        ["`deit_token_hard`", "class", "59.21", "", "", "", "73.9"],
        ["`deit_token_hard`", "distillation", "59.22", "", "", "", "74.6"],
        ["`deit_token_hard`", "fused", "59.27", "75.00", "5.6"]
        + ["more than 1,500 in 2 goes", "74.5"],
    ]
    sentences = re.findall(r"^In points of top-1, .*$", text, re.MULTILINE)
    assert sentences == [
        "In points of top-1, `deit_token_hard` is 1.11 above `deit`.",
        "In points of top-1, `cnn` is 8.25 above `deit`.",
    ]
    assert "## The teacher live" in text
    assert "## All three" not in text


def test_a_page_of_everything_answers_every_question():
    records = {run.name: record(0.5 + i / 100) for i, run in enumerate(RUNS)}
    records["t2t"] = record(0.51)  # as deit
    text = page(records, [])
    assert "Not there yet" not in text
    assert len(rows_of(text, "All runs")) == len(RUNS)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[1:] == [
        question.title for question in QUESTIONS
    ]
    assert text.count("In points of top-1, ") == len(QUESTIONS)
    assert "`t2t` is equal to `deit`; " in text
    assert "`deit_token_hard` is 1.00 below `deit_token_hard_live`." in text
    difference = "`deit_token_hard` is 2.00 below `deit_token_hard_from_deit`; "
    assert difference in text
    kept = {row[0]: row[4] for row in rows_of(text, "All runs") if row[4]}
    assert kept == {
        "`evit`": "0.7",
        "`evit_token_hard`": "0.7",
        "`t2t_evit_token_hard`": "0.7",
    }
    learns = {row[0]: row[2] for row in rows_of(text, "All runs")}
    assert learns["`deit_token_hard_live`"] == "labels, hard: CNN, live"
    assert learns["`deit_token_hard_from_deit`"] == "labels, hard: DeiT, live"


def test_the_agreement_with_its_own_teacher_stands_beside_a_student():
    shares = {"cnn": 0.6, "deit": 0.8}
    name = "deit_token_hard_from_deit"
    text = page({name: record(0.1, 0.2, 0.3, agreement=shares)}, [])
    (row,) = rows_of(text, "A CNN or a transformer as the teacher")
    assert row[:4] == [f"`{name}`", "fused", "30.00", "80.00"]
    assert rows_of(text, "All runs")[0][-2] == "60.00"


def test_times_add_up_as_far_as_they_are_known():
    records = {"deit": record(0.5, attempts=(60.0, 30.0)), "cnn": record(0.5)}
    assert total_time(records, [25.0]) == "2 min"
    assert total_time(records, [25.0, None]) == "more than 2 min"
    assert total_time({}, [4.0]) == "4.0 s"


# The list


def test_all_students_see_the_same_views_so_that_one_cache_serves_them(tmp_path):
    for changes in ({}, {"epochs": 2}, {"smoke": True}):
        recipes = recipes_of(tmp_path, "digits", **changes)
        del recipes["cnn"]
        first = recipes["deit"]
        for recipe in recipes.values():
            assert views_of(recipe) == views_of(first)
            assert (recipe.epochs, recipe.seed) == (first.epochs, 0)
            assert recipe.learning_rate == first.learning_rate


def test_the_models_are_what_the_runs_say(tmp_path):
    for name, recipe in recipes_of(tmp_path, "digits").items():
        config = variant_config(recipe.variant, **recipe.model_overrides)
        if name == "cnn":
            continue
        run = BY_NAME[name]
        assert config.encoder.distilled is run.has_token is ("token" in name)
        assert config.encoder.keep_rate == (0.7 if "evit" in name else 1.0)
        assert config.encoder.fuse
        assert recipe.variant.startswith("t2t" if "t2t" in name else "deit")


def test_the_students_epochs_may_change_and_the_teachers_stay(tmp_path):
    recipes = recipes_of(tmp_path, "cifar10", epochs=3)
    assert recipes["cnn"].epochs == 4
    assert recipes["deit"].epochs == recipes["t2t"].epochs == 3
    assert recipes["deit"].warmup_epochs == 0.5


def test_a_smoke_run_has_an_epoch_and_two_blocks(tmp_path):
    recipes = recipes_of(tmp_path, "digits", smoke=True)
    assert {recipe.epochs for recipe in recipes.values()} == {1}
    depths = {recipe.model_overrides.get("depth") for recipe in recipes.values()}
    assert depths == {2, None}
    assert recipes["cnn"].model_overrides == {}


def test_teachers_stand_before_their_students():
    for index, run in enumerate(RUNS):
        assert run.teacher is None or run.teacher in names(RUNS[:index])
        assert run.teacher is None or BY_NAME[run.teacher].teacher is None


def test_questions_are_about_runs_that_there_are():
    asked = set()
    for question in QUESTIONS:
        asked |= set(question.runs)
        assert {name for pair in question.pairs for name in pair} <= set(question.runs)
        assert {name for name, _ in question.printed} <= set(question.runs)
    assert asked == set(BY_NAME)


# The folder


@pytest.fixture
def pretend(monkeypatch):
    """Runs and a cache in no time: the list of what was made."""
    made = []

    def train(recipe, folder, download):
        made.append(folder.name)
        assert not download
        begin(folder, recipe, FACTS, ["a", "b"])
        scores = {"class": {"top1": 0.5, "top5": 1.0}}
        write_json(folder / "result.json", {"scores": scores})

    def cache_teacher(recipe, folder, download):
        made.append(CACHE)
        assert recipe.teacher.endswith("cnn/last.keras")
        assert recipe.teacher_cache is None
        header = {
            "views": {},
            "dataset": "d",
            "teacher": {"digest": DIGEST, "name": "cnn"},
            "keep_logits": "all",
            "temperature": 1.0,
            "class_names": ["a", "b"],
            "batch_size": 2,
            "steps_per_epoch": 1,
            "shard_steps": 1,
        }
        writer = CacheWriter(folder, header, {})
        for shard in writer.missing(recipe.epochs):
            with writer.claim(shard) as file:
                file.write(np.arange(2), np.zeros((2, 2), np.float32))

    monkeypatch.setattr(_comparison_runs, "train", train)
    monkeypatch.setattr(_comparison_runs, "cache_teacher", cache_teacher)
    monkeypatch.setattr(
        _comparison_runs, "Teacher", lambda file: SimpleNamespace(digest=DIGEST)
    )
    monkeypatch.setattr(Comparison, "_agreement", lambda self, *pair: 0.25)
    return made


@pytest.mark.slow
def test_a_selection_is_made_then_the_rest_and_nothing_twice(
    run_program, pretend, tmp_path
):
    output = f"--output={tmp_path}/runs"
    done = run_program("compare", output, "--only=deit_hard", "--note=Of JPEGs.")
    assert (done.code, done.err) == (0, "")
    assert pretend == ["cnn", CACHE, "deit_hard"]
    assert "--- Run 1 of 2: cnn. How long it will take is known after" in done.out
    assert re.search(r"--- Run 2 of 2: deit_hard\. About [\d.]+ s left\.", done.out)
    text = (tmp_path / "runs" / "COMPARISONS.md").read_text()
    command = f"python -m trainers compare --note='Of JPEGs.' --only=deit_hard {output}"
    facts = re.search(r"(?:^- .*\n)+", text, re.MULTILINE)[0].splitlines()
    assert re.fullmatch(r"- [1-9]\d? [A-Z][a-z]+ 20\d\d", facts[0])
    assert sorted(facts[1].strip("- `").split()) == sorted(
        command.replace("--note='Of JPEGs.'", "'--note=Of JPEGs.'").split()
    )
    assert facts[2:5] == [
        "- Epochs: 6 of each student, 4 of the CNN; batches of 128; seed 0",
        "- cifar10: 50,000 training and 10,000 validation images",
        "- Of JPEGs.",
    ]
    cached = r"- Teacher cache: all logits of 6 epochs of views, 0\.0 MB, made in .* s"
    assert re.fullmatch(cached, facts[5])
    assert facts[6].startswith("- Time of all runs and of the cache: ")
    assert facts[7:] == ["- keras_deit 0.1.0"]
    assert [row[0] for row in rows_of(text, "All runs")] == ["`cnn`", "`deit_hard`"]
    assert rows_of(text, "All runs")[1][-2] == "25.00"

    table = tmp_path / "docs" / "TABLE.md"
    pretend.clear()
    assert run_program("compare", output, f"--table={table}").code == 0
    assert pretend == [run.name for run in RUNS if run.name not in ("cnn", "deit_hard")]
    assert len(rows_of(table.read_text(), "All runs")) == len(RUNS)
    pretend.clear()
    done = run_program("compare", output, f"--table={table}")
    assert (done.code, pretend) == (0, [])
    assert "---" not in done.out
    assert f"All 13 runs are there. Table: {table}" in done.out


def test_a_run_that_failed_is_gone_on_with_and_its_time_counts(
    run_program, refusal, pretend, tmp_path, monkeypatch
):
    train = _comparison_runs.train

    def fail(recipe, folder, download):
        folder.mkdir()
        raise RuntimeError("The loss is not finite.")

    monkeypatch.setattr(_comparison_runs, "train", fail)
    flags = ("compare", f"--output={tmp_path}", "--only=deit")
    assert refusal(*flags) == "The loss is not finite."
    assert not (tmp_path / "COMPARISONS.md").exists()
    monkeypatch.setattr(_comparison_runs, "train", train)
    assert run_program(*flags).code == 0
    journal = json.loads((tmp_path / "compare.json").read_text())
    assert len(journal["attempts"]["deit"]) == 2
    assert None not in journal["attempts"]["deit"]
    assert "0 in 2 goes" in (tmp_path / "COMPARISONS.md").read_text()


def test_a_cache_that_is_not_whole_is_gone_on_with(run_program, pretend, tmp_path):
    flags = ("compare", f"--output={tmp_path}", "--only=deit_hard")
    assert run_program(*flags).code == 0
    pretend.clear()
    index = json.loads((tmp_path / CACHE / "index.json").read_text())
    assert len(index["shards"]) == 6
    index["shards"].popitem()
    write_json(tmp_path / CACHE / "index.json", index)
    (tmp_path / "deit_hard" / "result.json").unlink()
    assert run_program(*flags).code == 0
    assert pretend == [CACHE, "deit_hard"]
    assert "all logits of 6 epochs" in (tmp_path / "COMPARISONS.md").read_text()


def test_a_run_that_was_killed_has_taken_more_than_is_known(
    run_program, pretend, tmp_path
):
    (tmp_path / "deit").mkdir()
    journal = {"attempts": {"deit": [None], "evit": [9.0]}, "agreements": {}}
    write_json(tmp_path / "compare.json", journal)
    assert run_program("compare", f"--output={tmp_path}", "--only=deit,evit").code == 0
    text = (tmp_path / "COMPARISONS.md").read_text()
    seconds = [row[-1] for row in rows_of(text, "All runs")]
    # The folder of evit is gone, so that what it took once is forgotten.
    assert seconds == ["more than 0 in 2 goes", "0"]


def test_what_is_left_is_estimated_by_what_others_took(pretend, tmp_path):
    recipes = recipes_of(tmp_path, "cifar10")
    attempts = {"cnn": [60.0, 40.0], "deit": [200.0], "evit": [None, 9.0]}
    attempts |= {CACHE: [1.0], "deit_hard": [2.0]}  # no run; one that failed
    tmp_path.joinpath("compare.json").write_text(
        json.dumps({"attempts": attempts, "agreements": {}})
    )
    for name in ("cnn", "deit", "evit"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").touch()
    comparison = Comparison(tmp_path, recipes, download=False)
    # (100 + 200) / 2 s for each of two; evit is there.
    left = [BY_NAME[name] for name in ("deit_soft", "evit", "t2t")]
    assert comparison.time_left(left) == "About 5 min left."


# Refusals


def test_a_cache_of_another_teacher_is_refused(
    run_program, refusal, pretend, tmp_path, monkeypatch
):
    output = f"--output={tmp_path}"
    assert run_program("compare", output, "--only=deit_hard").code == 0
    monkeypatch.setattr(
        _comparison_runs, "Teacher", lambda file: SimpleNamespace(digest="b" * 64)
    )
    message = refusal("compare", output, "--only=deit_soft")
    assert message.startswith("The cache must be of the CNN that is there: delete it")
    assert f"cache='{tmp_path}/{CACHE}'" in message


def test_runs_of_other_recipes_are_refused_before_anything_is_made(
    run_program, refusal, pretend, tmp_path
):
    output = f"--output={tmp_path}"
    assert run_program("compare", output, "--only=deit").code == 0
    pretend.clear()
    message = refusal("compare", output, "--epochs=2")
    assert message.startswith(f"{tmp_path}/deit holds a run of another recipe: choose")
    assert "What differs: epochs: 6, now 2; warmup_epochs: 1.0, now 0.333" in (
        message.replace("warmup_epochs: 1,", "warmup_epochs: 1.0,")
    )
    assert pretend == []


def test_a_table_does_not_replace_what_is_none(refusal, pretend, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# Mine\n")
    for place in (readme, tmp_path):
        message = refusal("compare", f"--output={tmp_path}/runs", f"--table={place}")
        assert message == (
            "`table` must be a new file, or one that this program wrote: "
            f"'# Comparisons'. Received: table='{place}'."
        )
    assert readme.read_text() == "# Mine\n"
    assert (pretend, list(tmp_path.iterdir())) == ([], [readme])


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--only=deit,evitt",), "`only` must be one of ['cnn', 'deit', "),
        (("--only=evitt",), "Did you mean 'evit'? Received: only='evitt'."),
        (("--smoke", "--epochs=1"), "--smoke says by itself what is trained on"),
        (("--smoke", "--dataset=cars"), "Received: dataset='cars', epochs=None."),
        (("--epochs=0",), "--epochs=0: 0 is not"),
        (("--dataset=",), "`dataset` must be a name or a folder."),
    ],
)
def test_what_is_no_good_is_refused(refusal, pretend, tmp_path, flags, part):
    assert part in refusal("compare", f"--output={tmp_path}/runs", *flags)
    assert (pretend, list(tmp_path.iterdir())) == ([], [])


# The real thing


@pytest.mark.slow
def test_what_is_asked_for_is_made_on_digits_and_stays(run_program, tmp_path):
    asked = ("deit_token_hard", "deit_token_hard_live", "t2t_evit_token_hard")
    arguments = (f"--output={tmp_path}/runs", "--smoke", f"--only={','.join(asked)}")
    done = run_program("compare", *arguments)
    assert done.code == 0, done.err
    text = (tmp_path / "runs" / "COMPARISONS.md").read_text()
    assert "- digits: 1,438 training and 359 validation images\n" in text
    assert "all logits of 1 epochs of views, 0.1 MB" in text
    rows = rows_of(text, "All runs")
    made = [run for run in RUNS if run.name in ("cnn", *asked)]
    assert [row[0] for row in rows] == [f"`{run.name}`" for run in made]
    for run, row in zip(made, rows, strict=True):
        heads = row[7:10]
        assert all(heads) if run.has_token else heads[0] and not any(heads[1:])
        assert bool(row[10]) is (run.name != "cnn")
    live, cached = (
        next(row for row in rows if row[0] == f"`{name}`")
        for name in ("deit_token_hard_live", "deit_token_hard")
    )
    # 359 images: one that is decided otherwise by rounding is 0.28 points.
    for one, other in zip(live[7:10], cached[7:10], strict=True):
        assert abs(float(one) - float(other)) < 0.6
    files = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/*/last.keras")}
    done = run_program("compare", *arguments)
    assert (done.code, "---" in done.out) == (0, False)
    assert files == {p: p.stat().st_mtime_ns for p in files}
