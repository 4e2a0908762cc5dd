"""Finds the program that was asked for, reads its flags, and runs it."""

import sys
import textwrap
from difflib import get_close_matches
from importlib import import_module

from absl import flags

HELP = ("--help", "-h", "help")
PROGRAMS = (
    "train_teacher",
    "cache_teacher",
    "train",
    "evaluate",
    "classify",
    "visualize",
    "export",
    "report",
    "compare",
    "benchmark",
    "variants",
    "plan",
    "demo",
)


def main(argv: list[str] | None = None) -> int:
    """Runs `argv`, by default the command line; returns the exit code.

    A wrong flag, bad input or a run that went wrong ends in one message on standard
    error that names the cause, and an exit code that is not 0. `--debug` shows where it
    happened.
    """
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in HELP:
        print(_overview())
        return 0
    if name not in PROGRAMS:
        near = get_close_matches(name, PROGRAMS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        programs = ", ".join(PROGRAMS)
        return _fail(f"There is no program {name!r}.{hint} Programs: {programs}.")
    program = import_module(f"trainers.{name}")
    values = flags.FlagValues()
    program.define_flags(values)
    flags.DEFINE_bool("debug", False, "Show where an error is.", flag_values=values)
    if set(HELP) & set(arguments):
        usage = f"python -m trainers {name} [flags] {_arguments_of(program)}".rstrip()
        print(f"{usage}\n\n{program.__doc__}\nFlags:")
        print(_explained(values))
        return 0
    return _run(program, values, arguments)


def _run(program, values: flags.FlagValues, arguments: list[str]) -> int:
    name = program.__name__.rpartition(".")[2]
    try:
        _, *rest = values([name, *arguments])
        if _arguments_of(program):
            program.main(values, rest)
        elif rest:
            return _fail(f"Flags look like --name=value. Received: {' '.join(rest)}.")
        else:
            program.main(values)
    except flags.Error as error:
        return _fail(f"{error} (python -m trainers {name} --help lists the flags)")
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if values.debug:
            raise
        return _fail(_message(error))
    except KeyboardInterrupt:
        return _fail("Stopped by the keyboard.", code=130)
    return 0


def _arguments_of(program) -> str:
    """What a program takes beside its flags, in its own words; most take nothing."""
    return getattr(program, "ARGUMENTS", "")


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _fail(message: str, code: int = 1) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _explained(values: flags.FlagValues) -> str:
    """One paragraph for each flag: its name, its help, its default."""
    paragraphs = []
    for flag in (values[name] for name in sorted(values)):
        text = flag.help
        if flag.default not in (None, []):
            text += f" Default: {flag.default_as_str.strip(chr(39))}."
        text = textwrap.indent(textwrap.fill(text, 80), " " * 6)
        paragraphs.append(f"  --{flag.name}\n{text}")
    return "\n".join(paragraphs)


def _overview() -> str:
    lines = []
    for name in PROGRAMS:
        summary = import_module(f"trainers.{name}").__doc__.splitlines()[0]
        lines.append(f"  {name:15}{summary}")
    return (
        "python -m trainers PROGRAM [flags]\n\n"
        + "\n".join(lines)
        + textwrap.dedent("""

        python -m trainers PROGRAM --help explains the flags of a program.""")
    )


if __name__ == "__main__":
    sys.exit(main())
