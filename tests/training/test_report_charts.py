import math
import re

import pytest

from keras_deit.training.report_charts import (
    COLORS,
    DASHES,
    HEIGHT,
    WIDTH,
    Line,
    histogram,
    line_chart,
    share,
    short,
    ticks,
)
from tests.training.report_runs import Page


def places(chart):
    """The points of each line of a chart, without those of the legend."""
    lines = [
        a["points"] for n, a in Page(chart).elements if n == "polyline" and a["points"]
    ]
    return [
        [tuple(map(float, point.split(","))) for point in points.split()]
        for points in lines
        if not points.startswith("0,4 ")
    ]


def labels(chart, anchor):
    """What stands beside ("end") or below ("middle") the grid, with its place."""
    pattern = r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">(.*?)</text>'
    texts = re.findall(pattern, chart)
    return {
        text: (float(x), float(y)) for x, y, where, text in texts if where == anchor
    }


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.3, 2.1, [0, 0.5, 1, 1.5, 2, 2.5]),
        (1, 14, [0, 5, 10, 15]),
        (1, 300, [0, 100, 200, 300]),
        (0, 1e-3, [0, 2e-4, 4e-4, 6e-4, 8e-4, 1e-3]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (4, 4, [2, 3, 4, 5, 6]),
        (0, 0, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_reach_around_the_numbers(low, high, expected):
    assert ticks(low, high) == expected


def test_numbers_are_written_in_few_digits():
    assert [short(x) for x in (1 / 3, 5e-5, 12.0)] == ["0.3333", "5e-05", "12"]
    assert [share(x) for x in (0.8, 0.97491, 1.0)] == ["80 %", "97.49 %", "100 %"]


def test_the_places_of_points_are_worked_out_by_hand():
    # The grid goes from 0 to 1 in steps of 0.2: 0.1 is in the middle of the first.
    chart = line_chart("Loss", [Line("a", [1, 2, 3], [0.1, 0.4, 1.0])])
    ((first, second, third),) = places(chart)
    assert second[0] - first[0] == third[0] - second[0] > 100
    beside = {text: y - 4 for text, (_, y) in labels(chart, "end").items()}
    assert list(beside) == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert beside["0"] - beside["1"] > 150  # up
    assert first[1] == pytest.approx((beside["0"] + beside["0.2"]) / 2, abs=0.1)
    assert second[1] == pytest.approx(beside["0.4"], abs=0.1)
    assert third[1] == pytest.approx(beside["1"], abs=0.1)
    below = labels(chart, "middle")
    assert list(below) == ["1", "2", "3", "epoch"]
    assert [below[x][0] for x in "123"] == [first[0], second[0], third[0]]
    assert all(0 <= y < below["1"][1] - 10 for y in beside.values())  # in the picture


def test_lines_share_one_grid_and_stay_in_the_picture():
    lines = [Line("a", [1, 2, 3, 4], [1, 2, 3, 4]), Line("b", [1, 2], [-3, 40])]
    a, b = places(line_chart("Loss", lines))
    assert a[0][0] == b[0][0]
    assert a[1][0] == b[1][0]
    assert b[1][1] < a[3][1] < a[0][1] < b[0][1]
    for x, y in a + b:
        assert 0 < x < WIDTH
        assert 0 < y < HEIGHT


def test_the_legend_names_each_line_and_its_last_value():
    lines = [Line("plain", [1, 2], [3.0, 1.25]), Line("other", [1, 2], [3.0, math.nan])]
    text = Page(line_chart("Loss", lines, note="Mind this.")).text
    assert "Loss plain 1.25 other 3 " in text
    assert text.endswith("Mind this.")
    chart = line_chart("Rate", [Line("kept", [1, 2], [1.0, 0.7])], shares=True)
    assert "kept 70 %" in Page(chart).text


def test_a_chart_is_told_in_words_too():
    lines = [Line("a", [1, 2], [3.0, 1.25]), Line("b", [2], [0.5]), Line("c", [], [])]
    (described,) = Page(line_chart("Loss", lines)).attributes("aria-label")
    assert described == (
        "Loss: a from 3 at epoch 1 to 1.25 at epoch 2; "
        "b from 0.5 at epoch 2 to 0.5 at epoch 2."
    )


def test_what_is_not_finite_is_left_out_and_its_neighbors_are_joined():
    y = [1.0, math.nan, 3.0, math.inf]
    (points,) = places(line_chart("Loss", [Line("a", [1, 2, 3, 4], y)]))
    assert len(points) == 2
    chart = line_chart("Loss", [Line("a", [1, 2], [math.nan, math.nan])])
    assert "a no numbers" in Page(chart).text
    assert 'role="img"' not in chart


def test_one_epoch_is_a_point_in_the_middle():
    chart = line_chart("Loss", [Line("a", [1], [2.0])])
    ((x, y),) = places(chart)[0:1][0]
    assert 150 < x < 300
    assert 80 < y < 150
    assert [n for n, _ in Page(chart).elements].count("circle") == 1


def test_points_are_marked_while_they_are_few():
    for count, dots in ((25, 25), (26, 0)):
        chart = line_chart("Loss", [Line("a", range(count), range(count))])
        assert chart.count("<circle") == dots


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_grid_of_shares_ends_at_0_and_1(value):
    chart = line_chart("Share", [Line("a", [1, 2], [value, value])], shares=True)
    written = list(labels(chart, "end"))
    assert all(0 <= float(text.removesuffix(" %")) <= 100 for text in written)
    assert share(value) in written
    for _, y in places(chart)[0]:
        assert 0 < y < HEIGHT


def test_no_two_of_thirty_lines_look_alike():
    lines = [Line(str(i), [1, 2], [i, i + 1]) for i in range(COLORS * DASHES)]
    drawn = [
        a["class"]
        for n, a in Page(line_chart("Loss", lines)).elements
        if n == "polyline" and not a["points"].startswith("0,4 ")
    ]
    assert len(set(drawn)) == len(drawn) == 30
    for first, second in zip(drawn, drawn[1:], strict=False):
        (_, *a), (_, *b) = first.split(), second.split()
        assert a[0] != b[0]  # the color
        assert a[1] != b[1]  # the dashes


def test_a_histogram_is_counted_by_hand():
    shares = [0.0, 0.05, 0.1, 0.95, 1.0, 1.0]
    chart = histogram("Classes", shares, "Six in all.")
    (described,) = Page(chart).attributes("aria-label")
    assert described == ("Classes: 0 % to 10 %: 2; 10 % to 20 %: 1; 90 % to 100 %: 3.")
    columns = [a for n, a in Page(chart).elements if n == "rect"]
    heights = [float(a["height"]) for a in columns]
    assert len(columns) == 10
    assert heights[0] == pytest.approx(2 / 3 * heights[9], abs=0.1)
    assert heights[1] == pytest.approx(1 / 3 * heights[9], abs=0.1)
    assert set(heights[2:9]) == {0}
    for column in columns:
        assert float(column["x"]) > 0
        assert float(column["x"]) + float(column["width"]) < WIDTH
        assert float(column["y"]) > 12  # room for the number above
    assert Page(chart).text.endswith("Six in all.")
    assert list(labels(chart, "middle")) == (
        ["2", "1", "3", "0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]
        + ["top-1 accuracy"]
    )


def test_names_of_lines_are_text():
    chart = line_chart("<i>", [Line("<script>", [1], [1])], note="<i>")
    assert not {"script", "i"} & {name for name, _ in Page(chart).elements}
    assert "<script>" in Page(chart).text
