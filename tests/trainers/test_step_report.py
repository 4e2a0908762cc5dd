import json

import pytest
from PIL import Image

from trainers._contest import Contest
from trainers._step_report import rows_of, write_step_report

MIB = 2**20
TASKS = {"import": 1, "build": 2}


def said(*seconds, mib):
    return [
        {
            **{"items": 2, "seconds": 9.0, "cpu_seconds": own, "others": 0.25},
            "peak_bytes": mib * MIB,
        }
        for own in seconds
    ]


ROUNDS = {
    ("ours", "import"): said(1.0, 3.0, mib=50),
    ("ours", "build"): said(0.001, 0.001, mib=60),
    ("theirs", "import"): said(2.0, 4.0, mib=200),
}
CONTEST = Contest(ROUNDS, {"ours": {}, "theirs": {}}, left_out={"x": "no compiler"})


def test_ratios_of_time_and_memory_by_hand():
    first, build, theirs = rows_of(CONTEST, TASKS, "theirs", "cpu_seconds")
    # 1 / 2 and 3 / 4 in the rounds; rates of 2 and 2 / 3 an item, 1.33 in the middle,
    # so 0.75 s; theirs are 1 and 1 / 2, so 0.75.
    ratio = {"of_medians": 0.5625, "p10": 0.525, "p90": 0.725}
    assert first["time_ratio"] == pytest.approx(ratio)
    assert first["milliseconds"] == pytest.approx(750)
    assert first["memory_ratio"]["of_medians"] == 0.25
    assert build["milliseconds"] == pytest.approx(1)  # of two items
    assert (build["time_ratio"], build["memory_ratio"]) == (None, None)
    assert theirs["time_ratio"]["of_medians"] == 1


def test_a_table_for_each_task_a_file_and_a_picture(tmp_path, capsys, rows_of):
    output = tmp_path / "it.json"
    for with_memory in (True, False):
        heading = {"title": "Start", "settings": {"rounds": 2}, "tasks": TASKS}
        heading["with_memory"] = with_memory
        write_step_report(CONTEST, heading, "theirs", "cpu_seconds", output)
        out = capsys.readouterr().out
        first, second = out.split("Start: build;")
        assert "Start: import; medians of 2 rounds" in first
        heads, ours, theirs = rows_of(first)
        memory = {True: ["50", "0.25"], False: []}[with_memory]
        assert ours == ["ours", "750", "0.56 (0.53 - 0.72)", *memory, "25%"]
        assert rows_of(second)[1][:3] == ["ours", "1", ""]
        assert len(heads) == len(theirs) == len(ours)
        assert ("peak MiB: the most" in out) == with_memory
        assert "x is left out: no compiler" in out
    record = json.loads(output.read_text())
    assert (record["baseline"], len(record["rows"])) == ("theirs", 3)
    with Image.open(output.with_suffix(".png")) as picture:
        assert picture.size[0] > 1000


def test_when_all_failed_the_files_say_so(tmp_path, capsys):
    output = tmp_path / "it.json"
    heading = {"title": "Start", "settings": {"rounds": 2}, "tasks": TASKS}
    heading["with_memory"] = True
    write_step_report(Contest(), heading, "theirs", "cpu_seconds", output)
    assert json.loads(output.read_text())["rows"] == []
    assert "ratio: to" not in capsys.readouterr().out
