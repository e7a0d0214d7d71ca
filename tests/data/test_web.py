"""Images of the web, from a server on this machine: its files, its limits, and where it leads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from squeezenet_paddle.data.web import fetch_image, file_name, is_url
from squeezenet_paddle.errors import ImageError

CONTENT = bytes(range(256)) * 40


RAW = {
    "/minus": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\n",
    "/digits": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"9" * 5000 + b"\r\n",
    "/status": b"HTTP/1.1 " + b"9" * 5000 + b" OK\r\n\r\n",
    "/no_http": b"\x1b[31mred\r\n\r\n",
}


class Handler(BaseHTTPRequestHandler):
    """A file, one that never ends, one that comes slowly, and redirects."""

    sent = 0  # bytes of the redirect that has a body

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        leads_to = {
            "/moved": "/cat%20one.jpg",
            "/file": "file:///etc/hostname",
            "/ftp": "ftp://127.0.0.1/cat.jpg",
            "/circle": "/circle",
            "/slow_circle": "/slow_circle",
            "/moved_endless": "/cat%20one.jpg",
        }
        if path in leads_to:
            time.sleep(0.3 if path == "/slow_circle" else 0)
            self.send_response(302)
            self.send_header("Location", leads_to[path])
            self.end_headers()
            with contextlib.suppress(OSError):  # the other side has given up
                while path == "/moved_endless" and Handler.sent < 50_000_000:
                    Handler.sent += self.wfile.write(100 * CONTENT)
            return
        if path in RAW:
            self.wfile.write(RAW[path])
            self.close_connection = True
            return
        if path == "/slow_header":
            with contextlib.suppress(OSError):
                for byte in b"HTTP/1.1 200 OK\r\nX-Long: ".ljust(40, b"x"):  # for a second
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.05)
            return
        if path == "/red":
            self.send_error(404, "\x1b[31mred")
            return
        if path not in ("/cat%20one.jpg", "/endless", "/slow", "/broken"):
            self.send_error(404)
            return
        self.send_response(200)
        if path in ("/cat%20one.jpg", "/broken"):
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        try:
            if path == "/cat%20one.jpg":
                self.wfile.write(CONTENT)
            elif path == "/broken":
                self.wfile.write(CONTENT[:100])
            else:
                for _ in range(50):
                    self.wfile.write(b"x" if path == "/slow" else CONTENT)
                    time.sleep(0.1 if path == "/slow" else 0)
        except OSError:  # the other side has given up
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


@pytest.mark.parametrize("path", ["/cat%20one.jpg", "/cat one.jpg?size=3", "/moved"])
def test_a_file(server: str, path: str, tmp_path: Path) -> None:
    file = fetch_image(server + path, tmp_path)
    assert file.read_bytes() == CONTENT
    assert file.parent == tmp_path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nothing.jpg", "answered 404"),
        ("/red", r"answered 404  \[31mred"),
        ("/file", "file:///etc/hostname. is not allowed"),
        ("/ftp", "http or https was expected, found ftp:"),
        ("/circle", "infinite loop|answered 302"),
        ("/endless", "over the limit of 100,000 bytes"),
        ("/slow_circle", "not there after 0.5 seconds"),
        ("/slow", "not there after 0.5 seconds"),
        ("/slow_header", "not there after 0.5 seconds"),
        ("/broken", "the connection broke"),
        *((path, "cannot be fetched") for path in RAW),
    ],
)
def test_what_gives_no_file(server: str, path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=message):
        fetch_image(server + path, tmp_path, max_bytes=100_000, max_seconds=0.5)


def test_the_body_of_a_redirect_is_not_read(server: str, tmp_path: Path) -> None:
    assert fetch_image(f"{server}/moved_endless", tmp_path).read_bytes() == CONTENT
    assert Handler.sent < 50_000_000


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.jpg", "http://", "http://[::1/a.jpg"])
def test_no_server(url: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be fetched"):
        fetch_image(url, tmp_path, max_seconds=2)


def test_names() -> None:
    assert is_url("HTTPS://host/a")
    assert not any(map(is_url, ("file:///a", "http.jpg", "C:/a.jpg", "ftp://host/a")))
    assert file_name("http://host/a/c%C3%A4t.jpg?x=/y.png#z") == "cät.jpg"
    assert file_name("http://host/%2e%2e/..%2F..%2Fpasswd") == "passwd"
    assert file_name("http://host/") == file_name("http://host/..") == "image"
    assert file_name(f"http://host/{'写' * 95}.jpg") == f"{'写' * 32}.jpg"
