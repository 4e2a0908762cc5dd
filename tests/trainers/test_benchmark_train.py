import ast
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.trainers.made_up_contests import planned
from trainers import _benchmark_input, _benchmark_train
from trainers._benchmark_train import Manner, cases_of, deal
from trainers._contest import Contest, Contestant, run_contest
from trainers._contest_report import OF_WHAT
from trainers._contestants import MODULES, keras_train
from trainers._train_report import rows_of, write_train_report
from trainers.recipes._papers import DEIT

STUDENT, TEACHER = "deit_micro_distilled_patch4_32", "regnety_micro_32"
CASES = cases_of(TEACHER)
MIB = 2**20


def said(*seconds, peak=100):
    """A round for each: eight images in so many seconds."""
    return [
        {
            "items": 8,
            "seconds": own,
            "cpu_seconds": 2 * own,
            "others": 0.25,
            "peak_bytes": (peak + number) * MIB,
        }
        for number, own in enumerate(seconds)
    ]


# Images a second: timm 4 and 8; ours 2 and 8, with a teacher 1 and 2, with files too
# 0.5 and 2.
ROUNDS = {
    ("timm", "no teacher"): said(2.0, 1.0),
    ("ours", "no teacher"): said(4.0, 1.0),
    ("ours", "teacher"): said(8.0, 4.0, peak=1234),
    ("ours", "teacher, files"): said(16.0, 4.0),
}


def test_shares_by_hand():
    timm, alone, taught, files = rows_of(Contest(ROUNDS), CASES, "timm", "seconds")
    ratio = {"of_medians": 5 / 6, "p10": 0.55, "p90": 0.95}
    assert alone["ratio"] == pytest.approx(ratio)
    # 1 - 1.5 / 5 of the step is the teacher's: 1 - 4 / 8 and 1 - 1 / 4 in the rounds.
    share = {"of_medians": 0.7, "p10": 0.525, "p90": 0.725}
    assert taught["teacher_share"] == pytest.approx(share)
    # 1 - 1.25 / 1.5 of the step is for input: 1 - 8 / 16 and none in the rounds.
    share = {"of_medians": 1 / 6, "p10": 0.05, "p90": 0.45}
    assert files["input_share"] == pytest.approx(share)
    assert (files["teacher_share"], taught["input_share"]) == (None, None)
    assert [alone[f"{what}_share"] for what in ("teacher", "input")] == [None] * 2
    assert (taught["peak_bytes"], taught["teacher"]) == (1235 * MIB, TEACHER)
    assert (files["feed"], timm["feed"]) == ("files", "memory")
    assert (taught["ratio"], files["ratio"]) == (None, None)  # timm had none


def test_without_the_step_to_compare_with_there_are_no_shares():
    rounds = {key: ROUNDS[key] for key in [*ROUNDS][2:]}
    taught, files = rows_of(Contest(rounds), CASES, "timm", "seconds")
    assert taught["teacher_share"] is None
    assert files["input_share"]["of_medians"] == pytest.approx(1 / 6)
    cases = cases_of("none")
    rounds = {
        ("ours", "no teacher"): said(1.0),
        ("ours", "no teacher, files"): said(4.0),
    }
    alone, files = rows_of(Contest(rounds), cases, "ours", "seconds")
    share = {"of_medians": 0.75, "p10": 0.75, "p90": 0.75}
    assert (alone["teacher_share"], files["input_share"]) == (None, share)
    rounds["ours", "no teacher, files"] = said(0.5)  # faster: no less than nothing
    files = rows_of(Contest(rounds), cases, "ours", "seconds")[1]
    assert set(files["input_share"].values()) == {0.0}


@pytest.fixture
def report(tmp_path, capsys):
    """`report(contest, teacher=)`: what is printed, and the file."""

    def written(contest, teacher=TEACHER):
        settings = {"rounds": 2, "batch_size": 8, "teacher": teacher}
        heading = {"title": "Made up", "settings": settings, "cases": cases_of(teacher)}
        output = tmp_path / "train.json"
        write_train_report(contest, heading, "timm", "seconds", output)
        return capsys.readouterr().out, json.loads(output.read_text())

    return written


def test_a_table_a_file_and_a_picture(report, tmp_path, request):
    packages = {"timm": {}, "ours": {}, "tim": {}, "slow": {}}
    rounds = {**ROUNDS, ("slow", "no teacher"): said(32.0, 32.0)}
    missing = {"timm_bfloat16": ["timm", "torch"]}
    out, record = report(Contest(rounds, packages, missing=missing))
    assert "Made up; medians of 2 rounds" in out
    assert request.getfixturevalue("rows_of")(out) == [
        ["contestant", "step", "images/s", "ratio (10 - 90 %)", "of it"]
        + ["peak MiB", "others"],
        ["timm", "no teacher", "6.0", "1.00 (1.00 - 1.00)", "", "101", "25%"],
        ["ours", "no teacher", "5.0", "0.83 (0.55 - 0.95)", "", "101", "25%"],
        ["ours", "teacher", "1.5", "", "70% teacher", "1,235", "25%"],
        ["ours", "teacher, files", "1.2", "", "17% input", "101", "25%"],
        ["slow", "no teacher", "0.25", "0.04 (0.03 - 0.06)", "", "101", "25%"],
    ]
    for line in (
        f"of it, teacher: the share of the time that {TEACHER} takes",
        "of it, input: the share of the time that files take or delay, over memory",
        f"ratio: of images/s to the same step of timm; {OF_WHAT}",
        "tim is left out: it has no such models",
        "timm_bfloat16 is left out: not installed: timm, torch",
    ):
        assert f"{line}\n" in out
    assert "ours is left out" not in out
    assert record["baseline"] == "timm"
    assert record["cases"] == CASES
    assert record["rows"][2]["teacher_share"]["of_medians"] == pytest.approx(0.7)
    with Image.open(tmp_path / "train.png") as picture:
        assert picture.size[0] > 1000


def test_when_all_failed_the_files_say_so(report):
    errors = {"timm: no teacher": "no good", "ours": "nor this"}
    out, record = report(Contest(packages={"timm": {}}, errors=errors), "none")
    assert (record["rows"], record["errors"]) == ([], errors)
    assert "it has no such models" not in out
    assert "teacher: the share" not in out
    out, _ = report(Contest())
    assert "ratio: of" not in out


def test_what_is_measured():
    alone, taught = ({"teacher": who, "feed": "memory"} for who in (None, TEACHER))
    assert cases_of(TEACHER) == {
        "no teacher": alone,
        "teacher": taught,
        "teacher, files": {**taught, "feed": "files"},
    }
    assert cases_of("none") == {
        "no teacher": alone,
        "no teacher, files": {**alone, "feed": "files"},
    }


def test_a_manner_has_a_name():
    assert Manner("float32").named("keras") == "keras_float32"
    every = Manner("mixed_bfloat16", True, True, 2, 4).named("timm")
    assert every == "timm_bfloat16, checkpointing, compiled, 2 replicas, 4 parts"


def test_photographs_are_dealt_to_as_many_classes(tmp_path, monkeypatch):
    assert _benchmark_train.NUM_CLASSES == 1000
    monkeypatch.setattr(_benchmark_train, "NUM_CLASSES", 4)
    for name in ("cats/b.jpg", "cats/a.jpg", "dogs/c.jpg"):
        path = tmp_path / "photographs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    deal(tmp_path / "photographs", tmp_path / "images", 6)
    for split in ("train", "val"):
        folders = sorted((tmp_path / "images" / split).iterdir())
        assert len(folders) == 4
        first = [path.read_text() for path in sorted(folders[1].iterdir())]
        assert first == ["cats/b.jpg", "dogs/c.jpg"]  # numbers 1 and 5
        assert len(list(folders[2].iterdir())) == 1


@pytest.fixture
def contest_of(monkeypatch, run_program, tmp_path):
    """`contest_of(*flags)`: by name who takes part, who was told what, and the file."""
    monkeypatch.setattr(_benchmark_input, "NUM_MADE", 2)
    monkeypatch.setattr(_benchmark_train, "NUM_CLASSES", 8)

    def asked(*flags):
        found = {}

        def run_contest(contestants, rounds, seconds, tell, all_cores, tasks):
            found.update({c.name: c for c in contestants})
            found["told"] = (rounds, seconds, all_cores)
            return Contest()

        monkeypatch.setattr("trainers._contest.run_contest", run_contest)
        output = tmp_path / "train.json"
        done = run_program("benchmark", "--what=train", f"--output={output}", *flags)
        assert done.code == 0, done.err
        return found, found.pop("told"), json.loads(output.read_text())

    return asked


def test_the_plan(contest_of):
    contestants, told, record = contest_of("--peer_python=" + sys.executable)
    assert told == (5, 1.0, True)
    assert record["title"] == (
        "A training step of deit_tiny_distilled_patch16_224 on all cores, batches of "
        "8; files: 2 made-up photographs of 500 x 375"
    )
    assert (record["clock"], record["device"]) == ("seconds", "CPU")
    assert record["cases"] == cases_of("regnety_160")
    names = ["keras_float32", "keras_bfloat16", "timm_float32", "timm_bfloat16"]
    assert list(contestants) == names
    ours, timm = contestants["keras_bfloat16"], contestants["timm_bfloat16"]
    assert ours.module == MODULES / "keras_train.py"
    asked = dict(ours.arguments)
    recipe = asked.pop("recipe")
    assert asked == {
        **{"cases": record["cases"], "replicas": 1},
        **{"device": "CPU", "num_threads": None},
    }
    assert recipe.pop("dataset").endswith("images")
    assert recipe == {
        "variant": "deit_tiny_distilled_patch16_224",
        "batch_size": 8,
        "model_overrides": {"drop_path_rate": 0.1},
        "precision": "mixed_bfloat16",
        "gradient_checkpointing": False,
        "jit_compile": False,
        "accumulate_steps": 1,
    }
    assert timm.module == MODULES / "timm_train.py"
    assert timm.arguments == {
        "how": {
            "student": "deit_tiny_distilled_patch16_224",
            "drop_path_rate": 0.1,
            "batch_size": 8,
            "image_size": (224, 224),
            "precision": "mixed_bfloat16",
            "gradient_checkpointing": False,
            "compiled": False,
        },
        "cases": {
            "no teacher": {"teacher": None},
            "teacher": {"teacher": "regnety_160"},
        },
        **{"device": "CPU", "num_threads": None},
    }


def test_manners_are_crossed(contest_of):
    contestants, told, record = contest_of(
        *("--quick", "--cores=one", "--replicas=1,2", "--accumulate_steps=2"),
        *("--gradient_checkpointing", "--compiled", "--teacher=none"),
        *("--precisions=mixed_bfloat16,float32", "--student=regnety_micro_32"),
    )
    assert told == (3, 0.2, False)
    assert "regnety_micro_32 on one core, batches of 8;" in record["title"]
    assert (record["clock"], record["cases"]) == ("cpu_seconds", cases_of("none"))
    names = [name for name in contestants if name.startswith("keras")]
    # XLA is not for bfloat16 on a CPU.
    assert names == [
        f"keras_{precision}{checkpointing}{compiled}{replicas}, 2 parts"
        for precision in ("bfloat16", "float32")
        for checkpointing in ("", ", checkpointing")
        for compiled in ["", ", compiled"][: 1 + (precision == "float32")]
        for replicas in ("", ", 2 replicas")
    ]
    last = contestants[names[-1]].arguments
    assert (last["replicas"], last["num_threads"]) == (2, 1)
    assert last["recipe"]["model_overrides"] == {}  # it has no stochastic depth
    assert [
        last["recipe"][name]
        for name in ("gradient_checkpointing", "jit_compile", "accumulate_steps")
    ] == [True, True, 2]
    assert len(contestants) - len(names) == 8
    how = contestants["timm_bfloat16, checkpointing, compiled"].arguments["how"]
    assert (how["gradient_checkpointing"], how["compiled"]) == (True, True)


def test_gpus_where_there_are_some(contest_of, refusal, monkeypatch, tmp_path):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] * 2)
    flags = ("--precisions=mixed_bfloat16", "--compiled", "--cores=one")
    contestants, _, record = contest_of(*flags, "--replicas=2")
    assert "on GPUs, batches" in record["title"]
    assert (record["clock"], record["device"]) == ("seconds", "GPU")
    assert "keras_bfloat16, compiled, 2 replicas" in contestants
    assert all(c.arguments["device"] == "GPU" for c in contestants.values())
    output = f"--output={tmp_path}/out/train.json"
    message = refusal("benchmark", "--what=train", output, "--replicas=1,4")
    rule = "`replicas` must be at most the number of GPUs. Received: replicas=4, gpus=2"
    assert message.startswith(rule)


def test_refuses_what_it_cannot_train(refusal, monkeypatch, tmp_path):
    monkeypatch.setattr("trainers._contest.run_contest", pytest.fail)
    given = ("benchmark", "--what=train", f"--output={tmp_path}/out/train.json")
    for flag, rule in (
        ("student=deit_tinny_patch16_224", "`student` must be one of ['deit_base"),
        ("teacher=regnet_160", "`teacher` must be one of ["),
        ("precisions=bfloat16", "`precisions` must be one of ['float32', 'mixed_b"),
        ("replicas=0", "`replicas` must be different whole numbers above 0."),
        ("accumulate_steps=2,2", "`accumulate_steps` must be different whole numbers"),
        (f"peer_python={tmp_path}/python", "There is no file"),
    ):
        assert refusal(*given, f"--{flag}").startswith(rule)
    message = refusal(*given, "--replicas=1,2", "--accumulate_steps=1,3,4")
    assert message == (
        "`batch_size` must be a multiple of `replicas` times `accumulate_steps`. "
        "Received: batch_size=8, replicas=1, accumulate_steps=3."
    )
    assert not (tmp_path / "out").exists()


def test_its_flags_have_no_meaning_elsewhere(refusal, monkeypatch):
    monkeypatch.setattr("trainers._contest.run_contest", pytest.fail)
    for flag in (
        *("precisions=float32", "replicas=2", "accumulate_steps=2", "compiled"),
        *("gradient_checkpointing", "nogradient_checkpointing"),
    ):
        message = refusal("benchmark", "--what=distillation", f"--{flag}")
        name = flag.partition("=")[0].removeprefix("no")
        rule = f"`{name}` has a meaning with --what=train only. Received: {name}="
        assert message.startswith(rule)


def test_its_report_is_written(monkeypatch, tmp_path, run_program, rows_of):
    code = """
        PACKAGES = ()
        PATH = ()

        def tasks():
            return {"no teacher": lambda: step, "teacher": lambda: step}

        def step():
            return 8
    """
    codes = {"keras_float32": code, "keras_bfloat16": code}
    output = planned(monkeypatch, tmp_path, "train", codes, facts={"cases": CASES})
    flags = ("--quick", "--rounds=1", f"--output={output}")
    done = run_program("benchmark", "--what=train", *flags)
    assert done.code == 0, done.err
    table = rows_of(done.out)
    assert [row[:2] for row in table[1:]] == [
        [name, task] for name in codes for task in ("no teacher", "teacher")
    ]
    assert table[1][3] == "1.00 (1.00 - 1.00)"  # timm is not there
    assert json.loads(output.read_text())["rows"][0]["peak_bytes"] > MIB


def test_a_fork_says_its_own_peak_unless_the_step_knows_better(tmp_path):
    module = tmp_path / "eater.py"
    module.write_text(
        """
PACKAGES = PATH = ()

def eat(mib):
    return len(b"x" * (mib * 2**20))

def tasks():
    eat(400)  # and let it go
    known = lambda: 1
    known.peak_bytes = lambda: 12
    return {"eats": lambda: lambda: eat(200), "fasts": lambda: lambda: 1,
            "knows": lambda: known}
"""
    )
    contest = run_contest([Contestant("eater", module)], 1, 0.01)
    peaks = {
        task: rounds[0]["peak_bytes"] for (_, task), rounds in contest.rounds.items()
    }
    assert 200 * MIB < peaks["eats"] < 300 * MIB
    assert MIB < peaks["fasts"] < 100 * MIB
    assert peaks["knows"] == 12


def test_the_peer_needs_neither_tensorflow_nor_this_package():
    tree = ast.parse((MODULES / "timm_train.py").read_text())
    imports = [x for x in ast.walk(tree) if isinstance(x, ast.Import)]
    names = {alias.name.split(".")[0] for x in imports for alias in x.names}
    names |= {x.module for x in ast.walk(tree) if isinstance(x, ast.ImportFrom)}
    ours = names - set(sys.stdlib_module_names)
    assert ours == {"timm", "torch", "torch.nn.functional", "numpy"}


def test_batches_in_memory_come_again(monkeypatch):
    monkeypatch.setattr(keras_train, "NUM_BATCHES", 2)
    drawn, asked = [], []

    def draw(number):
        drawn.append(int(number))
        return tf.fill([3], number), tf.fill([3, 2], 2 * number)

    def batches_of(*values, **share):
        asked.append((values, share))
        return tf.data.Dataset.counter().map(
            lambda number: tf.py_function(draw, [number], (tf.int64, tf.int64))
        )

    monkeypatch.setattr("keras_deit.training.parts.batches_of", batches_of)
    recipe = SimpleNamespace(batch_size=3)
    parts = SimpleNamespace(recipe=recipe, sources=("train", "validation"))
    batches = keras_train._in_memory(parts, tf.distribute.get_strategy())
    found = list(batches.take(5).as_numpy_iterator())
    assert [int(pixels[0]) for pixels, _ in found] == [0, 1, 0, 1, 0]
    assert found[1][1].shape == (3, 2)
    assert drawn == [0, 1]
    assert asked == [((recipe, "train", 0, 0), {"shard": 0, "num_shards": 1})]


@pytest.fixture
def told(monkeypatch):
    """What TensorFlow is told of its threads and devices."""
    told = []
    for place, name in (
        (tf.config.threading, "set_intra_op_parallelism_threads"),
        (tf.config.threading, "set_inter_op_parallelism_threads"),
        (tf.config.experimental, "set_memory_growth"),
    ):
        monkeypatch.setattr(
            place, name, lambda *values, name=name: told.append((name, *values))
        )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    return told


def test_the_tasks_and_their_threads(told, monkeypatch):
    asked = []
    monkeypatch.setattr(
        keras_train,
        "training_step",
        lambda *values, **case: asked.append((*values, case)),
    )
    tasks = keras_train.tasks({"variant": STUDENT}, CASES, 2, "CPU", None)
    assert (told, list(tasks)) == ([], list(CASES))
    assert keras_train.os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
    tasks["teacher, files"]()
    assert asked == [({"variant": STUDENT}, 2, "CPU", CASES["teacher, files"])]
    keras_train.tasks({}, CASES, 2, "CPU", 1)
    assert [values for _, *values in told] == [[1], [2]]


def test_replicas_are_as_many_devices(told, two_replicas):
    assert keras_train._strategy(1, "CPU") is tf.distribute.get_strategy()
    strategy = keras_train._strategy(2, "CPU")
    assert strategy.extended.worker_devices == two_replicas.extended.worker_devices
    assert told == []


def test_a_gpu_leaves_memory_to_the_others(told, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b"])
    keras_train._strategy(1, "GPU")
    assert told == [("set_memory_growth", one, True) for one in ("a", "b")]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """What a contestant is told of a recipe, with few images."""
    folder = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        for name in "abcdefgh":
            path = folder / split / name / "image.jpg"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(path)
    return {
        "variant": STUDENT,
        "dataset": str(folder),
        "batch_size": 4,
        "model_overrides": {"drop_path_rate": 0.1, "depth": 1},
        "precision": "mixed_bfloat16",
        "gradient_checkpointing": False,
        "jit_compile": False,
        "accumulate_steps": 1,
    }


def test_a_step_is_that_of_the_recipe(recipe, told, monkeypatch):
    made, asked = [], []

    def build(recipe, teacher, workers):
        assert workers.strategy is strategy
        made.append((recipe, teacher))
        return "parts"

    strategy = tf.distribute.get_strategy()

    monkeypatch.setattr("keras_deit.training.parts.build", build)
    monkeypatch.setattr("keras_deit.Teacher", lambda model: ("teacher", model))
    monkeypatch.setattr(
        "keras_deit.create_model",
        lambda name, **options: asked.append((name, options)) or name,
    )
    assert keras_train._parts(recipe, None, strategy) == "parts"
    official = replace(DEIT, **recipe, learning_rate_batch=None)
    assert made.pop() == (official, None)
    keras_train._parts(recipe, TEACHER, strategy)
    ((taught, teacher),) = made
    assert teacher == ("teacher", TEACHER)
    assert asked == [(TEACHER, {"dtype": "mixed_bfloat16"})]
    assert taught == replace(official, kind="hard", alpha=0.5)


@pytest.mark.slow
def test_a_step_trains_and_says_how_many_images_it_took(recipe, told, monkeypatch):
    parts = []
    original = keras_train._parts

    def kept(*values):
        parts.append(original(*values))
        return parts[-1]

    monkeypatch.setattr(keras_train, "_parts", kept)
    step = keras_train.training_step(recipe, 1, "CPU", None, "memory")
    (part,) = parts
    assert (part.recipe.rand_augment, part.recipe.erasing) == (None, 0)
    assert part.recipe.precision == "mixed_bfloat16"
    before = part.student.get_weights()
    assert [step(), step()] == [4, 4]
    assert not hasattr(step, "peak_bytes")
    assert int(part.distiller.optimizer.iterations) == 2
    after = part.student.get_weights()
    assert any(np.any(a != b) for a, b in zip(after, before, strict=True))


@pytest.mark.slow
def test_the_quick_benchmark_of_training_runs(tmp_path, run_program, rows_of):
    output = tmp_path / "benchmarks" / "train.json"
    flags = ("--quick", "--rounds=1", "--replicas=2", f"--output={output}")
    done = run_program("benchmark", "--what=train", *flags)
    assert done.code == 0, done.err
    record = json.loads(output.read_text())
    assert record["errors"] == {}
    ours = [row for row in record["rows"] if row["contestant"].startswith("keras")]
    assert [row["task"] for row in ours] == list(CASES)
    assert all(row["rounds"][0]["items"] % 8 == 0 for row in ours)
    assert all(row["peak_bytes"] > 100 * MIB for row in ours)
    assert 0 <= ours[1]["teacher_share"]["of_medians"] < 1
    assert 0 <= ours[2]["input_share"]["of_medians"] < 1
    assert len(rows_of(done.out)) == 1 + len(record["rows"])
