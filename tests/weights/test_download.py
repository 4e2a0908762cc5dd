import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from keras_deit.weights import download as module
from keras_deit.weights.download import download, only_one
from tests.weights.file_server import FileServer, replying, serve

CONTENT = bytes(range(256)) * 1000  # more than one chunk


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with FileServer(CONTENT) as running:
        yield running


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


@pytest.fixture
def part(tmp_path):
    return tmp_path / "weights.pth.part"


def test_what_is_downloaded_is_what_was_served(server, path, part):
    assert download(server.url, path) == part
    assert part.read_bytes() == CONTENT
    assert server.ranges == [None]
    assert server.agents == ["keras_deit"]
    assert list(path.parent.iterdir()) == [part]


def test_an_empty_file_is_a_file(server, path, part):
    server.content = b""
    assert download(server.url, path).read_bytes() == b""


def test_a_bar_on_standard_error_names_the_file_and_its_size(server, path, capsys):
    download(server.url, path)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "weights.pth " in captured.err
    assert "256.0/256.0 kB" in captured.err


def test_the_bar_counts_what_was_there_already(server, path, part, capsys):
    part.write_bytes(CONTENT[:200_000])
    server.answers = [
        replying(
            206, CONTENT[200_000:250_000], Content_Range="bytes 200000-255999/256000"
        )
    ]
    with pytest.raises(ConnectionError):
        download(server.url, path)
    assert "250.0/256.0 kB" in capsys.readouterr().err


def test_an_earlier_try_is_gone_on_with(server, path, part):
    part.write_bytes(CONTENT[:100_000])
    download(server.url, path)
    assert part.read_bytes() == CONTENT
    assert server.ranges == ["bytes=100000-"]


def test_a_server_without_ranges_sends_all_of_it_again(server, path, part):
    part.write_bytes(b"something else")
    server.answers = [replying(200, CONTENT)]
    download(server.url, path)
    assert part.read_bytes() == CONTENT


def test_a_partial_file_that_was_whole_is_left_as_it_is(server, path, part):
    part.write_bytes(CONTENT)
    assert download(server.url, path) == part
    assert part.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_a_partial_file_that_is_too_long_is_thrown_away(server, path, part):
    part.write_bytes(CONTENT + b"more")
    download(server.url, path)
    assert part.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]


@pytest.mark.parametrize("told", ["bytes 7-255999/256000", "bytes */256000", "nothing"])
def test_another_range_than_the_one_asked_for_makes_it_start_anew(
    server, path, part, told
):
    part.write_bytes(CONTENT[:10])
    server.answers = [replying(206, CONTENT[7:], Content_Range=told)]
    download(server.url, path)
    assert part.read_bytes() == CONTENT
    assert server.ranges == ["bytes=10-", None]


def test_a_server_that_never_sends_the_range_asked_for_is_given_up(server, path):
    wrong = replying(206, CONTENT[7:], Content_Range="bytes 7-255999/256000")
    server.answers = [wrong, wrong]
    with pytest.raises(ConnectionError, match="asked for bytes from 0 on, got 'bytes"):
        download(server.url, path)
    assert len(server.ranges) == 2


def test_where_it_breaks_off_the_next_try_goes_on(server, path, part):
    server.answers = [replying(200, CONTENT[:150_000], Content_Length=len(CONTENT))]
    text = (
        f"{server.url} broke off after 150000 of 256000 bytes, which are kept. "
        f"Try again, or fetch it elsewhere and put it at {path}."
    )
    with pytest.raises(ConnectionError, match=text):
        download(server.url, path)
    assert part.read_bytes() == CONTENT[:150_000]
    assert not path.exists()
    download(server.url, path)
    assert part.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=150000-"]


def test_a_rest_that_breaks_off_is_kept_too(server, path, part):
    part.write_bytes(CONTENT[:10])
    told = f"bytes 10-99999/{len(CONTENT)}"
    server.answers = [replying(206, CONTENT[10:100_000], Content_Range=told)]
    with pytest.raises(ConnectionError, match="broke off after 100000 of 256000 bytes"):
        download(server.url, path)
    assert part.read_bytes() == CONTENT[:100_000]


def test_a_connection_that_is_reset_keeps_what_had_come(server, path, part):
    def reset(handler):
        handler.reply(200, CONTENT[:200_000], Content_Length=len(CONTENT))
        time.sleep(0.1)
        linger = struct.pack("ii", 1, 0)  # closing discards instead of finishing
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.server.shutdown_request = handler.server.close_request

    server.answers = [reset]
    with pytest.raises(ConnectionError, match=r"reached \(ConnectionResetError: "):
        download(server.url, path)
    kept = part.read_bytes()
    assert kept and CONTENT.startswith(kept)
    download(server.url, path)
    assert part.read_bytes() == CONTENT


def test_an_answer_without_a_length_is_taken_up_to_its_end(server, path, part):
    server.answers = [replying(200, CONTENT, Content_Length=None)]
    download(server.url, path)
    assert part.read_bytes() == CONTENT


def test_a_slow_server_is_waited_for(server, path, part):
    server.answers = [lambda handler: (time.sleep(0.3), serve(handler))]
    download(server.url, path)
    assert part.read_bytes() == CONTENT


def test_a_server_that_says_nothing_is_given_up(server, path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    server.answers = [lambda handler: time.sleep(0.5)]
    with pytest.raises(ConnectionError, match=r"could not be reached \(.*timed out\)"):
        download(server.url, path)
    download(server.url, path)


def test_a_server_that_stops_in_the_middle_is_given_up(server, path, part, monkeypatch):
    def stop(handler):
        handler.reply(200, CONTENT[:200_000], Content_Length=len(CONTENT))
        time.sleep(0.5)

    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    server.answers = [stop]
    with pytest.raises(ConnectionError, match=r"reached \(TimeoutError: timed out\)"):
        download(server.url, path)
    kept = part.read_bytes()
    assert kept and CONTENT.startswith(kept)
    download(server.url, path)
    assert part.read_bytes() == CONTENT


def test_a_refusal_says_where_to_put_the_file(server, path, part):
    server.answers = [replying(404)]
    text = (
        rf"{server.url} could not be reached \(HTTPError: HTTP Error 404: Not Found\): "
        rf"fetch it elsewhere and put it at {path}\."
    )
    with pytest.raises(ConnectionError, match=text) as raised:
        download(server.url, path)
    assert raised.value.__cause__.closed  # whoever keeps the error keeps no connection
    assert not part.exists()


@pytest.mark.parametrize("status", [416, 503])
def test_a_refusal_of_the_whole_file_is_no_reason_to_ask_again(server, path, status):
    server.answers = [replying(status)]
    with pytest.raises(ConnectionError, match=f"HTTP Error {status}"):
        download(server.url, path)
    assert server.ranges == [None]


def test_a_refusal_leaves_an_earlier_try_as_it_is(server, path, part):
    part.write_bytes(CONTENT[:10])
    server.answers = [replying(503)]
    with pytest.raises(ConnectionError, match="HTTP Error 503"):
        download(server.url, path)
    assert part.read_bytes() == CONTENT[:10]


def test_an_answer_that_is_no_http_is_refused(server, path):
    server.answers = [lambda handler: handler.wfile.write(b"hello\r\n\r\n")]
    with pytest.raises(ConnectionError, match=r"\(BadStatusLine: hello"):
        download(server.url, path)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_is_not_there_says_where_to_put_the_file(path, scheme):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"{scheme}://127.0.0.1:{unused.getsockname()[1]}/file"
    text = (
        rf"reached \(URLError: .*refused.*\): fetch it elsewhere and put it at {path}"
    )
    with pytest.raises(ConnectionError, match=text):
        download(url, path)


def test_a_web_page_is_not_taken_for_a_file(server, path, part):
    page = replying(200, b"<html>", Content_Type="text/html; charset=utf-8")
    server.answers = [page]
    with pytest.raises(ConnectionError, match="sends a web page instead of a file"):
        download(server.url, path)
    assert not part.exists()


@pytest.mark.parametrize("held", [0, 10])
def test_a_file_that_is_said_to_be_too_large_is_not_begun(
    server, path, part, monkeypatch, held
):
    monkeypatch.setattr(module, "MAX_BYTES", len(CONTENT) - 1)
    if held:
        part.write_bytes(CONTENT[:held])
    with pytest.raises(ConnectionError, match="sends more than 255999 bytes, so it is"):
        download(server.url, path)
    assert not part.exists()


def test_the_largest_file_that_is_allowed_is_taken(server, path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", len(CONTENT))
    assert download(server.url, path).read_bytes() == CONTENT


def test_a_file_of_unknown_length_cannot_fill_the_disk(server, path, part, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", len(CONTENT) - 1)
    server.answers = [replying(200, CONTENT, Content_Length=None)]
    with pytest.raises(ConnectionError, match="sends more than 255999 bytes"):
        download(server.url, path)
    assert not part.exists()


def test_a_rest_that_is_longer_than_said_is_refused(server, path, part):
    part.write_bytes(CONTENT[:10])
    told = "bytes 10-99/100"
    long = replying(206, CONTENT[10:200], Content_Range=told, Content_Length=None)
    server.answers = [long]
    with pytest.raises(ConnectionError, match="sends more than 100 bytes"):
        download(server.url, path)
    assert not part.exists()


def test_the_bound_is_four_gibibytes():
    assert module.MAX_BYTES == 4_294_967_296


def test_a_redirect_is_followed_with_the_range(server, path, part):
    part.write_bytes(CONTENT[:10])
    server.answers = [replying(302, Location=server.url)]
    download(server.url, path)
    assert part.read_bytes() == CONTENT
    assert server.ranges == ["bytes=10-", "bytes=10-"]


@pytest.mark.parametrize(
    "target", ["http://example.com/file", "ftp://example.com/file"]
)
def test_a_redirect_to_what_is_not_https_is_refused(server, path, target):
    server.answers = [replying(302, Location=target)]
    with pytest.raises(ConnectionError, match=f"redirects to {target}, which is not h"):
        download(server.url, path)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/file",
        "http://127.0.0.1@example.com/file",
        "http://localhost.example.com/file",
        "file:///etc/hosts",
        "ftp://127.0.0.1/file",
        "https:///file",
        "weights.pth",
    ],
)
def test_what_is_not_https_is_refused(path, url):
    with pytest.raises(ValueError, match="`url` must begin with 'https://'. Received"):
        download(url, path)


def test_a_folder_that_is_not_there_is_refused(server, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        download(server.url, tmp_path / "missing" / "weights.pth")


def test_the_lock_is_free_again_when_its_owner_is_done(path, capsys):
    for _ in range(2):
        with only_one(path):
            pass
    with pytest.raises(ValueError, match="no good"), only_one(path):
        raise ValueError("no good")
    with only_one(path):
        assert [file.name for file in path.parent.iterdir()] == [".weights.pth.lock"]
    assert capsys.readouterr().err == ""


def test_two_files_do_not_wait_for_each_other(tmp_path, capsys):
    with only_one(tmp_path / "one"), only_one(tmp_path / "other"):
        assert capsys.readouterr().err == ""


def test_another_process_is_waited_for_even_if_it_is_killed(path, capfd):
    code = """
import fcntl, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(5)
"""
    lock = path.with_name(".weights.pth.lock")
    entered = threading.Event()

    def work():
        with only_one(path):
            entered.set()

    command = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        thread = threading.Thread(target=work)
        thread.start()
        assert not entered.wait(0.2)
        other.kill()
    assert entered.wait(10)
    thread.join()
    assert capfd.readouterr().err == "waiting for another process with weights.pth\n"
