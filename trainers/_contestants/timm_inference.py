"""timm's model with our weights; `worker.py` says how it is asked."""

import os
from functools import partial

PACKAGES = ("timm", "torch", "safetensors", "numpy")
PATH = ()


def tasks(precision: str, compiled: bool, cases: dict, num_threads: int) -> dict:
    """The tasks, one for each case whose variant timm has.

    Args:
        precision: "float32" or "bfloat16", of weights and of what is computed.
        compiled: Whether `torch.compile` compiles it; else it is eager.
        cases: By name of the task, what `trainers/_benchmark_inference.py` says.
        num_threads: How many threads work.
    """
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # before it looks; no processes
    import timm  # noqa: F401, not in the fork
    import torch

    from trainers._contestants.timm_model import has_model

    torch.set_num_threads(num_threads)
    return {
        name: partial(_step, case, getattr(torch, precision), compiled)
        for name, case in cases.items()
        if has_model(case)
    }


def _step(case: dict, dtype, compiled: bool):
    import torch

    from trainers._contestants.answers import checked_step, pixels_of
    from trainers._contestants.timm_model import timm_model

    model = timm_model(case).to(dtype)
    run = torch.inference_mode()(model)
    pixels = torch.from_numpy(pixels_of(case)).permute(0, 3, 1, 2)
    pixels = pixels.float().contiguous()
    if compiled:
        run(pixels)  # what fails after this is the compiler
        run = _compiled(model, pixels)
    return checked_step(run, pixels, case)


def _compiled(model, pixels):
    """The compiled model.

    Raises:
        LeftOutError: If PyTorch cannot compile it here: it needs a C++ compiler.
    """
    import torch

    from trainers._contestants.left_out import LeftOutError

    run = torch.inference_mode()(torch.compile(model, dynamic=False))
    try:
        run(pixels)
    except Exception as error:  # of any kind: of compilers there are many
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines or [type(error).__name__])[0]
        raise LeftOutError(f"torch.compile cannot compile here: {reason}") from error
    return run
