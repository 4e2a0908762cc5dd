import csv
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_deit.training.report import (
    percent,
    plot_curves,
    print_scores,
    print_table,
    read_history,
    write_per_class,
    write_views,
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


def test_an_empty_cell_is_not_a_number(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,val_loss,loss\n0,,2.5\n1,0.5,2.25\n")
    history = read_history(path)
    assert history["epoch"] == [0.0, 1.0]
    assert history["loss"] == [2.5, 2.25]
    assert math.isnan(history["val_loss"][0])
    assert history["val_loss"][1] == 0.5


def test_a_row_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,val_loss,loss\n0,3,2.5\n1,0.")
    assert read_history(path) == {"epoch": [0], "val_loss": [3], "loss": [2.5]}


@pytest.mark.parametrize(
    ("text", "expected"), [("", {}), ("epoch,loss\n", {"epoch": [], "loss": []})]
)
def test_before_the_first_epoch_a_history_has_no_numbers(tmp_path, text, expected):
    path = tmp_path / "history.csv"
    path.write_text(text)
    assert read_history(path) == expected


def test_a_history_of_words_is_refused_by_name(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss\n0,much\n")
    with pytest.raises(ValueError, match="history.csv must hold numbers: .*'much'"):
        read_history(path)


def test_curves_may_have_gaps(tmp_path):
    history = HISTORY | {"val_loss": [math.nan, 1.5], "val_accuracy": [math.nan] * 2}
    plot_curves({"run": history}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


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


def test_the_accuracy_of_each_class_is_worked_out_by_hand(tmp_path):
    # Of four cats one is taken for a dog and one for an eel, of two dogs none.
    confusion = Counter({(0, 0): 2, (0, 1): 1, (0, 2): 1, (1, 1): 2, (3, 0): 1})
    path = tmp_path / "per_class.csv"
    write_per_class(confusion, ["cat", "dog", "eel", "fox"], path)
    assert path.read_text().splitlines() == [
        "class,images,top1,mistaken_for",
        "cat,4,0.5,dog",
        "dog,2,1.0,",
        "eel,0,,",
        "fox,1,0.0,cat",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["per_class.csv"]
    assert set(confusion) == {(0, 0), (0, 1), (0, 2), (1, 1), (3, 0)}


def test_any_name_of_a_class_comes_back(tmp_path):
    names = ["a, b", 'say "c"', "two\nlines", "größer <&>", ""]
    path = tmp_path / "per_class.csv"
    write_per_class(Counter({(i, (i + 1) % 5): 1 for i in range(5)}), names, path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == names
    assert [row["mistaken_for"] for row in rows] == [*names[1:], names[0]]


def test_classes_without_a_single_image_are_written_too(tmp_path):
    write_per_class(Counter(), ["a"], tmp_path / "per_class.csv")
    assert (tmp_path / "per_class.csv").read_text().splitlines()[1:] == ["a,0,,"]


@pytest.mark.parametrize("pair", [(2, 0), (0, 2)])
def test_a_class_without_a_name_is_refused(tmp_path, pair):
    rule = "`class_names` must name every class. Received: names=2, largest_label=2"
    with pytest.raises(ValueError, match=rule):
        write_per_class(Counter({pair: 1}), ["a", "b"], tmp_path / "per_class.csv")
    assert list(tmp_path.iterdir()) == []


def pixels_of(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_small_views_are_enlarged_to_whole_squares(tmp_path):
    views, names = noise(6, 32, 16, 3), ["a", "b"]
    write_views(views, np.eye(2)[[0, 1] * 3], names, tmp_path / "views.png")
    pixels = pixels_of(tmp_path / "views.png")
    # 16 pixels become 192 (a factor of 12, next to 200), the rows 384. There are two
    # rows of four; between two views 12 pixels, below them one line of 20.
    assert pixels.shape == (2 * (384 + 20) + 12, 4 * 192 + 3 * 12, 3)
    for index, view in enumerate(views):
        top, left = index // 4 * (384 + 20 + 12), index % 4 * (192 + 12)
        shown = pixels[top : top + 384, left : left + 192]
        np.testing.assert_array_equal(shown[::12, ::12], view)
        np.testing.assert_array_equal(shown[11::12, 11::12], view)
        below = pixels[top + 384 : top + 404, left : left + 192]
        assert below.min() < 100  # the caption
    assert pixels[:, 192:204].min() == 255
    assert pixels[416:, 2 * 204 :].min() == 255  # there is no seventh view


@pytest.mark.parametrize(("size", "count", "across"), [(224, 2, 2), (384, 1, 1)])
def test_large_views_are_shown_as_they_are(tmp_path, size, count, across):
    views = noise(count, size, size, 3)
    write_views(views, np.eye(3)[:count], ["a", "b", "c"], tmp_path / "views.png")
    pixels = pixels_of(tmp_path / "views.png")
    assert pixels.shape[:2] == (size + 20, across * size + 12 * (across - 1))
    np.testing.assert_array_equal(pixels[:size, :size], views[0])


def test_no_more_than_sixteen_views_are_shown(tmp_path):
    views, pixels = noise(20, 32, 32, 3), []
    for count in (16, 20):
        labels = np.ones((count, 1))
        write_views(views[:count], labels, ["a"], tmp_path / "views.png")
        pixels.append(pixels_of(tmp_path / "views.png"))
    np.testing.assert_array_equal(*pixels)


@pytest.fixture
def captions(monkeypatch, tmp_path):
    """What is written below one view."""
    from matplotlib.figure import Figure

    said, draw = [], Figure.text

    def note(self, x, y, text, **options):
        said.append(text)
        return draw(self, x, y, text, **options)

    def of(label, names):
        said.clear()
        write_views(noise(1, 32, 32, 3), [label], names, tmp_path / "views.png")
        return said

    monkeypatch.setattr(Figure, "text", note)
    return of


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ([0.28, 0.62, 0.1], "cat 0.62, dog 0.28"),
        ([0, 1, 0], "cat 1.00"),
        ([0.02, 0.96, 0.02], "cat 0.96"),  # smoothed: dog and eel are alike
        ([0.04, 0.94, 0.02], "cat 0.94, dog 0.04"),
        ([0.5, 0.5, 0], "dog 0.50, cat 0.50"),
        ([0.3, 0.7], "cat 0.70, dog 0.30"),
        ([0.0, 1.0], "cat 1.00"),
        ([1.0], "dog 1.00"),
    ],
)
def test_a_caption_names_the_largest_shares(captions, label, expected):
    names = ["dog", "cat", "eel"][: len(label)]
    assert captions(label, names) == [expected]


def test_a_caption_fits_below_its_view(captions):
    # 192 pixels have room for 21 letters; a share takes five of them, a comma one.
    assert captions([0.6, 0.4], ["nine more", "b"]) == ["nine more 0.60,\nb 0.40"]
    assert captions([0.6, 0.4], ["eight ab", "b"]) == ["eight ab 0.60, b 0.40"]
    names = ["a name of sixteen letters", "fifteen letters"]
    assert captions([0.6, 0.4], names) == [
        "a name of sixt… 0.60,\nfifteen letters 0.40"
    ]


def test_two_lines_of_a_caption_have_room(tmp_path):
    names = ["a name of sixteen letters", "another long name"]
    write_views(noise(1, 32, 32, 3), [[0.6, 0.4]], names, tmp_path / "views.png")
    pixels = pixels_of(tmp_path / "views.png")
    assert pixels.shape == (192 + 2 * 20, 192, 3)
    for top in (192, 212):
        assert pixels[top : top + 20].min() < 100
    assert pixels[192:, -4:].min() == 255  # and on their right
    assert pixels[-2:].min() == 255  # and below


@pytest.mark.parametrize("name", ["$x_{$", "\\frac", "犬", "<b>", "%s"])
def test_any_name_can_be_drawn(tmp_path, name):
    write_views(noise(1, 32, 32, 3), [[1.0]], [name], tmp_path / "views.png")
    assert pixels_of(tmp_path / "views.png")[192:].min() < 150


def test_the_same_views_give_the_same_bytes(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        write_views(noise(2, 32, 32, 3), np.eye(2), ["a", "b"], path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
    assert b"matplotlib" not in paths[0].read_bytes()  # nor its address


@pytest.mark.parametrize(
    ("views", "labels", "rule"),
    [
        (noise(2, 8, 8), np.eye(2), r"`images` must be uint8 \(n, H, W, 3\). Rec"),
        (noise(2, 8, 8, 1), np.eye(2), r"`images` must be uint8 \(n, H, W, 3\). Rec"),
        (np.zeros((2, 8, 8, 3)), np.eye(2), "`images` must be uint8 .* dtype='float64"),
        (noise(2, 8, 8, 3), np.eye(3)[:2], r"`labels` must be \(n, Y\), for at least"),
        (noise(2, 8, 8, 3), np.eye(2)[:1], r"`labels` must be \(n, Y\), for at least"),
        (noise(2, 8, 8, 3), [0, 1], r"`labels` must be \(n, Y\), for at least"),
        (noise(0, 8, 8, 3), np.eye(2)[:0], "for at least one view .* images=0"),
    ],
)
def test_views_and_labels_that_do_not_fit_are_refused(tmp_path, views, labels, rule):
    with pytest.raises(ValueError, match=rule):
        write_views(views, labels, ["a", "b"], tmp_path / "views.png")
    assert list(tmp_path.iterdir()) == []
