"""A fresh process that imports a library and builds a model; run as a script.

`python start.py ARGUMENTS CORE`, as `trainers/_startup.py` does it. Little is imported
here before the library is: it would make the library look faster.
"""

import json
import os
import sys
import time
from importlib import import_module

PACKAGES = {
    "keras_deit": ("keras-deit", "tensorflow", "keras", "numpy"),
    "keras_hub": ("keras-hub", "tensorflow", "keras", "numpy"),
    "timm": ("timm", "torch", "numpy"),
    "litert": ("ai-edge-litert", "numpy"),
}


def main(arguments: str, core: str) -> None:
    """Prints what the start of a library says, as a line of JSON."""
    if core:
        os.sched_setaffinity(0, {int(core)})
    answers = os.dup(1)
    os.dup2(2, 1)  # what packages print is no answer
    arguments = json.loads(arguments)
    try:
        said = _started(**arguments)
    except ModuleNotFoundError:
        packages = _packages(PACKAGES[arguments["library"]])
        missing = [name for name, version in packages.items() if version is None]
        if not missing:
            raise
        said = {"missing": missing}
    else:
        said["packages"] = _packages(PACKAGES[arguments["library"]])
    os.write(answers, (json.dumps(said) + "\n").encode())
    os._exit(0)  # the end of a process is not measured, and may take seconds


def _started(library: str, **how) -> dict:
    """Imports the library and builds the model; seconds and memory of both.

    Args:
        library: One of `STARTS`.
        how: What its builder takes: `variant`, `encoder` and `image_size` of KerasHub's
            model, or the `file` of a model.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow looks for them
    os.environ["KERAS_BACKEND"] = "tensorflow"
    module, build = STARTS[library]
    clock = _Clock()
    brought = import_module(module)
    imported = clock.lap()
    build(brought, **how)
    return {"import": imported, "build": clock.lap()}


class _Clock:
    """Says what happened since it was asked last."""

    def __init__(self):
        self._last = time.perf_counter(), time.process_time()

    def lap(self) -> dict:
        """Seconds since the last lap, and the most memory so far."""
        before, self._last = self._last, (time.perf_counter(), time.process_time())
        return {
            "seconds": self._last[0] - before[0],
            "cpu_seconds": self._last[1] - before[1],
            "peak_bytes": _peak_bytes(),
        }


def _build_variant(library, variant: str):
    library.create_model(variant, num_classes=1000)


def _build_keras_hub(library, **how):
    from trainers._contestants.keras_hub_model import keras_hub_model

    keras_hub_model(**how)


def _build_litert(library, file: str):
    interpreter = library.Interpreter(file, num_threads=1)
    interpreter.allocate_tensors()


STARTS = {  # what is imported, and what builds a model with it
    "keras_deit": ("keras_deit", _build_variant),
    "keras_hub": ("keras_hub", _build_keras_hub),
    "timm": ("timm", _build_variant),
    "litert": ("ai_edge_litert.interpreter", _build_litert),
}


def _packages(names) -> dict:
    """The version of each distribution, None where it is not installed."""
    from importlib import metadata

    versions = {"python": sys.version.split()[0]}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _peak_bytes() -> int:
    """The most of this process that was in memory.

    Linux' `ru_maxrss` of a process begins with what its parent had, so it is asked only
    where there is nothing else.
    """
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123
            (line,) = (x for x in status if x.startswith("VmHWM"))
    except OSError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path.remove(here)  # its neighbors shadow no package
    main(*sys.argv[1:])
