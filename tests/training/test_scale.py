"""The same run on one device, on several, and on several machines (here: processes)."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_deit.training.caching import cache_teacher
from keras_deit.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
STEPS = 50
RECIPE = Recipe(
    variant="deit_micro_distilled_patch4_32",
    dataset="digits",
    model_overrides={"depth": 1, "embed_dim": 32, "num_heads": 2},
    rand_augment=None,
    erasing=0.0,
    batch_size=16,
    epochs=1,
    warmup_epochs=0,
    learning_rate_batch=None,
    kind="none",
)


def free_addresses(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    addresses = [f"localhost:{s.getsockname()[1]}" for s in sockets]
    for each in sockets:
        each.close()
    return addresses


def started(*command, **options):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def ended(process, seconds=300):
    """Its exit code, and what it said."""
    try:
        said, _ = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, said


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """What is learned from: labels, a teacher that is asked, what it said before."""
    folder = tmp_path_factory.mktemp("teacher")
    pixels = keras.Input((32, 32, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    keras.Model(pixels, keras.layers.Dense(10)(x)).save(folder / "teacher.keras")
    live = replace(RECIPE, kind="soft", teacher=str(folder / "teacher.keras"))
    cache_teacher(live, folder / "cache", epochs=1, keep_logits="all")
    cached = replace(live, teacher=None, teacher_cache=str(folder / "cache"))
    return {"labels": RECIPE, "live": live, "cached": cached}


@pytest.fixture(scope="module")
def outcomes(recipes, tmp_path_factory):
    """`outcomes(...)`: what the processes of a strategy saved, recipe by recipe."""
    folder = tmp_path_factory.mktemp("outcomes")

    def run(name, strategy, devices=(), workers=(), **changes):
        chosen = {n: asdict(replace(r, **changes)) for n, r in recipes.items()}
        config = {
            "strategy": strategy,
            "devices": devices,
            "workers": workers,
            "recipes": chosen,
            "steps": STEPS,
            "output": str(folder / name),
        }
        processes = [
            started(
                "tests.training.scale_process", json.dumps({**config, "index": index})
            )
            for index in range(max(1, len(workers)))
        ]
        for code, said in map(ended, processes):
            assert code == 0, said[-2000:]
        return {
            recipe: [
                np.load(folder / f"{name}-{recipe}-{index}.npz")
                for index in range(len(processes))
            ]
            for recipe in recipes
        }

    return run


@pytest.fixture(scope="module")
def one(outcomes):
    return outcomes("one", "none")


def trained_parts(name, weight):
    """Without the key bias, whose gradient is zero but for rounding."""
    if not name.endswith("qkv/bias"):
        return weight
    query, _, value = np.split(weight, 3)
    return np.concatenate([query, value])


def assert_equal_runs(found, expected):
    """The table of the issue: losses within 1e-5, weights within 1e-4."""
    for recipe, (single,) in expected.items():
        for ours in found[recipe]:
            np.testing.assert_allclose(ours["losses"], single["losses"], rtol=1e-5)
            np.testing.assert_allclose(
                ours["validation"], single["validation"], rtol=1e-5
            )
            assert len(ours["losses"]) == STEPS
            for name in set(single.files) - {"losses", "validation"}:
                a, b = (trained_parts(name, run[name]) for run in (ours, single))
                np.testing.assert_allclose(a, b, atol=1e-4, err_msg=name)
        for other in found[recipe][1:]:  # workers have the very same
            for name in single.files:
                np.testing.assert_array_equal(other[name], found[recipe][0][name])


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_of_one_process_train_as_one_device_does(one, outcomes, replicas):
    devices = [f"CPU:{number}" for number in range(replicas)]
    assert_equal_runs(outcomes(f"mirrored-{replicas}", "mirrored", devices), one)


@pytest.mark.slow
def test_two_processes_train_as_one_device_does(one, outcomes):
    workers = free_addresses(2)
    assert_equal_runs(outcomes("workers", "multiworker", workers=workers), one)


@pytest.mark.slow
def test_micro_batches_train_as_the_batch_does(one, outcomes):
    assert_equal_runs(outcomes("accumulated", "none", accumulate_steps=4), one)


def command_of(folder, recipe, workers, index):
    return started(
        "trainers",
        "train",
        f"--recipe={recipe}",
        f"--output={folder}",
        "--strategy=multiworker",
        f"--workers={','.join(workers)}",
        f"--worker_index={index}",
        "--checkpoint_steps=3",
        start_new_session=True,
    )


def pair_of(folder, recipe):
    workers = free_addresses(2)
    return [command_of(folder, recipe, workers, index) for index in range(2)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of two workers that nothing disturbed; its recipe in it."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    recipe = folder.with_name("recipe.json")
    quick = replace(
        RECIPE,
        batch_size=64,
        epochs=4,
        ema_decay=0.9,
        model_overrides={"depth": 1, "embed_dim": 16, "num_heads": 2},
    )
    recipe.write_text(quick.to_json())
    processes = [ended(process) for process in pair_of(folder, recipe)]
    assert [code for code, _ in processes] == [0, 0], processes
    return folder


@pytest.mark.slow
def test_a_run_whose_workers_were_killed_goes_on_as_if_nothing_had_happened(
    whole, tmp_path
):
    folder, recipe = tmp_path / "cut", whole / "recipe.json"
    for killed, epoch in ((0, 1), (1, 2)):
        cut = pair_of(folder, recipe)
        while not any((folder / "checkpoints").glob(f"epoch-0000{epoch}-step-*")):
            assert all(process.poll() is None for process in cut)
            time.sleep(0.02)
        os.kill(cut[killed].pid, signal.SIGKILL)
        code, said = ended(cut[1 - killed], seconds=60)
        assert code not in (0, None)
        assert "error: Another worker stopped or cannot be reached" in said
        assert ended(cut[killed])[0] == -signal.SIGKILL
        assert not (folder / "result.json").exists()

    again = [ended(process) for process in pair_of(folder, recipe)]
    assert [code for code, _ in again] == [0, 0], again
    assert "Going on with epoch 3" in again[0][1]
    for name in ("history.csv", "per_class.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    for name in ("last.keras", "average.keras"):
        ours, theirs = (
            keras.models.load_model(run / name).get_weights() for run in (folder, whole)
        )
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_workers_with_different_recipes_are_told_so(tmp_path):
    workers = free_addresses(2)
    processes = []
    for index, seed in enumerate((1, 2)):
        recipe = tmp_path / f"{index}.json"
        recipe.write_text(replace(RECIPE, seed=seed).to_json())
        processes.append(command_of(tmp_path / "run", recipe, workers, index))
    for code, said in map(ended, processes):
        assert code not in (0, None)
        assert "recipe.seed: 1 on worker 0, 2 on worker 1" in said
    assert not (tmp_path / "run").exists()
