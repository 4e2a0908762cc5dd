import json
from itertools import product

import pytest
from PIL import Image

from tests.trainers.made_up_contests import WORKER, planned
from trainers import _benchmark_all, _goals
from trainers._benchmark_engines import ENGINES
from trainers._benchmark_settings import MEANT_FOR, WHATS
from trainers._goals import QUICK, THOROUGH, Goal, Part, goals_of, parts_of
from trainers._goals_report import judged, write_goals_report

MIB = 2**20


def said(*seconds, mib=100):
    """A round for each: six images in so many seconds."""
    return [
        {"items": 6, "seconds": 9.0, "cpu_seconds": own, "peak_bytes": mib * MIB}
        for own in seconds
    ]


def row(contestant, rounds, **facts):
    rate = {"median": 3.0 if contestant == "ours" else 2.0}
    return {
        **{"contestant": contestant, "rounds": rounds, "rate": rate, **facts},
        **{"microseconds": 5e5, "peak_bytes": rounds[0]["peak_bytes"]},
    }


def record(*rows, what="train", **notes):
    return {
        **{"what": what, "clock": "cpu_seconds", "settings": {"batch_size": 4}},
        **{"missing": {}, "left_out": {}, "errors": {}, "rows": rows, **notes},
    }


def goal(figure="rate", **bound):
    sides = ({"contestant": name, "task": "step"} for name in ("ours", "theirs"))
    return Goal("a step", "train", *sides, figure=figure, **bound)


# Ours takes 2 and 3 seconds for what takes them 3 and 6: 1.5 and 2 times the rate.
RECORD = record(
    row("ours", said(9.0, 9.0), task="another"),
    row("ours", said(2.0, 3.0, mib=50), task="step"),
    row("theirs", said(3.0, 6.0), task="step"),
)


def test_ratios_by_hand():
    found = judged(goal(least=1.66), {"a": RECORD}, {}, False)
    expected = {"of_medians": 2.5 / 1.5, "p10": 1.55, "p90": 1.95}
    assert found["ratio"] == pytest.approx(expected)
    assert (found["verdict"], found["part"], found["reason"]) == ("met", "a", None)
    assert (found["ours"], found["peer"]) == (3.0, 2.0)
    assert judged(goal(least=1.67), {"a": RECORD}, {}, False)["verdict"] == "not met"
    found = judged(goal("time", most=0.61), {"a": RECORD}, {}, False)
    assert found["ratio"]["of_medians"] == pytest.approx(0.6)
    assert (found["verdict"], found["ours"]) == ("met", 2.0)  # seconds of four images
    assert judged(goal("time", most=0.59), {"a": RECORD}, {}, False)["verdict"] != "met"
    quick = judged(goal(least=1.66), {"a": RECORD}, {}, True)
    assert (quick["verdict"], quick["ratio"]) == ("not judged", pytest.approx(expected))
    found = judged(goal("memory", most=0.5), {"a": RECORD}, {}, False)
    assert (found["ratio"]["of_medians"], found["verdict"]) == (0.5, "met")
    assert (found["ours"], found["peer"]) == (50 * MIB, 100 * MIB)


def test_both_rows_are_of_one_file_of_their_kind():
    ours, theirs = RECORD["rows"][1:]
    apart = {"a": record(ours), "b": record(theirs)}
    assert judged(goal(least=1), apart, {}, False)["verdict"] == "not measured"
    other = {"a": record(ours, theirs, what="input")}
    assert judged(goal(least=1), other, {}, False)["verdict"] == "not measured"
    both = {**apart, "c": RECORD}
    assert judged(goal(least=1), both, {}, False)["part"] == "c"


def test_why_a_goal_was_not_measured():
    def reason(records=None, unwritten=None, is_quick=False, **more):
        found = judged(goal(least=1, **more), records or {}, unwritten or {}, is_quick)
        assert (found["verdict"], found["ratio"]) == ("not measured", None)
        return found["reason"]

    (ours,) = [RECORD["rows"][1]]
    assert reason(never="it is too old") == "it is too old"
    missing = {"theirs": ["timm", "torch"]}
    assert reason({"a": record(ours, missing=missing)}) == "not installed: timm, torch"
    left_out = {"theirs: step": "no compiler"}
    assert reason({"a": record(ours, left_out=left_out)}) == "theirs: no compiler"
    errors = {"theirs": "it broke", "their": "another"}
    assert reason({"a": record(ours, errors=errors)}) == "theirs: it broke"
    unlike = {"theirs_too": "it broke"}
    assert reason({"a": record(ours, errors=unlike)}, is_quick=True) == (
        "--quick leaves it out"
    )
    unwritten = {"b": "train", "c": "input"}
    assert reason({"a": record(ours)}, unwritten=unwritten) == "failed: b"
    assert reason({"a": record(ours)}) == "one of the two has no such model"


@pytest.mark.parametrize("scale", [QUICK, THOROUGH])
def test_every_goal_is_measured_by_a_part(scale):
    parts, goals = parts_of(scale), goals_of(scale)
    assert {part.what for part in parts.values()} <= set(WHATS)
    assert len({g.measure for g in goals}) == len(goals)
    measured = set()
    for part in parts.values():
        given = dict(flag.removeprefix("--").split("=") for flag in part.flags)
        assert all(part.what in MEANT_FOR.get(name, (part.what,)) for name in given)
        if part.what == "inference":
            values = (given[name].split(",") for name in ("variants", "engines"))
            rates, sizes = given["keep_rates"], given["batch_sizes"]
            numbers = (map(float, rates.split(",")), map(int, sizes.split(",")))
            measured |= set(product(*values, *numbers))
    for g in goals:
        assert (g.least is None) != (g.most is None)
        if scale.is_quick:
            continue
        assert any(part.what == g.what for part in parts.values())
        if g.what != "inference" or g.never:
            continue
        for side in (g.ours, g.peer):
            assert side["contestant"] in ENGINES
            assert any(
                (side.get("variant", variant), side["contestant"])
                + (side.get("keep_rate", rate), side.get("batch_size", size))
                == (variant, engine, rate, size)
                for variant, engine, rate, size in measured
            ), g.measure


def test_the_rows_are_the_same_at_every_scale():
    assert [g.measure for g in goals_of(QUICK)] == [
        g.measure for g in goals_of(THOROUGH)
    ]


def test_a_table_a_file_and_a_picture(tmp_path, capsys, rows_of):
    goals = [goal(least=1.5), goal("time", most=0.5), goal("memory", most=2, never="x")]
    output = tmp_path / "out" / "all.json"
    broken = {"b": "it broke"}
    write_goals_report(goals, {"a": RECORD}, broken, {}, False, "all", output)
    out = capsys.readouterr().out
    assert "Goals of speed, all cores\n" in out
    assert "without --quick" not in out
    assert rows_of(out) == [
        ["measure", "ours", "peer", "ratio (10 - 90 %)", "goal", ""],
        ["a step", "3.0 /s", "2.0 /s", "1.67 (1.55 - 1.95)", ">= 1.5", "met"],
        ["a step", "2 s", "2 s", "0.60 (0.52 - 0.65)", "<= 0.5", "not met"],
        ["a step", "", "", "", "<= 2", "not measured"],
    ]
    assert "Not measured: a step: x" in out
    found = json.loads(output.read_text())
    assert found["cores"] == "all"
    assert (found["errors"], found["parts"]) == ({"b": "it broke"}, ["a"])
    assert [r["verdict"] for r in found["rows"]] == ["met", "not met", "not measured"]
    with Image.open(output.with_suffix(".png")) as picture:
        assert picture.size[0] > 1000


@pytest.fixture
def small_table(monkeypatch, tmp_path):
    """A table of one goal of --what=input, and a part that comes to nothing."""
    sides = ({"contestant": name, "task": "all"} for name in ("ours", "theirs"))
    rows = [Goal("input", "input", *sides, least=1.0)]
    parts = {
        "bad": Part("distillation", ("--student=no_such",)),
        "good": Part("input", (), ("ours", "theirs"), ("all", "else")),
    }
    monkeypatch.setattr(_goals, "goals_of", lambda scale: rows)
    monkeypatch.setattr(_goals, "parts_of", lambda scale: parts)
    codes = {"ours": WORKER, "theirs": WORKER.replace("(1, 3)", "(2, 6)")}
    planned(monkeypatch, tmp_path, "input", {**codes, "another": "no code"})
    return tmp_path / "out" / "all.json"


def test_all_parts_are_measured_and_one_that_fails_is_named(
    small_table, run_program, rows_of
):
    small_table.parent.mkdir()
    stale = small_table.with_name("all-bad.json")
    stale.write_text("from an earlier run")
    given = ("--what=all", "--quick", "--rounds=1", f"--output={small_table}")
    done = run_program("benchmark", *given)
    assert done.code == 1
    assert "error: Not everything could be measured. bad: `student` must be" in done.err
    good = small_table.with_name("all-good.json")
    command = f"benchmark --what=input --rounds=1 --quick --output={good}"
    assert f"Part 2 of 2: python -m trainers {command}\n" in done.err
    ratio = rows_of(done.out)[-1]
    assert (ratio[0], ratio[-1]) == ("input", "not judged")
    assert "Goals of speed, one core, small models" in done.out
    assert "without --quick they are judged" in done.out
    assert json.loads(small_table.read_text())["rows"][0]["part"] == "good"
    rows = json.loads(good.read_text())["rows"]
    assert {(r["contestant"], r["task"]) for r in rows} == {
        *(("ours", "all"), ("theirs", "all"))
    }
    assert not stale.exists()


def test_flags_are_passed_to_the_parts_that_know_them(run_program, small_table):
    values = _values("--what=all", "--peers=timm", "--dataset=d", "--cores=all")
    part = Part("train", ("--student=s",))
    assert _benchmark_all._command(values, part, small_table) == [
        *("benchmark", "--what=train", "--student=s", "--dataset=d", "--peers=timm"),
        *("--cores=all", f"--output={small_table}"),
    ]
    part = Part("distillation")
    assert _benchmark_all._command(values, part, small_table)[2:] == [
        f"--output={small_table}"
    ]
    values = _values("--what=all", "--peers=", "--quick")
    assert _benchmark_all._command(values, Part("startup"), small_table)[2:] == [
        *("--peers=", "--cores=one", "--quick", f"--output={small_table}")
    ]


def _values(*given):
    from absl import flags

    from trainers._benchmark_flags import define_flags

    values = flags.FlagValues()
    define_flags(values)
    values(["benchmark", *given])
    return values


def test_refuses_before_it_measures(refusal, small_table):
    given = ("benchmark", "--what=all", f"--output={small_table}")
    message = refusal(*given, "--peers=timm,keras-hub")
    assert message == (
        "`peers` must be one of ['keras_hub', 'onnxruntime', 'openvino', 'timm']. Did "
        "you mean 'keras_hub'? Received: peers='keras-hub'."
    )
    message = refusal(*given, "--student=x")
    assert message.startswith("`student` has a meaning with --what=distillation or")
    assert not small_table.parent.exists()
