"""timm's model with our weights, eager; `worker.py` says how it is asked."""

from functools import partial

PACKAGES = ("timm", "torch", "safetensors", "numpy")
PATH = ()


def tasks(precision: str, cases: dict, num_threads: int) -> dict:
    """The tasks, one for each case whose variant timm has.

    Args:
        precision: "float32" or "bfloat16", of weights and of what is computed.
        cases: By name of the task, what `trainers/_benchmark_inference.py` says.
        num_threads: How many threads work.
    """
    import timm
    import torch

    torch.set_num_threads(num_threads)
    return {
        name: partial(_step, case, getattr(torch, precision))
        for name, case in cases.items()
        if timm.is_model(case["variant"])
    }


def _step(case: dict, dtype):
    import timm
    import torch
    from safetensors.torch import load_file

    from trainers._contestants.answers import checked_step, pixels_of

    model = timm.create_model(case["variant"], num_classes=1000)
    model.load_state_dict(load_file(case["file"]))
    model = model.eval().to(dtype)
    mean, std = (
        255 * torch.tensor(case[name]).reshape(3, 1, 1) for name in ("mean", "std")
    )

    @torch.inference_mode()
    def run(pixels):
        return model(((pixels - mean) / std).to(dtype)).float()

    pixels = torch.from_numpy(pixels_of(case)).permute(0, 3, 1, 2)
    return checked_step(run, pixels.float().contiguous(), case)
