"""A TFLite file in LiteRT; `worker.py` says how it is asked."""

from functools import partial

PACKAGES = ("ai-edge-litert",)
PATH = ()


def tasks(cases: dict, num_threads: int) -> dict:
    """The tasks, one for each case.

    Args:
        cases: By name of the task, what `trainers/_benchmark_inference.py` says.
        num_threads: How many threads work.
    """
    import ai_edge_litert.interpreter  # noqa: F401, not in the fork

    return {name: partial(_step, case, num_threads) for name, case in cases.items()}


def _step(case: dict, num_threads: int):
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    from trainers._contestants.answers import checked_step, pixels_of

    interpreter = Interpreter(case["file"], num_threads=num_threads)
    run = interpreter.get_signature_runner("serving_default")
    pixels = pixels_of(case).astype(np.float32)
    return checked_step(lambda pixels: run(pixels=pixels)["logits"], pixels, case)
