"""The downloader against a real HTTP server on loopback that misbehaves in every known way."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
import resource
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable

import pytest
import urllib3

from squeezenet_paddle import download
from squeezenet_paddle.cli import download as command
from squeezenet_paddle.data.lists import read_names
from squeezenet_paddle.errors import InputError

CONTENT = random.Random(0).randbytes(200_000)
WRONG = bytes(len(CONTENT))
HALF = len(CONTENT) // 2
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers a request by the next of the server's `answers`; the last one stays."""

    server: Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers["Range"])
        self.server.paths.append(self.path)
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)

    def reply(self, status: int, body: bytes = b"", **headers: object) -> None:
        """Sends an answer; `Content_Length=None` leaves that header out."""
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the test's output quiet."""


Answer = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    """Notes the path and the Range header of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = [ranges(CONTENT)]
        self.ranges: list[str | None] = []
        self.paths: list[str] = []
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/file.bin"


def whole(body: bytes, **headers: object) -> Answer:
    """The whole body, also for those who ask for a part."""
    return lambda handler: handler.reply(200, body, **headers)


def ranges(body: bytes) -> Answer:
    """What is asked for of the body."""

    def answer(handler: Handler) -> None:
        if handler.headers["Range"] is None:
            handler.reply(200, body)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"])[1])
        content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.reply(206, body[start:], Content_Range=content_range)

    return answer


def status(code: int, **headers: object) -> Answer:
    return lambda handler: handler.reply(code, b"no\n", **headers)


def hang_up(handler: Handler) -> None:
    """Closes the connection without an answer."""
    handler.close_connection = True


def stall(handler: Handler) -> None:
    """Sends half of the bytes, then nothing."""
    handler.reply(200, CONTENT[:HALF], Content_Length=len(CONTENT))
    handler.wfile.flush()
    handler.server.over.wait(10)


cut_off = whole(CONTENT[:HALF], Content_Length=len(CONTENT))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "made" / "file.bin"


@pytest.fixture
def part(target: Path) -> Path:
    target.parent.mkdir()
    return target.with_name("file.bin.part")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been slept between attempts."""
    slept: list[float] = []
    monkeypatch.setattr(urllib3.util.retry.time, "sleep", slept.append)
    return slept


def known(server: Server) -> download.KnownFile:
    return download.KnownFile("file.bin", server.url, len(CONTENT), "sha256", DIGEST)


def fetch(server: Server, path: Path, **options: Any) -> bool:
    return download.fetch(known(server), path, **{"backoff": 0.001, "timeout": 5.0, **options})


def assert_only(path: Path) -> None:
    """`path` is right, and nothing lies beside it."""
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def assert_nothing_at(path: Path) -> None:
    assert not path.parent.exists() or not list(path.parent.iterdir())


# What goes well


def test_downloads_and_makes_the_folder(
    server: Server, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fetch(server, target) is True
    assert_only(target)
    assert server.ranges == [None]
    assert fetch(server, target) is False
    assert server.ranges == [None]
    assert capfd.readouterr() == ("", "")  # no progress bar where there is no terminal


def test_paths_may_be_text_and_mirrors_may_serve(server: Server, target: Path) -> None:
    fetch(server, str(target), url=server.url + "?mirror")
    assert_only(target)
    assert server.paths == ["/file.bin?mirror"]


def test_nothing_is_decompressed_on_the_way(server: Server, target: Path) -> None:
    def answer(handler: Handler) -> None:
        assert handler.headers["Accept-Encoding"] == "identity"
        handler.reply(200, CONTENT)

    server.answers = [answer]
    fetch(server, target)
    assert_only(target)


@pytest.mark.parametrize(
    "first",
    [
        whole(CONTENT, Content_Length=None),
        status(302, Location="/elsewhere"),
        hang_up,
        status(503),
        status(429, Retry_After="0"),
    ],
)
def test_answers_after_which_all_is_well(server: Server, target: Path, first: Answer) -> None:
    server.answers = [first, whole(CONTENT)]
    fetch(server, target)
    assert_only(target)


# Going on after a break


@pytest.mark.parametrize("length", [len(CONTENT), None], ids=["announced", "unknown"])
@pytest.mark.parametrize("then", [ranges(CONTENT), whole(CONTENT)], ids=["rest", "whole"])
def test_half_then_what_the_server_gives(
    server: Server, target: Path, length: int | None, then: Answer
) -> None:
    server.answers = [whole(CONTENT[:HALF], Content_Length=length), then]
    fetch(server, target)
    assert_only(target)
    assert server.ranges[0] is None
    start = int(re.fullmatch(r"bytes=(\d+)-", server.ranges[1])[1])
    assert HALF - 16 * 1024 <= start <= HALF


def test_stalled_connection_times_out(server: Server, target: Path) -> None:
    server.answers = [stall, ranges(CONTENT)]
    fetch(server, target, timeout=0.2)
    assert_only(target)
    start = int(re.fullmatch(r"bytes=(\d+)-", server.ranges[1])[1])
    assert HALF - 16 * 1024 <= start <= HALF


def test_goes_on_from_an_old_part(server: Server, target: Path, part: Path) -> None:
    part.write_bytes(CONTENT[:1234])
    fetch(server, target)
    assert_only(target)
    assert server.ranges == ["bytes=1234-"]


def test_complete_old_part_needs_no_server(server: Server, target: Path, part: Path) -> None:
    part.write_bytes(CONTENT)
    fetch(server, target)
    assert_only(target)
    assert server.ranges == []


@pytest.mark.parametrize("old", [WRONG[:1234], WRONG, CONTENT + b"more"], ids=["some", "all", "+"])
def test_wrong_old_part_is_thrown_away(
    server: Server, target: Path, part: Path, old: bytes
) -> None:
    part.write_bytes(old)
    fetch(server, target)
    assert_only(target)
    assert server.ranges[-1] is None


def test_wrong_beginning_of_this_download_is_thrown_away(server: Server, target: Path) -> None:
    page = whole(b"<html>Please log in</html>", Content_Length=None)
    server.answers = [page, ranges(CONTENT)]
    fetch(server, target)
    assert_only(target)
    assert server.ranges == [None, "bytes=26-", None]


def test_wrong_part_and_wrong_server_end(server: Server, target: Path, part: Path) -> None:
    part.write_bytes(WRONG[:1234])
    server.answers = [ranges(WRONG)]
    with pytest.raises(InputError, match="sha256"):
        fetch(server, target)
    assert_nothing_at(target)
    assert server.ranges == ["bytes=1234-", None]


@pytest.mark.parametrize(
    "answer",
    [
        status(416, Content_Range="bytes */200000"),
        lambda handler: handler.reply(206, CONTENT, Content_Range="bytes 0-199999/200000"),
        lambda handler: handler.reply(206, CONTENT, Content_Range="bytes=1234-"),
        lambda handler: handler.reply(206, CONTENT),
    ],
)
def test_another_range_than_asked_starts_again(
    server: Server, target: Path, part: Path, answer: Answer
) -> None:
    part.write_bytes(CONTENT[:1234])
    server.answers = [answer, whole(CONTENT)]
    fetch(server, target)
    assert_only(target)
    assert server.ranges == ["bytes=1234-", None]


# Waiting and giving up


@pytest.mark.parametrize(("retry_after", "wait"), [("7", 7), ("86400", download.MAX_RETRY_AFTER)])
def test_waits_as_the_server_says_up_to_a_minute(
    server: Server,
    target: Path,
    waits: list[float],
    retry_after: str,
    wait: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.answers = [status(429, Retry_After=retry_after), whole(CONTENT)]
    fetch(server, target)
    assert_only(target)
    assert waits == [wait]
    assert "the server answered 429; trying again" in caplog.messages


def test_gives_up_and_keeps_what_has_arrived(
    server: Server, target: Path, waits: list[float]
) -> None:
    server.answers = [cut_off, status(503)]
    with pytest.raises(InputError, match=r"file\.bin: the server answered 503"):
        fetch(server, target)
    assert not target.exists()
    kept = target.with_name("file.bin.part").read_bytes()
    assert CONTENT.startswith(kept)
    assert HALF - 16 * 1024 <= len(kept) <= HALF
    assert server.ranges == [None, *[f"bytes={len(kept)}-"] * 5]


def test_gives_up_on_answers_that_end_early(server: Server, target: Path) -> None:
    server.answers = [whole(b"", Content_Length=None)]
    with pytest.raises(InputError, match=r"file\.bin: 5 attempts gave 0 of 200000 bytes; run it"):
        fetch(server, target)
    assert not target.exists()
    assert len(server.ranges) == 5


def test_nobody_listens(server: Server, target: Path, waits: list[float]) -> None:
    server.url = "http://127.0.0.1:1/file.bin"
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1/file\.bin: there was no answer \("):
        fetch(server, target)
    assert_nothing_at(target)


# What ends at once


@pytest.mark.parametrize("code", [403, 404, 410, 416, 204])
def test_refusal_ends(server: Server, target: Path, waits: list[float], code: int) -> None:
    server.answers = [status(code)]
    with pytest.raises(InputError, match=rf"{re.escape(server.url)}: the server answered {code} "):
        fetch(server, target)
    assert_nothing_at(target)
    assert len(server.ranges) == 1
    assert waits == []


def test_wrong_bytes(server: Server, target: Path) -> None:
    server.answers = [whole(WRONG)]
    found = hashlib.sha256(WRONG).hexdigest()
    with pytest.raises(InputError, match=f"file.bin is not .* {found}, expected {DIGEST}"):
        fetch(server, target)
    assert_nothing_at(target)
    assert len(server.ranges) == 1


@pytest.mark.parametrize("body", [CONTENT + b"x", CONTENT[:-1]], ids=["longer", "shorter"])
def test_announced_size_is_wrong(server: Server, target: Path, body: bytes) -> None:
    server.answers = [whole(body)]
    with pytest.raises(InputError, match=f"it has {len(body)} bytes, not {len(CONTENT)}"):
        fetch(server, target)
    assert_nothing_at(target)
    assert len(server.ranges) == 1


def test_announced_size_of_a_resumed_file_is_wrong(
    server: Server, target: Path, part: Path
) -> None:
    part.write_bytes(CONTENT[:1234])
    server.answers = [ranges(CONTENT + b"x")]
    with pytest.raises(InputError, match="it has 200001 bytes, not 200000"):
        fetch(server, target)
    assert not target.exists()


def test_endless_body_is_refused_as_it_arrives(server: Server, target: Path) -> None:
    def endless(handler: Handler) -> None:
        handler.reply(200, CONTENT, Content_Length=None)
        while not handler.server.over.is_set():
            try:
                handler.wfile.write(CONTENT)
            except OSError:  # the client has left, as it should
                return

    server.answers = [endless]
    with pytest.raises(InputError, match="more than 200000 bytes"):
        fetch(server, target)
    assert_nothing_at(target)


@pytest.mark.parametrize("content", [b"mine", WRONG], ids=["size", "checksum"])
def test_wrong_file_is_left_alone(server: Server, target: Path, content: bytes) -> None:
    target.parent.mkdir()
    target.write_bytes(content)
    with pytest.raises(InputError, match=r"file\.bin exists and is not .* expected .* remove it"):
        fetch(server, target)
    assert target.read_bytes() == content
    assert server.ranges == []


def test_folder_of_that_name_is_left_alone(server: Server, target: Path) -> None:
    target.mkdir(parents=True)
    with pytest.raises(InputError, match="it is a folder"):
        fetch(server, target)
    assert target.is_dir()


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "ftp://127.0.0.1/file.bin",
        "example.org/file.bin",
        "http:///file.bin",
        "http://[::1/file.bin",
        "http://127.0.0.1:port/file.bin",
    ],
)
def test_unusable_url(server: Server, target: Path, waits: list[float], url: str) -> None:
    with pytest.raises(InputError, match=f"'{re.escape(url)}' is not a URL to download from"):
        fetch(server, target, url=url)
    assert_nothing_at(target)
    assert waits == []


def test_redirect_to_a_local_file_is_refused(server: Server, target: Path) -> None:
    server.answers = [status(302, Location="file:///etc/hostname")]
    with pytest.raises(InputError, match=r"not a URL to download from: .*'file:///etc/hostname'"):
        fetch(server, target)
    assert_nothing_at(target)


def test_output_folder_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot store the download here"):
        fetch(server, tmp_path / "file" / "file.bin")


def test_a_disk_without_room(server: Server, target: Path, part: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, hard))
    try:
        with pytest.raises(InputError, match=r"file\.bin\.part: .*File too large"):
            fetch(server, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not target.exists()


# The command line


@pytest.fixture
def small_files(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's file in place of the published ones."""
    url = f"{download.AUTHORS}/v/file.bin"
    small = download.KnownFile("file.bin", url, len(CONTENT), "sha256", DIGEST)
    monkeypatch.setitem(download.KNOWN_FILES, "squeezenet_v1.1", (small,))


@pytest.mark.usefixtures("small_files")
def test_command_writes_weights_and_names(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = server.url[: -len("/file.bin")]
    arguments = ["squeezenet_v1.1", "--output_dir", str(tmp_path), "--mirror", f"{mirror}/"]
    names = tmp_path / "synset_words.txt"
    for state in ("downloaded", "already there"):
        command.main(arguments)
        assert capsys.readouterr().out.splitlines() == [
            f"{tmp_path}/file.bin: {state}, 200000 bytes, sha256 is right",
            f"{names}: the names of 1000 classes",
        ]
    assert read_names(names, 1000) == read_names("imagenet", 1000)
    assert server.paths == ["/v/file.bin"]


@pytest.mark.usefixtures("small_files")
def test_command_leaves_other_names_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "synset_words.txt").write_text("mine\n")
    with pytest.raises(InputError, match=r"synset_words\.txt exists and holds other names"):
        command.main(["squeezenet_v1.1", "--output_dir", str(tmp_path)])
    assert list(tmp_path.iterdir()) == [tmp_path / "synset_words.txt"]
    assert server.paths == []


def test_known_prototxts_are_the_authors(assets: Path) -> None:
    for version in ("1.0", "1.1"):
        weights, prototxt = download.KNOWN_FILES[f"squeezenet_v{version}"]
        assert weights.name == f"squeezenet_v{version}.caffemodel"
        assert download.difference(assets / f"caffe/deploy_v{version}.prototxt", prototxt) is None


def test_a_part_that_is_a_link_is_not_written_to(
    server: Server, target: Path, part: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    part.symlink_to(tmp_path / "mine.txt")
    with pytest.raises(InputError, match=r"file.bin.part: cannot store the download here"):
        fetch(server, target)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def raw(text: bytes) -> Answer:
    """An answer as it stands, after which the connection ends."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(text)
        handler.close_connection = True

    return answer


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MANY_DIGITS = b"9" * 5000


@pytest.mark.parametrize(
    "text",
    [
        CHUNKED + b"-5\r\nabcde\r\n0\r\n\r\n",
        CHUNKED + MANY_DIGITS + b"\r\nabcde\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + MANY_DIGITS + b"\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
        b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-/" + MANY_DIGITS + b"\r\n\r\nabc",
        b"HTTP/1.1 503 x\x1b[31mx\r\nRetry-After: " + MANY_DIGITS + b"\r\n\r\n",
        b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n",
        b"no HTTP\r\n\r\n",
    ],
)
@pytest.mark.usefixtures("waits")
def test_what_is_no_http_ends_in_an_error(server: Server, target: Path, text: bytes) -> None:
    server.answers = [raw(text)]
    with pytest.raises(InputError):
        fetch(server, target)
    assert not target.exists()


def test_a_server_that_drips_is_given_up(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drip(handler: Handler) -> None:
        handler.send_response(200)
        while not server.over.wait(0.05):
            with contextlib.suppress(OSError):
                handler.wfile.write(b"X")

    server.answers = [drip]
    monkeypatch.setattr(download, "MIN_SECONDS", 1.0)
    monkeypatch.setattr(download, "MIN_RATE", 1_000_000)
    with pytest.raises(InputError, match="not there after 1 seconds"):
        fetch(server, target, timeout=30.0)
