import json

import pytest
from PIL import Image

from trainers._contest import Contest
from trainers._contest_report import OF_WHAT
from trainers._inference_report import curves_of, rows_of, write_inference_report


def case(keep_rate, batch_size, gmacs):
    facts = {"keep_rate": keep_rate, "batch_size": batch_size, "gmacs": gmacs}
    return {"variant": "small", **facts, "pixels": "somewhere.npy"}


def said(*seconds):
    """A round for each: four images in so many seconds."""
    return [
        {"items": 4, "cpu_seconds": own, "seconds": 9.0, "others": 0.5}
        for own in seconds
    ]


CASES = {"whole": case(1.0, 2, 4.0), "half": case(0.5, 2, 1.0), "one": case(0.5, 1, 1)}
# Images a second: timm 1 and 2; fast 4 and 4 with all tokens, 8 and 16 with half.
ROUNDS = {
    ("timm", "whole"): said(4.0, 2.0),
    ("fast", "whole"): said(1.0, 1.0),
    ("fast", "half"): said(0.5, 0.25),
    ("fast", "one"): said(0.5, 0.25),
}


def test_ratios_by_hand():
    rows = rows_of(Contest(ROUNDS), CASES, "timm", "cpu_seconds")
    assert [(row["contestant"], row["task"]) for row in rows] == list(ROUNDS)
    timm, whole, half, one = rows
    assert (half["variant"], half["keep_rate"], half["gmacs"]) == ("small", 0.5, 1.0)
    # To timm with all tokens, 1.5 in the middle: 4, 12; in the rounds 4 / 1 and 4 / 2.
    assert timm["ratio"]["of_medians"] == 1
    expected = {"of_medians": 4 / 1.5, "p10": 2.2, "p90": 3.8}
    assert whole["ratio"] == pytest.approx(expected)
    assert half["ratio"]["of_medians"] == 8
    # To itself with all tokens: 8 / 4 and 16 / 4.
    assert half["speed_up"] == pytest.approx({"of_medians": 3, "p10": 2.2, "p90": 3.8})
    assert timm["speed_up"] is None
    assert whole["speed_up"] is None
    # Nobody had all tokens in batches of 1.
    assert (one["ratio"], one["speed_up"]) == (None, None)


def _rows(contest, cases):
    return rows_of(contest, cases, "timm", "cpu_seconds")


def test_curves_rise_with_the_arithmetic_of_each_batch_size():
    rows = rows_of(Contest(ROUNDS), CASES, "timm", "cpu_seconds")
    assert curves_of(rows) == {
        1: {"fast": [(1, 12)]},
        2: {"fast": [(1.0, 12), (4.0, 4)], "timm": [(4.0, 1.5)]},
    }


def test_variants_are_compared_with_themselves():
    cases = {**CASES, "other": {**case(1.0, 2, 9.0), "variant": "large"}}
    rounds = {**ROUNDS, ("fast", "other"): said(1.0, 1.0)}
    assert rows_of(Contest(rounds), cases, "timm", "cpu_seconds")[-1]["ratio"] is None


def test_the_second_variant_is_compared_with_the_first(tmp_path, capsys, request):
    # The first has 4 and 4 images a second with all tokens, 8 and 16 with half.
    other = {"variant": "large"}
    cases = {**CASES, "other": {**CASES["whole"], **other}}
    cases.update(
        {"part": {**CASES["half"], **other}, "new": {**case(0.9, 2, 1), **other}}
    )
    rounds = {**ROUNDS, ("fast", "other"): said(2.0, 4.0), ("fast", "part"): said(1, 1)}
    rounds.update({("slow", "other"): said(1, 1), ("fast", "new"): said(1, 1)})
    *first, whole, half, slow, new = _rows(Contest(rounds), cases)
    assert whole["variant_ratio"]["of_medians"] == pytest.approx(1.5 / 4)
    assert half["variant_ratio"]["of_medians"] == pytest.approx(4 / 12)
    assert [row["variant_ratio"] for row in first] == [None] * 4
    assert (slow["variant_ratio"], new["variant_ratio"]) == (None, None)
    heading = {"title": "Inference", "settings": {"rounds": 2}, "cases": cases}
    output = tmp_path / "inference.json"
    write_inference_report(Contest(rounds), heading, "timm", "cpu_seconds", output)
    out = capsys.readouterr().out
    cells = request.getfixturevalue("rows_of")
    heads = [row for row in cells(out) if row[0] == "engine"]
    assert [row[-1] for row in heads] == ["over the first"] * 3
    assert "0.38 (0.28 - 0.47)" in out
    assert "over the first: of images/s to the first of small, large, all" in out


def test_a_table_for_each_batch_size_a_file_and_a_picture(tmp_path, capsys, rows_of):
    contest = Contest(ROUNDS, {"timm": {}, "fast": {}}, missing={"hub": ["keras-hub"]})
    settings = {"rounds": 2, "batch_sizes": [2, 1]}
    heading = {"title": "Inference", "settings": settings, "cases": CASES}
    output = tmp_path / "inference.json"
    write_inference_report(contest, heading, "timm", "cpu_seconds", output)
    out = capsys.readouterr().out
    assert out.index("Inference: small, batch 2; medians of 2 rounds") < out.index(
        "Inference: small, batch 1; medians of 2 rounds"
    )
    assert rows_of(out.partition("batch 1;")[0]) == [
        ["engine", "keep", "GMACs", "images/s", "ms", "ratio (10 - 90 %)"]
        + ["over keep 1 (10 - 90 %)", "others"],
        ["timm", "1", "4", "1.5", "1,333", "1.00 (1.00 - 1.00)", "", "50%"],
        ["fast", "1", "4", "4.0", "500", "2.67 (2.20 - 3.80)", "", "50%"],
        ["fast", "0.5", "1", "12", "167", "8.00 (8.00 - 8.00)"]
        + ["3.00 (2.20 - 3.80)", "50%"],
    ]
    assert f"ratio: of images/s to timm at keep rate 1; {OF_WHAT}\n" in out
    assert "hub is left out: not installed: keras-hub" in out
    record = json.loads(output.read_text())
    assert record["baseline"] == "timm"
    assert record["cases"]["half"] == {
        **{"variant": "small", "keep_rate": 0.5, "batch_size": 2, "gmacs": 1.0}
    }
    assert record["rows"][2]["speed_up"]["of_medians"] == 3
    with Image.open(output.with_suffix(".png")) as picture:
        assert picture.size[0] > 1000


def test_without_the_baseline_there_are_no_ratios(tmp_path, capsys):
    rounds = {key: rounds for key, rounds in ROUNDS.items() if key[0] == "fast"}
    heading = {"title": "Inference", "settings": {"rounds": 2}, "cases": CASES}
    output = tmp_path / "inference.json"
    contest = Contest(rounds, {"fast": {}})
    write_inference_report(contest, heading, "timm", "cpu_seconds", output)
    assert "ratio: of" not in capsys.readouterr().out
    record = json.loads(output.read_text())
    assert record["baseline"] is None
    assert [row["ratio"] for row in record["rows"]] == [None] * 3


def test_when_all_failed_the_files_say_so(tmp_path, capsys):
    heading = {"title": "Inference", "settings": {"rounds": 2}, "cases": CASES}
    output = tmp_path / "inference.json"
    contest = Contest(errors={"fast": "no good"})
    write_inference_report(contest, heading, "timm", "cpu_seconds", output)
    assert json.loads(output.read_text())["rows"] == []
    assert output.with_suffix(".png").is_file()
