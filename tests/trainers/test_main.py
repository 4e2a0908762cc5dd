import subprocess
import sys
from pathlib import Path

import pytest

from trainers.__main__ import PROGRAMS, main

ROOT = Path(__file__).parents[2]
OF_A_MODEL = ("evaluate", "classify", "visualize", "export")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help_lists_the_programs_and_what_they_do(run_program, arguments):
    done = run_program(*arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("python -m trainers PROGRAM [flags]")
    assert "PROGRAM --help explains the flags" in done.out
    for program in PROGRAMS:
        (line,) = (x for x in done.out.splitlines() if x.split()[:1] == [program])
        assert line.endswith(".")
        assert len(line.split()) > 4


def test_without_arguments_the_command_line_counts(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["trainers", "train", "--help"])
    assert main() == 0
    assert "--recipe" in capsys.readouterr().out


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_a_program_explains_its_flags(run_program, program, flag):
    done = run_program(program, flag)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"python -m trainers {program} [flags]")
    assert f"python -m trainers {program} " in done.out.partition("Flags:")[0]
    assert "  --debug\n      Show where an error is." in done.out
    writes = program not in ("evaluate", "classify", "variants", "plan")
    assert ("  --output\n" in done.out) is writes
    trains = program in ("train", "train_teacher")
    assert ("  --weights\n" in done.out) is (program in OF_A_MODEL or trains)
    if program in OF_A_MODEL:
        assert "Weights of a variant: 'pretrained', which are downloaded" in done.out


def test_help_says_what_a_program_takes_beside_its_flags(run_program):
    first = {p: run_program(p, "--help").out.splitlines()[0] for p in PROGRAMS}
    assert first["classify"] == "python -m trainers classify [flags] IMAGE ..."
    assert first["evaluate"] == "python -m trainers evaluate [flags]"
    takes = [p for p in PROGRAMS if not first[p].endswith("[flags]")]
    assert takes == ["classify", "visualize", "report"]


def test_help_names_choices_and_defaults(run_program):
    said = run_program("export", "--help").out
    assert "<fused|fused_softmax|class|distillation>: Which head answers; " in said
    assert "What to export: each FORMAT or FORMAT:PRECISION." in said
    assert "Default: saved_model,tflite." in said
    said = run_program("train", "--help").out
    assert "<none|soft|hard>: What the student learns" in said
    assert "Default: digits_distilled." in said


def test_help_comes_without_importing_what_takes_seconds():
    code = """
import sys
from trainers.__main__ import PROGRAMS, main
for program in PROGRAMS:
    main([program, "--help"])
print(*sys.modules, file=sys.stderr)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[flags]") == len(PROGRAMS)
    imported = set(done.stderr.split())
    assert "absl.flags" in imported
    assert not {"tensorflow", "keras", "numpy", "keras_deit"} & imported


def test_an_unknown_program_is_refused(refusal):
    message = refusal("trian", "--output=run")
    assert message.startswith("There is no program 'trian'. Did you mean 'train'? Pro")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            ("train", "--outptu=run"),
            ("Unknown command line flag 'outptu'", "Did you mean: output"),
        ),
        (("train", "--epochs=1"), ("--output must have a value",)),
        (("evaluate", "--model=m.keras"), ("--dataset must have a value",)),
        (("export", "--output=m"), ("--model must have a value",)),
        (
            ("train", "--output=run", "--kind=medium"),
            ("--kind=medium", "none|soft|hard"),
        ),
        (("train", "--output=run", "--epochs=many"), ("--epochs=many",)),
        (
            ("export", "--model=m", "--output=m", "--head=tail"),
            ("--head=tail", "fused|fused_softmax"),
        ),
    ],
)
def test_a_wrong_flag_is_refused_with_a_way_to_the_flags(
    refusal, monkeypatch, tmp_path, arguments, parts
):
    monkeypatch.chdir(tmp_path)
    message = refusal(*arguments)
    for part in parts:
        assert part in message
    assert f"(python -m trainers {arguments[0]} --help lists the flags)" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rest", [("digits",), ("digits", "more")])
def test_what_is_no_flag_is_refused(refusal, rest):
    message = refusal("train", "--output=run", *rest)
    assert message == f"Flags look like --name=value. Received: {' '.join(rest)}."


def test_what_is_no_flag_is_refused_before_a_flag_too(refusal):
    message = refusal("train", "digits", "--output=run")
    assert message == "Flags look like --name=value. Received: digits."


def test_arguments_of_a_program_may_stand_before_its_flags(monkeypatch, run_program):
    received = []

    def note(values, arguments):
        received.append((values.model, values.top, arguments))

    monkeypatch.setattr("trainers.classify.main", note)
    for arguments in (
        ("--model=m", "--top=3", "a.png", "b.png"),
        ("a.png", "--model=m", "b.png", "--top=3"),
        ("--model=m", "--top=3", "--", "a.png", "b.png"),
    ):
        assert run_program("classify", *arguments).code == 0
    assert received == [("m", 3, ["a.png", "b.png"])] * 3
    assert run_program("classify", "--model=m", "--", "-odd.png").code == 0
    assert received[-1][-1] == ["-odd.png"]


def test_debug_shows_where_an_error_is(tmp_path):
    arguments = ["train", f"--output={tmp_path}/run", "--recipe=digits_plan"]
    with pytest.raises(ValueError, match="Did you mean 'digits_plain'"):
        main([*arguments, "--debug"])


def test_the_keyboard_stops_a_program(monkeypatch, run_program, tmp_path):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_deit.training.run.train", stop)
    done = run_program("train", "--recipe=digits_plain", f"--output={tmp_path}/run")
    assert done.code == 130
    assert done.err == "error: Stopped by the keyboard.\n"


@pytest.mark.parametrize("error", [OSError, RuntimeError, FileNotFoundError])
def test_a_run_that_goes_wrong_ends_in_its_message(
    monkeypatch, refusal, tmp_path, error
):
    def fail(*arguments, **options):
        raise error("The disk is full.")

    monkeypatch.setattr("keras_deit.training.run.train", fail)
    arguments = ("train", "--recipe=digits_plain", f"--output={tmp_path}/run")
    assert refusal(*arguments) == "The disk is full."
