import os
import sys
import textwrap
import time
from pathlib import Path

import pytest

import trainers
from trainers._contest import Contest, Contestant, run_contest
from trainers._contest_summary import rate, rate_ratio, spread, stage_times, summary

SLEEPER = """
    import time

    def step():
        time.sleep(0.01)
        return 3

    def tasks():
        return {"sleep": lambda: step}
"""


@pytest.fixture
def contestant(tmp_path):
    """`contestant(name, code)`: a module of that code, as one who takes part."""

    def written(name, code, packages=(), path=(), /, **arguments):
        module = tmp_path / f"{name}.py"
        head = f"PACKAGES = {packages!r}\nPATH = {path!r}\n"
        module.write_text(head + textwrap.dedent(code))
        return Contestant(name, module, arguments)

    return written


def said(items, cpu_seconds, seconds=1.0, others=0.0):
    return {
        "items": items,
        "cpu_seconds": cpu_seconds,
        "seconds": seconds,
        "others": others,
    }


def test_a_rate_is_items_over_the_seconds_of_one_clock():
    assert rate(said(30, 2.0, seconds=5.0), "cpu_seconds") == 15
    assert rate(said(30, 2.0, seconds=5.0), "seconds") == 6


def test_a_ratio_is_of_medians_its_spread_that_of_rounds_of_the_same_number():
    ours = [said(30, 1.0), said(10, 1.0)]
    theirs = [said(10, 1.0), said(10, 2.0)]  # 3 and 2 in the rounds
    expected = {"of_medians": 20 / 7.5, "p10": 2.1, "p90": 2.9}
    assert rate_ratio(ours, theirs, "cpu_seconds") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "median", "p10", "p90"),
    [
        ([5.0], 5, 5, 5),
        ([2.0, 1.0], 1.5, 1.1, 1.9),
        ([7.0, 1.0, 3.0], 3, 1.4, 6.2),  # places 0.2 and 1.8 of 1, 3, 7
        (list(range(11, 0, -1)), 6, 2, 10),
    ],
)
def test_spread_by_hand(values, median, p10, p90):
    expected = {"median": median, "p10": p10, "p90": p90}
    assert spread(values) == pytest.approx(expected)


def test_a_stage_costs_what_it_adds():
    assert stage_times([2.0, 5.0, 4.5]) == [2.0, 3.0, -0.5]


def test_summary_by_hand():
    contest = Contest(
        rounds={
            ("ours", "read"): [said(200, 1.0, others=0.1), said(100, 1.0, others=0.3)],
            ("ours", "all"): [said(20, 1.0, 2.0), said(20, 1.0, 4.0)],
            ("ours", "beside"): [said(1, 1.0, others=None), said(1, 1.0)],
            ("theirs", "all"): [said(10, 1.0), said(5, 1.0)],
        },
        paths={"ours": ["read", "all"], "theirs": ["read", "all"]},
    )
    read, whole, beside, theirs = summary(contest, "theirs", "cpu_seconds")
    assert (read["contestant"], read["task"]) == ("ours", "read")
    assert read["rate"]["median"] == 150
    assert read["microseconds"] == pytest.approx(1e6 / 150)
    assert read["ratio"] is None  # nothing to compare with
    assert read["others"] == pytest.approx(0.2)
    assert whole["rate"]["median"] == 20
    assert whole["wall_rate"]["median"] == pytest.approx(7.5)
    expected = {"of_medians": 20 / 7.5, "p10": 2.2, "p90": 3.8}
    assert whole["ratio"] == pytest.approx(expected)
    assert whole["rounds"] == contest.rounds["ours", "all"]
    # An image takes 1/150 s to read and 1/20 s in all.
    assert read["stage_share"] == pytest.approx(20 / 150)
    assert whole["stage_share"] == pytest.approx(1 - 20 / 150)
    assert (beside["others"], beside["stage_share"]) == (None, None)
    # A stage is missing: what is left would be blamed for it.
    assert theirs["stage_share"] is None
    assert theirs["ratio"]["of_medians"] == 1


def test_no_baseline_no_ratio():
    contest = Contest(rounds={("ours", "all"): [said(1, 1.0)]}, paths={"ours": []})
    (row,) = summary(contest, None, "seconds")
    assert row["ratio"] is None


def test_a_round_lasts_as_long_as_asked_in_whole_steps(contestant):
    contest = run_contest([contestant("sleeper", SLEEPER)], rounds=2, seconds=0.1)
    assert (contest.errors, contest.missing) == ({}, {})
    rounds = contest.rounds["sleeper", "sleep"]
    assert len(rounds) == 2
    for heard in rounds:
        assert heard["items"] % 3 == 0
        assert heard["seconds"] >= 0.1
        assert heard["items"] / 3 * 0.01 <= heard["seconds"]
        assert heard["cpu_seconds"] < heard["seconds"] / 2  # it slept
    assert contest.packages["sleeper"] == {"python": sys.version.split()[0]}
    assert contest.paths == {"sleeper": []}


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="it counts what is there")
def test_the_work_of_others_on_the_core_is_counted(contestant):
    # A child process is another: it works, the contestant waits for it.
    others = """
        import subprocess, sys, time

        WORK = "import time; t = time.time() + 0.6\\nwhile time.time() < t: pass"

        def wait():
            subprocess.run([sys.executable, "-S", "-c", WORK])
            return 1

        def work():
            end = time.process_time() + 0.3
            while time.process_time() < end:
                pass
            return 1

        def tasks():
            return {"wait": lambda: wait, "work": lambda: work}
    """
    contest = run_contest([contestant("others", others)], rounds=1, seconds=0.1)
    (waited,), (worked,) = contest.rounds.values()
    assert waited["others"] > 0.5
    assert waited["cpu_seconds"] < 0.3
    assert worked["cpu_seconds"] >= 0.3
    assert worked["others"] <= 1.15 - worked["cpu_seconds"] / worked["seconds"]


def test_each_task_runs_once_a_round_in_a_random_order(contestant, tmp_path):
    note = """
        from functools import partial

        def tasks(log, name):
            def step(task):
                with open(log, "a") as file:
                    print(name + task, file=file)
                return 1

            return {task: partial(partial, step, task) for task in "abc"}
    """
    log = tmp_path / "log"
    contestants = [contestant(n, note, log=str(log), name=n) for n in ("x", "y")]
    orders = []
    for seed in (0, 0, 1):
        log.write_text("")
        run_contest(contestants, rounds=4, seconds=1e-9, seed=seed)
        lines = log.read_text().split()
        # Each is warmed up twice, contestant by contestant, task by task.
        assert lines[:12] == [f"{n}{t}" for n in "xy" for t in "aabbcc"]
        rounds = [lines[begin : begin + 6] for begin in range(12, 36, 6)]
        assert all(
            sorted(x) == sorted(f"{n}{t}" for n in "xy" for t in "abc") for x in rounds
        )
        assert len({tuple(x) for x in rounds}) > 1
        orders.append(lines[12:])
    assert len(lines) == 36
    assert orders[0] == orders[1] != orders[2]


def test_nobody_works_ahead_of_its_turn(contestant, tmp_path):
    eager = """
        import threading, time

        def tasks(path):
            def prepare():
                def write():
                    with open(path, "ab", buffering=0) as file:
                        while True:
                            file.write(b".")
                            time.sleep(0.001)

                threading.Thread(target=write, daemon=True).start()
                return lambda: time.sleep(0.05) or 1

            return {"eager": prepare}
    """
    watch = """
        import os, time

        def tasks(path):
            def step():
                before = os.path.getsize(path)
                time.sleep(0.1)
                return 1 + os.path.getsize(path) - before

            return {"watch": lambda: step}
    """
    path = str(tmp_path / "written")
    contestants = [
        contestant("eager", eager, path=path),
        contestant("watch", watch, path=path),
    ]
    contest = run_contest(contestants, rounds=3, seconds=0.05)
    assert [heard["items"] for heard in contest.rounds["watch", "watch"]] == [1] * 3
    assert Path(path).stat().st_size > 100  # it does work in its turn


def test_what_is_prepared_in_one_task_is_not_there_in_another(contestant):
    code = """
        seen = []

        def tasks():
            def prepare():
                seen.append(1)
                return lambda: len(seen)

            return {"first": prepare, "second": prepare}
    """
    contest = run_contest([contestant("alone", code)], rounds=1, seconds=1e-9)
    items = [heard["items"] for (heard,) in contest.rounds.values()]
    assert items == [1, 1]


def test_all_work_on_one_core_with_one_thread(contestant):
    code = """
        import os, sys
        from functools import partial
        from pathlib import Path

        import trainers

        def step(where):
            assert os.environ["OMP_NUM_THREADS"] == "1"
            assert not any(Path(p).name == "_contestants" for p in sys.path)
            assert trainers.__file__ == where
            (core,) = os.sched_getaffinity(0)
            return 1 + core

        def tasks(where):
            return {"core": lambda: partial(step, where)}
    """
    contestants = [
        contestant(name, code, where=trainers.__file__) for name in ("a", "b")
    ]
    contest = run_contest(contestants, rounds=1, seconds=1e-9)
    assert contest.errors == {}
    items = [heard["items"] for (heard,) in contest.rounds.values()]
    assert items == [1 + max(os.sched_getaffinity(0))] * 2


def test_all_cores_can_be_used_with_many_threads(contestant, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = """
        import os

        def step():
            assert "OMP_NUM_THREADS" not in os.environ
            return len(os.sched_getaffinity(0))

        def tasks():
            return {"cores": lambda: step}
    """
    contest = run_contest(
        [contestant("all", code)], rounds=1, seconds=1e-9, all_cores=True
    )
    assert contest.errors == {}
    heard = contest.rounds["all", "cores"][0]
    assert heard["items"] == len(os.sched_getaffinity(0))
    assert heard["others"] is None or 0 <= heard["others"] <= 1


def test_another_python_finds_ours_but_not_what_we_add(contestant, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/added")
    code = """
        import os

        def step():
            return len(os.environ["PYTHONPATH"].split(os.pathsep))

        def tasks():
            return {"paths": lambda: step}
    """
    own = contestant("own", code)
    other = Contestant(
        "other", own.module, python=f"{sys.exec_prefix}/bin/../bin/python"
    )
    contest = run_contest([own, other], rounds=1, seconds=1e-9)
    assert contest.errors == {}
    assert contest.rounds["own", "paths"][0]["items"] == 2
    assert contest.rounds["other", "paths"][0]["items"] == 1


def test_what_a_contestant_prints_is_no_answer(contestant):
    code = """
        import os

        print("loading")
        os.system("echo from a child")

        def step():
            print('{"items": 5}', flush=True)
            return 2

        def tasks():
            print("tasks")
            return {"loud": lambda: step}
    """
    contest = run_contest([contestant("loud", code)], rounds=1, seconds=1e-9)
    assert contest.errors == {}
    assert contest.rounds["loud", "loud"][0]["items"] == 2


def test_a_missing_package_leaves_a_contestant_out(contestant):
    contestants = [
        contestant("guest", "raise SystemError", ("numpy", "no-such-package")),
        contestant("host", SLEEPER, ("numpy",)),
    ]
    # Only the names are needed to see what is missing: nothing is imported before.
    contestants[0].module.write_text("PACKAGES = ('numpy', 'no-such-package')\n")
    contest = run_contest(contestants, rounds=1, seconds=0.001)
    assert contest.missing == {"guest": ["no-such-package"]}
    assert contest.errors == {}
    assert list(contest.rounds) == [("host", "sleep")]
    assert set(contest.packages) == {"host"}
    assert contest.packages["host"]["numpy"][0] == "2"


@pytest.mark.parametrize(
    ("where", "code", "key", "message"),
    [
        ("load", "raise ValueError('first\\nno good')", "bad", "ValueError: no good"),
        (
            "exit",
            "import os; os._exit(5)",
            "bad",
            "its process ended with exit code 5.",
        ),
        (
            "words",
            "import os, sys; sys.stderr.write('1\\n2\\n3\\n4\\n'); sys.stderr.flush()\n"
            "os.abort()",
            "bad",
            "its process ended with exit code -6. 2 | 3 | 4",
        ),
        (
            "prepare",
            "def tasks():\n def prepare(): raise KeyError('stage')\n"
            " return {'good': lambda: lambda: 1, 'task': prepare}",
            "bad: task",
            "KeyError: 'stage'",
        ),
        (
            "round",
            "count = []\n"
            "def step():\n count.append(1)\n assert len(count) < 4, 'tired'\n"
            " return 1\n"
            "def tasks(): return {'good': lambda: lambda: 1, 'task': lambda: step}",
            "bad: task",
            "AssertionError: tired",
        ),
        (
            "crash",
            "import os\ncount = []\n"
            "def step():\n count.append(1)\n if len(count) > 3: os._exit(7)\n"
            " return 1\n"
            "def tasks(): return {'good': lambda: lambda: 1, 'task': lambda: step}",
            "bad: task",
            "its process ended with code 7",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else "",
)
def test_one_that_fails_is_named_and_the_others_go_on(
    contestant, where, code, key, message
):
    contestants = [contestant("bad", code), contestant("good", SLEEPER)]
    contest = run_contest(contestants, rounds=3, seconds=1e-9)
    assert contest.errors == {key: message}
    rounds = {key: len(rounds) for key, rounds in contest.rounds.items()}
    assert rounds.pop(("good", "sleep")) == 3
    assert rounds == ({("bad", "good"): 3} if ":" in key else {})


def test_one_that_does_not_answer_is_out(contestant):
    code = """
        import os, time

        count = []

        def step():
            count.append(1)
            time.sleep(100 * (len(count) > 2))
            return 1

        def tasks():
            return {"good": lambda: lambda: 1, "task": lambda: step}
    """
    contestants = [contestant("bad", code), contestant("good", SLEEPER)]
    contest = run_contest(contestants, rounds=2, seconds=1e-9, patience=2.0)
    assert contest.errors == {"bad: task": "its process ended with exit code -9."}
    assert list(contest.rounds) == [("good", "sleep")]
    assert len(contest.rounds["good", "sleep"]) == 2


def test_no_process_is_left(contestant, tmp_path):
    code = """
        import os

        def tasks(path):
            def prepare():
                with open(path, "a") as file:
                    print(os.getpid(), os.getppid(), file=file)
                return lambda: 1

            return {"a": prepare, "b": prepare}
    """
    path = tmp_path / "pids"
    run_contest([contestant("short", code, path=str(path))], rounds=1, seconds=1e-9)
    pids = set(map(int, path.read_text().split()))
    assert len(pids) == 3
    until = time.monotonic() + 10  # the kernel ends them, not at once
    while any(map(_is_alive, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(_is_alive, pids))


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


def test_progress_tells_what_is_left(contestant):
    told = []
    run_contest([contestant("sleeper", SLEEPER)], 2, 0.01, tell=told.append)
    assert told[0] == "Loading sleeper ..."
    assert [text.partition(",")[0] for text in told[1:]] == [
        "Round 1 of 2 done",
        "Round 2 of 2 done",
    ]
    assert told[2].endswith("about 0 s left")


def test_who_cannot_take_part_is_left_out_and_that_is_no_error(contestant):
    left_out = """
        from trainers._contestants.left_out import LeftOutError

        def leave():
            raise LeftOutError("no compiler\\nhere")

        def tasks(early=False):
            if early:
                leave()
            return {"one": leave, "two": lambda: lambda: 1}
    """
    some = contestant("some", left_out)
    all_ = contestant("all", left_out, early=True)
    contest = run_contest([some, all_], rounds=1, seconds=0.01)
    assert contest.left_out == {
        "some: one": "no compiler here",
        "all": "no compiler here",
    }
    assert contest.errors == {}
    assert list(contest.rounds) == [("some", "two")]
    assert len(contest.rounds["some", "two"]) == 1


def test_contestants_load_at_the_same_time(contestant, tmp_path):
    # The first is ready only when the second has begun.
    meet = f"""
        import time
        from pathlib import Path

        def tasks(mine, other):
            Path({str(tmp_path)!r}, mine).touch()
            while not Path({str(tmp_path)!r}, other).exists():
                time.sleep(0.01)
            return {{"one": lambda: lambda: 1}}
    """
    a = contestant("a", meet, mine="here", other="there")
    b = contestant("b", meet, mine="there", other="here")
    contest = run_contest([a, b], rounds=1, seconds=0.01, patience=20)
    assert list(contest.rounds) == [("a", "one"), ("b", "one")]
