from pathlib import Path

import pytest
from PIL import Image

from keras_deit.training.report import (
    percent,
    plot_curves,
    print_scores,
    print_table,
    read_history,
)

HISTORY = {
    "loss": [2.0, 1.0],
    "accuracy": [0.1, 0.5],
    "val_loss": [2.1, 1.5],
    "val_accuracy": [0.2, 0.4],
}
DISTILLED = {
    name.replace("accuracy", "fused_accuracy"): values
    for name, values in HISTORY.items()
}


def test_a_share_is_written_as_a_percentage():
    assert percent(0.97222) == "97.22 %"
    assert percent(1) == "100.00 %"


def test_reads_the_numbers_of_each_epoch(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,val_loss\n0,2.5,3\n1,1e-3,2.25\n")
    assert read_history(path) == {
        "epoch": [0.0, 1.0],
        "loss": [2.5, 0.001],
        "val_loss": [3.0, 2.25],
    }


@pytest.mark.parametrize(
    "histories", [{"plain": HISTORY}, {"plain": HISTORY, "distilled": DISTILLED}]
)
def test_draws_the_curves_of_one_run_or_several(tmp_path, histories):
    path = tmp_path / "curves.png"
    plot_curves(histories, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (1320, 480)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


def test_the_curve_of_a_distilled_run_is_that_of_its_fused_heads(tmp_path):
    paths = [tmp_path / "fused.png", tmp_path / "class.png"]
    for path, changes in zip(paths, ({}, {"accuracy": [0.9, 0.9]}), strict=True):
        plot_curves({"run": DISTILLED | changes}, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_prints_a_row_for_each_head(capsys):
    scores = {
        "class": {"top1": 0.9, "top5": 0.99},
        "fused": {"top1": 0.91234, "top5": 1.0},
    }
    print_scores(f"{Path('runs')}/student: validation images", scores)
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines).count("runs/student") == 1
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    assert ["class", "90.00 %", "99.00 %"] in rows
    assert ["fused", "91.23 %", "100.00 %"] in rows
    assert any(
        [cell.strip() for cell in line.split("┃")[1:-1]] == ["head", "top-1", "top-5"]
        for line in lines
    )


def test_a_long_name_is_not_cut(capsys):
    name = "a_name_of_sixty_letters_" + 36 * "x"
    print_table("Title", ("model", "number"), [(name, 1), ("b", 1234)])
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if name in line)
    assert row.endswith("│      1 │")  # numbers are aligned to the right
    assert next(line for line in lines if "│ b " in line).endswith("│   1234 │")
