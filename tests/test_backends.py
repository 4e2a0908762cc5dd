"""The layers, models and weights know only Keras, so they run on its other backends.

Where JAX or PyTorch are not installed beside the tests, $KERAS_DEIT_BACKENDS_PYTHON may
name a Python that has keras, h5py, safetensors, rich, jax and torch.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PYTHON = os.environ.get("KERAS_DEIT_BACKENDS_PYTHON", sys.executable)


def run(python, backend, *arguments):
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.run(
        [python, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )


def answers_of(python, backend, folder):
    """What the models answer on a backend, by case."""
    path = folder / f"{backend}.npz"
    process = run(python, backend, ROOT / "tests/backend_outputs.py", path)
    assert process.returncode == 0, process.stderr
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module", params=["jax", "torch"])
def backend(request):
    if run(PYTHON, request.param, "-c", f"import {request.param}").returncode:
        pytest.skip(f"{PYTHON} has no {request.param}: set KERAS_DEIT_BACKENDS_PYTHON")
    return request.param


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    return answers_of(sys.executable, "tensorflow", folder)


@pytest.mark.slow
def test_every_family_agrees_with_tensorflow(backend, reference, tmp_path):
    answers = answers_of(PYTHON, backend, tmp_path)
    assert str(answers["backend"]) == backend
    assert set(answers) == set(reference)
    for case in set(reference) - {"backend"}:
        np.testing.assert_allclose(
            answers[case], reference[case], rtol=0, atol=1e-4, err_msg=case
        )
        assert np.std(answers[case]) > 0.01
