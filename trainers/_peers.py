"""The packages of others that the benchmarks compare with, or run our models in."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_deit._checks import check, check_choice
from keras_deit._files import existing_file

PEERS = ("timm", "keras_hub", "openvino", "onnxruntime")  # timm with its PyTorch


def chosen_peers(values) -> Sequence[str]:
    """Reads who takes part: all, unless --peers names them.

    Raises:
        ValueError: If a peer is unknown, or there twice.
    """
    if values.peers is None:
        return PEERS
    for peer in values.peers:
        check_choice("peers", peer, PEERS)
    check(
        len(set(values.peers)) == len(values.peers),
        "`peers` must be different.",
        peers=",".join(values.peers),
    )
    return values.peers


def peer_python(values) -> str:
    """The Python that has the packages of the others: of --peer_python, or this one."""
    return str(existing_file(Path(values.peer_python or sys.executable).expanduser()))


def left_out_by(values, needs: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Says who takes no part since --peers does not name whom it needs, and why.

    Args:
        values: The flags.
        needs: For each contestant the peers that it needs.
    """
    chosen = chosen_peers(values)
    absent = {
        name: [peer for peer in peers if peer not in chosen]
        for name, peers in needs.items()
    }
    return {
        name: f"--peers is without {' and '.join(peers)}"
        for name, peers in absent.items()
        if peers
    }
