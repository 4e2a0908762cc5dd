import base64
import contextlib
import functools
import http.server
import json
import re
import runpy
import shutil
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from tests.examples.artifacts import rows_of, write_files

SERVING = Path(__file__).parents[2] / "examples" / "serving"
LABELS = {"stable": 1, "canary": 2}


class Models:
    """Versions of a model, found and refused as TF Serving does it.

    Refusals are (code of gRPC, code of HTTP, text).
    """

    def __init__(self, folders):
        loaded = {int(f.name): tf.saved_model.load(str(f)) for f in folders}
        self._signatures = {v: model.signatures for v, model in loaded.items()}

    def signature(self, name, version=None, label="", signature=""):
        """The signature asked for; "" and None are those that TF Serving takes."""
        if name != "animals":
            text = f"Servable not found for request: Latest({name})"
            raise LookupError(grpc.StatusCode.NOT_FOUND, 404, text)
        if label and label not in LABELS:
            text = f"Unrecognized servable version label: {label}"
            raise LookupError(grpc.StatusCode.INVALID_ARGUMENT, 400, text)
        version = version or LABELS.get(label) or max(self._signatures)
        if version not in self._signatures:
            text = f"Servable not found for request: Specific({name}, {version})"
            raise LookupError(grpc.StatusCode.NOT_FOUND, 404, text)
        signature = signature or "serving_default"
        if signature not in self._signatures[version]:
            text = f'Serving signature key "{signature}" not found.'
            raise LookupError(grpc.StatusCode.INVALID_ARGUMENT, 400, text)
        return self._signatures[version][signature]


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models):
        self._models = models
        self.requests = []

    def Predict(self, request, context):  # noqa: N802, of gRPC
        self.requests.append((request, context.time_remaining()))
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        where = (spec.name, version, spec.version_label, spec.signature_name)
        try:
            signature = self._models.signature(*where)
        except LookupError as error:
            context.abort(error.args[0], error.args[2])
        inputs = {n: tf.constant(tf.make_ndarray(v)) for n, v in request.inputs.items()}
        response = predict_pb2.PredictResponse(model_spec=spec)
        for name, tensor in signature(**inputs).items():
            if name in request.output_filter or not request.output_filter:
                value = tf.make_tensor_proto(tensor.numpy())
                response.outputs[name].CopyFrom(value)
        return response


class RestHandler(http.server.BaseHTTPRequestHandler):
    """The rows of TF Serving's RESTful API: one object for each image, in and out."""

    def __init__(self, models, *arguments):
        self._models = models
        super().__init__(*arguments)

    def do_POST(self):  # noqa: N802, of Python
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            code, answer = 200, {"predictions": self._predictions(json.loads(body))}
        except LookupError as error:
            code, answer = error.args[1], {"error": error.args[2]}
        except ValueError as error:
            code, answer = 400, {"error": str(error)}
        content = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _predictions(self, request):
        form = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:predict"
        place = re.fullmatch(form, self.path)
        if place is None:
            text = f"Malformed request: POST {self.path}"
            raise LookupError(None, 400, text)
        name, version, label = place.groups()
        signature = self._models.signature(
            name, version and int(version), label, request.get("signature_name")
        )
        columns = {
            name: tf.constant([_value(row[name]) for row in request["instances"]])
            for name in request["instances"][0]
        }
        outputs = {name: x.numpy() for name, x in signature(**columns).items()}
        count = len(request["instances"])
        return [{n: _plain(n, x[i]) for n, x in outputs.items()} for i in range(count)]

    def log_message(self, *_):
        pass


def _value(value):
    """What stands for a value in JSON: bytes are in base64."""
    is_bytes = isinstance(value, dict) and set(value) == {"b64"}
    return base64.b64decode(value["b64"], validate=True) if is_bytes else value


def _plain(name, array):
    """A value for JSON: strings are text, unless the output's name ends in _bytes."""
    if isinstance(array, bytes):
        assert not name.endswith("_bytes")
        return array.decode()
    if isinstance(array, np.ndarray) and array.dtype == object:
        return [_plain(name, one) for one in array]
    return array.tolist()


@pytest.fixture(scope="module")
def models(version):
    """Two versions; the labels of the second are in capitals."""
    second = version.with_name("2")
    shutil.copytree(version, second)
    labels = second / "assets" / "labels.txt"
    labels.write_text(labels.read_text().upper())
    yield Models([version, second])
    shutil.rmtree(second)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def grpc_server(models):
    """(address, service): TF Serving's service, in this process."""
    service = PredictionService(models)
    pool = futures.ThreadPoolExecutor(2)
    server = grpc.server(pool, options=[("grpc.max_receive_message_length", -1)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", service
    server.stop(None).wait()
    pool.shutdown()


@contextlib.contextmanager
def http_server(handler):
    """The address of a server on a free port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def rest_server(models):
    """The address of a stand-in for TF Serving's REST port."""
    with http_server(functools.partial(RestHandler, models)) as address:
        yield address


def run(script, *arguments):
    """Runs a client: (exit code, lines, standard error)."""
    command = [sys.executable, "-I", SERVING / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.fixture
def run_here(monkeypatch, capsys):
    """`run` without a process of its own, because TensorFlow takes long to import."""

    def run_here(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        capsys.readouterr()
        code = None
        try:
            runpy.run_path(str(SERVING / script), run_name="__main__")
        except SystemExit as stopped:
            code = stopped.code
        return code, capsys.readouterr().out.splitlines()

    return run_here


def at(server, model="animals"):
    return [f"--server={server}", f"--model={model}"]


def expected_rows(models, paths, **where):
    files = tf.constant([path.read_bytes() for path in paths])
    return rows_of(models.signature("animals", **where)(image_bytes=files), paths)


@pytest.mark.slow
def test_the_rest_client_prints_the_answers_of_the_model(rest_server, models, paths):
    code, lines, errors = run("rest_client.py", *at(rest_server), *paths)
    assert (code, errors) == (0, "")
    assert lines == expected_rows(models, paths)
    assert lines[1] == f"{paths[1]}\tnot_decodable\t\t0.0000"
    assert len({line.split("\t")[2] for line in lines}) > 2  # the images differ


@pytest.mark.slow
def test_rest_finds_a_version_a_label_and_a_signature(rest_server, models, paths):
    ways = [
        ("--version=1", {"version": 1}),
        ("--label=canary", {"label": "canary"}),
        ("--signature=keep_50", {"signature": "keep_50"}),
    ]
    answers = []
    for option, where in ways:
        code, lines, errors = run("rest_client.py", *at(rest_server), option, *paths)
        assert (code, errors) == (0, "")
        assert lines == expected_rows(models, paths, **where)
        answers.append(lines)
    assert answers[0] != answers[1] != answers[2]


@pytest.mark.slow
def test_more_images_than_a_request_takes_are_several_requests(
    rest_server, models, paths
):
    code, lines, _ = run("rest_client.py", *at(rest_server), *paths * 9)  # 36
    assert code == 0
    assert lines == expected_rows(models, paths) * 9


@pytest.mark.slow
def test_rest_says_what_is_wrong(rest_server, paths):
    here = at(rest_server)
    cases = [
        (
            at(rest_server, "plants"),
            r"plants answers with error 404: Servable not foun",
        ),
        (
            [*here, "--version=7"],
            r"versions/7 answers with error 404: .*\(animals, 7\)",
        ),
        ([*here, "--label=new"], r"labels/new answers with error 400: Unrecognized"),
        ([*here, "--signature=k"], r'error 400: Serving signature key "k" not found'),
        (at(f"{rest_server}/x"), r"error 400: Malformed request: POST /x/v1/models/a"),
    ]
    for arguments, message in cases:
        code, lines, errors = run("rest_client.py", *arguments, paths[0])
        assert (code, lines) == (1, [])
        assert re.search(message, errors), errors
        assert errors.count("\n") == 1


def test_an_error_from_something_that_is_no_tf_serving_is_shown(paths):
    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802, of Python
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(502)
            self.end_headers()
            self.wfile.write(b"<html>Bad gateway</html>")

        def log_message(self, *_):
            pass

    with http_server(Proxy) as address:
        code, _, errors = run("rest_client.py", *at(address), paths[0])
    assert code == 1
    assert "answers with error 502: <html>Bad gateway</html>" in errors


def test_a_server_that_is_not_there_is_said(paths):
    code, lines, errors = run("rest_client.py", *at("http://127.0.0.1:1"), paths[0])
    assert (code, lines) == (1, [])
    address = "http://127.0.0.1:1/v1/models/animals"
    assert errors.startswith(f"No answer from {address}: <urlopen error ")


def test_a_client_without_images_says_how_it_is_used():
    code, _, errors = run("rest_client.py", *at("http://127.0.0.1:1"))
    assert code == 2
    assert "Usage: python rest_client.py --model=NAME" in errors


@pytest.mark.slow
def test_the_grpc_client_prints_the_answers_of_the_model(grpc_server, models, paths):
    address, service = grpc_server
    service.requests.clear()
    code, lines, errors = run("grpc_client.py", *at(address), *paths)
    assert code == 0, errors
    assert lines == expected_rows(models, paths)
    ((request, seconds),) = service.requests  # all images in one
    assert request.inputs["image_bytes"].tensor_shape.dim[0].size == len(paths)
    assert set(request.output_filter) == {"status", "top_k_labels", "top_k_scores"}
    assert 0 < seconds <= 60


@pytest.mark.slow
def test_grpc_finds_a_version_a_label_and_a_signature(
    grpc_server, models, paths, run_here
):
    address, service = grpc_server
    ways = [
        (["--version=1", "--timeout=2000"], {"version": 1}),
        (["--label=canary", "--signature=keep_50"], {"signature": "keep_50"}),
    ]
    for options, where in ways:
        code, lines = run_here("grpc_client.py", *at(address), *options, *paths)
        assert code is None
        assert lines == expected_rows(models, paths, **where)
    assert 60 < service.requests[-2][1] <= 2000


@pytest.mark.slow
def test_grpc_takes_more_than_four_mebibytes(grpc_server, tmp_path, run_here):
    large = tmp_path / "large.png"
    image = np.random.default_rng(0).integers(0, 256, (1500, 1100, 3), np.uint8)
    large.write_bytes(tf.io.encode_png(image).numpy())
    assert large.stat().st_size > 2**22
    code, lines = run_here("grpc_client.py", *at(grpc_server[0]), large)
    assert code is None
    assert lines[0].startswith(f"{large}\tok\t")


@pytest.mark.slow
def test_grpc_says_what_is_wrong(grpc_server, paths, run_here):
    address = grpc_server[0]
    cases = [
        (at(address, "plants"), "NOT_FOUND: Servable not found for request: Latest(pl"),
        ([*at(address), "--signature=x"], "INVALID_ARGUMENT: Serving signature key"),
        (at("127.0.0.1:1"), "127.0.0.1:1 did not answer. UNAVAILABLE: "),
    ]
    for arguments, message in cases:
        code, lines = run_here("grpc_client.py", *arguments, paths[0])
        assert message in code
        assert lines == []


def test_models_config_is_what_tf_serving_reads():
    text = (SERVING / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    digits, flowers = config.model_config_list.config
    assert digits.name == "digits"
    assert digits.base_path == "/models/digits"
    assert {c.model_platform for c in (digits, flowers)} == {"tensorflow"}
    assert dict(digits.version_labels) == LABELS
    specific = digits.model_version_policy.specific.versions
    assert set(digits.version_labels.values()) <= set(specific)
    assert flowers.model_version_policy.latest.num_versions == 1


def batching_parameters():
    """The message that tensorflow_serving keeps in session_bundle_config.proto.

    The wheel leaves it out.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="batching.proto",
        package="keras_deit_tests",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    message = file.message_type.add(name="BatchingParameters")
    wrapped = (
        "max_batch_size",
        "batch_timeout_micros",
        "max_enqueued_batches",
        "num_batch_threads",
    )
    for number, name in enumerate(wrapped, 1):
        message.field.add(
            name=name,
            number=number,
            type=field.TYPE_MESSAGE,
            label=field.LABEL_OPTIONAL,
            type_name=".google.protobuf.Int64Value",
        )
    message.field.add(
        name="allowed_batch_sizes",
        number=6,
        type=field.TYPE_INT64,
        label=field.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    found = pool.FindMessageTypeByName("keras_deit_tests.BatchingParameters")
    return message_factory.GetMessageClass(found)()


def test_batching_config_is_what_tf_serving_reads():
    text = (SERVING / "batching.config").read_text()
    config = text_format.Parse(text, batching_parameters())
    assert len(config.ListFields()) == 5  # all that the authors know of, but padding
    sizes = list(config.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == config.max_batch_size.value  # else TF Serving refuses it


def test_a_client_is_a_page_and_knows_nothing_of_ours():
    for script in ("rest_client.py", "grpc_client.py"):
        text = (SERVING / script).read_text()
        assert "keras" not in text
        assert len(text.splitlines()) < 90


@pytest.mark.slow
def test_the_tool_of_tensorflow_shows_scans_and_runs_the_model(
    version, models, tmp_path
):
    def tool(command, *arguments):
        program = Path(sys.executable).with_name("saved_model_cli")
        line = [program, command, "--dir", version, *arguments]
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = tool("show", "--all")
    for name in ("serving_default", "keep_50", "pixels", "float"):
        assert f"signature_def['{name}']" in shown
    assert "inputs['image_bytes'] tensor_info:\n        dtype: DT_STRING" in shown
    scanned = tool("scan", "--tag_set", "serve")
    assert "does not contain the default denylisted ops" in scanned
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    tool(
        *("run", "--tag_set", "serve", "--signature_def", "pixels"),
        *("--inputs", f"pixels={tmp_path / 'pixels.npy'}", "--outdir", tmp_path),
    )
    expected = models.signature("animals", signature="pixels")(pixels=pixels)
    logits = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5)
