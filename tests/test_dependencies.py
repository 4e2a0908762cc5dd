import subprocess
import sys

import pytest

USES = {
    "keras_cv": "keras_cv.layers.Grayscale(3)(np.ones((2, 8, 8, 3), 'float32'))",
    "tensorflow_datasets": "tensorflow_datasets.builder_cls('cifar10')",
    "tensorboard": "tensorboard.__version__",
    "ai_edge_litert.interpreter": "ai_edge_litert.interpreter.Interpreter",
}


@pytest.mark.slow
@pytest.mark.parametrize("package", USES)
def test_a_package_works_beside_ours(package):
    script = f"import numpy as np, keras_deit, {package}; {USES[package]}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
