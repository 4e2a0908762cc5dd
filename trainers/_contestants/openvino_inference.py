"""An OpenVINO file; `worker.py` says how it is asked."""

from functools import partial

PACKAGES = ("openvino",)
PATH = ()


def tasks(precision: str, cases: dict, num_threads: int) -> dict:
    """The tasks, one for each case.

    Args:
        precision: "f32" or "bf16", what it computes in.
        cases: By name of the task, what `trainers/_benchmark_inference.py` says.
        num_threads: How many threads work.
    """
    import openvino  # noqa: F401, not in the fork

    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": num_threads,
    }
    return {name: partial(_step, case, options) for name, case in cases.items()}


def _step(case: dict, options: dict):
    import numpy as np
    import openvino as ov

    from trainers._contestants.answers import checked_step, pixels_of

    compiled = ov.Core().compile_model(case["file"], "CPU", options)
    asked = options["INFERENCE_PRECISION_HINT"]
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found != asked:
        raise ValueError(f"This CPU computes in {found} where {asked} is asked.")
    pixels = pixels_of(case).astype(np.float32)
    return checked_step(lambda pixels: compiled(pixels)["logits"], pixels, case)
