"""A run that is interrupted ends like one that never was."""

import os
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_deit.training.recipe import Recipe
from keras_deit.training.run import train
from trainers._verify_resume import compare, finish, run_with_kills

# Everything that a checkpoint or the views have to bring back: stochastic depth,
# averages, RandAugment, erasing, mixing, repeats, a phase of the heads, keep rates.
RECIPE = Recipe(
    variant="deit_micro_distilled_patch4_32",
    dataset="digits",
    model_overrides={
        "depth": 2,
        "embed_dim": 16,
        "num_heads": 2,
        "drop_path_rate": 0.2,
        "keep_rate": 0.7,
        "reorganize_at": [1],
    },
    head_epochs=1,
    keep_rate_start_epoch=2,
    repeats=3,
    epochs=3,
    batch_size=240,  # five steps an epoch
    learning_rate=3e-3,
    learning_rate_batch=None,
    warmup_epochs=1,
    clip_norm=1.0,
    ema_decay=0.9,
)
PLAIN = replace(
    RECIPE,
    rand_augment=None,
    erasing=0.0,
    mixup=0.0,
    cutmix=0.0,
    head_epochs=0,
    keep_rate_start_epoch=0,
    epochs=2,
)


class KilledError(Exception):
    """What ends a run in the middle of a step."""


def killed_after(monkeypatch, steps):
    """Makes the run end after so many steps, as if the process had died."""
    save = keras.callbacks.CallbackList.on_train_batch_end
    done = []

    def on_train_batch_end(self, batch, logs=None):
        save(self, batch, logs)
        done.append(batch)
        if len(done) == steps:
            raise KilledError

    monkeypatch.setattr(
        keras.callbacks.CallbackList, "on_train_batch_end", on_train_batch_end
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(PLAIN, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "place"), [(4, "1, step 5"), (6, "2, step 1")])
def test_an_interrupted_run_ends_bit_for_bit_like_the_undisturbed_one(
    tmp_path, monkeypatch, undisturbed, capsys, steps, place
):
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_after(patch, steps)
        train(PLAIN, tmp_path / "run", checkpoint_steps=4)
    assert not (tmp_path / "run" / "result.json").exists()
    (tmp_path / "run" / ".partial-last.keras").write_text("half a model")
    train(PLAIN, tmp_path / "run", checkpoint_steps=4)
    assert f"Going on with epoch {place}." in capsys.readouterr().out
    assert compare(undisturbed, tmp_path / "run") == []
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_a_half_precision_run_goes_on_too(tmp_path, monkeypatch):
    overrides = PLAIN.model_overrides | {"dtype": "mixed_float16"}
    recipe = replace(PLAIN, model_overrides=overrides, ema_decay=None)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_after(patch, 2)
        train(recipe, tmp_path / "run", checkpoint_steps=1)
    train(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_a_checkpoint_beyond_the_end_of_a_changed_recipe_is_refused(
    tmp_path, monkeypatch
):
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_after(patch, 4)
        train(PLAIN, tmp_path / "run", checkpoint_steps=4)
    longer = replace(PLAIN, batch_size=480)  # two steps an epoch
    with pytest.raises(ValueError, match="The checkpoint must lie within the epochs"):
        train(longer, tmp_path / "run", force_resume=True)


def test_what_a_run_was_begun_with_is_refused_when_it_changes(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        killed_after(patch, 2)
        train(PLAIN, tmp_path / "run", checkpoint_steps=1)
    changed = replace(PLAIN, alpha=0.25)
    with pytest.raises(ValueError, match="alpha: 0.5, now 0.25"):
        train(changed, tmp_path / "run")


@pytest.mark.slow
def test_kills_at_random_moments_leave_no_trace(tmp_path):
    recipe = replace(RECIPE, epochs=12, head_epochs=3, keep_rate_start_epoch=6)
    recipe = replace(recipe, keep_rate_ramp_epochs=3, keep_rate_stages=2)
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    finish(tmp_path / "recipe.json", tmp_path / "undisturbed")
    moments = run_with_kills(
        tmp_path / "recipe.json",
        tmp_path / "killed",
        kills=8,
        checkpoint_steps=2,
        delay=0.4,
    )
    assert len(moments) == 8
    assert len(set(moments)) == 8  # each time it came farther
    assert compare(tmp_path / "undisturbed", tmp_path / "killed") == []


@pytest.mark.slow
def test_verify_resume_proves_it_from_the_command_line(tmp_path):
    command = [sys.executable, "-m", "trainers", "train", "--recipe=digits_evit"]
    command += [f"--output={tmp_path / 'run'}", "--verify_resume"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the same weights, bit for bit" in done.stdout
    assert not (tmp_path / "run").exists()


def test_compare_names_what_differs(tmp_path, undisturbed):
    other = tmp_path / "other"
    other.mkdir()
    for path in undisturbed.iterdir():
        if path.is_file():
            (other / path.name).write_bytes(path.read_bytes())
    assert compare(undisturbed, other) == []
    (other / "history.csv").write_text("epoch\n")
    (other / ".partial-last.keras").touch()
    model = keras.saving.load_model(other / "best.keras")
    first = model.trainable_variables[0]
    first.assign(np.nextafter(np.asarray(first), np.inf, dtype=np.float32))
    model.save(other / "best.keras")
    assert compare(undisturbed, other) == [
        "history.csv",
        f"best.keras: {first.path}",
        str(other / ".partial-last.keras"),
    ]
