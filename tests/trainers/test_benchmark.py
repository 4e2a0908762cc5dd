import ast
import json
import sys

import numpy as np
import pytest
from PIL import Image

from tests.trainers.made_up_contests import WORKER, planned
from trainers._contest import Contest
from trainers._contest_report import what_limits, write_report
from trainers._contestants import MODULES
from trainers._contestants.photographs import write_photographs


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """`plan(**codes)`: the contestants of --what=input are modules of that code."""

    def made(**codes):
        return planned(monkeypatch, tmp_path, "input", codes)

    return made


def test_prints_the_table_and_writes_json_and_picture(plan, run_program, rows_of):
    twice = WORKER.replace("(1, 3)", "(2, 6)")
    output = plan(keras_deit=WORKER, timm=twice)
    done = run_program("benchmark", "--quick", f"--output={output}")
    assert done.code == 0
    assert "Loading keras_deit ...\nLoading timm ...\nRound 1 of 3 done" in done.err
    assert "\nMade up; medians of 3 rounds\n" in done.out
    heading, *rows = rows_of(done.out)
    assert heading == [
        *("contestant", "task", "images/s", "us/image", "share", "others", "ratio"),
        "10 - 90 %",
    ]
    assert [row[:2] for row in rows] == [
        ["keras_deit", "read"],
        ["keras_deit", "all"],
        ["timm", "read"],
        ["timm", "all"],
    ]
    assert rows[2][6:] == ["1.00", "1.00 - 1.00"]
    assert done.out.splitlines()[-1].startswith("What limits keras_deit: all, 6")
    assert f"Written: {output} and {output.with_suffix('.png')}" in done.out
    assert sorted(p.name for p in output.parent.iterdir()) == [
        "input.json",
        "input.png",
    ]
    with Image.open(output.with_suffix(".png")) as picture:
        assert picture.size[0] > 1000


def test_refuses_flags_that_have_no_meaning(refusal, tmp_path):
    output = f"--output={tmp_path}/out/it.json"
    for flag, value, what, other in (
        ("student", "x", "input", "distillation or --what=train"),
        ("teacher", "x", "inference", "distillation or --what=train"),
        ("dataset", "x", "distillation", "input or --what=train or --what=all"),
        (
            *("peer_python", "x", "distillation"),
            "input or --what=inference or --what=train or --what=startup or "
            "--what=softsplit or --what=all",
        ),
        (
            *("cores", "all", "distillation"),
            "inference or --what=train or --what=startup or --what=softsplit or "
            "--what=all",
        ),
    ):
        message = refusal("benchmark", output, f"--what={what}", f"--{flag}={value}")
        assert message == (
            f"`{flag}` has a meaning with --what={other} only. Received: "
            f"{flag}='{value}', what='{what}'."
        )
    assert not (tmp_path / "out").exists()


def test_the_json_holds_all_that_is_known(plan, run_program):
    output = plan(keras_deit=WORKER, timm=WORKER.replace("numpy", "no-such-thing"))
    done = run_program("benchmark", "--quick", "--rounds=2", f"--output={output}")
    assert done.code == 0
    assert "timm is left out: not installed: no-such-thing" in done.out
    assert "ratio:" not in done.out
    record = json.loads(output.read_text())
    assert set(record) == {
        *("format", "what", "title", "settings", "date", "machine", "clock"),
        *("baseline", "packages", "missing", "left_out", "errors", "limits", "rows"),
    }
    assert record["format"] == 1
    assert (record["what"], record["title"]) == ("input", "Made up")
    assert record["settings"] == {"rounds": 2, "seconds": 0.2, "batch_size": 32}
    assert set(record["machine"]) == {"processor", "cores", "system"}
    assert record["clock"] == "cpu_seconds"
    assert record["baseline"] is None
    assert record["packages"] == {
        "keras_deit": {"python": sys.version.split()[0], "numpy": np.__version__}
    }
    assert record["missing"] == {"timm": ["no-such-thing"]}
    assert (record["left_out"], record["errors"]) == ({}, {})
    assert (record["limits"]["contestant"], record["limits"]["task"]) == (
        "keras_deit",
        "all",
    )
    for row, task in zip(record["rows"], ("read", "all"), strict=True):
        assert set(row) == {
            *("contestant", "task", "rate", "wall_rate", "microseconds"),
            *("stage_share", "ratio", "others", "rounds"),
        }
        assert (row["contestant"], row["task"]) == ("keras_deit", task)
        assert set(row["rate"]) == set(row["wall_rate"]) == {"median", "p10", "p90"}
        assert row["ratio"] is None
        assert len(row["rounds"]) == 2
        for said in row["rounds"]:
            assert set(said) == {
                *("items", "seconds", "cpu_seconds", "others", "peak_bytes")
            }


def test_one_that_fails_is_reported_by_name_after_the_others(
    plan, run_program, rows_of
):
    failing = "PACKAGES = ()\nPATH = ()\ndef tasks(): raise ValueError('no good')"
    output = plan(keras_deit=WORKER, timm=failing)
    done = run_program("benchmark", "--rounds=1", "--quick", f"--output={output}")
    assert done.code == 1
    assert done.err.endswith(
        "error: Not everything could be measured. timm: ValueError: no good\n"
    )
    assert len(rows_of(done.out)) == 3
    assert json.loads(output.read_text())["errors"] == {"timm": "ValueError: no good"}


def test_when_all_fail_the_files_say_so(plan, run_program):
    failing = "PACKAGES = ()\nPATH = ('a',)\ndef tasks(): raise ValueError('no good')"
    output = plan(timm=failing)
    done = run_program("benchmark", "--quick", f"--output={output}")
    assert done.code == 1
    assert "What limits" not in done.out
    assert json.loads(output.read_text())["limits"] is None
    assert output.with_suffix(".png").is_file()


def test_an_older_file_stays_if_the_new_one_cannot_be_written(tmp_path):
    output = tmp_path / "input.json"
    output.write_text("older")
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_report(
            Contest(), {"title": "", "settings": object()}, "timm", "seconds", output
        )
    assert [p.name for p in tmp_path.iterdir()] == ["input.json"]
    assert output.read_text() == "older"


def test_what_limits_is_the_stage_that_takes_most_of_the_first_contestant():
    def row(contestant, task, share):
        return {"contestant": contestant, "task": task, "stage_share": share}

    rows = [
        row("cut", "all", None),
        row("ours", "read", 0.3),
        row("ours", "decode", 0.5),
        row("ours", "mix", 0.2),
        row("theirs", "all", 1.0),
    ]
    assert what_limits(rows) == row("ours", "decode", 0.5)
    assert what_limits(rows[:1]) is None


def test_refuses_what_it_cannot_measure(plan, refusal, tmp_path):
    one = tmp_path / "one" / "cat"
    write_photographs(tmp_path / "one", 1, num_classes=1)
    assert len(list(one.parent.rglob("*.jpg"))) == 1
    output = f"--output={tmp_path}/out/input.json"
    message = refusal("benchmark", output, f"--dataset={one.parent}", "--quick")
    assert message == (
        "`dataset` must hold at least 32 JPEGs in at least two folders. Received: "
        f"dataset='{one.parent}', images=1, folders=1."
    )
    message = refusal("benchmark", output, f"--peer_python={tmp_path}/python")
    assert message == f"There is no file '{tmp_path}/python'."
    plan(ours=WORKER)
    message = refusal("benchmark", output, "--baseline=our")
    assert message.startswith(
        "`baseline` must be one of ['ours']. Did you mean 'ours'?"
    )
    message = refusal("benchmark", output, "--rounds=0")
    assert "--rounds=0: 0 is not a positive integer" in message
    assert not (tmp_path / "out").exists()


def test_peers_need_neither_tensorflow_nor_this_package():
    def imported(name):
        nodes = ast.walk(ast.parse((MODULES / name).read_text()))
        nodes = list(nodes)
        names = [
            alias.name for x in nodes if isinstance(x, ast.Import) for alias in x.names
        ]
        names += [x.module for x in nodes if isinstance(x, ast.ImportFrom)]
        return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)

    ours = {"trainers"}  # only what stands beside them
    assert imported("left_out.py") == set()
    assert imported("worker.py") == ours
    assert imported("start.py") == ours  # what it measures is imported by name
    assert imported("timm_input.py") == {"PIL", "timm", "torch"}
    assert imported("answers.py") == {"numpy"}
    assert imported("soft_splits.py") == {"numpy"}
    assert imported("torch_softsplit.py") == {"torch"} | ours
    assert imported("timm_model.py") == {"safetensors", "timm", "torch"}
    assert imported("timm_inference.py") == {"timm", "torch"} | ours
    converted = {"openvino", "torch"} | ours
    assert imported("openvino_timm_inference.py") == converted
    own = {"tensorflow", "keras_hub"} | ours
    assert imported("keras_hub_inference.py") == own
    assert imported("keras_hub_model.py") == {"keras_hub"}
