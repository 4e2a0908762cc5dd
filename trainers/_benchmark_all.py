"""`benchmark --what=all`: all that the table of goals needs, and the table."""

import json
import sys
from pathlib import Path

from absl import flags

from trainers import _goals

PASSED_ON = ("rounds", "dataset", "peers", "peer_python")
CORES = "one"  # unless it is chosen otherwise


def measure_all(values: flags.FlagValues, output: Path) -> None:
    """Measures every part, prints the table of goals and writes the files.

    Each part writes its own files beside: `all.json` has `all-train.json` and so on.

    Args:
        values: The flags.
        output: The JSON file to write; the picture lies beside it.

    Raises:
        ValueError: If a flag is refused.
        RuntimeError: If a part failed; what the others did is written all the same.
    """
    from trainers._benchmark_settings import settings_of
    from trainers._goals_report import write_goals_report
    from trainers._peers import chosen_peers

    settings_of(values)
    chosen_peers(values)
    scale = _goals.QUICK if values.quick else _goals.THOROUGH
    parts = _goals.parts_of(scale)
    failed, files = {}, {}
    for number, (name, part) in enumerate(parts.items(), start=1):
        files[name] = output.with_name(f"{output.stem}-{name}.json")
        command = _command(values, part, files[name])
        told = f"Part {number} of {len(parts)}: python -m trainers {' '.join(command)}"
        print(told, file=sys.stderr, flush=True)
        reason = _measured(command, part, files[name])
        if reason:
            failed[name] = reason
            print(f"{name} failed: {reason}", file=sys.stderr, flush=True)
    records = {
        name: json.loads(file.read_text())
        for name, file in files.items()
        if file.is_file()
    }
    unwritten = {name: p.what for name, p in parts.items() if name not in records}
    goals, cores = _goals.goals_of(scale), values.cores or CORES
    write_goals_report(goals, records, failed, unwritten, scale.is_quick, cores, output)
    if failed:
        errors = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise RuntimeError(f"Not everything could be measured. {errors}")


def _command(values: flags.FlagValues, part: _goals.Part, file: Path) -> list[str]:
    """The program and the flags that measure a part alone."""
    chosen = {name: values[name].value for name in PASSED_ON}
    given = {
        name: ",".join(value) if isinstance(value, list) else value
        for name, value in chosen.items()
        if value is not None and _means_something(name, part.what)
    }
    if _means_something("cores", part.what):
        given["cores"] = values.cores or CORES
    return [
        *("benchmark", f"--what={part.what}", *part.flags),
        *(f"--{name}={value}" for name, value in given.items()),
        *(["--quick"] if values.quick else []),
        f"--output={file}",
    ]


def _means_something(name: str, what: str) -> bool:
    from trainers._benchmark_settings import MEANT_FOR

    return what in MEANT_FOR.get(name, (what,))


def _measured(command: list[str], part: _goals.Part, file: Path) -> str | None:
    """Measures a part; says why it failed, if it did."""
    import keras

    from trainers._benchmark_flags import define_flags
    from trainers._benchmark_measure import measure
    from trainers._contest import reason_of

    file.unlink(missing_ok=True)  # what an earlier run said is no answer to this one
    values = flags.FlagValues()
    define_flags(values)
    values(command)
    try:
        measure(values, file, part.only, part.tasks)
    except Exception as error:  # of any kind: it is named, and the others go on
        return reason_of(error)
    finally:
        keras.backend.clear_session()  # the models of this part
    return None
