"""Whether an artifact drops the tokens that its model drops."""

import os
import warnings
from collections.abc import Iterator, Mapping

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from keras_deit.export.tflite_file import operator_name, parse, signature_graphs
from keras_deit.export.trials import MODEL_BATCH
from keras_deit.models.reorganization import FUSED, with_kept_patches


def selection_agreement(
    content: bytes, models: Mapping[str, keras.Model], views: np.ndarray
) -> dict[str, list[float]]:
    """Compares which patches a TFLite file keeps with those that its model keeps.

    The order of the tokens is read off the file itself, behind its `top_k`.

    Args:
        content: The file.
        models: The model of each signature.
        views: Real images as the model sees them, uint8 (n, H, W, 3).

    Returns:
        For each signature that drops tokens: for each reorganization, the share of the
        patches that the model keeps which the file keeps too, in [0, 1], over all
        images.
    """
    rankings = _rankings(content)
    with warnings.catch_warnings():
        # To keep all tensors is for debugging only, it says.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = Interpreter(
            model_content=content,
            num_threads=os.cpu_count(),
            experimental_preserve_all_tensors=True,
        )
    agreement = {}
    for signature, (graph, tensors) in rankings.items():
        if not tensors:
            continue
        runner = interpreter.get_signature_runner(signature)
        dtype = runner.get_input_details()["pixels"]["dtype"]
        shares = []
        for view, kept in zip(views, _kept(models[signature], views), strict=True):
            runner(pixels=view[None].astype(dtype))
            orders = [interpreter.get_tensor(t, graph)[0] for t in tensors]
            shares.append(shares_kept(kept, orders))
        agreement[signature] = np.mean(shares, axis=0).tolist()
    return agreement


def _kept(model: keras.Model, views: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yields, for each image, the patches that each reorganization keeps, (K,)."""
    model = with_kept_patches(model)
    for first in range(0, len(views), MODEL_BATCH):
        _, kept = model(views[first : first + MODEL_BATCH], training=False)
        yield from (list(one) for one in zip(*map(np.asarray, kept), strict=True))


def shares_kept(kept: list[np.ndarray], orders: list[np.ndarray]) -> list[float]:
    """Computes, for one image, which share of the kept patches another order keeps.

    Args:
        kept: The patches that each reorganization keeps, (K,); -1 is a fused token.
        orders: The other ranking at each reorganization: places among the tokens that
            entered it, best first, (N,). The first K stay, then comes a fused token.

    Returns:
        The share of each reorganization, in [0, 1].

    Example:
    >>> shares_kept([np.array([3, 1, 0])], [np.array([1, 2, 3, 0])])
    [0.6666666666666666]
    """
    shares = []
    entered = np.arange(len(orders[0]))
    for expected, order in zip(kept, orders, strict=True):
        stayed = entered[order[: len(expected)]]
        patches = np.setdiff1d(expected, FUSED)
        shares.append(float(np.isin(patches, stayed).mean()))
        entered = np.append(stayed, FUSED)
    return shares


def _rankings(content: bytes) -> dict[str, tuple[int, list[int]]]:
    """For each signature its graph, and there the indices of each `top_k` in turn."""
    model = parse(content)
    return {
        signature: (
            graph,
            [
                int(operator.outputs[1])
                for operator in model.subgraphs[graph].operators
                if operator_name(model, operator) == "TOPK_V2"
            ],
        )
        for signature, graph in signature_graphs(model).items()
    }
