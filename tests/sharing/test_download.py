"""Archives from an address: against a server on this machine, with a certificate that is made for it."""

import hashlib
import http.server
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from seg25d.core.errors import InputError
from seg25d.sharing import download
from seg25d.sharing.download import check_address, downloaded, is_address

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT at /model.zip, a part of it at /cut.zip, and redirections."""

    seen: list[str | None] = []  # noqa: RUF012 - of the test

    def do_GET(self) -> None:
        self.seen.append(self.headers["Range"])
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        if self.path == "/absent.zip":
            self.send_error(404)
            return
        begin = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(CONTENT) - begin))
        self.end_headers()
        self.wfile.write(CONTENT[begin : 5000 if self.path == "/cut.zip" and not begin else None])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with https."""
    folder = tmp_path_factory.mktemp("server")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    try:
        made = ["openssl", *words.split(), "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(made, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not here, which makes the certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving.socket = context.wrap_socket(serving.socket, server_side=True)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = str(certificate)
    yield f"https://127.0.0.1:{serving.server_address[1]}"
    os.environ.pop("SSL_CERT_FILE")
    if before is not None:
        os.environ["SSL_CERT_FILE"] = before
    serving.shutdown()
    serving.server_close()


@pytest.mark.parametrize(
    ("text", "sha256", "told"),
    [
        ("http://a/b.zip", DIGEST, "begins with https"),
        ("file:///etc/passwd", DIGEST, "begins with https"),
        ("https://a/b.zip", None, "add --sha256 DIGEST"),
        ("https://a/b.zip", "12", "64 hexadecimal digits"),
        (f"https://a/b.zip#sha256={DIGEST}", DIGEST[::-1], "one SHA-256"),
    ],
)
def test_addresses_have_https_and_one_digest(text: str, sha256: str | None, told: str) -> None:
    assert is_address(text)
    with pytest.raises(InputError, match=told):
        check_address(text, sha256)


def test_the_digest_stands_beside_the_address_or_in_it() -> None:
    assert check_address("https://a/b.zip", DIGEST.upper()) == ("https://a/b.zip", DIGEST)
    assert check_address(f"https://a/b.zip#sha256={DIGEST}", None) == ("https://a/b.zip", DIGEST)
    assert not is_address("folder/b.zip")


def test_a_file_is_there_for_the_block_alone(server: str, tmp_path: Path) -> None:
    with downloaded(f"{server}/model.zip", DIGEST, tmp_path) as path:
        assert path.read_bytes() == CONTENT
    assert not list(tmp_path.iterdir())


def test_what_was_cut_off_goes_on(server: str, tmp_path: Path) -> None:
    Handler.seen.clear()
    message = "5000 of|IncompleteRead|MB are there, and the same command goes on"
    with pytest.raises(InputError, match=message), downloaded(f"{server}/cut.zip", DIGEST, tmp_path):
        pass
    with downloaded(f"{server}/cut.zip", DIGEST, tmp_path) as path:
        assert path.read_bytes() == CONTENT
    assert Handler.seen == [None, "bytes=5000-"]


def test_other_content_is_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"got {DIGEST}"), downloaded(f"{server}/model.zip", "0" * 64, tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_redirections_keep_the_scheme(server: str, tmp_path: Path) -> None:
    with downloaded(f"{server}/to//model.zip", DIGEST, tmp_path) as path:
        assert path.read_bytes() == CONTENT
    for place in ("http://127.0.0.1:1/model.zip", "ftp://127.0.0.1/model.zip", "file:///etc/passwd"):
        refused = pytest.raises(InputError, match=r"expected https|HTTP Error 302")
        with refused, downloaded(f"{server}/to/{place}", DIGEST, tmp_path):
            pass


def test_what_is_not_there_is_an_error(server: str, tmp_path: Path) -> None:
    refused = pytest.raises(InputError, match=r"absent\.zip: HTTP Error 404")
    with refused, downloaded(f"{server}/absent.zip", DIGEST, tmp_path):
        pass


def test_what_is_too_large_is_not_fetched(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 100)
    with pytest.raises(InputError, match="there is room for"), downloaded(f"{server}/model.zip", DIGEST, tmp_path):
        pass
