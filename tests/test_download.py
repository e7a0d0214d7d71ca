"""The downloader against a real HTTP server on loopback that misbehaves in every known way."""

from __future__ import annotations

import email.utils
import hashlib
import os
import random
import re
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable

import pytest

from squeezenet_paddle import download
from squeezenet_paddle.errors import InputError

TOOL = Path(__file__).parents[1] / "tools" / "download.py"
CONTENT = random.Random(0).randbytes(200_000)
WRONG = bytes(len(CONTENT))
HALF = len(CONTENT) // 2
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers a request by the next of the server's `answers`; the last one stays."""

    server: Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers["Range"])
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
    """Notes the Range header of each request in `ranges`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = [ranges(CONTENT)]
        self.ranges: list[str | None] = []
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
    """The seconds that would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr(download.time, "sleep", slept.append)
    return slept


def fetch(server: Server, path: Path, **options: Any) -> bool:
    options = {"backoff": 0.001, "timeout": 5.0, **options}
    return download.fetch(server.url, path, len(CONTENT), "sha256", DIGEST, **options)


def assert_only(path: Path) -> None:
    """`path` is right, and nothing lies beside it."""
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def assert_nothing_at(path: Path) -> None:
    assert not path.parent.exists() or not list(path.parent.iterdir())


# What goes well


def test_downloads_and_makes_the_folder(server: Server, target: Path) -> None:
    assert fetch(server, target) is True
    assert_only(target)
    assert server.ranges == [None]


def test_length_may_be_unknown(server: Server, target: Path) -> None:
    server.answers = [whole(CONTENT, Content_Length=None)]
    fetch(server, target)
    assert_only(target)


def test_follows_a_redirect(server: Server, target: Path) -> None:
    server.answers = [status(302, Location="/elsewhere"), whole(CONTENT)]
    fetch(server, target)
    assert_only(target)


def test_right_file_is_not_asked_for_again(server: Server, target: Path) -> None:
    fetch(server, target)
    assert fetch(server, target) is False
    assert len(server.ranges) == 1


def test_no_progress_bar_where_there_is_no_terminal(
    server: Server, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fetch(server, target)
    assert capfd.readouterr() == ("", "")


# Going on after a break


def test_half_then_the_rest(server: Server, target: Path) -> None:
    server.answers = [cut_off, ranges(CONTENT)]
    fetch(server, target)
    assert_only(target)
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_half_of_unknown_length_then_the_rest(server: Server, target: Path) -> None:
    server.answers = [whole(CONTENT[:HALF], Content_Length=None), ranges(CONTENT)]
    fetch(server, target)
    assert_only(target)
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_server_without_ranges_starts_again(server: Server, target: Path) -> None:
    server.answers = [cut_off, whole(CONTENT)]
    fetch(server, target)
    assert_only(target)
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_stalled_connection_times_out(server: Server, target: Path) -> None:
    server.answers = [stall, ranges(CONTENT)]
    fetch(server, target, timeout=0.2)
    assert_only(target)
    start = int(re.fullmatch(r"bytes=(\d+)-", server.ranges[1])[1])
    assert HALF - download.CHUNK <= start <= HALF


def test_hang_up_is_tried_again(server: Server, target: Path) -> None:
    server.answers = [hang_up, whole(CONTENT)]
    fetch(server, target)
    assert_only(target)


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


@pytest.mark.parametrize("old", [WRONG[:1234], WRONG], ids=["some", "all"])
def test_wrong_old_part_is_thrown_away(
    server: Server, target: Path, part: Path, old: bytes
) -> None:
    part.write_bytes(old)
    fetch(server, target)
    assert_only(target)
    assert server.ranges[-1] is None


def test_too_long_old_part_is_thrown_away(server: Server, target: Path, part: Path) -> None:
    part.write_bytes(CONTENT + b"more")
    fetch(server, target)
    assert_only(target)
    assert server.ranges == [None]


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


def test_416_starts_again(server: Server, target: Path, part: Path) -> None:
    part.write_bytes(CONTENT[:1234])
    server.answers = [status(416, Content_Range="bytes */200000"), whole(CONTENT)]
    fetch(server, target)
    assert_only(target)
    assert server.ranges == ["bytes=1234-", None]


@pytest.mark.parametrize("content_range", ["bytes 0-199999/200000", "bytes=1234-", None])
def test_another_range_than_asked_starts_again(
    server: Server, target: Path, part: Path, content_range: str | None
) -> None:
    part.write_bytes(CONTENT[:1234])
    answer = lambda handler: handler.reply(206, CONTENT, Content_Range=content_range)  # noqa: E731
    server.answers = [answer, whole(CONTENT)]
    fetch(server, target)
    assert_only(target)
    assert server.ranges == ["bytes=1234-", None]


# Waiting


def test_503_then_success(server: Server, target: Path, waits: list[float]) -> None:
    server.answers = [status(503), status(500), whole(CONTENT)]
    fetch(server, target, backoff=1.0)
    assert_only(target)
    assert waits == [1.0, 2.0]


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [("7", 7.0), ("0", 0.0), ("86400", download.MAX_RETRY_AFTER), ("soon", 1.0), ("-3", 1.0)],
)
def test_429_waits_as_told(
    server: Server, target: Path, waits: list[float], retry_after: str, wait: float
) -> None:
    server.answers = [status(429, Retry_After=retry_after), whole(CONTENT)]
    fetch(server, target, backoff=1.0)
    assert_only(target)
    assert waits == [wait]


def test_retry_after_may_be_a_date(server: Server, target: Path, waits: list[float]) -> None:
    now = time.time()
    future = email.utils.formatdate(now + 20, usegmt=True)
    past = email.utils.formatdate(now - 20)
    answers = [status(503, Retry_After=date) for date in (future, past)]
    server.answers = [*answers, whole(CONTENT)]
    fetch(server, target)
    assert waits == [pytest.approx(20, abs=5), 0.0]


def test_gives_up(server: Server, target: Path, waits: list[float]) -> None:
    server.answers = [cut_off, status(503)]
    with pytest.raises(InputError, match=r"failed 3 times.* 503 .*; 100000 of 200000 bytes"):
        fetch(server, target, attempts=3, backoff=1.0)
    assert not target.exists()
    assert waits == [1.0, 2.0]
    assert server.ranges == [None, f"bytes={HALF}-", f"bytes={HALF}-"]


def test_nobody_listens(server: Server, target: Path, waits: list[float]) -> None:
    server.url = "http://127.0.0.1:1/file.bin"
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1/file\.bin: .*no connection"):
        fetch(server, target)
    assert len(waits) == 4


# What ends at once


@pytest.mark.parametrize("code", [403, 404, 410, 416, 204])
def test_refusal_ends(server: Server, target: Path, waits: list[float], code: int) -> None:
    server.answers = [status(code)]
    with pytest.raises(InputError, match=rf"{re.escape(server.url)}: the server answered {code} "):
        fetch(server, target)
    assert_nothing_at(target)
    assert waits == []


def test_wrong_bytes(server: Server, target: Path, waits: list[float]) -> None:
    server.answers = [whole(WRONG)]
    found = hashlib.sha256(WRONG).hexdigest()
    with pytest.raises(InputError, match=f"file.bin is not .* {found}, expected {DIGEST}"):
        fetch(server, target)
    assert_nothing_at(target)
    assert waits == []
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
        "http://127.0.0.1/file name.bin",
        "http://127.0.0.1/f\u00efle.bin",
        "",
    ],
)
def test_unusable_url(server: Server, target: Path, waits: list[float], url: str) -> None:
    server.url = url
    with pytest.raises(InputError, match=f"'{re.escape(url)}' is not a URL to download from"):
        fetch(server, target)
    assert_nothing_at(target)
    assert waits == []


def test_redirect_to_a_local_file_is_refused(server: Server, target: Path) -> None:
    server.answers = [status(302, Location="file:///etc/hostname")]
    with pytest.raises(InputError, match="leads to file:///etc/hostname"):
        fetch(server, target)
    assert_nothing_at(target)


def test_output_folder_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot store the download here"):
        fetch(server, tmp_path / "file" / "file.bin")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always full device")
def test_full_disk(server: Server, target: Path, part: Path) -> None:
    part.symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"file\.bin\.part: .*No space left"):
        fetch(server, target)
    assert not target.exists()


# The command line


def run_tool(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(TOOL.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_one_line(result: subprocess.CompletedProcess[str], *texts: str) -> None:
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    for text in texts:
        assert text in result.stderr


def test_tool_wrong_bytes(server: Server, tmp_path: Path) -> None:
    known = download.KNOWN_FILES["squeezenet_v1.1"]
    server.answers = [whole(bytes(known.size))]
    result = run_tool("squeezenet_v1.1", "--url", server.url, "--output_dir", tmp_path)
    assert_one_line(result, server.url, known.digest)
    assert list(tmp_path.iterdir()) == []


def test_tool_404(server: Server, tmp_path: Path) -> None:
    server.answers = [status(404)]
    result = run_tool("squeezenet_v1.0", "--url", server.url, "--output_dir", tmp_path)
    assert_one_line(result, server.url, "404")
    assert list(tmp_path.iterdir()) == []


def test_tool_url_of_two_files(tmp_path: Path) -> None:
    names = ("squeezenet_v1.0", "squeezenet_v1.1")
    result = run_tool(*names, "--url", "http://127.0.0.1/", "--output_dir", tmp_path)
    assert_one_line(result, "--url", "2")


def test_tool_prints_what_it_wrote(
    server: Server,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = download.KnownFile("file.bin", server.url, len(CONTENT), "sha256", DIGEST)
    monkeypatch.setitem(download.KNOWN_FILES, "squeezenet_v1.1", small)
    arguments = ["download.py", "squeezenet_v1.1", "--output_dir", str(target.parent)]
    monkeypatch.setattr(sys, "argv", arguments)
    main = runpy.run_path(str(TOOL))["main"]
    main()
    assert capsys.readouterr().out == f"{target}: downloaded, 200000 bytes, sha256 is right\n"
    main()
    assert capsys.readouterr().out == f"{target}: already there, 200000 bytes, sha256 is right\n"
    assert_only(target)
