"""Download of an archive of models over https: its digest is known before, its size is bounded, it can be resumed."""

import hashlib
import logging
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urldefrag, urlsplit

from seg25d.core.errors import InputError
from seg25d.core.locks import file_lock
from seg25d.core.progress import ProgressDisplay

logger = logging.getLogger(__name__)
MAX_BYTES = 100 << 30
"""Largest archive; five folds of a large network are some GB."""
SPARE_BYTES = 1 << 30
"""What a download leaves free of the disk."""
TIMEOUT_SECONDS = 60
_BLOCK = 1 << 20
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirections to https alone."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != "https":
            raise InputError(f"{req.full_url} redirects to {newurl}: expected https, as the address itself")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def is_address(text: str) -> bool:
    """Whether a text is an address, not a path."""
    return "://" in text


def check_address(text: str, sha256: str | None) -> tuple[str, str]:
    """Split an address from the digest of its content.

    Args:
        text: `https://...`, with `#sha256=DIGEST` at its end unless `sha256` is given.
        sha256: The SHA-256 of the content, 64 hexadecimal digits.

    Returns:
        The address, and the digest in small letters.

    Raises:
        InputError: If it is no https address, or there is no digest, or two different ones.
    """
    address, fragment = urldefrag(text)
    scheme, host = urlsplit(address).scheme, urlsplit(address).hostname
    if scheme != "https" or not host:
        raise InputError(f"expected an address that begins with https://, got {text}")
    of_fragment = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
    given = {digest.lower() for digest in (of_fragment, sha256) if digest is not None}
    if not given:
        raise InputError(
            f"{text}: what an address gives is checked before it is used; add --sha256 DIGEST, or #sha256=DIGEST to "
            "the address: the SHA-256 that the authors of the models publish (`sha256sum FILE.zip` makes it)"
        )
    if len(given) > 1 or not _SHA256.fullmatch(next(iter(given))):
        raise InputError(f"expected one SHA-256 of 64 hexadecimal digits, got {' and '.join(sorted(given))}")
    return address, given.pop()


@contextmanager
def downloaded(address: str, sha256: str, folder: Path) -> Iterator[Path]:
    """Download a file for the duration of the block; what an earlier call began is continued.

    Args:
        address: An https address.
        sha256: Digest of the content.
        folder: Where the file is meanwhile.

    Yields:
        The file, with the content that has this digest.

    Raises:
        InputError: If it cannot be downloaded, is larger than `MAX_BYTES` or the free disk, or has other content.
        BusyError: If another process downloads it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".download_{sha256[:16]}.zip"
    with file_lock(path, "downloading"):
        if not (path.exists() and _digest(path) == sha256):
            try:
                _fetch(address, path)
            except InputError:
                raise
            except (OSError, HTTPException) as error:
                there = path.stat().st_size if path.exists() else 0
                raise InputError(
                    f"{address}: {error}; {there / 1e6:.0f} MB are there, and the same command goes on with them"
                ) from None
            if (found := _digest(path)) != sha256:
                path.unlink()
                raise InputError(f"{address}: expected content with the SHA-256 {sha256}, got {found}; nothing is kept")
        yield path
        path.unlink(missing_ok=True)


def _fetch(address: str, path: Path) -> None:
    """Fetch what is missing of a file."""
    begun = path.stat().st_size if path.exists() else 0
    opener = urllib.request.build_opener(_SameScheme)
    request = urllib.request.Request(address, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        response: HTTPResponse = opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if begun and error.code == 416:  # nothing is missing, or the file there is shorter: its digest says it
            return
        raise
    with response:
        goes_on = begun > 0 and response.status == 206
        done = begun if goes_on else 0
        total = done + int(response.headers.get("Content-Length") or 0)
        limit = min(MAX_BYTES, done + shutil.disk_usage(path.parent).free - SPARE_BYTES)
        if total > limit:
            raise InputError(f"{address} has {total / 1e9:.1f} GB; there is room for {max(limit, 0) / 1e9:.1f} GB")
        display = ProgressDisplay("downloading")
        with path.open("ab" if goes_on else "wb") as file:
            while block := response.read(_BLOCK):
                done += len(block)
                if done > limit:
                    raise InputError(f"{address} gives more than {limit / 1e9:.1f} GB, for which there is room")
                file.write(block)
                display.show(done / total if total else 0.0, f"{done / 1e6:.0f} MB")
        display.close()
        if total and done < total:
            raise ConnectionError(f"the connection ended after {done} of {total} bytes")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
