"""Downloads the SqueezeNet authors' Caffe weights; a wrong or partial file never gets the name.

The bytes go to `<name>.part` beside the target. That file outlives a broken connection and the
process, so that the next attempt asks only for what is missing (RFC 9110, section 14). Size and
checksum are checked before it is renamed; the checksum is the final judge of where bytes came from.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

from .errors import InputError
from .progress import Progress

logger = logging.getLogger(__name__)

# The authors' repository, at the commit that OpenVINO's Open Model Zoo pins.
AUTHORS = (
    "https://raw.githubusercontent.com/forresti/SqueezeNet/a47b6f13d30985279789d08053d37013d67d131b"
)
CHUNK = 16 * 1024  # bytes; what a connection that breaks can lose of the data that had arrived
MAX_RETRY_AFTER = 60.0  # seconds; a server that asks for more is asked again after this


@dataclass(frozen=True)
class KnownFile:
    """A file on the web of which size and checksum are known."""

    name: str
    url: str
    size: int
    digest_algorithm: str
    digest: str


# Sizes and checksums: the Open Model Zoo's models/public/squeezenet1.1/model.yml and
# models/public/squeezenet1.0/model.yml.
KNOWN_FILES = {
    "squeezenet_v1.1": KnownFile(
        name="squeezenet_v1.1.caffemodel",
        url=f"{AUTHORS}/SqueezeNet_v1.1/squeezenet_v1.1.caffemodel",
        size=4_950_080,
        digest_algorithm="sha256",
        digest="72b912ace512e8621f8ff168a7d72af55910d3c7c9445af8dfbff4c2ee960142",
    ),
    "squeezenet_v1.0": KnownFile(
        name="squeezenet_v1.0.caffemodel",
        url=f"{AUTHORS}/SqueezeNet_v1.0/squeezenet_v1.0.caffemodel",
        size=5_001_403,
        digest_algorithm="sha384",
        digest="b8dc96393e093b4f23390b70f01fe37330d629759db59c1d"
        "a3c15f846d0b1b1751b6ad841570c2e303c86829c750a745",
    ),
}


class _TransientError(Exception):
    """What may go well the next time; `retry_after` is the wait in seconds that is known to do."""

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


def fetch(
    url: str,
    path: Path,
    size: int,
    digest_algorithm: str,
    digest: str,
    *,
    attempts: int = 5,
    timeout: float = 30.0,
    backoff: float = 1.0,
) -> bool:
    """Downloads `url` to `path`, unless the right file is there already.

    Goes on where an earlier download stopped. Broken connections, timeouts and the answers 429 and
    5xx are tried again; any other refusal of the server ends the download.

    Args:
        url: http or https.
        path: the file to write; its folder is made if need be.
        size: bytes that the file must have.
        digest_algorithm: a name that `hashlib.new` knows.
        digest: the checksum that the file must have, in lower case hexadecimal.
        attempts: how often the server is asked before giving up.
        timeout: seconds without a byte after which a connection counts as broken.
        backoff: seconds before the second attempt; the wait doubles with each further one. A
            server's Retry-After takes its place, up to a minute.

    Returns:
        False if `path` was there and right, so that nothing was done.

    Raises:
        InputError: the URL cannot be used, the server does not give the file or gives another one,
            `path` exists and is something else, or the file cannot be written.
    """
    if not _is_web_url(url):
        raise InputError(f"'{url}' is not a URL to download from; expected http:// or https://.")
    part = path.with_name(f"{path.name}.part")
    try:
        if path.exists():
            wrong = _difference(path, size, digest_algorithm, digest)
            if wrong:
                raise InputError(
                    f"{path} exists and is not the expected file: {wrong}; "
                    "it was left alone, remove it to download the file."
                )
            return False
        path.parent.mkdir(parents=True, exist_ok=True)

        resumed = _complete(url, part, size, attempts, timeout, backoff)
        wrong = _difference(part, size, digest_algorithm, digest)
        if wrong and resumed:
            logger.warning("%s: %s; starting again from the first byte", part, wrong)
            part.unlink()
            _complete(url, part, size, attempts, timeout, backoff)
            wrong = _difference(part, size, digest_algorithm, digest)
        if wrong:
            part.unlink()
            raise InputError(f"{url} is not the expected file: {wrong}; nothing was kept of it.")

        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
        return True
    except OSError as error:  # those of the network have become other errors by now
        raise InputError(
            f"{error.filename or part}: cannot store the download here ({error.strerror})."
        ) from error


def _is_web_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that are no IPv6 address
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _difference(path: Path, size: int, digest_algorithm: str, digest: str) -> str | None:
    """What is wrong with a file, or None."""
    if path.is_dir():
        return f"it is a folder, expected a file of {size} bytes"
    found_size = path.stat().st_size
    if found_size != size:
        return f"it has {found_size} bytes, expected {size}"
    state = hashlib.new(digest_algorithm)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            state.update(chunk)
    if state.hexdigest() != digest:
        return f"its {digest_algorithm} is {state.hexdigest()}, expected {digest}"
    return None


def _complete(
    url: str, part: Path, size: int, attempts: int, timeout: float, backoff: float
) -> bool:
    """Asks the server until `part` has `size` bytes.

    Returns:
        True if they did not all come with the last answer, so that they may not belong together.
    """
    attempt = 1
    while True:
        try:
            return _receive(url, part, size, timeout)
        except _TransientError as error:
            if attempt >= attempts:
                raise InputError(
                    f"{url}: the download failed {attempts} times, at last because {error}; "
                    f"{_size_so_far(part)} of {size} bytes are there."
                ) from error
            if error.retry_after is None:
                delay = backoff * 2 ** (attempt - 1)
            else:
                delay = min(error.retry_after, MAX_RETRY_AFTER)
            logger.warning("%s: %s; trying again in %.3g s", url, error, delay)
            time.sleep(delay)
            attempt += 1


def _receive(url: str, part: Path, size: int, timeout: float) -> bool:
    """Asks once for what `part` lacks and writes it.

    Returns:
        True if `part` had some of the bytes before.

    Raises:
        InputError: the server has no such file or one of another size.
        _TransientError: `part` does not have `size` bytes yet.
    """
    done = _size_so_far(part)
    if done == size:
        return True
    if done > size:
        done = 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    with _open(request, timeout) as response:
        status = response.status
        if status is None or not _is_web_url(response.url):  # redirected; FTP has no status
            raise InputError(f"{url} leads to {response.url}; expected http:// or https://.")
        answer = f"the server answered {status} {response.reason}".rstrip()
        if status == 429 or status >= 500:
            raise _TransientError(answer, _retry_after(response.headers))
        if status == 416 and done:
            part.unlink()
            raise _TransientError("the server cannot go on from there", retry_after=0.0)
        if status == 206:
            start, total = _content_range(response.headers)
            if start != done:
                part.unlink(missing_ok=True)
                raise _TransientError("the server sent another part than asked", retry_after=0.0)
        elif status == 200:  # the whole file, asked for or not
            done = 0
            total = _number(response.headers.get("Content-Length"))
        else:
            raise InputError(f"{url}: {answer}.")
        if total not in (None, size):
            raise InputError(f"{url} is not the expected file: it has {total} bytes, not {size}.")

        received = done
        progress = Progress(part.stem, size, "B", done)
        # Not "ab": two processes that resume at once then write the same bytes to the same places.
        with progress, part.open("r+b" if done else "wb") as file:
            file.seek(done)
            for chunk in _chunks(response):
                received += len(chunk)
                if received > size:
                    break
                file.write(chunk)
                progress.update(len(chunk))
    if received > size:
        part.unlink()
        raise InputError(f"{url} is not the expected file: it has more than {size} bytes.")
    if received < size:
        raise _TransientError(f"the connection ended after {received} of {size} bytes")
    return done > 0


def _open(
    request: urllib.request.Request, timeout: float
) -> http.client.HTTPResponse | urllib.error.HTTPError:
    """The server's answer, whatever its status.

    Raises:
        InputError: no request can be made of the URL.
        _TransientError: there is no answer.
    """
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        return error
    except (http.client.InvalidURL, ValueError) as error:
        raise InputError(f"'{request.full_url}' is not a URL to download from: {error}.") from error
    except urllib.error.URLError as error:
        raise _TransientError(f"there was no connection ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _TransientError(f"there was no answer ({error})") from error


def _chunks(response: http.client.HTTPResponse | urllib.error.HTTPError) -> Iterator[bytes]:
    """The body as it arrives; turns errors of the network, not those of its user, into ours."""
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError(f"the connection broke ({error})") from error
        if not chunk:
            return
        yield chunk


def _size_so_far(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """First byte and size of the whole file in a 206 answer; None for what it does not say."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
    return (int(match[1]), _number(match[2])) if match else (None, None)


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]+", text) else None


def _retry_after(headers: Message) -> float | None:
    """The seconds that a Retry-After header asks for, given as a number or as a date."""
    text = headers.get("Retry-After", "")
    seconds = _number(text)
    if seconds is not None:
        return float(seconds)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):  # TypeError: Python 3.9's answer to what is no date
        return None
    if date.tzinfo is None:  # "-0000", a date in UTC of which the zone is not known
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
