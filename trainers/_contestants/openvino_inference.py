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

    return {
        name: partial(_step, case, precision, num_threads)
        for name, case in cases.items()
    }


def _step(case: dict, precision: str, num_threads: int):
    import numpy as np

    from trainers._contestants.answers import checked_step, pixels_of

    compiled = compiled_model(case["file"], precision, num_threads)
    pixels = pixels_of(case).astype(np.float32)
    return checked_step(lambda pixels: compiled(pixels)["logits"], pixels, case)


def compiled_model(model, precision: str, num_threads: int):
    """Compiles a file or a model for the CPU.

    Raises:
        LeftOutError: If this CPU does not compute in the precision.
    """
    import openvino as ov

    from trainers._contestants.left_out import LeftOutError

    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": num_threads,
    }
    compiled = ov.Core().compile_model(model, "CPU", options)
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found != precision:
        raise LeftOutError(f"This CPU computes in {found} where {precision} is asked.")
    return compiled
