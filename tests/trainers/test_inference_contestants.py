import importlib
import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deit import export, save_weights
from keras_deit.models.inference import inference_model
from trainers._benchmark_engines import ENGINES
from trainers._benchmark_inference import _facts, at_keep_rate, seeded_model
from trainers._contestants.answers import checked_step, pixels_of
from trainers._contestants.left_out import LeftOutError

MICRO = "deit_micro_distilled_patch4_32"


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """The model, and the case of two images at keep rate 1 and 0.5."""
    folder = tmp_path_factory.mktemp("cases")
    model = seeded_model(MICRO)
    found = {}
    for rate in (1.0, 0.5):
        dialed, path = (
            at_keep_rate(model, rate),
            folder / f"m{rate:g}".replace(".", "_"),
        )
        facts = _facts(dialed, MICRO, rate, path, 3)
        found[rate] = inference_model(dialed), path, {**facts, "batch_size": 2}
    return found


def step_of(module, case, **arguments):
    tasks = importlib.import_module(f"trainers._contestants.{module}").tasks
    if "num_threads" not in arguments:
        arguments["num_threads"] = 1
    return tasks(cases={"task": case}, **arguments)["task"]()


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """TensorFlow has begun here, so its threads cannot be counted anew."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    for name in ("intra", "inter"):
        setting = f"set_{name}_op_parallelism_threads"
        monkeypatch.setattr(tf.config.threading, setting, lambda number: None)


def test_a_step_is_made_of_right_answers_only(cases):
    model, _, case = cases[1.0]
    pixels = pixels_of(case)
    assert (pixels.shape, pixels.dtype) == ((2, 32, 32, 3), np.uint8)
    expected = np.load(case["expected"])
    asked = []

    def run(inputs):
        asked.append(inputs)
        return expected

    assert checked_step(run, "inputs", case)() == 2
    assert asked == ["inputs"] * 2
    scale = (expected - expected.mean(-1, keepdims=True)).std()
    assert checked_step(lambda _: expected + 0.29 * scale, None, case)() == 2
    for wrong in (
        expected + 0.31 * scale,
        0 * expected,
        np.full_like(expected, np.nan),
    ):
        with pytest.raises(ValueError, match="Its answers are not the model's: "):
            checked_step(lambda _, wrong=wrong: wrong, None, case)


@pytest.mark.parametrize("number", [1, 3])
def test_the_first_answers_are_compared(number, cases):
    _, _, case = cases[1.0]
    answers = np.resize(np.load(case["expected"]), (3, 1000))[:number]
    case = {**case, "batch_size": number}
    assert checked_step(lambda _: answers, None, case)() == number


@pytest.mark.parametrize(
    ("how", "rate"), [("predict", 1.0), ("function", 0.5), ("compiled_float32", 0.5)]
)
def test_keras_answers_as_the_model(how, rate, cases):
    model, path, case = cases[rate]
    file = path.with_suffix(".keras")
    model.save(file)
    step = step_of("keras_inference", {**case, "file": str(file)}, how=how)
    assert step() == 2


def test_another_model_is_not_timed(cases, tmp_path):
    model, _, case = cases[1.0]
    keras.models.clone_model(model).save(tmp_path / "other.keras")
    case = {**case, "file": str(tmp_path / "other.keras")}
    with pytest.raises(ValueError, match="Its answers are not the model's: "):
        step_of("keras_inference", case, how="function")


@pytest.fixture
def quick(cases):
    _, _, case = cases[0.5]
    return {"images": list(pixels_of(case)), "min_agreement": 0.0, "verbose": False}


@pytest.mark.slow
def test_a_saved_model_answers_as_the_model(cases, quick, tmp_path):
    model, _, case = cases[0.5]
    file = export.saved_model(model, tmp_path / "served", **quick)
    case = {**case, "file": str(file)}
    assert step_of("keras_inference", case, how="saved_model")() == 2


@pytest.mark.slow
def test_tflite_answers_as_the_model(cases, quick, tmp_path):
    model, _, case = cases[0.5]
    file = export.tflite(model, tmp_path / "m.tflite", "float32", **quick)
    case = {**case, "file": str(file), "batch_size": 1}
    assert step_of("tflite_inference", case)() == 1


@pytest.mark.engines
def test_other_engines_answer_as_the_model(cases, quick, tmp_path):
    for package in ("openvino", "onnxruntime", "tf2onnx"):
        pytest.importorskip(package, reason="pip install 'keras-deit[engines]'")
    model, _, case = cases[0.5]
    for file, module, how in (
        (export.openvino(model, tmp_path / "m.xml", **quick), "openvino", "f32"),
        (export.onnx(model, tmp_path / "m.onnx", **quick), "onnx", None),
    ):
        arguments = {"precision": how} if how else {}
        step = step_of(f"{module}_inference", {**case, "file": str(file)}, **arguments)
        assert step() == 2
    quantized = ENGINES["onnx_dynamic_int8"].make(model, tmp_path / "m")
    assert quantized.stat().st_size < (tmp_path / "m.onnx").stat().st_size / 2
    assert step_of("onnx_inference", {**case, "file": str(quantized)})() == 2


def test_timm_answers_as_the_model(cases, tmp_path):
    pytest.importorskip("timm", reason="pip install 'keras-deit[bench]'")
    variant = "deit_tiny_distilled_patch16_224"
    model = seeded_model(variant)
    save_weights(model, tmp_path / "m.safetensors")
    case = _facts(model, variant, 1.0, tmp_path / "m", 2)
    case = {**case, "batch_size": 2, "file": str(tmp_path / "m.safetensors")}
    for precision in ("float32", "bfloat16"):
        how = {"precision": precision, "compiled": False}
        assert step_of("timm_inference", case, **how)() == 2
    tasks = importlib.import_module("trainers._contestants.timm_inference").tasks
    unknown = {**case, "variant": "regnety_micro_32", "encoder": None}
    assert tasks("float32", False, {"t": unknown}, 1) == {}


def test_timm_makes_a_distilled_deit_that_it_has_no_name_for(cases, tmp_path):
    pytest.importorskip("timm", reason="pip install 'keras-deit[bench]'")
    save_weights(seeded_model(MICRO), tmp_path / "m.safetensors")
    case = {**cases[1.0][2], "file": str(tmp_path / "m.safetensors")}
    how = {"precision": "float32", "compiled": False}
    assert step_of("timm_inference", case, **how)() == 2
    if importlib.util.find_spec("openvino"):
        assert step_of("openvino_timm_inference", case, precision="f32")() == 2


def test_what_pytorch_cannot_compile_is_left_out(cases, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="pip install 'keras-deit[bench]'")
    pytest.importorskip("timm", reason="pip install 'keras-deit[bench]'")
    save_weights(seeded_model(MICRO), tmp_path / "m.safetensors")
    case = {**cases[1.0][2], "file": str(tmp_path / "m.safetensors")}

    def compile_(model, dynamic):
        def run(pixels):
            raise OSError("No C++ compiler.\n\nSet CXX.")

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    how = {"precision": "float32", "compiled": True}
    message = "torch.compile cannot compile here: No C\\+\\+ compiler.$"
    with pytest.raises(LeftOutError, match=message):
        step_of("timm_inference", case, **how)
