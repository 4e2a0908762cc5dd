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


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("outputs") / "tensorflow.npz"
    process = run(sys.executable, "tensorflow", ROOT / "tests/backend_outputs.py", path)
    assert process.returncode == 0, process.stderr
    return np.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_every_family_agrees_with_tensorflow(backend, reference, tmp_path):
    if run(PYTHON, backend, "-c", f"import {backend}").returncode:
        pytest.skip(f"{PYTHON} has no {backend}: set KERAS_DEIT_BACKENDS_PYTHON")
    path = tmp_path / f"{backend}.npz"
    process = run(PYTHON, backend, ROOT / "tests/backend_outputs.py", path)
    assert process.returncode == 0, process.stderr
    outputs = np.load(path)
    assert str(outputs["backend"]) == backend
    assert set(outputs) == set(reference)
    for case in set(reference) - {"backend"}:
        np.testing.assert_allclose(
            outputs[case], reference[case], rtol=0, atol=1e-4, err_msg=case
        )
        assert np.std(outputs[case]) > 0.01
    assert process.stdout.split()[-1] == str(backend == "tensorflow")
