"""An ONNX file in ONNX Runtime; `worker.py` says how it is asked."""

from functools import partial

PACKAGES = ("onnxruntime", "onnx", "tf2onnx")  # two of them to make the file
PATH = ()


def tasks(cases: dict, num_threads: int) -> dict:
    """The tasks, one for each case.

    Args:
        cases: By name of the task, what `trainers/_benchmark_inference.py` says.
        num_threads: How many threads work.
    """
    import onnxruntime  # noqa: F401, not in the fork

    return {name: partial(_step, case, num_threads) for name, case in cases.items()}


def _step(case: dict, num_threads: int):
    import numpy as np
    import onnxruntime as ort

    from trainers._contestants.answers import checked_step, pixels_of

    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    providers = ["CPUExecutionProvider"]
    session = ort.InferenceSession(case["file"], options, providers=providers)
    pixels = pixels_of(case).astype(np.float32)
    return checked_step(
        lambda x: session.run(["logits"], {"pixels": x})[0], pixels, case
    )
