"""timm's model, converted by OpenVINO itself; `worker.py` says how it is asked."""

from functools import partial

PACKAGES = ("openvino", "timm", "torch", "safetensors", "numpy")
PATH = ()


def tasks(precision: str, cases: dict, num_threads: int) -> dict:
    """The tasks, one for each case whose variant timm has.

    Args:
        precision: "f32" or "bf16", what it computes in.
        cases: By name of the task, what `trainers/_benchmark_inference.py` says.
        num_threads: How many threads work.
    """
    import openvino  # noqa: F401, not in the fork

    from trainers._contestants.timm_model import has_model

    return {
        name: partial(_step, case, precision, num_threads)
        for name, case in cases.items()
        if has_model(case)
    }


def _step(case: dict, precision: str, num_threads: int):
    import openvino as ov
    import torch

    from trainers._contestants.answers import checked_step, pixels_of
    from trainers._contestants.openvino_inference import compiled_model
    from trainers._contestants.timm_model import timm_model

    pixels = torch.from_numpy(pixels_of(case)).permute(0, 3, 1, 2)
    pixels = pixels.float().contiguous()
    any_batch = ov.PartialShape([-1, *pixels.shape[1:]])  # as our files take it
    with torch.inference_mode():
        model = ov.convert_model(
            timm_model(case), example_input=pixels, input=[any_batch]
        )
    compiled = compiled_model(model, precision, num_threads)
    return checked_step(lambda pixels: compiled(pixels)[0], pixels.numpy(), case)
