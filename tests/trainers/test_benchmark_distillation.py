import json

import pytest

from tests.trainers.made_up_contests import STEP, planned
from trainers._benchmark_distillation import TEACHING
from trainers._contest import Contest
from trainers._contest_report import OF_WHAT, write_report
from trainers._contestants import MODULES


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
    # Images a second: 4 and 2 without teacher, 3 in the middle; 8 / 6 and 16 / 8 with
    # it, 5 / 3 in the middle, 4.8 s for a step of 8. Seconds are 3 times and once those
    # without in the two rounds: 1.2 and 2.8 on the way.
    rows, out, record = taught(
        {
            ("no teacher", "step"): [said(8, 2.0), said(8, 4.0)],
            ("live teacher", "step"): [said(8, 6.0), said(16, 8.0)],
        }
    )
    assert rows == [
        ["contestant", "ms/step", "images/s", "others", "time, ratio", "10 - 90 %"],
        ["no teacher", "2,667", "3.0", "25%", "1.000", "1.000 - 1.000"],
        ["live teacher", "4,800", "1.7", "25%", "1.800", "1.200 - 2.800"],
    ]
    assert out.splitlines()[-3:-1] == [
        "others: the share of the core that other programs took meanwhile",
        f"time, ratio: of ms/step to no teacher; {OF_WHAT}",
    ]
    assert record["limits"] is None
    live = record["rows"][1]
    expected = {"of_medians": 1.8, "p10": 1.2, "p90": 2.8}
    assert live["time_ratio"] == pytest.approx(expected)
    assert live["ratio"]["of_medians"] == pytest.approx(1 / 1.8)


def test_without_the_step_without_teacher_there_are_no_ratios(taught):
    rows, out, record = taught(
        {("live teacher", "step"): [said(8, 1.0), said(8, 1.0)]},
        missing={"no teacher": ["keras"]},
    )
    assert rows[1] == ["live teacher", "1,000", "8.0", "25%", "", ""]
    assert "no teacher is left out: not installed: keras" in out
    assert "time, ratio: of" not in out
    assert record["rows"][0]["time_ratio"] is None


def test_distillation_compares_times(monkeypatch, tmp_path, run_program, rows_of):
    codes = {
        "no teacher": STEP.replace("HUNDREDTHS", "1"),
        "live teacher": STEP.replace("HUNDREDTHS", "3"),
    }
    output = planned(monkeypatch, tmp_path, "distillation", codes)
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

        def run_contest(contestants, rounds, seconds, tell, all_cores, tasks):
            assert (all_cores, tasks) == (False, None)
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


@pytest.mark.slow
def test_a_teacher_is_measured_live_and_cached(run_program, rows_of, tmp_path):
    output = tmp_path / "benchmarks" / "distillation.json"
    flags = ("--quick", "--rounds=1", f"--output={output}")
    done = run_program("benchmark", "--what=distillation", *flags)
    assert done.code == 0, done.err
    record = json.loads(output.read_text())
    assert record["errors"] == {}
    assert {row["task"] for row in record["rows"]} == {"step"}
    assert [row["contestant"] for row in record["rows"]] == list(TEACHING)
    assert all(row["rounds"][0]["items"] % 8 == 0 for row in record["rows"])
    assert len(rows_of(done.out)) == 6
