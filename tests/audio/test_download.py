"""Fetching over HTTP, from a server of the test's own."""

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile

from tinyvoice.audio.download import fetch
from tinyvoice.audio.files import AudioLimits, load_audio
from tinyvoice.errors import AudioError


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/tone.wav":
            buffer = io.BytesIO()
            soundfile.write(buffer, np.full(16000, 0.25), 16000, format="WAV")
            self.answer(200, buffer.getvalue())
        elif self.path == "/moved":
            self.answer(302, b"", Location="/tone.wav")
        elif self.path == "/elsewhere":
            self.answer(302, b"", Location="ftp://127.0.0.1/tone.wav")
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(65536))
            except OSError:
                return
        else:
            self.answer(404, b"no")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("page", ["/tone.wav", "/moved"])
def test_a_recording_is_fetched_and_read(address: str, page: str) -> None:
    audio = load_audio(address + page)
    assert audio.duration == 1.0
    assert audio.source == address + page


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("/gone.wav", "the server answered 404"),
        ("/elsewhere", "could not be fetched"),
        ("/a b", "could not be fetched"),
    ],
)
def test_what_cannot_be_fetched_is_said(address: str, page: str, words: str) -> None:
    with pytest.raises(AudioError) as caught:
        load_audio(address + page)
    assert str(caught.value).startswith(address + page + ": ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_size_is_bounded_without_a_length(address: str) -> None:
    with pytest.raises(AudioError, match="is larger than the 1000000 bytes allowed"):
        fetch(address + "/endless", max_bytes=1_000_000, timeout_s=60)


def test_size_is_bounded_by_the_announced_length(address: str) -> None:
    with pytest.raises(AudioError, match="is larger than"):
        load_audio(address + "/tone.wav", limits=AudioLimits(max_bytes=1000))


def test_time_is_bounded(address: str) -> None:
    with pytest.raises(AudioError, match=r"could not be fetched \(not complete after"):
        fetch(address + "/endless", max_bytes=1 << 40, timeout_s=0.2)


def test_no_server_is_one_sentence() -> None:
    # Port 9 of this machine: nothing listens there, and no network is needed to find out.
    with pytest.raises(AudioError, match="check the address and your network"):
        load_audio("http://127.0.0.1:9/a.wav")
