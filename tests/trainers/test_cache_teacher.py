"""A teacher's answers, written down from the command line."""

import pytest

from keras_deit import create_model
from keras_deit.distillation.teacher_cache import TeacherCache

SMALL = (
    "--set=batch_size=300",
    '--set=model_overrides={"depth": 1, "embed_dim": 16, "num_heads": 2}',
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    create_model("regnety_micro_32", num_classes=10).save(path)
    return path


@pytest.mark.slow
def test_a_cache_is_made_verified_and_learned_from(run_program, tmp_path, teacher):
    folder = tmp_path / "cache"
    arguments = [f"--teacher={teacher}", *SMALL, f"--output={folder}"]
    done = run_program("cache_teacher", *arguments, "--epochs=1", "--keep_logits=3")
    assert done.code == 0, done.err
    assert "digits: 1 epochs of 4 steps of 300 views, seed 0" in done.out
    for kind in ("CIFAR-10", "ImageNet"):
        assert kind in done.out  # what it would cost there
    assert "With 3 of 10 logits the Kullback-Leibler divergence from all" in done.out
    assert "Epoch 1 of 1: 4 of 4 steps" in done.out
    assert "has 1 whole epochs, 0.0 MB. To learn from it, give `train`" in done.out
    cache = TeacherCache(folder)
    assert (cache.epochs, cache.codec.keep, cache.num_classes) == (1, 3, 10)
    assert 0 < cache.facts["divergence"] < 0.1  # an untrained teacher is nearly even
    done = run_program("cache_teacher", "--verify", f"--output={folder}")
    assert (done.code, done.err) == (0, "")
    assert "1 whole epochs, all shards are as they were written" in done.out
    done = run_program(
        "train",
        f"--teacher_cache={folder}",
        *SMALL,
        "--epochs=1",
        f"--output={tmp_path / 'run'}",
    )
    assert done.code == 0, done.err
    assert "keep_logits 3" in done.out


def test_a_flipped_bit_is_found_and_its_shard_is_named(run_program, tmp_path, teacher):
    folder = tmp_path / "cache"
    arguments = [f"--teacher={teacher}", *SMALL, f"--output={folder}", "--epochs=1"]
    assert run_program("cache_teacher", *arguments, "--keep_logits=hard").code == 0
    (shard,) = folder.glob("*.tfrecord")
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    done = run_program("cache_teacher", "--verify", f"--output={folder}")
    assert done.code == 1
    assert f"is damaged: {shard.name}: its SHA-256" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "a teacher must be there"),
        (("--teacher=none.keras",), "There is no file 'none.keras'"),
        (
            ("--teacher={teacher}", "--keep_logits=10"),
            "less than the number of classes",
        ),
        (("--teacher={teacher}", "--keep_logits=best"), "`keep` must be"),
    ],
)
def test_refuses(run_program, tmp_path, teacher, arguments, message):
    given = [text.format(teacher=teacher) for text in arguments]
    done = run_program("cache_teacher", *given, f"--output={tmp_path / 'cache'}")
    assert done.code == 1
    assert message in done.err
    assert not (tmp_path / "cache").exists()
