import hashlib
import json
import os
import re
import threading
from pathlib import Path

import pytest

from keras_deit.weights.pretrained import (
    PRETRAINED,
    Pretrained,
    cache_folder,
    pretrained_file,
)
from tests.weights.file_server import FileServer, replying

CONTENT = b"weights" * 30_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER = b"another"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with FileServer(CONTENT) as running:
        yield running


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "deep" / "cache"
    monkeypatch.setenv("KERAS_DEIT_CACHE", str(folder))
    return folder


@pytest.fixture
def publish(server, cache, monkeypatch):
    """Publishes the weights of a variant "ours", and returns their place."""

    def publish(sha256=DIGEST[:8], by_hand=False):
        facts = (server.url, "ours.pth", sha256, 80.0, "MIT", "we", by_hand)
        monkeypatch.setitem(PRETRAINED, "ours", Pretrained(*facts))
        return cache / "ours.pth"

    return publish


@pytest.fixture
def hashed(monkeypatch):
    """Lists the names of the files that were hashed."""
    names = []
    true = hashlib.file_digest

    def file_digest(file, algorithm):
        names.append(Path(file.name).name)
        return true(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    return names


@pytest.mark.parametrize("name", PRETRAINED)
def test_each_entry_of_the_table_is_whole(name):
    entry = PRETRAINED[name]
    assert re.fullmatch(r"https://[a-z.]+/[\w./-]+", entry.url)
    assert re.fullmatch(r"[\w.-]+\.(pth|pth\.tar|safetensors)", entry.file)
    assert 50 < entry.top1 < 90
    assert entry.licence in ("Apache-2.0", "BSD-3-Clause-Clear", "MIT")
    assert "; " in entry.source  # who published it, and where the accuracy is from
    assert not entry.by_hand or "drive.google.com" in entry.url


@pytest.mark.parametrize("name", PRETRAINED)
def test_each_published_hash_is_one_and_is_what_the_file_name_says(name):
    entry = PRETRAINED[name]
    in_name = re.search(r"-([0-9a-f]{8})\.pth$", entry.file)
    if in_name:
        assert entry.sha256 == in_name[1]
    elif entry.sha256 is not None:
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)


@pytest.mark.parametrize("name", PRETRAINED)
def test_each_file_is_that_of_its_variant(name):
    entry = PRETRAINED[name]
    file = entry.file
    if name.startswith("t2t_vit"):
        short = name.removeprefix("t2t_vit_")
        size = short.replace("t_", "ViTt_") if "t_" in short else f"ViT_{short}"
        assert file == f"{entry.top1}_T2T_{size}.pth.tar"
    else:
        assert re.match(rf"{name}[-._]", file)
    if name.startswith("vit"):
        repository = file.removesuffix(".safetensors")
        assert f"/timm/{repository}/resolve/main/model.safetensors" in entry.url
    elif not entry.by_hand:
        assert entry.url.endswith(f"/{file}")


def test_no_file_is_that_of_two_variants():
    for facts in zip(*((e.url, e.file) for e in PRETRAINED.values()), strict=True):
        assert len(set(facts)) == len(PRETRAINED)
    hashes = [e.sha256 for e in PRETRAINED.values() if e.sha256]
    assert len(set(hashes)) == len(hashes)


def test_what_was_published_is_there_and_nothing_else():
    families = ("deit_", "t2t_", "evit_", "vit_", "regnety_")
    counts = [
        sum(name.startswith(family) for name in PRETRAINED) for family in families
    ]
    assert counts == [8, 9, 1, 9, 10]
    assert sum(counts) == len(PRETRAINED)
    assert "vit_large_patch32_224" not in PRETRAINED  # ImageNet-21k only
    assert [n for n, e in PRETRAINED.items() if e.by_hand] == ["evit_small_patch16_224"]


def test_the_folder_is_the_one_that_the_user_chose(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("KERAS_DEIT_CACHE", "/data/weights")
    assert cache_folder() == Path("/data/weights")
    monkeypatch.setenv("KERAS_DEIT_CACHE", "~/weights")
    assert cache_folder() == Path("/home/me/weights")


@pytest.mark.parametrize("chosen", [None, ""])
def test_the_folder_lies_at_home_if_none_was_chosen(monkeypatch, chosen):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("KERAS_DEIT_CACHE", raising=False)
    if chosen is not None:
        monkeypatch.setenv("KERAS_DEIT_CACHE", chosen)
    assert cache_folder() == Path("/home/me/.cache/keras_deit")


@pytest.mark.parametrize("name", ["deit_tiny", "deit_micro_patch4_32", ""])
def test_a_variant_without_published_weights_is_refused(cache, name):
    rule = r"`name` must be one of \['deit_base_distilled_patch16_224', .*'vit_tiny_"
    with pytest.raises(ValueError, match=f"{rule}.*Received: name='{name}'"):
        pretrained_file(name)
    assert not cache.exists()


@pytest.mark.parametrize("length", [8, 64])
def test_weights_are_downloaded_once_and_verified_once(
    publish, server, hashed, capsys, length
):
    path = publish(DIGEST[:length])
    for _ in range(3):
        assert pretrained_file("ours") == path
    assert path.read_bytes() == CONTENT
    assert len(server.ranges) == 1
    assert hashed == ["ours.pth.part"]
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == [".ours.pth.lock", "ours.pth", "ours.pth.sha256"]
    err = capsys.readouterr().err
    assert "ours.pth " in err
    assert "no hash" not in err


def test_hash_size_and_time_are_recorded_beside_the_file(publish):
    path = publish()
    pretrained_file("ours")
    record = json.loads(path.with_name("ours.pth.sha256").read_text())
    mtime_ns = path.stat().st_mtime_ns
    assert record == {"sha256": DIGEST, "size": len(CONTENT), "mtime_ns": mtime_ns}


def test_a_file_that_lies_there_already_is_verified_once(publish, server, hashed):
    path = publish()
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    for _ in range(2):
        assert pretrained_file("ours") == path
    assert server.ranges == []
    assert hashed == ["ours.pth"]


def test_a_folder_that_cannot_be_written_will_do_once_verified(publish, cache):
    path = publish()
    pretrained_file("ours")
    (cache / ".ours.pth.lock").unlink()
    (cache / ".ours.pth.lock").mkdir()  # stands for what cannot be written
    assert pretrained_file("ours") == path


def test_a_file_that_was_touched_is_verified_again(publish, hashed):
    path = publish()
    pretrained_file("ours")
    os.utime(path, ns=(0, 0))
    for _ in range(2):
        pretrained_file("ours")
    assert hashed == ["ours.pth.part", "ours.pth"]


def test_another_published_hash_has_the_file_verified_again(publish, hashed):
    publish()
    pretrained_file("ours")
    publish(DIGEST[:16])
    pretrained_file("ours")
    assert len(hashed) == 1  # what is recorded fits it
    publish("0" * 8)
    with pytest.raises(ValueError, match="the known SHA-256 '00000000'"):
        pretrained_file("ours")


def test_a_damaged_file_is_refused_and_left_as_it_is(publish, server):
    path = publish()
    path.parent.mkdir(parents=True)
    path.write_bytes(OTHER)
    text = (
        f"`ours.pth` must have the known SHA-256 '{DIGEST[:8]}': delete {path} and "
        f"try again. Received: sha256='{hashlib.sha256(OTHER).hexdigest()}'."
    )
    for _ in range(2):
        with pytest.raises(ValueError, match=text):
            pretrained_file("ours")
    assert path.read_bytes() == OTHER
    assert server.ranges == []


@pytest.mark.parametrize("content", [OTHER, CONTENT[::-1]])
def test_a_file_that_changes_after_it_was_verified_is_refused(publish, content):
    path = publish()
    pretrained_file("ours")
    time = path.stat().st_mtime_ns
    path.write_bytes(content)
    # What has the same size shows by its time, what has the same time by its size.
    os.utime(path, ns=(time, time + (content is not OTHER)))
    with pytest.raises(ValueError, match="must have the known SHA-256"):
        pretrained_file("ours")


def test_a_download_that_is_another_file_is_thrown_away(publish, server):
    path = publish()
    server.content = OTHER
    with pytest.raises(
        ValueError, match=f"'{DIGEST[:8]}': the download is thrown away"
    ):
        pretrained_file("ours")
    assert [file.name for file in path.parent.iterdir()] == [".ours.pth.lock"]
    server.content = CONTENT
    assert pretrained_file("ours").read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_a_download_that_breaks_off_is_gone_on_with(publish, server):
    path = publish()
    server.answers = [replying(200, CONTENT[:100_000], Content_Length=len(CONTENT))]
    with pytest.raises(ConnectionError, match=f"broke off after 100000 .* at {path}"):
        pretrained_file("ours")
    assert not path.exists()
    assert pretrained_file("ours").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


def test_without_a_connection_it_says_what_to_put_where(publish, server):
    path = publish()
    server.answers = [replying(503)]
    text = (
        rf"{server.url} could not be reached \(.*503.*: fetch it elsewhere and put it "
    )
    with pytest.raises(OSError, match=f"{text}at {path}"):
        pretrained_file("ours")
    path.write_bytes(CONTENT)
    assert pretrained_file("ours") == path


def test_where_no_hash_was_published_that_of_the_first_use_is_recorded(
    publish, server, capsys
):
    path = publish(sha256=None)
    pretrained_file("ours")
    text = (
        f"no hash was published for ours.pth; recorded {DIGEST} (210000 bytes) at "
        "first use\n"
    )
    assert capsys.readouterr().err.endswith(text)
    pretrained_file("ours")
    os.utime(path, ns=(0, 0))
    pretrained_file("ours")
    assert capsys.readouterr().err == ""
    assert len(server.ranges) == 1


def test_where_no_hash_was_published_a_change_since_the_first_use_is_refused(
    publish, server
):
    path = publish(sha256=None)
    pretrained_file("ours")
    record = path.with_name("ours.pth.sha256")
    text = f"the SHA-256 of its first use, as {record} has it, '{DIGEST}': "
    path.write_bytes(OTHER)
    with pytest.raises(ValueError, match=f"{text}delete {path} and try again"):
        pretrained_file("ours")
    path.unlink()
    server.content = OTHER
    with pytest.raises(ValueError, match=f"{text}the download is thrown away"):
        pretrained_file("ours")
    server.content = CONTENT
    assert pretrained_file("ours").read_bytes() == CONTENT


@pytest.mark.parametrize("text", ["", "[]", "3", '{"sha256": "00"}', "\xff"])
def test_a_record_that_is_none_is_refused(publish, text):
    path = publish(sha256=None)
    pretrained_file("ours")
    record = path.with_name("ours.pth.sha256")
    record.write_text(text, encoding="latin-1")
    rule = f"{record} must hold what was recorded of a file: delete it. Received: recor"
    with pytest.raises(ValueError, match=rule):
        pretrained_file("ours")


@pytest.mark.parametrize("sha256", [None, DIGEST[:8]])
def test_what_must_be_fetched_by_hand_is_not_tried(publish, server, sha256):
    path = publish(sha256, by_hand=True)
    text = (
        f"The weights of 'ours' lie behind a confirmation page: open {server.url} and "
        f"put the file at {path}."
    )
    with pytest.raises(FileNotFoundError, match=text):
        pretrained_file("ours")
    path.write_bytes(CONTENT)  # its folder was made
    assert pretrained_file("ours") == path
    assert server.ranges == []


def test_a_file_that_was_fetched_by_hand_is_verified(publish):
    path = publish(by_hand=True)
    path.parent.mkdir(parents=True)
    path.write_bytes(OTHER)
    with pytest.raises(ValueError, match="must have the known SHA-256"):
        pretrained_file("ours")


def test_two_at_the_same_time_download_once(publish, server):
    path = publish()
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(pretrained_file("ours")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [path] * 4
    assert path.read_bytes() == CONTENT
    assert len(server.ranges) == 1


def test_a_url_that_is_not_https_is_refused(cache, monkeypatch):
    entry = Pretrained("http://example.com/x.pth", "x.pth", None, 80.0, "MIT", "we")
    monkeypatch.setitem(PRETRAINED, "ours", entry)
    with pytest.raises(ValueError, match="`url` must begin with 'https://'"):
        pretrained_file("ours")
