import contextlib
import io
import json
import shlex

import pytest

from keras_deit.models.factory import build_model
from keras_deit.training.model_costs import model_costs
from tests.training.small_workloads import TAUGHT
from trainers.__main__ import main
from trainers._plan_tables import _time

MICRO = (
    "--recipe=digits_distilled",
    "--teacher=regnety_micro_32",
    "--peak_tflops=1",
    "--memory_gb=1",
)


def words(command):
    """The words of a command that goes over several lines."""
    return shlex.split(command.replace("\\\n", ""))


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """A plan for eight devices: what was printed, and what was written."""
    file = tmp_path_factory.mktemp("plans") / "plan.json"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["plan", *MICRO, "--devices=8xNPU", f"--json={file}"]) == 0
    return out.getvalue(), json.loads(file.read_text())


def test_begins_with_the_command(eight):
    said, _ = eight
    command = words(said.split("\n\n")[0])
    assert command == [
        *("python", "-m", "trainers", "train"),
        *MICRO[:2],
        "--output=runs/digits_distilled",
        "--strategy=mirrored",
    ]


def test_prints_what_it_writes(eight, rows_of):
    said, record = eight
    rows = {row[0]: row[1:] for row in rows_of(said)}
    steps = record["steps"]
    assert (steps["batch_size"], steps["per_device"]) == (32, 4)
    assert rows["views in a step: all, a device, at a time"] == ["32, 4, 4"]
    epochs, per_epoch = record["recipe"]["epochs"], 1438 // 32
    assert rows["steps: an epoch, all"] == [f"{per_epoch}, {per_epoch * epochs:,}"]
    images = [f"{rate:,.0f}" for rate in record["images_per_second"]]
    assert rows["images/s, all devices"] == images
    assert rows["at the worst moment"][0].endswith(" MB, fits")
    assert record["memory"]["fits"]
    assert rows["hard"][0] == "2"
    assert record["caches"][0]["bytes_per_view"] == 2
    student = model_costs(build_model("deit_micro_distilled_patch4_32", 10))
    assert record["model_bytes"] == student.bytes
    assert record["arithmetic"]["student"] == 6 * student.macs


def test_says_what_it_assumes(eight):
    said, _ = eight
    assumed = said.partition("Assumed:\n")[2].splitlines()
    assert all(line.startswith("- ") for line in assumed)
    for words in (
        "Nothing was run.",
        "NPU: 1 TFLOP/s in tf32 at most, 1 GB.",
        "Utilization 25% to 45%: not measured",
        "digits: 1,438 training images of 10 classes, 3.1 kB each",
        "A core makes 318 views/s",
        "10% of the memory is left free",
        "all devices at it",
    ):
        assert any(words in line for line in assumed), words


@pytest.fixture
def without_models(monkeypatch):
    """What a plan costs does not matter, and takes no time."""
    monkeypatch.setattr(
        "keras_deit.training.planning.workload_of", lambda recipe, classes: TAUGHT
    )


def test_several_hosts_start_the_same_with_their_own_number(
    run_program, without_models
):
    done = run_program(
        "plan",
        "--recipe=imagenet_deit_small",
        "--devices=2x8xH100",
        "--epochs=30",
        "--set=precision=mixed_bfloat16",
        "--set=crop_area=[0.5, 1]",
    )
    command, _, others = done.out.split("\n\n")[0].partition("\nThat is on ")
    assert words(command)[4:] == [
        "--recipe=imagenet_deit_small",
        "--epochs=30",
        "--set=precision=mixed_bfloat16",
        "--set=crop_area=[0.5, 1]",
        "--output=runs/imagenet_deit_small",
        "--strategy=multiworker",
        "--workers=host0:12345,host1:12345",
        "--worker_index=0",
    ]
    assert "host1: --worker_index=1" in others
    assert "imagenet2012: 1,281,167 training images" in done.out
    assert "989.4 TFLOP/s in bfloat16" in done.out
    assert "Teacher cache" not in done.out


def test_a_tpu_and_a_single_device_start_once(run_program, without_models):
    tpu = run_program("plan", "--devices=tpu-v4-8")
    assert "--strategy=tpu --tpu=NAME\n\n" in tpu.out
    assert "A chip of a TPU, with both its cores, is one device." in tpu.out
    one = run_program("plan", "--devices=1xA100")
    assert "--strategy=none\n\n" in one.out


def test_says_what_would_fit(run_program, rows_of, without_models):
    flags = "--devices=8xA100", "--memory_gb=0.0001"
    teacher = "--set=kind=hard", "--teacher=regnety_160"
    done = run_program("plan", *flags, *teacher, "--set=gradient_checkpointing=true")
    rows = {row[0]: row[1:] for row in rows_of(done.out)}
    assert rows["at the worst moment"][0].endswith("does not fit")
    assert "with gradient_checkpointing" not in rows
    assert rows["GFLOP a view: blocks computed again"] == ["9"]
    assert rows["GFLOP a view: teacher"] == ["32 (47% of all)"]  # 32 / (27.6 + 9 + 32)
    assert "It does not fit. accumulate_steps=128: " in done.out
    plain = run_program("plan", *flags)
    rows = {row[0]: row[1:] for row in rows_of(plain.out)}
    assert rows["with gradient_checkpointing"][0].endswith("does not fit")
    assert "It does not fit. gradient_checkpointing=true: " in plain.out


def test_takes_what_is_known_better(run_program, rows_of, without_models):
    done = run_program(
        "plan",
        "--dataset=/my/images",
        "--num_examples=2048",
        "--num_classes=7",
        "--images_per_core=1e4",
        "--utilization=1,1",
        "--devices=1xA100",
    )
    rows = {row[0]: row[1:] for row in rows_of(done.out)}
    assert rows["at a utilization of"] == ["100%", "100%"]
    assert rows["cores for that, a host"] == ["1", "1"]
    assert rows["read from disk, a host"] == ["not known", "not known"]
    assert rows["steps: an epoch, all"] == ["2, 600"]
    assert "of unknown size on disk (--file_kilobytes)" in done.out


@pytest.mark.parametrize(
    ("hours", "said"),
    [(50, "2.1 days"), (47, "47.0 h"), (0.5, "30.0 min"), (0.01, "36.0 s")],
)
def test_writes_times_for_people(hours, said):
    assert _time(hours) == said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "devices"),
        (("--devices=8xB52",), "A device must be one of ['A10', "),
        (("--devices=7xA100",), "`batch_size` must be a multiple of the number of dev"),
        (("--devices=8xA100", "--utilization=a,b"), "--utilization needs two numbers"),
        (("--devices=8xA100", "--utilization=0.5"), "`utilization` must be two"),
        (("--devices=8xA100", "--dataset=my/own"), "`num_examples` and `num_classes` "),
        (("--devices=8xA100", "--set=kind=hard"), "`teacher` or `teacher_cache` must"),
        (
            ("--devices=8xT4", "--set=precision=mixed_bfloat16"),
            "`precision` must be on",
        ),
    ],
)
def test_refuses_in_one_message(refusal, flags, message):
    assert message in refusal("plan", *flags)
