"""Downloads files whose size and checksum are known; a wrong or partial one never gets the name.

The bytes go to `<name>.part` beside the target. That file outlives a broken connection and the
process, and the next attempt asks only for what is missing (RFC 9110, section 14). Size and
checksum are checked before it is renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from .deadlines import within
from .errors import InputError
from .progress import Progress

logger = logging.getLogger(__name__)

# The authors' repository, at the commit that OpenVINO's Open Model Zoo pins.
AUTHORS = (
    "https://raw.githubusercontent.com/forresti/SqueezeNet/a47b6f13d30985279789d08053d37013d67d131b"
)
ATTEMPTS = 5
MAX_RETRY_AFTER = 60.0  # seconds; a server that asks for more is asked again after this
MIN_SECONDS, MIN_RATE = 300.0, 2000  # a download may take that long, and a second for so many bytes
_CHUNK = 16 * 1024  # bytes; the most that a connection loses when it breaks


@dataclass(frozen=True)
class KnownFile:
    """A file on the web.

    Attributes:
        name: of the file on the disk.
        url: its address.
        size: in bytes.
        digest_algorithm: a name that `hashlib.new` knows.
        digest: the checksum in lower case hexadecimal.
    """

    name: str
    url: str
    size: int
    digest_algorithm: str
    digest: str


# Sizes and checksums: the Open Model Zoo's models/public/squeezenet1.1/model.yml and
# models/public/squeezenet1.0/model.yml.
KNOWN_FILES = {
    "squeezenet_v1.1": (
        KnownFile(
            name="squeezenet_v1.1.caffemodel",
            url=f"{AUTHORS}/SqueezeNet_v1.1/squeezenet_v1.1.caffemodel",
            size=4_950_080,
            digest_algorithm="sha256",
            digest="72b912ace512e8621f8ff168a7d72af55910d3c7c9445af8dfbff4c2ee960142",
        ),
        KnownFile(
            name="squeezenet_v1.1.prototxt",
            url=f"{AUTHORS}/SqueezeNet_v1.1/deploy.prototxt",
            size=9_678,
            digest_algorithm="sha256",
            digest="d041bfb2ab4b32fda4ff6c6966684132f2924e329916aa5bfe9285c6b23e3d1c",
        ),
    ),
    "squeezenet_v1.0": (
        KnownFile(
            name="squeezenet_v1.0.caffemodel",
            url=f"{AUTHORS}/SqueezeNet_v1.0/squeezenet_v1.0.caffemodel",
            size=5_001_403,
            digest_algorithm="sha384",
            digest="b8dc96393e093b4f23390b70f01fe37330d629759db59c1d"
            "a3c15f846d0b1b1751b6ad841570c2e303c86829c750a745",
        ),
        KnownFile(
            name="squeezenet_v1.0.prototxt",
            url=f"{AUTHORS}/SqueezeNet_v1.0/deploy.prototxt",
            size=9_640,
            digest_algorithm="sha384",
            digest="4091e21776a51767811cfb469017af5ee1ee4d1b42cdac09"
            "02b6cab41367f01864e72cd2df371f8472694ca521196fc0",
        ),
    ),
}


class _Retry(Retry):
    """Tries again after a broken connection and the answers 429 and 5xx."""

    def get_retry_after(self, response: Any) -> float | None:
        try:
            seconds = super().get_retry_after(response)
        except (ValueError, OverflowError, InvalidHeader):  # what a server says may be anything
            return None
        return None if seconds is None else min(seconds, MAX_RETRY_AFTER)

    def sleep(self, response: Any = None) -> None:
        if response is not None:
            logger.warning("the server answered %s; trying again", response.status)
        super().sleep(response)


def fetch(
    file: KnownFile,
    path: str | Path,
    url: str | None = None,
    *,
    timeout: float = 30.0,
    backoff: float = 1.0,
) -> bool:
    """Downloads a file to `path`, unless it is there already; resumes an earlier download.

    Args:
        file: what the file must be.
        path: where to write it; its folder is made if need be.
        url: a mirror's address of the same file; None for `file.url`.
        timeout: seconds without a byte after which a connection counts as broken.
        backoff: urllib3's backoff_factor, in seconds; grows with each attempt. A server's
            Retry-After takes its place, up to a minute.

    Returns:
        Whether it was downloaded; False if it was there.

    Raises:
        InputError: the URL cannot be used, the server does not give the file or gives another one,
            `path` exists and is something else, or the file cannot be written.
    """
    path, url = Path(path), url or file.url
    part = path.with_name(f"{path.name}.part")
    try:
        if path.exists():
            if problem := difference(path, file):
                raise InputError(
                    f"{path} exists and is not the expected file: {problem}; "
                    "it was left alone, remove it to download the file."
                )
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        limit = MIN_SECONDS + file.size / MIN_RATE
        was_resumed = within(limit, lambda: _receive_all(url, part, file.size, timeout, backoff))
        problem = difference(part, file)
        if problem and was_resumed:
            logger.warning("%s: %s; starting again from the first byte", part, problem)
            part.unlink()
            within(limit, lambda: _receive_all(url, part, file.size, timeout, backoff))
            problem = difference(part, file)
        if problem:
            part.unlink()
            raise InputError(f"{url} is not the expected file: {problem}; nothing was kept.")
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
        return True
    except TimeoutError as error:
        raise InputError(
            f"{url}: not there after {limit:,.0f} seconds, which is less than {MIN_RATE:,} bytes a "
            "second; run it again to go on."
        ) from error
    except OSError as error:  # of the disk; those of the network have become other errors by now
        raise InputError(
            f"{error.filename or part}: cannot store the download here ({error.strerror})."
        ) from error


def difference(path: Path, file: KnownFile) -> str | None:
    """What is wrong with what lies at `path`; None if it is the file."""
    if path.is_dir():
        return f"it is a folder, expected a file of {file.size} bytes"
    size = path.stat().st_size
    if size != file.size:
        return f"it has {size} bytes, expected {file.size}"
    state = hashlib.new(file.digest_algorithm)
    with path.open("rb") as content:
        while chunk := content.read(1 << 20):
            state.update(chunk)
    if state.hexdigest() != file.digest:
        return f"its {file.digest_algorithm} is {state.hexdigest()}, expected {file.digest}"
    return None


def _receive_all(url: str, part: Path, size: int, timeout: float, backoff: float) -> bool:
    """Asks the server until `part` has `size` bytes; returns whether they came in several parts."""
    retry = _Retry(
        ATTEMPTS - 1,
        backoff_factor=backoff,
        status_forcelist=(429, *range(500, 600)),
        raise_on_status=False,
    )
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        for attempt in range(1, ATTEMPTS + 1):
            done = _size(part)
            if done == size:
                return True
            if done > size:
                part.unlink()
                done = 0
            with contextlib.suppress(requests.exceptions.RequestException):
                if _receive(session, url, part, done, size, timeout):
                    return done > 0
            logger.warning(
                "%s: attempt %d of %d ended with %d of %d bytes",
                *(url, attempt, ATTEMPTS, _size(part), size),
            )
    raise InputError(
        f"{url}: {ATTEMPTS} attempts gave {_size(part)} of {size} bytes; run it again to go on."
    )


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _receive(
    session: requests.Session, url: str, part: Path, done: int, size: int, timeout: float
) -> bool:
    """Asks once for what follows the first `done` bytes; returns whether all has arrived.

    Raises:
        InputError: the server has no such file or one of another size, or there is no answer.
        requests.exceptions.RequestException: the connection broke.
    """
    headers = {"Accept-Encoding": "identity"}  # as sizes and ranges are those of the file
    if done:
        headers["Range"] = f"bytes={done}-"
    try:
        response = session.get(url, headers=headers, stream=True, timeout=timeout)
    except ValueError as error:  # requests' way to say that it cannot use a URL
        raise InputError(f"'{url}' is not a URL to download from: {error}.") from error
    except requests.exceptions.RequestException as error:
        raise InputError(f"{url}: there was no answer ({error}).") from error
    with response:
        answer = f"the server answered {response.status_code} {response.reason}"
        total = response.headers.get("Content-Length")
        if response.status_code == 206:
            place, _, total = response.headers.get("Content-Range", "").partition("/")
            if not place.startswith(f"bytes {done}-"):
                part.unlink(missing_ok=True)
                return False
        elif response.status_code == 416 and done:
            part.unlink()
            return False
        elif response.status_code == 200:  # the whole file, asked for or not
            done = 0
        else:
            raise InputError(f"{url}: {answer}.")
        if total and total.isdecimal() and total.lstrip("0") != str(size):
            raise InputError(
                f"{url} is not the expected file: it has {total[:20]} bytes, not {size}."
            )
        progress = Progress(part.stem, size, "B", done)
        # Not "ab": two processes that resume at once then write the same bytes to the same places.
        mode = "r+b" if done else "wb"
        with progress, open(part, mode, opener=_not_through_a_link) as file:
            file.seek(done)
            for chunk in _chunks(response):
                done += len(chunk)
                if done > size:
                    break
                file.write(chunk)
                progress.update(len(chunk))
    if done > size:
        part.unlink()
        raise InputError(f"{url} is not the expected file: it has more than {size} bytes.")
    return done == size


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """The body of an answer.

    Raises:
        requests.exceptions.RequestException: the connection broke, or the server does not keep to
            the protocol.
    """
    chunks = response.iter_content(_CHUNK)
    while True:
        try:
            chunk = next(chunks, b"")
        except ValueError as error:  # of a length that is none, such as -5
            raise requests.exceptions.ChunkedEncodingError(error) from error
        if not chunk:
            return
        yield chunk


def _not_through_a_link(path: str, flags: int) -> int:
    """Opens a file as `open` does, but for a symbolic link, which may lead to any file."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
