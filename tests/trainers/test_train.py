import json
from dataclasses import replace
from pathlib import Path

import pytest

from keras_deit.training.recipe import recipe_from_json
from trainers.recipes import find_recipe

PLAIN = find_recipe("digits_plain")
SMALL = '--set=model_overrides={"depth": 1, "embed_dim": 16, "num_heads": 2}'
QUICK = ("--recipe=digits_plain", "--epochs=1", "--set=warmup_epochs=0", SMALL)
FILES = {
    "recipe.json",
    "run.json",
    "history.jsonl",
    "per_class.csv",
    "views.png",
    "report.html",
    "labels.txt",
    "history.csv",
    "tensorboard",
    "curves.png",
    "last.keras",
    "best.keras",
    "result.json",
}


@pytest.fixture
def asked_for(monkeypatch, run_program, tmp_path):
    """Runs a program whose training is left out: what it would have trained."""
    received = {}

    def train(recipe, output, strategy, **options):
        assert strategy.num_replicas_in_sync == 1
        received.update(recipe=recipe, output=output, **options)

    monkeypatch.setattr("keras_deit.training.run.train", train)

    def run(program, *arguments):
        done = run_program(program, f"--output={tmp_path}/run", *arguments)
        assert (done.code, done.err) == (0, "")
        return received

    return run


def result_in(folder):
    return json.loads((folder / "result.json").read_text())


def recipe_in(folder):
    return recipe_from_json((folder / "recipe.json").read_text())


def test_a_teacher_and_its_student_leave_their_records(teacher, student):
    for run in (teacher, student):
        assert {path.name for path in run.folder.iterdir()} == FILES
    assert set(result_in(teacher.folder)["scores"]) == {"class"}
    scores = result_in(student.folder)["scores"]
    assert set(scores) == {"class", "distillation", "fused"}


def test_the_recipe_on_file_is_the_one_with_all_changes(teacher, student):
    assert recipe_in(student.folder) == replace(
        find_recipe("digits_distilled"),
        epochs=1,
        batch_size=256,
        warmup_epochs=0,
        model_overrides={"depth": 1, "embed_dim": 16, "num_heads": 2},
        teacher=f"{teacher.folder}/last.keras",
        seed=3,
    )
    assert recipe_in(teacher.folder).variant == "regnety_micro_32"


def test_a_run_prints_its_scores(student, rows_of):
    scores = result_in(student.folder)["scores"]
    rows = rows_of(student.said)
    assert ["head", "top-1", "top-5"] in rows
    for head, score in scores.items():
        shares = [f"{100 * score[k]:.2f} %" for k in ("top1", "top5")]
        assert [head, *shares] in rows
    assert "teacher/last.keras: hard distillation, alpha 0.5" in student.said


def test_without_changes_the_recipe_is_taken_as_it_is(asked_for, tmp_path):
    received = asked_for("train", "--recipe=digits_plain")
    assert received == {
        "recipe": PLAIN,
        "output": tmp_path / "run",
        "overwrite": False,
        "download": False,
        "unreadable": "refuse",
        "checkpoint_steps": 500,
        "force_resume": False,
    }


def test_each_program_has_its_own_recipe(asked_for):
    assert asked_for("train")["recipe"] == find_recipe("digits_distilled")
    assert asked_for("train_teacher")["recipe"] == find_recipe("digits_teacher")


def test_a_teacher_learns_from_no_teacher(asked_for):
    received = asked_for("train_teacher", "--recipe=digits_distilled")
    assert received["recipe"] == replace(find_recipe("digits_distilled"), kind="none")


def test_flags_change_the_recipe(asked_for):
    received = asked_for(
        "train",
        "--recipe=digits_plain",
        "--dataset=pets",
        "--epochs=3",
        "--kind=soft",
        "--teacher=t.keras",
        "--set=temperature=3",
        "--set=crop_area=[0.5, 1]",
        '--set=model_overrides={"drop_path_rate": 0.1}',
        "--set=flip=true",
        "--set=learning_rate_batch=512",
        "--set=reduction=numel",
        "--variant=keras:MobileNet",
        "--weights=~/w.keras",
        "--overwrite",
        "--download",
        "--unreadable=skip",
        "--checkpoint_steps=7",
        "--force_resume",
    )
    assert received["recipe"] == replace(
        PLAIN,
        variant="keras:MobileNet",
        weights=str(Path.home() / "w.keras"),
        dataset="pets",
        epochs=3,
        warmup_epochs=PLAIN.warmup_epochs * 3 / PLAIN.epochs,
        kind="soft",
        teacher="t.keras",
        temperature=3,
        crop_area=(0.5, 1),
        model_overrides={"drop_path_rate": 0.1},
        flip=True,
        learning_rate_batch=512,
        reduction="numel",
    )
    del received["recipe"], received["output"]
    assert received == {
        "overwrite": True,
        "download": True,
        "unreadable": "skip",
        "checkpoint_steps": 7,
        "force_resume": True,
    }


def test_without_soft_distillation_what_is_for_it_alone_is_dropped(asked_for):
    soft = find_recipe("imagenet_deit_tiny_soft")
    received = asked_for("train", "--recipe=imagenet_deit_tiny_soft", "--kind=none")
    neutral = {"temperature": 1.0, "reduction": "batchmean"}
    assert received["recipe"] == replace(soft, kind="none", **neutral)


def test_a_value_may_hold_an_equals_sign(asked_for):
    received = asked_for("train", "--recipe=digits_plain", "--set=dataset=a=b")
    assert received["recipe"].dataset == "a=b"


def test_the_recipe_of_an_earlier_run_can_be_run_again(asked_for, student):
    recipe = f"--recipe={student.folder}/recipe.json"
    assert asked_for("train", recipe)["recipe"] == recipe_in(student.folder)
    again = asked_for("train", recipe, "--epochs=2")["recipe"]
    assert again == replace(recipe_in(student.folder), epochs=2)


def test_a_finished_run_is_refused(refusal, student):
    before = (student.folder / "last.keras").stat().st_mtime_ns
    message = refusal("train", *QUICK, f"--output={student.folder}")
    assert "`output` holds a run that came to its end" in message
    assert "--overwrite" in message
    assert (student.folder / "last.keras").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--set=batch_size",), ("--set needs field=value", "--set=batch_size")),
        (
            ("--set=batchsize=3",),
            ("no field 'batchsize'", "Did you mean 'batch_size'?"),
        ),
        (("--set=batch_size=many",), ("`batch_size` must be", "batch_size='many'")),
        (("--recipe=digits_plan",), ("`recipe` must be", "Did you mean 'digits_plai")),
        (("--recipe=none.json",), ("none.json",)),
        (("--epochs=0",), ("`epochs` must be", "epochs=0")),
        (("--dataset=nowhere",), ("There is no folder 'nowhere'", "'digits'")),
        (
            ("--set=image_size=30",),
            ("multiple of `patch_size`", "image_size=(30, 30)", "patch_size=4"),
        ),
        (("--set=batch_size=2000",), ("`batch_size`", "the 1438 images of 'digits'")),
        (("--kind=hard",), ("`teacher_cache` must be", "--teacher", "train_teacher")),
        (("--teacher_cache=nowhere",), ("There is no", "'nowhere'")),
        (
            ("--teacher=a.keras", "--teacher_cache=b", "--train_teacher=all"),
            ("`train_teacher` has a meaning with no `teacher_cache` only",),
        ),
        (
            ("--kind=hard", "--teacher=missing.keras"),
            ("There is no file 'missing.keras'",),
        ),
        (("--set=warmup_epochs=1",), ("`warmup_epochs` must be less than `epochs`",)),
    ],
)
def test_bad_input_ends_in_one_message_and_nothing_is_made(
    refusal, tmp_path, monkeypatch, arguments, parts
):
    monkeypatch.chdir(tmp_path)
    message = refusal("train", *QUICK, f"--output={tmp_path}/run", *arguments)
    for part in parts:
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_all_faults_of_a_recipe_are_in_one_message(refusal, tmp_path):
    output = f"--output={tmp_path}/run"
    message = refusal("train", *QUICK, output, "--set=alpha=2", "--set=seed=x")
    assert len(message.splitlines()) == 2
    assert "`alpha` must be in [0, 1]." in message
    assert "`seed` must be" in message


def test_a_folder_of_one_class_is_refused(refusal, tmp_path, pets):
    (pets / "cat").rename(tmp_path / "cat")
    message = refusal("train", *QUICK, f"--output={tmp_path}/run", f"--dataset={pets}")
    assert "at least two classes" in message
    assert "classes=['dog']" in message
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_is_refused(refusal, tmp_path):
    (tmp_path / "empty").mkdir()
    dataset = f"--dataset={tmp_path}/empty"
    message = refusal("train", *QUICK, f"--output={tmp_path}/run", dataset)
    assert "classes=[]" in message
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_other_classes_is_refused(refusal, tmp_path, pets, teacher):
    message = refusal(
        "train",
        *QUICK,
        f"--output={tmp_path}/run",
        f"--dataset={pets}",
        "--set=batch_size=4",
        "--kind=hard",
        f"--teacher={teacher.folder}/last.keras",
    )
    assert "only 0 of 2 names match: give `teacher_classes`" in message
    assert "labels.txt" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"hello", "half"])
def test_a_teacher_that_cannot_be_read_is_refused(refusal, tmp_path, teacher, content):
    if content == "half":
        content = (teacher.folder / "last.keras").read_bytes()[:3000]
    (tmp_path / "teacher.keras").write_bytes(content)
    flags = ("--kind=hard", f"--teacher={tmp_path}/teacher.keras")
    message = refusal("train", *QUICK, f"--output={tmp_path}/run", *flags)
    assert "A model must be a whole .keras file" in message
    assert f"path='{tmp_path}/teacher.keras'" in message
    assert not (tmp_path / "run").exists()


def test_an_output_under_a_file_is_refused(refusal, tmp_path):
    (tmp_path / "file").write_text("dear reader")
    message = refusal("train", *QUICK, f"--output={tmp_path}/file/run")
    assert "`output` must be a folder that can be written" in message
    assert (tmp_path / "file").read_text() == "dear reader"


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        ("--set=variant=t2t_vit_micro_32",),
        (
            "--set=variant=t2t_vit_micro_32",
            '--set=model_overrides={"attention": "transformer", "keep_rate": 0.7}',
        ),
        ('--set=model_overrides={"keep_rate": 0.5, "reorganize_at": [1, 2]}',),
    ],
    ids=["t2t_performer", "evit_t2t_transformer", "evit"],
)
def test_each_kind_of_tokens_learns_the_digits(run_program, tmp_path, model):
    training = ("--epochs=4", "--set=warmup_epochs=1", f"--output={tmp_path}/run")
    done = run_program("train", "--recipe=digits_plain", *model, *training)
    assert (done.code, done.err) == (0, "")
    scores = json.loads((tmp_path / "run" / "result.json").read_text())["scores"]
    assert scores["class"]["top1"] > 0.3  # by chance 0.1
