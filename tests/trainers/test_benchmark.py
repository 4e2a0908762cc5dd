import ast
import json
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from trainers import benchmark
from trainers._contest import Contest, Contestant
from trainers._contest_report import what_limits, write_report
from trainers._contestants import MODULES
from trainers._contestants.photographs import write_photographs

STEP = """
    import time

    PACKAGES = ()
    PATH = ("step",)

    def tasks():
        def step():
            end = time.process_time() + HUNDREDTHS / 100
            while time.process_time() < end:
                pass
            return 8

        return {"step": lambda: step}
"""

# Two stages that take a hundredth and three hundredths of a second of work.
WORKER = """
    import time

    PACKAGES = ("numpy",)
    PATH = ("read", "all")

    def tasks(hundredths=(1, 3)):
        def work(number):
            def step():
                end = time.process_time() + number / 100
                while time.process_time() < end:
                    pass
                return 1

            return step

        read, whole = hundredths
        return {"read": lambda: work(read), "all": lambda: work(whole)}
"""


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """`plan(what, **codes)`: its contestants are modules of that code."""

    def planned(what="input", /, **codes):
        contestants = []
        for name, code in codes.items():
            module = tmp_path / f"{name}.py"
            module.write_text(textwrap.dedent(code))
            contestants.append(Contestant(name, module))

        def made_up(values, settings, folder):
            return "Made up", "cpu_seconds", contestants

        monkeypatch.setitem(benchmark.PLANS, what, made_up)
        return tmp_path / "out" / f"{what}.json"

    return planned


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


def said(items, cpu_seconds):
    return {
        "items": items,
        "cpu_seconds": cpu_seconds,
        "seconds": 1.0,
        "others": 0.25,
    }


@pytest.fixture
def taught(tmp_path, capsys, rows_of):
    """`taught(rounds)`: the table, the lines below and the file of such a contest."""

    def report(rounds, **more):
        paths = {name: ["step"] for name, _ in rounds}
        contest = Contest(rounds, dict.fromkeys(paths, {}), paths, **more)
        heading = {"title": "Made up", "settings": {"rounds": 2, "batch_size": 8}}
        output = tmp_path / "distillation.json"
        write_report(contest, heading, "no teacher", "cpu_seconds", output, "time")
        out = capsys.readouterr().out
        return rows_of(out), out, json.loads(output.read_text())

    return report


def test_what_a_teacher_costs_by_hand(taught):
    # Seconds an image: 0.25 and 0.5 without teacher, 0.75 and 0.5 with it, so that the
    # ratios are 3 and 1: 2 in the middle, 1.2 and 2.8 on the way. In the middle it has
    # (8 / 6 + 16 / 8) / 2 = 5 / 3 images a second, 4.8 s for a step of 8.
    rows, out, record = taught(
        {
            ("no teacher", "step"): [said(8, 2.0), said(8, 4.0)],
            ("live teacher", "step"): [said(8, 6.0), said(16, 8.0)],
        }
    )
    assert rows == [
        ["contestant", "ms/step", "images/s", "others", "time, ratio", "10 - 90 %"],
        ["no teacher", "2,667", "3.0", "25%", "1.000", "1.000 - 1.000"],
        ["live teacher", "4,800", "1.7", "25%", "2.000", "1.200 - 2.800"],
    ]
    assert out.splitlines()[-3:-1] == [
        "others: the share of the core that other programs took meanwhile",
        "time, ratio: of ms/step to no teacher in the same round",
    ]
    assert record["limits"] is None
    live = record["rows"][1]
    assert live["time_ratio"] == pytest.approx({"median": 2, "p10": 1.2, "p90": 2.8})
    assert live["ratio"]["median"] == pytest.approx((1 / 3 + 1) / 2)


def test_without_the_step_without_teacher_there_are_no_ratios(taught):
    rows, out, record = taught(
        {("live teacher", "step"): [said(8, 1.0), said(8, 1.0)]},
        missing={"no teacher": ["keras"]},
    )
    assert rows[1] == ["live teacher", "1,000", "8.0", "25%", "", ""]
    assert "no teacher is left out: not installed: keras" in out
    assert "time, ratio: of" not in out
    assert record["rows"][0]["time_ratio"] is None


def test_distillation_compares_times(plan, run_program, rows_of):
    codes = {
        "no teacher": STEP.replace("HUNDREDTHS", "1"),
        "live teacher": STEP.replace("HUNDREDTHS", "3"),
    }
    output = plan("distillation", **codes)
    done = run_program(
        "benchmark", "--what=distillation", "--quick", f"--output={output}"
    )
    assert done.code == 0, done.err
    _, none, live = rows_of(done.out)
    assert (none[0], none[4]) == ("no teacher", "1.000")
    assert (live[0], round(float(live[4]))) == ("live teacher", 3)
    assert "What limits" not in done.out
    assert output.with_suffix(".png").is_file()
    assert set(json.loads(output.read_text())["settings"]) == {
        *("rounds", "seconds", "batch_size", "student", "teacher")
    }


@pytest.fixture
def contest_of(monkeypatch, run_program, tmp_path):
    """`contest_of(*flags)`: contestants, rounds and title of --what=distillation."""

    def asked(*flags):
        found = []

        def run_contest(contestants, rounds, seconds, tell):
            found.append((contestants, rounds))
            return Contest()

        monkeypatch.setattr("trainers._contest.run_contest", run_contest)
        output = tmp_path / "distillation.json"
        done = run_program(
            "benchmark", "--what=distillation", f"--output={output}", *flags
        )
        assert done.code == 0, done.err
        return *found[0], json.loads(output.read_text())["title"]

    return asked


def test_contestants_of_distillation_differ_in_the_teacher_alone(contest_of):
    contestants, rounds, title = contest_of()
    assert rounds == 25
    assert title == (
        "A training step on one core, batches of 8: deit_tiny_distilled_patch16_224 "
        "taught by regnety_160"
    )
    assert {c.module for c in contestants} == {MODULES / "distillation.py"}
    arguments = {c.name: dict(c.arguments) for c in contestants}
    assert {name: own.pop("teaching") for name, own in arguments.items()} == {
        "no teacher": "none",
        "live teacher": "live",
        "cached, all": "all",
        "cached, 16": 16,
        "cached, hard": "hard",
    }
    folders = {own.pop("folder") for own in arguments.values()}
    assert len(folders) == 5
    same = {
        "student": "deit_tiny_distilled_patch16_224",
        "teacher": "regnety_160",
        "batch_size": 8,
    }
    assert all(own == same for own in arguments.values())


def test_distillation_is_quick_with_small_models(contest_of):
    contestants, rounds, title = contest_of("--quick")
    assert rounds == 3
    assert title == (
        "A training step on one core, batches of 8, small models: "
        "deit_micro_distilled_patch4_32 taught by regnety_micro_32"
    )
    assert contestants[0].arguments["student"] == "deit_micro_distilled_patch4_32"
    flags = ("--student=deit_small_patch16_224", "--teacher=regnety_032")
    contestants, rounds, title = contest_of(
        "--quick", "--rounds=5", "--batch_size=2", *flags
    )
    assert rounds == 5
    assert title == (
        "A training step on one core, batches of 2: deit_small_patch16_224 taught by "
        "regnety_032"
    )
    own = contestants[1].arguments
    assert (own["student"], own["teacher"], own["batch_size"]) == (
        *("deit_small_patch16_224", "regnety_032", 2),
    )


def test_refuses_flags_that_have_no_meaning(refusal, tmp_path):
    output = f"--output={tmp_path}/out/it.json"
    for flag, value, what, other in (
        ("student", "x", "input", "distillation"),
        ("teacher", "x", "input", "distillation"),
        ("dataset", "x", "distillation", "input"),
        ("peer_python", "x", "distillation", "input"),
    ):
        message = refusal("benchmark", output, f"--what={what}", f"--{flag}={value}")
        assert message == (
            f"`{flag}` has a meaning with --what={other} only. Received: "
            f"{flag}='x', what='{what}'."
        )
    assert not (tmp_path / "out").exists()


def test_refuses_a_distillation_that_it_does_not_know(refusal, tmp_path):
    given = ("benchmark", "--what=distillation", f"--output={tmp_path}/out/it.json")
    message = refusal(*given, "--student=deit_tinny_patch16_224")
    assert message.startswith("`student` must be one of ['deit_base_distilled_")
    assert "Did you mean 'deit_tiny_patch16_224'?" in message
    message = refusal(*given, "--teacher=regnet_160")
    assert "Did you mean 'regnety_160'?" in message
    message = refusal(*given, "--baseline=timm")
    assert message.startswith("`baseline` must be one of ['cached, 16', ")
    message = refusal(*given, "--batch_size=0")
    assert "--batch_size=0: 0 is not a positive integer" in message
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
        *("baseline", "packages", "missing", "errors", "limits", "rows"),
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
    assert record["errors"] == {}
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
            assert set(said) == {"items", "seconds", "cpu_seconds", "others"}


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


def test_made_up_photographs_are_like_those_of_imagenet(tmp_path):
    write_photographs(tmp_path, 4)
    files = sorted(tmp_path.rglob("*.jpg"))
    names = [str(path.relative_to(tmp_path)) for path in files]
    assert names == [
        *("class0/0000.jpg", "class0/0002.jpg", "class1/0001.jpg", "class1/0003.jpg")
    ]
    pixels = np.stack([np.asarray(Image.open(path)) for path in files])
    assert pixels.shape == (4, 375, 500, 3)
    assert 100 < pixels.mean() < 140
    assert 40 < pixels.std() < 65
    assert len({path.read_bytes() for path in files}) == 4
    # ImageNet's of this size have 120 kB in the mean.
    assert all(80_000 < path.stat().st_size < 160_000 for path in files)


def test_images_of_a_dataset_are_taken_evenly(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "MOST_IMAGES", 4)
    dataset, folder = tmp_path / "dataset", tmp_path / "folder"
    folder.mkdir()
    for split, number in (("train", 5), ("val", 1)):
        for name in ("cat", "dog"):
            for index in range(number):
                path = dataset / split / name / f"{index}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(f"{split} {name} {index}".encode())
    (dataset / "labels.csv").write_text("no image")
    assert benchmark._images(str(dataset), 4, folder) == f"4 images of {dataset}"
    linked = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*.jpg")}
    assert linked == {
        "cat/0000.jpg": "train cat 0",
        "cat/0001.jpg": "train cat 3",
        "dog/0002.jpg": "train dog 1",
        "dog/0003.jpg": "train dog 4",
    }


def test_peers_need_neither_tensorflow_nor_this_package():
    def imported(name):
        nodes = ast.walk(ast.parse((MODULES / name).read_text()))
        nodes = list(nodes)
        names = [
            alias.name for x in nodes if isinstance(x, ast.Import) for alias in x.names
        ]
        names += [x.module for x in nodes if isinstance(x, ast.ImportFrom)]
        return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)

    assert imported("worker.py") == set()
    assert imported("timm_input.py") == {"PIL", "timm", "torch"}


@pytest.mark.slow
def test_our_own_input_is_measured_stage_by_stage(run_program, rows_of, tmp_path):
    output = tmp_path / "benchmarks" / "input.json"
    done = run_program("benchmark", "--quick", "--rounds=1", f"--output={output}")
    assert done.code == 0, done.err
    record = json.loads(output.read_text())
    assert record["errors"] == {}
    ours = {r["task"]: r for r in record["rows"] if r["contestant"] == "keras_deit"}
    path = [task for task, row in ours.items() if row["stage_share"] is not None]
    assert path == [
        *("read", "decode the crop", "resize", "flip", "RandAugment", "erasing"),
        *("batch and mix", "recipe"),
    ]
    assert sum(ours[task]["stage_share"] for task in path) == pytest.approx(1)
    assert {t for t in ours if t not in path} == {
        *("decode", "only decode", "only decode the crop", "only resize"),
        *("only RandAugment", "only mix"),
    }
    other = [r for r in record["rows"] if r["contestant"] == "keras_deit, keras-cv"]
    names = {row["task"] for row in other}
    assert names == {"RandAugment", "only RandAugment", "recipe"}
    assert "64 made-up photographs of 500 x 375" in done.out
    assert done.out.splitlines()[-1].startswith("What limits keras_deit: ")


@pytest.mark.slow
def test_a_teacher_is_measured_live_and_cached(run_program, rows_of, tmp_path):
    output = tmp_path / "benchmarks" / "distillation.json"
    flags = ("--quick", "--rounds=1", f"--output={output}")
    done = run_program("benchmark", "--what=distillation", *flags)
    assert done.code == 0, done.err
    record = json.loads(output.read_text())
    assert record["errors"] == {}
    assert {row["task"] for row in record["rows"]} == {"step"}
    assert [row["contestant"] for row in record["rows"]] == list(benchmark.TEACHING)
    assert all(row["rounds"][0]["items"] % 8 == 0 for row in record["rows"])
    assert len(rows_of(done.out)) == 6
