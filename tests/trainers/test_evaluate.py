import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_deit.training import evaluation


def write_class(folder, count):
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / f"{index}.png")


def tables(rows_of, done):
    """The table of the heads and that of the worst classes, without headings."""
    assert (done.code, done.err) == (0, "")
    rows = rows_of(done.out)
    worst = ["class", "images", "top-1", "most often taken for"]
    end = rows.index(worst) if worst in rows else len(rows)
    assert rows[0] == ["head", "top-1", "top-5"]
    return rows[1:end], rows[end + 1 :]


def test_prints_the_scores_of_each_head(run_program, student, rows_of):
    done = run_program(
        "evaluate", f"--model={student.folder}/last.keras", "--dataset=digits"
    )
    rows, worst = tables(rows_of, done)
    # The run itself has measured the same, in batches of another size.
    scores = json.loads((student.folder / "result.json").read_text())["scores"]
    for row, (head, score) in zip(rows, scores.items(), strict=True):
        assert row == [head, *(f"{100 * score[k]:.2f} %" for k in ("top1", "top5"))]
    assert f"{student.folder}/last.keras: 359 images of digits\n" in done.out
    assert "The classes that are known least, by the fused head\n" in done.out
    shares = [float(row[2].removesuffix(" %")) for row in worst]
    assert shares == sorted(shares)


def test_the_precision_is_chosen(run_program, student, rows_of, monkeypatch):
    asked = []
    real = evaluation.frozen
    monkeypatch.setattr(
        evaluation, "frozen", lambda *a: asked.append(a[1:]) or real(*a)
    )
    arguments = ("evaluate", f"--model={student.folder}/last.keras", "--dataset=digits")
    done = run_program(*arguments, "--precision=bfloat16")
    rows, _ = tables(rows_of, done)
    assert [row[0] for row in rows] == ["class", "distillation", "fused"]
    assert asked == [("bfloat16",)]


def test_a_teacher_has_one_head(run_program, teacher, rows_of):
    model = f"--model={teacher.folder}/best.keras"
    done = run_program("evaluate", model, "--dataset=digits", "--batch_size=100")
    assert [row[0] for row in tables(rows_of, done)[0]] == ["class"]
    assert "known least\n" in done.out  # there is no other head to speak of


def test_the_worst_classes_are_named_the_worst_first(
    run_program, rows_of, answering, tmp_path
):
    # Any image is taken for class 1: of three classes two are never known.
    for name, count in (("ant", 2), ("bee", 5), ("cat", 3)):
        write_class(tmp_path / "pets" / name, count)
    flags = answering([0.2, 0.5, 0.3])
    weights = Path(flags[-1].removeprefix("--weights="))
    weights.with_name("labels.txt").write_text("ant\nbee\ncat\n")
    arguments = ("evaluate", *flags, f"--dataset={tmp_path}/pets", "--split=all")
    done = run_program(*arguments)
    assert f"deit_micro_patch4_32: 10 images of {tmp_path}/pets\n" in done.out
    scores, worst = tables(rows_of, done)
    assert scores == [["class", "50.00 %", "100.00 %"]]
    assert worst == [["cat", "3", "0.00 %", "bee"], ["ant", "2", "0.00 %", "bee"]]
    assert tables(rows_of, run_program(*arguments, "--worst=1"))[1] == worst[:1]
    assert "known least" not in run_program(*arguments, "--worst=0").out


def test_the_images_are_those_of_the_split(run_program, answering, pets):
    flags = (*answering([0.5, 0.5]), f"--dataset={pets}")
    for split, count in (("all", 20), ("train", 16), ("validation", 4)):
        done = run_program("evaluate", *flags, f"--split={split}")
        assert f": {count} images of " in done.out
    assert ": 4 images of " in run_program("evaluate", *flags).out


def test_a_folder_with_validation_images_alone_is_enough(
    run_program, rows_of, answering, tmp_path
):
    for name, count in (("ant", 3), ("bee", 1)):
        write_class(tmp_path / "pets" / "val" / name, count)
    flags = (*answering([0.9, 0.1]), f"--dataset={tmp_path}/pets")
    scores, worst = tables(rows_of, run_program("evaluate", *flags))
    assert scores == [["class", "75.00 %", "100.00 %"]]
    assert worst == [["1", "1", "0.00 %", "0"]]


@pytest.fixture(scope="module")
def of_imagenet(answering):
    """A model of 1000 classes for which any image is a tabby, or else class 999."""
    shares = np.full(1000, 0.1 / 995)
    shares[[281, 999, 1, 2, 3]] = (0.5, 0.2, 0.08, 0.07, 0.05)
    return answering(shares)


def test_folders_called_by_wordnet_ids_have_the_labels_of_imagenet(
    run_program, rows_of, of_imagenet, tmp_path, names_of_imagenet
):
    # Classes 281, 0 and 999; in the folder they are 1, 0 and 2.
    for name, count in (("n02123045", 4), ("n01440764", 1), ("n15075141", 3)):
        write_class(tmp_path / "some" / name, count)
    flags = (*of_imagenet, f"--dataset={tmp_path}/some", "--split=all")
    scores, worst = tables(rows_of, run_program("evaluate", *flags))
    assert scores == [["class", "50.00 %", "87.50 %"]]
    assert worst == [
        ["animal 999", "3", "0.00 %", "animal 281"],
        ["animal 0", "1", "0.00 %", "animal 281"],
    ]


def test_a_model_of_imagenet_is_not_evaluated_on_other_classes(
    refusal, of_imagenet, pets
):
    message = refusal("evaluate", *of_imagenet, f"--dataset={pets}")
    assert "called by their WordNet ids" in message
    assert message.endswith(f"dataset='{pets}', unknown=['cat', 'dog'].")


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
    assert message.startswith(
        "10 of 10 images cannot be decoded; remove, repair or skip"
    )
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
        (("--dataset=digits", "--worst=-1"), "--worst=-1"),
        (("--dataset=digits", "--precision=int8"), "--precision=int8"),
    ],
)
def test_bad_input_ends_in_one_message(refusal, student, arguments, part):
    model = f"--model={student.folder}/last.keras"
    assert part in refusal("evaluate", model, *arguments)


def test_a_model_that_is_not_there_or_no_model_is_refused(refusal, tmp_path):
    def message(name):
        return refusal("evaluate", f"--model={tmp_path}/{name}", "--dataset=digits")

    assert f"There is no file '{tmp_path}/m.keras'." in message("m.keras")
    assert "must be a .keras file, or the name of a variant" in message("m.txt")
    (tmp_path / "m.keras").write_text("hello")
    assert "A model must be a whole .keras file" in message("m.keras")
    assert f"path='{tmp_path}/m.keras'" in message("m.keras")
