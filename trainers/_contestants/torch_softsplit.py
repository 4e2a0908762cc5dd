"""PyTorch's `nn.Unfold`; `worker.py` says how it is asked."""

from functools import partial
from itertools import product

PACKAGES = ("torch", "numpy")
PATH = ()


def tasks(batch_size: int, num_threads: int) -> dict:
    """The tasks, as those of `softsplit.py`; grids and tokens lie as PyTorch likes.

    Args:
        batch_size: How many grids are split at once.
        num_threads: How many threads work.
    """
    import torch

    from trainers._contestants.soft_splits import STAGES, WAYS, task_name

    torch.set_num_threads(num_threads)
    return {
        task_name(stage, way): partial(_step, stage, way, batch_size)
        for stage, way in product(STAGES, WAYS)
    }


def _step(stage: str, way: str, batch_size: int):
    import torch

    from trainers._contestants.soft_splits import (
        STAGES,
        WAYS,
        checked_step,
        made_up,
        padding_of,
    )

    kernel, stride = STAGES[stage][3:]
    unfold = torch.nn.Unfold(kernel, padding=padding_of(kernel, stride), stride=stride)
    grid, coming_back = map(torch.from_numpy, made_up(stage, batch_size))
    grid = grid.permute(0, 3, 1, 2).contiguous()  # (B, C, H, W)
    coming_back = coming_back.transpose(1, 2).contiguous()  # (B, C * kernel^2, N)

    @torch.inference_mode()
    def forward():
        return unfold(grid).transpose(1, 2).contiguous()  # as ours lie

    def both():
        asking = grid.detach().requires_grad_()
        tokens = unfold(asking)
        tokens.backward(coming_back)
        return tokens.detach().transpose(1, 2), asking.grad.permute(0, 2, 3, 1)

    run = forward if way == WAYS[0] else both
    return checked_step(run, stage, way, batch_size)
