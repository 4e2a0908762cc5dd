import errno
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_deit.distillation.cache_index import Shard
from keras_deit.distillation.cache_writer import CacheWriter
from keras_deit.distillation.teacher_cache import TeacherCache

B, Y, STEPS = 2, 3, 3
HEADER = {
    "views": {"seed": 0},
    "dataset": "d",
    "teacher": {"digest": "e", "name": "regnety_160"},
    "keep_logits": "all",
    "temperature": 1.0,
    "class_names": ["cat", "dog", "owl"],
    "batch_size": B,
    "steps_per_epoch": STEPS,
    "shard_steps": 2,
}
IDS = np.arange(B)
LOGITS = np.zeros((B, Y), "float32")
FIRST, SECOND = "epoch-00000-step-0000000.tfrecord", "epoch-00000-step-0000002.tfrecord"


def write(writer, shard):
    """Makes a shard; says whether it was ours to make."""
    with writer.claim(shard) as file:
        for step in range(
            shard.first_step, shard.first_step + shard.steps if file else 0
        ):
            file.write(IDS + step, LOGITS + step + 10 * shard.epoch)
    return file is not None


def files(path):
    return sorted(p.name for p in path.iterdir() if p.name != ".lock")


def shards_in_index(path):
    return json.loads((path / "index.json").read_bytes())["shards"]


def whole(path, epochs):
    """Whether these epochs, and nothing else, are there and as they should be."""
    names = [s.name for e in range(epochs) for s in (Shard(e, 0, 2), Shard(e, 2, 1))]
    cache = TeacherCache(path)
    return (
        files(path) == [*names, "index.json"]
        and sorted(shards_in_index(path)) == names
        and cache.damaged() == []
        and cache.epochs == epochs
    )


def test_a_shard_by_hand(tmp_path):
    writer = CacheWriter(tmp_path / "new" / "cache", HEADER, {"made": "today"})
    assert writer.missing(1) == [Shard(0, 0, 2), Shard(0, 2, 1)]
    assert files(writer.path) == ["index.json"]
    with writer.claim(Shard(0, 2, 1)) as file:
        file.write(np.array([7, 3]), np.array([[0, 1, 2], [3, 4, 5]], "float32"))
    assert files(writer.path) == [SECOND, "index.json"]
    (record,) = tf.data.TFRecordDataset(str(writer.path / SECOND)).as_numpy_iterator()
    assert len(record) == 8 + 4 * 6
    np.testing.assert_array_equal(np.frombuffer(record[8:], "<f4"), range(6))
    entry = shards_in_index(writer.path)[SECOND]
    assert (entry["epoch"], entry["first_step"], entry["steps"]) == (0, 2, 1)
    assert entry["bytes"] == 8 + 4 * 6 + 16
    assert writer.missing(1) == [Shard(0, 0, 2)]
    assert write(writer, Shard(0, 0, 2))
    assert writer.missing(1) == []
    assert whole(writer.path, 1)
    assert TeacherCache(writer.path).facts == {"made": "today"}


def test_epochs_are_added_later(tmp_path):
    for epochs, made in ((1, 2), (3, 4), (2, 0)):
        writer = CacheWriter(tmp_path, HEADER, {f"run {epochs}": 1})
        assert sum(write(writer, shard) for shard in writer.missing(epochs)) == made
    assert whole(tmp_path, 3)
    facts = {"run 1": 1, "run 3": 1, "run 2": 1}
    assert TeacherCache(tmp_path).facts == facts


def test_a_shard_has_one_writer_at_a_time(tmp_path):
    one, other = CacheWriter(tmp_path, HEADER), CacheWriter(tmp_path, HEADER)
    shard, last = one.missing(1)
    with one.claim(shard) as file:
        assert not write(other, shard)
        assert write(other, last)
        assert other.missing(1) == [shard]  # not yet in the index
        CacheWriter(tmp_path, HEADER)  # leaves what has an owner
        file.write(IDS, LOGITS)
        file.write(IDS, LOGITS)
    assert not write(other, shard)  # it is there meanwhile
    assert whole(tmp_path, 1)


def test_several_writers_share_the_work(tmp_path):
    def work(_):
        writer = CacheWriter(tmp_path, HEADER)
        return [shard for shard in writer.missing(6) if write(writer, shard)]

    with ThreadPoolExecutor(4) as pool:
        made = sum(pool.map(work, range(4)), [])
    assert len(made) == len(set(made)) == 12
    assert whole(tmp_path, 6)


def test_another_header_is_refused_with_every_difference(tmp_path):
    CacheWriter(tmp_path, HEADER)
    changed = {
        **HEADER,
        "views": {"seed": 1},
        "dataset": "f",
        "teacher": {"digest": "g", "name": "other"},
        "keep_logits": 2,
        "temperature": 3.0,
        "class_names": ["cat", "dog", "owl", "ox"],
        "batch_size": 4,
        "steps_per_epoch": 9,
        "shard_steps": 3,
    }
    with pytest.raises(ValueError, match="must have the same header") as error:
        CacheWriter(tmp_path, changed)
    for difference in (
        "seed: 0 in the cache, 1 now",
        "dataset: 'd' in the cache, 'f' now",
        "teacher: 'e' in the cache, 'g' now",
        "keep_logits: 'all' in the cache, 2 now",
        "temperature: 1.0 in the cache, 3.0 now",
        "number of class_names: 3 in the cache, 4 now",
        "batch_size: 2 in the cache, 4 now",
        "steps_per_epoch: 3 in the cache, 9 now",
        "shard_steps: 2 in the cache, 3 now",
        "Received: differences=9",
    ):
        assert difference in str(error.value)
    CacheWriter(tmp_path, {**HEADER, "teacher": {"digest": "e", "name": "renamed"}})


def test_a_bad_header_makes_no_folder(tmp_path):
    with pytest.raises(ValueError, match="`batch_size` must be a whole number"):
        CacheWriter(tmp_path / "cache", {**HEADER, "batch_size": 0})
    assert files(tmp_path) == []


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ValueError, match=r"an empty or a new folder.*\['photo.jpg'\]"):
        CacheWriter(tmp_path, HEADER)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(ValueError, match="index of the teacher cache '.*' is damaged"):
        CacheWriter(tmp_path, HEADER)
    assert (tmp_path / "index.json").read_text() == "{}"


@pytest.mark.parametrize("error", [KeyError("no"), KeyboardInterrupt()])
def test_after_an_exception_nothing_is_left(tmp_path, error):
    writer = CacheWriter(tmp_path, HEADER)
    shard = writer.missing(1)[0]
    with pytest.raises(type(error)), writer.claim(shard) as file:
        file.write(IDS, LOGITS)
        raise error
    assert files(tmp_path) == ["index.json"]
    assert write(writer, shard)


def test_a_shard_must_have_its_steps(tmp_path):
    writer = CacheWriter(tmp_path, HEADER)
    with (
        pytest.raises(ValueError, match=f"'{FIRST}' must have 2 steps.*written=1"),
        writer.claim(Shard(0, 0, 2)) as file,
    ):
        file.write(IDS, LOGITS)
    with (
        pytest.raises(ValueError, match=f"'{SECOND}' has no more than 1 steps"),
        writer.claim(Shard(0, 2, 1)) as file,
    ):
        file.write(IDS, LOGITS)
        file.write(IDS, LOGITS)
    assert files(tmp_path) == ["index.json"]


@pytest.mark.parametrize(
    ("ids", "logits", "message"),
    [
        (np.arange(3), LOGITS, r"`ids` must be int64 of shape \(2,\)"),
        (IDS.astype("int32"), LOGITS, "`ids` must be int64 .*'int32'"),
        (IDS, LOGITS[:1], r"`logits` as many.* logits=\(1, 3\)"),
        (IDS, LOGITS[:, :2], r"must have the shape \(B, 3\)"),
        (IDS, LOGITS + np.nan, r"must be finite .* views=\[0, 1\]"),
        (IDS, LOGITS - np.inf, "must be finite"),
    ],
)
def test_a_step_that_is_wrong_is_refused(tmp_path, ids, logits, message):
    writer = CacheWriter(tmp_path, HEADER)
    with (
        pytest.raises(ValueError, match=message),
        writer.claim(Shard(0, 2, 1)) as file,
    ):
        file.write(ids, logits)
    assert files(tmp_path) == ["index.json"]


def test_what_was_killed_is_cleared_away_and_made_anew(tmp_path):
    writer = CacheWriter(tmp_path, HEADER)
    (tmp_path / FIRST).write_text("whole, but it did not come into the index")
    (tmp_path / f".partial-{FIRST}").write_text("longer than the shard" * 99)
    (tmp_path / ".partial-index.json").write_text("half an index")
    assert write(writer, Shard(0, 0, 2))  # the writer was there before
    (tmp_path / f".partial-{SECOND}").write_text("half a shard")
    writer = CacheWriter(tmp_path, HEADER)
    assert files(tmp_path) == [FIRST, "index.json"]
    assert writer.missing(1) == [Shard(0, 2, 1)]
    assert write(writer, Shard(0, 2, 1))
    assert whole(tmp_path, 1)


def test_a_shard_that_is_gone_or_cut_off_is_missing(tmp_path):
    writer = CacheWriter(tmp_path, HEADER)
    for shard in writer.missing(1):
        write(writer, shard)
    (tmp_path / FIRST).unlink()
    assert writer.missing(1) == [Shard(0, 0, 2)]
    (tmp_path / SECOND).write_bytes((tmp_path / SECOND).read_bytes()[:-1])
    for shard in writer.missing(1):
        assert write(writer, shard)
    assert whole(tmp_path, 1)


def run_python(script, *arguments):
    """Runs a script that has HEADER, and `write` and the writer's names."""
    here = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    names = "from test_cache_writer import *\n"
    return subprocess.run(
        [sys.executable, "-c", here + names + script, *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout


FULL = """
import resource
path = Path(sys.argv[1])
writer = CacheWriter(path, HEADER)
for shard in writer.missing(2)[:3]:
    write(writer, shard)
# 48 bytes is the last shard; the index has more than 100.
for limit in (0, 20, 47, 100):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write(writer, Shard(1, 2, 1))
    except OSError as error:
        print(error)
    assert len(files(path)) == 4
    assert TeacherCache(path).epochs == 1
    assert TeacherCache(path).damaged() == []
"""


@pytest.mark.slow
def test_a_file_that_may_not_grow_leaves_a_shorter_cache(tmp_path):
    told = run_python(FULL, tmp_path).splitlines()
    assert len(told) == 4
    for line in told:
        assert "could not write the shard 'epoch-00001-step-0000002.tfrec" in line
        assert "Its 3 shards are whole, and so are 1 epochs, which can be used." in line
    writer = CacheWriter(tmp_path, HEADER)
    assert write(writer, *writer.missing(2))
    assert whole(tmp_path, 2)


@pytest.mark.parametrize("operation", ["write", "close", "open", "rename", "index"])
def test_a_full_disk_is_told_and_leaves_a_shorter_cache(
    tmp_path, monkeypatch, operation
):
    writer = CacheWriter(tmp_path, HEADER)
    for shard in writer.missing(1):
        write(writer, shard)

    def full(*_, **__):
        if operation in ("write", "close", "open"):
            raise tf.errors.ResourceExhaustedError(None, None, "No space left")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        owner, name = {
            "write": (tf.io.TFRecordWriter, "write"),
            "close": (tf.io.TFRecordWriter, "close"),
            "open": (tf.io, "TFRecordWriter"),
            "rename": (Path, "replace"),
            "index": (json, "dump"),
        }[operation]
        patched.setattr(owner, name, full)
        with pytest.raises(
            OSError, match="so are 1 epochs, which can be used"
        ) as error:
            write(writer, Shard(1, 0, 2))
    assert error.value.errno == errno.ENOSPC
    assert "No space left on device: could not write the shard" in str(error.value)
    assert whole(tmp_path, 1)
    assert write(writer, Shard(1, 0, 2))


def test_an_error_of_the_teacher_is_not_taken_for_a_full_disk(tmp_path):
    writer = CacheWriter(tmp_path, HEADER)
    with (
        pytest.raises(tf.errors.ResourceExhaustedError, match="the accelerator"),
        writer.claim(Shard(0, 0, 2)),
    ):
        raise tf.errors.ResourceExhaustedError(None, None, "of the accelerator")
    assert files(tmp_path) == ["index.json"]


# Kills a writer before its n-th operation on files, for every n, and looks at what is
# there; the forks are made before TensorFlow starts its threads.
KILLED = """
import os, shutil, signal
OPERATIONS = "open", "os.rename", "os.remove", "fcntl.flock", "os.mkdir", "os.listdir"

def make(path, last_operation=None):
    done = 0
    def audit(event, arguments):
        nonlocal done
        if event in OPERATIONS and (str(path) in str(arguments) or "flock" in event):
            if done == last_operation:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1
    sys.addaudithook(audit)
    writer = CacheWriter(path, HEADER)
    for shard in writer.missing(2):
        write(writer, shard)

def in_a_child(function, *arguments):
    child = os.fork()
    if not child:
        function(*arguments)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def go_on(path, before):
    assert set(before) <= set(shards_in_index(path)) if before else True
    writer = CacheWriter(path, HEADER)
    missing = writer.missing(2)
    assert not set(before) & {shard.name for shard in missing}
    assert sum(write(writer, shard) for shard in missing) == 4 - len(before)
    assert whole(path, 2)

counts = []
while True:
    path = Path(sys.argv[1]) / str(len(counts))
    code = in_a_child(make, path, len(counts))
    index = path / "index.json"
    before = shards_in_index(path) if index.exists() else {}
    counts.append(len(before))
    assert in_a_child(go_on, path, before) == 0, (path, code)
    if code == 0:
        break
    assert code == -signal.SIGKILL
print(*counts)
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_point_is_gone_on_with(tmp_path):
    counts = [int(count) for count in run_python(KILLED, tmp_path).split()]
    assert sorted(set(counts)) == [0, 1, 2, 3, 4]
    assert len(counts) > 40  # operations
    assert counts == sorted(counts)
