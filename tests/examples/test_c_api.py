import shutil
import subprocess
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.examples.artifacts import LABELS, write_files

PROGRAM = Path(__file__).with_name("serve.c")
TENSORFLOW = Path(tf.__file__).parent
LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")
PRINTED = ("status", "top_k_classes", "top_k_scores", "top_k_labels")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A page of C, linked with what the TensorFlow wheel carries; or it skips."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    missing = [name for name in LIBRARIES if not (TENSORFLOW / name).exists()]
    if missing:
        pytest.skip(f"there is no {missing} in {TENSORFLOW}")
    path = tmp_path_factory.mktemp("c") / "serve"
    command = ["gcc", "-std=c11", "-O1", "-Wall", "-Werror", PROGRAM, "-o", path]
    command += ["-isystem", TENSORFLOW / "include", "-L", TENSORFLOW]
    command += [f"-l:{name}" for name in LIBRARIES] + [f"-Wl,-rpath,{TENSORFLOW}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


def tensor_names(version, signature, outputs):
    """The names of tensors, as they stand in the signature's definition."""
    content = (version / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
    found = graph.signature_def[signature]
    names = [found.outputs[name].name for name in outputs]
    return [found.inputs["image_bytes"].name, *names]


def served_in_c(program, version, signature, paths):
    """Status, class, probability and label of each image."""
    names = tensor_names(version, signature, PRINTED)
    done = subprocess.run([program, version, *names, *paths], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return [line.split("\t") for line in done.stdout.decode().splitlines()]


def test_a_program_in_c_gets_the_answers_that_python_gets(program, version, tmp_path):
    paths = write_files(tmp_path)
    signatures = tf.saved_model.load(str(version)).signatures
    answers = {}
    for name in ("serving_default", "keep_50"):
        rows = served_in_c(program, version, name, paths)
        files = tf.constant([path.read_bytes() for path in paths])
        answer = {n: x.numpy() for n, x in signatures[name](image_bytes=files).items()}
        assert [row[0] for row in rows] == ["ok", "not_decodable", "ok", "ok"]
        for i, (status, index, score, label) in enumerate(rows):
            assert status == answer["status"][i].decode()
            assert int(index) == answer["top_k_classes"][i, 0]
            expected = answer["top_k_scores"][i, 0]
            assert float(score) == pytest.approx(expected, abs=1e-5)
            assert label == (LABELS[int(index)] if status == "ok" else "")
        assert rows[1][1:] == ["-1", "0.000000", ""]
        answers[name] = rows
    assert answers["serving_default"] != answers["keep_50"]


def test_a_folder_without_a_model_and_a_name_that_is_not_there_are_errors(
    program, version, tmp_path
):
    names = tensor_names(version, "serving_default", PRINTED)
    for folder, first, message in (
        (tmp_path, names[0], "load: "),
        (version, "nothing:0", "There is no tensor nothing:0."),
    ):
        command = [program, folder, first, *names[1:], PROGRAM]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert message in done.stderr
