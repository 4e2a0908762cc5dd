"""The plan of `benchmark --what=softsplit`: one soft split in one way after another."""

from itertools import product
from pathlib import Path

from trainers._contest import Contestant, Plan, cores_of_ours
from trainers._contestants import MODULES
from trainers._contestants.soft_splits import STAGES, WAYS, task_name
from trainers._contestants.softsplit import SPLITS
from trainers._peers import peer_python


def plan(values, settings: dict, folder: Path) -> Plan:
    """Plans the contest of the ways to split softly.

    Args:
        values: The flags.
        settings: The numbers of this run.
        folder: Of no use here.
    """
    python = peer_python(values)
    all_cores = values.cores == "all"
    task = {
        "batch_size": settings["batch_size"],
        "num_threads": len(cores_of_ours()) if all_cores else 1,
    }
    return Plan(
        f"The soft splits of T2T-ViT-14 on {'all cores' if all_cores else 'one core'}, "
        f"batches of {settings['batch_size']}",
        "seconds" if all_cores else "cpu_seconds",
        (
            *(
                Contestant(name, MODULES / "softsplit.py", {"how": name, **task})
                for name in SPLITS
            ),
            Contestant(
                "torch nn.Unfold",
                MODULES / "torch_softsplit.py",
                task,
                python,
                peers=("timm",),
            ),
        ),
        facts={
            "tasks": {
                task_name(*names): settings["batch_size"]
                for names in product(STAGES, WAYS)
            },
            "with_memory": False,
        },
        all_cores=all_cores,
    )
