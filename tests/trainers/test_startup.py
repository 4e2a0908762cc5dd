import json
import os
import sys
import textwrap

import pytest

from trainers._contest import Contestant
from trainers._contestants import MODULES, start
from trainers._startup import TASKS, run_startup

SCRIPT = """
    import json, os, sys

    arguments, core = sys.argv[1:]
    with open(FILE, "a") as file:
        file.write("".join((json.loads(arguments)["name"], core, "\\n")))
    lap = {"seconds": 2.0, "cpu_seconds": 1.0, "peak_bytes": 100}
    more = {"seconds": 3.0, "cpu_seconds": 0.5, "peak_bytes": 300}
    print(json.dumps({"packages": {"p": "1"}, "import": lap, "build": more}))
"""


@pytest.fixture
def contestant(tmp_path):
    """`contestant(name, code)`: a script of that code, as one who takes part."""

    def written(name, code=SCRIPT):
        script = tmp_path / f"{name}.py"
        code = textwrap.dedent(code).replace("FILE", repr(str(tmp_path / "starts")))
        script.write_text(code)
        return Contestant(name, script, {"name": name})

    return written


def test_every_round_starts_everybody_anew_after_a_first_start(contestant, tmp_path):
    told = []
    contest = run_startup([contestant("a"), contestant("b")], 2, 0.0, tell=told.append)
    assert (contest.errors, contest.missing) == ({}, {})
    assert contest.packages == {"a": {"p": "1"}, "b": {"p": "1"}}
    assert told == ["Started all once", "Round 1 of 2 done", "Round 2 of 2 done"]
    starts = (tmp_path / "starts").read_text().split()
    core = str(max(os.sched_getaffinity(0)))
    assert sorted(starts[:2]) == sorted(starts[2:4]) == sorted(starts[4:])
    assert sorted(starts[:2]) == [f"a{core}", f"b{core}"]
    assert list(contest.rounds) == [(name, task) for name in "ab" for task in TASKS]
    for task, seconds, cpu, peak in zip(
        TASKS, (2, 3, 5), (1, 0.5, 1.5), (100, 300, 300), strict=True
    ):
        first, second = contest.rounds["a", task]  # the very first does not count
        assert first.pop("others") >= 0
        assert first == {
            **{"items": 1, "seconds": seconds, "cpu_seconds": cpu},
            "peak_bytes": peak,
        }


def test_on_all_cores_nobody_is_pinned(contestant, tmp_path):
    run_startup([contestant("a")], 0, 0.0, all_cores=True)
    assert (tmp_path / "starts").read_text() == "a\n"


def test_who_fails_or_is_not_installed_is_out(contestant, tmp_path):
    fails = "open(FILE, 'a').write('x')\nimport sys\nsys.exit('it broke')"
    missing = "import json\nprint(json.dumps({'missing': ['timm']}))"
    late = "import os\nif os.path.exists(FILE):\n    raise ValueError\n"
    late += textwrap.dedent(SCRIPT)
    slow = "import time\ntime.sleep(60)"
    contest = run_startup(
        [contestant("fails", fails), contestant("missing", missing)], 1, 0.0
    )
    assert contest.errors == {"fails": "its process ended with exit code 1. it broke"}
    assert contest.missing == {"missing": ["timm"]}
    assert contest.rounds == contest.packages == {}
    assert (tmp_path / "starts").read_text() == "x"  # not again
    (tmp_path / "starts").unlink()
    contest = run_startup([contestant("late", late)], 2, 0.0)
    assert "exit code 1" in contest.errors["late"]
    assert contest.rounds == contest.packages == {}
    contest = run_startup([contestant("slow", slow)], 1, 0.0, patience=0.2)
    assert contest.errors == {"slow": "no answer in 0.2 seconds"}


def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch):
    arguments = {"library": "timm", "variant": "x"}
    bare = tmp_path / "bare.py"  # a Python that finds none but its own packages
    bare.write_text(
        f"import sys\nsys.path = [p for p in sys.path if 'site-packages' not in p]\n"
        f"sys.path.insert(0, {str(MODULES)!r})\nimport start\n"
        f"start.main({json.dumps(arguments)!r}, '')\n"
    )
    contest = run_startup([Contestant("timm", bare, python=sys.executable)], 1, 0.0)
    assert contest.errors == {}
    assert contest.missing == {"timm": ["timm", "torch", "numpy"]}


def test_litert_starts_without_tensorflow(tmp_path):
    # A file that is no model: LiteRT is imported, and says so when it builds.
    (tmp_path / "m.tflite").write_bytes(b"no model")
    arguments = {"library": "litert", "file": str(tmp_path / "m.tflite")}
    contest = run_startup([Contestant("l", MODULES / "start.py", arguments)], 1, 0.0)
    assert "Model provided" in contest.errors["l"] or "model" in contest.errors["l"]
    assert "tensorflow" not in contest.errors["l"].lower().replace(
        "tensorflow lite", ""
    )


def test_a_lap_is_what_happened_since_the_last():
    clock = start._Clock()
    held = bytearray(2**24)
    first, second = clock.lap(), clock.lap()
    assert first["cpu_seconds"] >= second["cpu_seconds"] >= 0
    assert first["seconds"] > second["seconds"] > 0
    assert second["peak_bytes"] > len(held)
