"""Images on the web: fetched one by one, within limits of size and time."""

from __future__ import annotations

import http.client
import re
import socket
import time
from pathlib import Path
from typing import Any
from urllib import request
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit

from .. import __version__
from ..deadlines import within
from ..errors import ImageError

MAX_BYTES = 100_000_000  # of an image
MAX_SECONDS = 60.0  # for an image, all redirects included
_CHUNK = 64 * 1024  # bytes
_GRACE = 0.5  # seconds


def is_url(text: str) -> bool:
    """Whether something that a user named is an address of the web, and no file."""
    return re.match(r"https?://", text, re.IGNORECASE) is not None


class _Redirects(request.HTTPRedirectHandler):
    """Follows redirects to http and https alone, until `end`, and reads nothing of their bodies."""

    def __init__(self, end: float) -> None:
        self._end = end

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if not is_url(newurl):
            raise ImageError(
                f"{req.full_url}: a redirect to http or https was expected, found {_shown(newurl)}."
            )
        fp.close()  # urllib would read it to the end, which may never come
        req.timeout = self._end - time.monotonic()  # of the next request
        if req.timeout <= 0:
            raise TimeoutError
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(end: float) -> request.OpenerDirector:
    """What opens http and https, and nothing else."""
    opener = request.OpenerDirector()
    for handler in (
        *(request.ProxyHandler(), request.HTTPHandler(), request.HTTPSHandler(), _Redirects(end)),
        *(request.HTTPDefaultErrorHandler(), request.HTTPErrorProcessor()),
    ):
        opener.add_handler(handler)
    return opener


def fetch_image(
    url: str, folder: Path, max_bytes: int = MAX_BYTES, max_seconds: float = MAX_SECONDS
) -> Path:
    """Downloads a file, of whatever kind, into a folder.

    Args:
        url: of http or https.
        folder: where the file goes, under the name that the URL ends with.
        max_bytes, max_seconds: a larger file and a slower answer are given up.

    Returns:
        The file.

    Raises:
        ImageError: the URL gives no file, or not within the limits; or it leads elsewhere than to
            http or https.
    """
    try:
        return within(max_seconds + _GRACE, lambda: _fetch(url, folder, max_bytes, max_seconds))
    except TimeoutError as error:  # the headers came too slowly; _fetch itself names all else
        raise ImageError(f"{url}: not there after {max_seconds:g} seconds.") from error


def _fetch(url: str, folder: Path, max_bytes: int, max_seconds: float) -> Path:
    end = time.monotonic() + max_seconds
    agent = {"User-Agent": f"squeezenet_paddle/{__version__}"}
    try:
        target = folder / file_name(url)
        asked = request.Request(quote(url, safe=":/?#[]@!$&'()*+,;=%~"), headers=agent)
        with _opener(end).open(asked, timeout=max_seconds) as response, target.open("wb") as file:
            while chunk := response.read1(_CHUNK):  # what has come, however little
                file.write(chunk)
                if file.tell() > max_bytes:
                    raise ImageError(f"{url}: over the limit of {max_bytes:,} bytes.")
                if time.monotonic() > end:
                    raise TimeoutError
            if response.length:
                raise ImageError(f"{url}: the connection broke.")
    except ImageError:
        raise
    except HTTPError as error:
        answer = f"{error.code} {_shown(error.reason)}"
        raise ImageError(f"{url}: the server answered {answer}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, (TimeoutError, socket.timeout)):  # one and the same from 3.10 on
            raise ImageError(f"{url}: not there after {max_seconds:g} seconds.") from error
        raise ImageError(f"{url}: cannot be fetched ({_shown(reason)}).") from error
    return target


def _shown(text: object) -> str:
    """What a server said, without characters that a terminal obeys."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", str(text))


def file_name(url: str) -> str:
    """A name for the file of a URL: the last part of its path, without what a name cannot hold."""
    last = unquote(urlsplit(url).path).rpartition("/")[2]
    name = re.sub(r"[^\w.()+ -]", "_", last).strip(". ").encode()
    return name[-100:].decode(errors="ignore").strip(". ") or "image"  # file systems count bytes
