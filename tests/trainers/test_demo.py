import re

import pytest

from trainers.demo import EXAMPLES


def test_the_examples_are_where_the_demo_looks_for_them():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert {"classify_saved_model.py", "classify_tflite.py"} <= scripts


def test_epochs_that_are_no_good_are_refused_before_anything_is_made(refusal, tmp_path):
    places = (f"--output={tmp_path}/runs", f"--artifacts={tmp_path}/models")
    message = refusal("demo", "--epochs=0", *places)
    assert "`epochs` must be a whole number of at least 1." in message
    assert list(tmp_path.iterdir()) == []


def test_without_the_examples_the_demo_says_so(refusal, tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.demo.EXAMPLES", tmp_path / "examples")
    message = refusal("demo", f"--output={tmp_path}/runs")
    assert message == "The demo needs the repository, with its examples/."


@pytest.mark.slow
def test_the_demo_walks_from_the_digits_to_the_artifacts(
    run_program, tmp_path, rows_of
):
    runs, models = tmp_path / "runs", tmp_path / "models" / "digits"
    done = run_program(
        "demo", "--epochs=1", f"--output={runs}", f"--artifacts={models}"
    )
    assert done.code == 0, done.err
    _, _, table = done.out.partition("Held-out digits, weights of the last epoch")
    rows = rows_of(table)
    assert rows[0] == ["model", "head", "top-1", "top-5", "parameters", "images/s"]
    assert [row[:2] for row in rows[1:]] == [
        ["RegNetY teacher", "class"],
        ["DeiT, labels only", "class"],
        ["DeiT, hard distillation", "class"],
        ["DeiT, hard distillation", "distillation"],
        ["DeiT, hard distillation", "fused"],
    ]
    shares = r"SavedModel ([\d.]+)%, TFLite ([\d.]+)% .* \(in this one: ([\d.]+)%\)"
    served, edge, here = map(float, re.search(shares, done.out).groups())
    assert served == here
    assert abs(edge - here) < 3  # its weights are whole numbers of 8 bits
    assert f"{here:.2f} %" == rows[-1][2]
    for run in ("teacher", "plain", "distilled"):
        assert (runs / run / "result.json").exists()
    assert (runs / "curves.png").exists()
    assert len(list((runs / "images").iterdir())) == 359
    assert sorted(path.name for path in models.iterdir()) == [
        "1",
        "digits.certificate.json",
        "digits.labels.txt",
        "digits.tflite",
    ]
