import json

import pytest


def test_prints_the_scores_of_each_head(run_program, student, rows_of):
    done = run_program(
        "evaluate", f"--model={student.folder}/last.keras", "--dataset=digits"
    )
    assert (done.code, done.err) == (0, "")
    rows = rows_of(done.out)
    assert rows[0] == ["head", "top-1", "top-5"]
    # The run itself has measured the same, in batches of another size.
    scores = json.loads((student.folder / "result.json").read_text())["scores"]
    for row, (head, score) in zip(rows[1:], scores.items(), strict=True):
        assert row == [head, *(f"{100 * score[k]:.2f} %" for k in ("top1", "top5"))]
    assert "359 images of digits" in " ".join(done.out.split())


def test_a_teacher_has_one_head(run_program, teacher, rows_of):
    model = f"--model={teacher.folder}/best.keras"
    done = run_program("evaluate", model, "--dataset=digits", "--batch_size=100")
    assert [row[0] for row in rows_of(done.out)] == ["head", "class"]


def test_an_unreadable_image_is_named(refusal, student, tmp_path):
    for split in ("train", "val"):
        for digit in "0123456789":
            (tmp_path / split / digit).mkdir(parents=True)
            (tmp_path / split / digit / "1.jpg").write_text("hello")
    (tmp_path / "val" / "0" / "1.jpg").unlink()
    (tmp_path / "val" / "0" / "1.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "val" / "0" / "folder.jpg").mkdir()  # no image, whatever its name
    model = f"--model={student.folder}/last.keras"
    message = refusal("evaluate", model, f"--dataset={tmp_path}")
    assert message.startswith("10 of 10 images cannot be decoded; remove or repair")
    assert f"{tmp_path}/val/0/1.jpg, {tmp_path}/val/1/1.jpg, " in message


def test_refuses_a_dataset_of_other_classes(refusal, student, pets):
    model = f"--model={student.folder}/last.keras"
    message = refusal("evaluate", model, f"--dataset={pets}")
    assert "same classes. Received: model_classes=10, dataset_classes=2" in message


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--dataset=nowhere",), "There is no folder 'nowhere'"),
        (
            ("--dataset=digits", "--batch_size=0"),
            "`batch_size` must be at least 1. Received: batch_size=0.",
        ),
    ],
)
def test_bad_input_ends_in_one_message(refusal, student, arguments, part):
    model = f"--model={student.folder}/last.keras"
    assert part in refusal("evaluate", model, *arguments)


def test_a_model_that_is_not_there_or_no_model_is_refused(refusal, tmp_path):
    def message(name):
        return refusal("evaluate", f"--model={tmp_path}/{name}", "--dataset=digits")

    assert f"There is no file '{tmp_path}/m.keras'." in message("m.keras")
    (tmp_path / "m.txt").write_text("hello")
    assert "A model must be a whole .keras file" in message("m.txt")
    (tmp_path / "m.keras").write_text("hello")
    assert "A model must be a whole .keras file" in message("m.keras")
    assert f"path='{tmp_path}/m.keras'" in message("m.keras")
