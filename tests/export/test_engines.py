import json

import keras
import numpy as np
import pytest

from keras_deit.export import engines
from keras_deit.export.engines import onnx, openvino
from keras_deit.models.inference import inference_model
from keras_deit.weights.create import create_model
from tests.export.test_families import FAMILIES, model_of

WRITERS = {"openvino": (openvino, ".xml"), "onnx": (onnx, ".onnx")}


@pytest.fixture
def installed():
    for package in ("openvino", "onnx", "onnxruntime", "tf2onnx"):
        pytest.importorskip(package, reason="pip install 'keras-deit[engines]'")


def needs_engines(test):
    return pytest.mark.engines(pytest.mark.usefixtures("installed")(test))


def in_both(test):
    return needs_engines(pytest.mark.parametrize("engine", WRITERS)(test))


def run(path, pixels, hint="f32"):
    """What the engine itself answers, asked as BUILD.md says."""
    if path.suffix == ".xml":
        import openvino as ov

        options = {"INFERENCE_PRECISION_HINT": hint}
        return ov.Core().compile_model(path, "CPU", options)(pixels)["logits"]
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"pixels": pixels})[0]


def certificate_of(path):
    return json.loads(path.with_suffix(".certificate.json").read_text())


@in_both
def test_any_number_of_images_is_answered_as_the_model_does(
    engine, tmp_path, model, images, labels, capsys
):
    write, suffix = WRITERS[engine]
    path = tmp_path / "out" / f"pets.v1{suffix}"
    given = {"labels": labels, "images": images, "image_labels": [0, 1, 2]}
    assert write(model, path, **given) == path
    weights = ["pets.v1.bin"] if engine == "openvino" else []
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(
        ["pets.v1.certificate.json", "pets.v1.labels.txt", path.name, *weights]
    )
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 48, 40, 3))
    pixels = pixels.astype(np.float32)
    expected = inference_model(model)(pixels, training=False)
    for number in (1, 3):
        answer = run(path, pixels[:number])
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected[:number], atol=1e-4)
    names = path.with_suffix(".labels.txt").read_text()
    assert names == "ant\nbee\ncat\ndog\neel\nfox\ngnu\n"
    printed = capsys.readouterr().out
    assert f"{'OpenVINO' if weights else 'ONNX'} float32 of" in printed


@in_both
def test_the_certificate_says_what_the_file_is(engine, tmp_path, model, images, capsys):
    import hashlib

    write, suffix = WRITERS[engine]
    path = tmp_path / f"m{suffix}"
    write(model, path, images=images, head="distillation", verbose=False)
    assert capsys.readouterr().out == ""
    certificate = certificate_of(path)
    assert certificate["precision"] == "float32"
    assert certificate["model"].endswith("_distillation")
    assert set(certificate["signatures"]) == {"serving_default"}
    trial = certificate["signatures"]["serving_default"]
    assert trial["comparison"]["max_difference"] < 1e-4
    assert trial["comparison"]["num_images"] == 3
    assert (trial["keep_rate"], trial["speed"]["throughput_batch"]) == (None, 32)
    files = [path, path.with_suffix(".bin")] if engine == "openvino" else [path]
    contents = {file.name: file.read_bytes() for file in files}
    assert certificate["bytes"] == sum(map(len, contents.values()))
    assert certificate["sha256"] == {
        name: hashlib.sha256(content).hexdigest() for name, content in contents.items()
    }
    # OpenVINO knows attention and GELU as a whole.
    known = {"ScaledDotProductAttention", "Gelu"} if engine == "openvino" else set()
    assert {"MatMul", *(known or {"Softmax", "Erf"})} <= set(certificate["operators"])
    assert not {"Constant", "Parameter", "Result"} & set(certificate["operators"])


@needs_engines
def test_inputs_and_outputs_have_their_names(tmp_path, small_model, images):
    import onnx as package
    import openvino as ov

    for write, suffix in WRITERS.values():
        write(small_model, tmp_path / f"m{suffix}", images=images, verbose=False)
    graph = ov.Core().read_model(tmp_path / "m.xml")
    (given,), (answered,) = graph.inputs, graph.outputs
    assert (given.get_names(), answered.get_names()) == ({"pixels"}, {"logits"})
    assert given.get_partial_shape().to_string() == "[?,32,32,3]"
    graph = package.load(tmp_path / "m.onnx").graph
    shapes = {
        value.name: [
            d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim
        ]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"pixels": ["batch", 32, 32, 3], "logits": ["batch", 3]}


@needs_engines
def test_a_model_in_half_precision_is_exported_in_float32(tmp_path, images):
    model = create_model("deit_micro_patch4_32", num_classes=3, dtype="mixed_bfloat16")
    onnx(model, tmp_path / "m.onnx", images=images, verbose=False)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    pixels = pixels.astype(np.float32)
    twin = create_model("deit_micro_patch4_32", num_classes=3)
    twin.set_weights(model.get_weights())
    answer = run(tmp_path / "m.onnx", pixels)
    np.testing.assert_allclose(answer, twin(pixels, training=False), atol=1e-4)


@needs_engines
def test_bfloat16_is_half_the_file_and_a_hint(tmp_path, model, images):
    sizes = {}
    for precision in ("float32", "bfloat16"):
        path = tmp_path / f"{precision}.xml"
        openvino(model, path, precision, images=images, verbose=False)
        sizes[precision] = path.with_suffix(".bin").stat().st_size
    assert 0.5 <= sizes["bfloat16"] / sizes["float32"] < 0.6
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 48, 40, 3))
    pixels = pixels.astype(np.float32)
    expected = np.array(inference_model(model)(pixels, training=False))
    differences = [
        np.abs(run(tmp_path / f"{precision}.xml", pixels, hint) - expected).max()
        for precision, hint in (("float32", "f32"), ("bfloat16", "bf16"))
    ]
    assert differences[0] < 1e-4 < differences[1] < 0.2 * np.abs(expected).max()
    certificates = [certificate_of(tmp_path / f"{p}.xml") for p in sizes]
    assert certificates[0]["computed_in"] == "f32"
    assert certificates[1]["computed_in"] in ("bf16", "f32")  # as the CPU can
    assert certificates[1]["limits"]["max_difference"] is None


@in_both
def test_a_keep_rate_is_set_for_the_file_alone(engine, tmp_path, images):
    write, suffix = WRITERS[engine]
    whole, half = (tmp_path / f"{name}{suffix}" for name in ("whole", "half"))
    model = create_model("deit_micro_patch4_32", num_classes=3, depth=3)
    model.get_layer("class_head").kernel.assign(np.eye(64, 3) * 10)
    write(model, whole, images=images, verbose=False)
    write(model, half, images=images, keep_rate=0.5, verbose=False)
    assert "TopK" not in certificate_of(whole)["operators"]
    certificate = certificate_of(half)
    assert "TopK" in certificate["operators"]
    assert certificate["signatures"]["serving_default"]["keep_rate"] == 0.5


@in_both
@pytest.mark.parametrize("family", FAMILIES)
def test_the_smallest_of_each_family_runs_in_other_engines(family, engine, tmp_path):
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(4)]
    write, suffix = WRITERS[engine]
    path = tmp_path / f"model{suffix}"
    write(model_of(family), path, images=images, verbose=False)
    certificate = certificate_of(path)
    trial = certificate["signatures"]["serving_default"]
    assert trial["comparison"]["max_difference"] <= 1e-4
    assert ("TopK" in certificate["operators"]) == family.startswith("evit")


@in_both
def test_what_differs_is_not_kept(engine, tmp_path, small_model, images, monkeypatch):
    write, suffix = WRITERS[engine]
    path = tmp_path / f"model{suffix}"
    older = {path, path.with_suffix(".certificate.json"), path.with_suffix(".bin")}
    for file in older:
        file.write_text("older")
    other = keras.models.clone_model(small_model)  # with other weights
    original = engines._write
    monkeypatch.setattr(
        engines, "_write", lambda model, *a, **k: original(other, *a, **k)
    )
    with pytest.raises(RuntimeError, match="The exported artifact differs from the"):
        write(small_model, path, images=images)
    assert set(tmp_path.iterdir()) == older
    assert {file.read_text() for file in older} == {"older"}


@needs_engines
def test_refuses_operators_that_are_not_of_the_standard(
    tmp_path, small_model, images, monkeypatch
):
    import onnx as package

    monkeypatch.setattr(package.defs, "has", lambda name, domain: name != "Erf")
    message = r"operators of the standard only\. Received: Erf\."
    with pytest.raises(RuntimeError, match=message):
        onnx(small_model, tmp_path / "out" / "model.onnx", images=images)
    assert not (tmp_path / "out").exists()


def test_says_what_to_install(tmp_path, small_model, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    install = r"pip install 'keras-deit\[engines\]'"
    with pytest.raises(
        ImportError, match="An OpenVINO file needs openvino: " + install
    ):
        openvino(small_model, tmp_path / "model.xml")
    message = "An ONNX file needs onnx, onnxruntime, tf2onnx: " + install
    with pytest.raises(ImportError, match=message):
        onnx(small_model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("engine", WRITERS)
def test_refuses_bad_arguments(engine, tmp_path, model, images, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: "there")
    write, suffix = WRITERS[engine]
    path = tmp_path / f"model{suffix}"
    for message, arguments in (
        (rf"`path` must end in \{suffix}\. Received: path=", {"path": "model.tflite"}),
        ("`labels` must have one name for each class", {"labels": ["one"]}),
        ("`images` must hold at least one image", {"images": []}),
        ("`image_labels` must be one whole number", {"image_labels": [1]}),
        ("`head` must be one of", {"head": "both"}),
        ("`keep_rate` must be in", {"keep_rate": 1.5}),
    ):
        with pytest.raises(ValueError, match=message):
            write(model, **{"path": path, "images": images, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_precision_that_it_does_not_know(tmp_path, small_model):
    message = r"`precision` must be one of \['bfloat16', 'float32'\].*'int8'"
    with pytest.raises(ValueError, match=message):
        openvino(small_model, tmp_path / "model.xml", "int8")
