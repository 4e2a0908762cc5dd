import json
import os
import sys

import numpy as np
import pytest

from keras_deit.models.inference import inference_model
from tests.trainers.made_up_contests import STEP, planned
from trainers import _benchmark_inference
from trainers._benchmark_inference import ENGINES, at_keep_rate, seeded_model
from trainers._contest import Contest
from trainers._contestants import MODULES

MICRO = "deit_micro_distilled_patch4_32"


@pytest.fixture
def contest_of(monkeypatch, run_program, tmp_path):
    """`contest_of(*flags)`: what is asked of the contest, and of each contestant."""

    def asked(*flags):
        found = {}

        def run_contest(contestants, rounds, seconds, tell, all_cores, tasks):
            found["rounds"], found["all_cores"] = rounds, all_cores
            for contestant in contestants:
                arguments = dict(contestant.arguments)
                for case in arguments["cases"].values():
                    for name in ("pixels", "expected"):
                        case[name] = np.load(case[name])
                found[contestant.name] = contestant, arguments
            return Contest()

        monkeypatch.setattr("trainers._contest.run_contest", run_contest)
        output = tmp_path / "inference.json"
        done = run_program(
            "benchmark", "--what=inference", "--quick", f"--output={output}", *flags
        )
        record = json.loads(output.read_text())
        assert done.code == (1 if record["errors"] else 0), done.err
        return found, record

    return asked


def test_every_engine_answers_for_the_same_model(contest_of):
    python = MODULES / "worker.py"  # any file
    engines = "--engines=timm_float32,keras_function,keras_hub"
    found, record = contest_of(engines, f"--peer_python={python}")
    assert (found["rounds"], found["all_cores"]) == (3, False)
    assert record["title"] == "Inference on one core"
    assert record["clock"] == "cpu_seconds"
    (ours, own), (timm, theirs) = found["keras_function"], found["timm_float32"]
    assert ours.module == MODULES / "keras_inference.py"
    assert timm.module == MODULES / "timm_inference.py"
    assert (own.pop("how"), own.pop("num_threads")) == ("function", 1)
    assert (ours.python, timm.python) == (sys.executable, str(python))
    assert theirs["precision"] == "float32"
    tasks = [
        *(f"{MICRO}, keep 1, batch 1", f"{MICRO}, keep 1, batch 8"),
        *(f"{MICRO}, keep 0.5, batch 1", f"{MICRO}, keep 0.5, batch 8"),
    ]
    assert list(own["cases"]) == list(record["cases"]) == tasks
    assert list(theirs["cases"]) == tasks[:2]  # others have all tokens only
    assert list(found["keras_hub"][1]["cases"]) == tasks[:2]
    whole, half = (own["cases"][task] for task in tasks[1::2])
    assert (whole["batch_size"], half["batch_size"]) == (8, 8)
    assert half["gmacs"] < 0.7 * whole["gmacs"]
    assert whole["gmacs"] == pytest.approx(0.0155, rel=0.01)
    assert (whole["encoder"]["depth"], whole["encoder"]["patch_size"]) == (4, 4)
    assert whole["file"].endswith("-1.keras")
    assert theirs["cases"][tasks[1]]["file"].endswith("-1.safetensors")
    # What they should answer is what the model answers.
    model = seeded_model(MICRO)
    for case in (whole, half):
        assert (case["pixels"].dtype, case["pixels"].shape) == (
            np.uint8,
            (8, 32, 32, 3),
        )
        dialed = inference_model(at_keep_rate(model, case["keep_rate"]))
        expected = dialed(case["pixels"][:2], training=False)
        np.testing.assert_allclose(case["expected"], expected, atol=1e-5)
    assert np.abs(whole["expected"] - half["expected"]).max() > 1e-4


def test_no_weight_is_left_at_0_and_they_are_always_the_same():
    one, two = seeded_model(MICRO), seeded_model(MICRO)
    for a, b in zip(one.weights, two.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.any(np.asarray(a) != 0)


def test_all_cores_work_by_the_clock_on_the_wall(contest_of):
    flags = ("--engines=keras_function", "--batch_sizes=1", "--keep_rates=0.25")
    found, record = contest_of(*flags, "--cores=all")
    assert found["all_cores"]
    assert (record["title"], record["clock"]) == ("Inference on all cores", "seconds")
    _, arguments = found["keras_function"]
    assert arguments["num_threads"] == len(os.sched_getaffinity(0))
    assert list(arguments["cases"]) == [f"{MICRO}, keep 0.25, batch 1"]


def test_a_model_without_tokens_has_only_keep_rate_1(contest_of, refusal):
    given = ("--engines=keras_hub", "--variants=regnety_micro_32", "--batch_sizes=1")
    found, _ = contest_of(*given, "--keep_rates=1")
    (case,) = found["keras_hub"][1]["cases"].values()
    assert case["encoder"] is None
    given = ("benchmark", "--what=inference", "--quick", *given)
    assert refusal(*given).endswith(
        "The model must have encoder blocks that reorganize tokens (`reorganize_at`). "
        "Received: model='regnety_micro_32'."
    )


def test_an_engine_of_one_image_gets_no_batches(tmp_path):
    engine = _benchmark_inference.Engine("m.py", lambda m, p: p, {}, one_image=True)
    model = seeded_model(MICRO)
    cases = {
        str(size): {"batch_size": size, "keep_rate": 1.0, "variant": MICRO}
        for size in (1, 8)
    }
    made = _benchmark_inference._made(engine, model, model, cases, tmp_path / "m")
    assert made == {"1": {**cases["1"], "file": str(tmp_path / "m")}}


def test_what_cannot_be_made_is_left_to_the_contestant(tmp_path):
    def make(model, path):
        raise ImportError("pip install it")

    engine = _benchmark_inference.Engine("m.py", make, {})
    model = seeded_model(MICRO)
    cases = {"a": {"batch_size": 1, "keep_rate": 1.0, "variant": MICRO}}
    made = _benchmark_inference._made(engine, model, model, cases, tmp_path / "m")
    assert made["a"]["file"] == "None"


def test_every_engine_has_its_module():
    assert {engine.module for engine in ENGINES.values()} == {
        path.name for path in MODULES.glob("*_inference.py")
    }


def test_the_baseline_is_the_first_that_was_measured(
    monkeypatch, tmp_path, run_program
):
    step = STEP.replace("HUNDREDTHS", "1")
    cases = {
        "step": {"variant": "v", "keep_rate": 1.0, "batch_size": 8, "gmacs": 1.0},
    }
    codes = {"other": step, "keras_function": step}
    for baseline, more in (
        (
            "keras_function",
            {"timm_float32": step.replace('{"step": lambda: step}', "{}")},
        ),
        ("timm_float32", {"timm_float32": step}),
    ):
        output = planned(
            *(monkeypatch, tmp_path, "inference"),
            {**codes, **more},
            facts={"cases": cases},
        )
        given = ("--what=inference", "--quick", "--rounds=1", f"--output={output}")
        done = run_program("benchmark", *given)
        assert done.code == 0, done.err
        assert json.loads(output.read_text())["baseline"] == baseline
        assert f"ratio: of images/s to {baseline} at keep rate 1" in done.out


def test_refuses_what_it_does_not_know(refusal, tmp_path):
    output = f"--output={tmp_path}/out/inference.json"
    given = ("benchmark", "--what=inference", "--quick", output)
    message = refusal(*given, "--engines=keras_function,openvino")
    assert message.startswith("`engines` must be one of ['keras_compiled_bfloat16', ")
    assert "Did you mean 'openvino_" in message
    message = refusal(*given, "--variants=deit_tinny_patch16_224")
    assert "Did you mean 'deit_tiny_patch16_224'?" in message
    for flag in ("1,0", "1,a", "1.5", "1,1", ""):
        message = refusal(*given, f"--batch_sizes={flag}")
        assert message == (
            "`batch_sizes` must be different whole numbers above 0. Received: "
            f"batch_sizes='{flag}'."
        )
    for flag in ("1,0", "1.1", "0.5,0.5"):
        message = refusal(*given, f"--keep_rates={flag}")
        assert message == (
            "`keep_rates` must be different shares above 0. Received: "
            f"keep_rates='{flag}'."
        )
    message = refusal(*given, "--batch_size=3")
    assert message.startswith(
        "`batch_size` has a meaning with --what=input or --what=distillation or "
        "--what=train or --what=softsplit only."
    )
    message = refusal(*given, f"--peer_python={tmp_path}/python")
    assert message == f"There is no file '{tmp_path}/python'."
    assert not (tmp_path / "out").exists()


def test_an_engine_whose_peer_takes_no_part_gets_no_file(contest_of, monkeypatch):
    def make(model, path):
        raise AssertionError("made for nobody")

    engine = _benchmark_inference.Engine("m.py", make, {}, peers=("timm", "openvino"))
    monkeypatch.setitem(ENGINES, "converted", engine)
    engines = "--engines=converted,keras_hub,keras_function"
    sizes = ("--batch_sizes=1", "--keep_rates=1")
    found, record = contest_of(engines, "--peers=keras_hub,timm", *sizes)
    assert {"keras_hub", "keras_function"} <= set(found)
    assert record["left_out"] == {"converted": "--peers is without openvino"}


def test_an_export_that_fails_is_named_and_the_others_go_on(contest_of, monkeypatch):
    def make(model, path):
        raise RuntimeError("no such operator")

    engine = _benchmark_inference.Engine("m.py", make, {})
    monkeypatch.setitem(ENGINES, "broken", engine)
    sizes = ("--batch_sizes=1", "--keep_rates=1")
    found, record = contest_of("--engines=broken,keras_function", *sizes)
    assert record["errors"] == {f"broken: {MICRO}, keep 1": "no such operator"}
    assert found["broken"][1]["cases"] == {}
    assert len(found["keras_function"][1]["cases"]) == 1


@pytest.mark.slow
def test_engines_are_measured(run_program, rows_of, tmp_path):
    output = tmp_path / "benchmarks" / "inference.json"
    flags = ("--quick", "--rounds=1", f"--output={output}")
    done = run_program("benchmark", "--what=inference", *flags)
    assert done.code == 0, done.err
    record = json.loads(output.read_text())
    assert record["errors"] == {}
    measured = [
        (r["contestant"], r["keep_rate"], r["batch_size"]) for r in record["rows"]
    ]
    both = [(rate, size) for rate in (1.0, 0.5) for size in (1, 8)]
    assert measured == [
        *(("keras_function", *case) for case in both),
        *(("saved_model_float32", *case) for case in both),
        ("tflite_dynamic_int8", 1.0, 1),
        ("tflite_dynamic_int8", 0.5, 1),
    ]
    assert all(row["ratio"] for row in record["rows"])
