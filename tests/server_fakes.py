"""A detector without a network, and a client: what the tests of the server share.

The detector finds the dark pixels. The width of an image asks for trouble: HANG never ends, CRASH ends the process.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from florentune.detector import Prediction
from florentune.errors import CheckpointError, FlorentuneError
from florentune.images import open_image
from florentune.regions import Box, Page, Region

HANG, CRASH, SLOW = 301, 302, 303
SLOW_SECONDS = 0.2


class InkDetector:
    """One box round the dark pixels, a table when it is wider than high."""

    name, labels, thresholds = "ink", ("table", "figure"), {"table": 0.5}

    def warm_up(self) -> None:
        """Nothing to warm."""

    def open(self, name: str, source: Path) -> tuple[str, Image.Image | FlorentuneError]:
        try:
            return name, open_image(source)
        except FlorentuneError as error:
            return name, error

    def run(
        self, opened: Sequence[tuple[str, Image.Image | FlorentuneError]], *, conf: float | None = None
    ) -> list[Prediction]:
        return [self._prediction(name, image, conf or 0.5) for name, image in opened]

    def _prediction(self, name: str, image: Image.Image | FlorentuneError, conf: float) -> Prediction:
        if tally := os.environ.get("FLORENTUNE_TALLY"):
            with Path(tally).open("a") as stream:
                stream.write("x")
        if isinstance(image, FlorentuneError):
            return Prediction(name, error=image)
        self._trouble(image.width)
        return Prediction(name, Page(name, image.width, image.height, tuple(self._found(image, conf))))

    def _trouble(self, width: int) -> None:
        if width == CRASH:
            os._exit(9)
        time.sleep({HANG: 600, SLOW: SLOW_SECONDS}.get(width, 0))

    def _found(self, image: Image.Image, conf: float) -> Iterator[Region]:
        rows, columns = np.nonzero(np.asarray(image.convert("L")) < 64)
        if len(rows) and conf <= 0.9:
            box = Box(*(float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)))
            yield Region("table" if box.width > box.height else "figure", box, 0.9)


def broken_model() -> InkDetector:
    """A model that cannot be loaded."""
    raise CheckpointError("models/gone: no such folder")


def dying_model(alive: Path) -> InkDetector:
    """A model that takes its process with it, until a file is there."""
    if not alive.exists():
        os._exit(9)
    return InkDetector()


def png(width: int = 200, height: int = 150, box: tuple[int, int, int, int] = (20, 30, 121, 71)) -> bytes:
    """A white image with a black box: a table with the corners given, right and bottom exclusive."""
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill="black")
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def pdf(pages: int = 2) -> bytes:
    """A PDF whose pages show a black box each, as images without a text layer."""
    return _pdf_of(png(600, 800, (100, 100, 501, 301)), pages)


def hanging_pdf(pages: int = 1) -> bytes:
    """A PDF whose pages hang the model at 72 dpi: they are HANG pixels wide."""
    return _pdf_of(png(HANG), pages)


def _pdf_of(image: bytes, pages: int) -> bytes:
    page = Image.open(io.BytesIO(image)).convert("RGB")
    stream = io.BytesIO()
    page.save(stream, "PDF", resolution=72, save_all=True, append_images=[page] * (pages - 1))
    return stream.getvalue()


class Answer:
    """Status, headers (lower case) and body of an answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Requests to a server on loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, method: str, path: str, body: Any = None, timeout: float = 30, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            return Answer(connection.getresponse())

    def wait_for(self, path: str, done: Any, seconds: float = 30) -> Answer:
        """Ask until `done(answer)`."""
        ends_by = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                answer = self("GET", path)
                if done(answer):
                    return answer
            assert time.monotonic() < ends_by, f"{path} did not come to it"
            time.sleep(0.02)


class Running:
    """A server in a thread, with `client` to ask it and `service` to look inside."""

    def __init__(self, model: Any = InkDetector, **options: Any) -> None:
        from florentune.server import create_app, serve
        from florentune.server.run import LOCAL_HOSTS

        self.app = create_app(model, **{"hosts": LOCAL_HOSTS, **options})
        self.service = self.app.state.service
        self.error: BaseException | None = None
        started = threading.Event()

        def note(address: str) -> None:
            self.client = Client(int(address.rpartition(":")[2]))
            started.set()

        def run() -> None:
            try:
                serve(self.app, "127.0.0.1", 0, note)
            except FlorentuneError as error:
                self.error = error

        self.thread = threading.Thread(target=run)
        self.thread.start()
        assert started.wait(30)

    def __enter__(self) -> Running:
        self.client.wait_for("/readyz", lambda answer: answer.status == 200, 240)
        return self

    def __exit__(self, *exception: object) -> None:
        self.service.limits = type(self.service.limits)(grace=0.0)
        self.service.draining = True
        self.thread.join(30)
        assert not self.thread.is_alive()


def spool_of(running: Running) -> list[Path]:
    """The files a server has on disk."""
    return [path for path in running.service.folder.rglob("*") if path.is_file()]


INK_SERVER = """
import sys
sys.path.insert(0, {tests!r})
import server_fakes
if __name__ == "__main__":
    from florentune.server import Limits, create_app, serve
    app = create_app(server_fakes.InkDetector, limits=Limits(**{limits!r}))
    serve(app, "127.0.0.1", 0, lambda address: print(address, flush=True))
"""


def ink_server(folder: Path, **limits: float) -> list[str]:
    """The command of a server with the ink detector; its script is written to `folder`."""
    script = folder / "run.py"
    script.write_text(INK_SERVER.format(tests=str(Path(__file__).parent), limits=limits))
    return [sys.executable, str(script)]


@contextlib.contextmanager
def process(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """A server process and a client of it, once it is ready."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            assert found, line + server.stderr.read()
            client = Client(int(found[1]))
            client.wait_for("/readyz", lambda answer: answer.status == 200, 240)
            yield server, client
        finally:
            server.kill()


def pids_of(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def stop_under_load(command: list[str], folder: Path) -> tuple[list[int], int, str]:
    """Stop a server while clients ask: the answers that came, the server's exit code and what it complained of.

    Every image that the model has seen must have got its answer; who comes too late finds a closed door.
    """
    tally = folder / "tally"
    tally.write_text("")
    with process(["env", f"FLORENTUNE_TALLY={tally}", *command]) as (server, ask):
        answers, ended = [], threading.Event()

        def client() -> None:
            while not ended.is_set():
                try:
                    answers.append(ask("POST", "/v1/detect", png(SLOW)).status)
                except ConnectionError:  # it does not listen any more, or closed before it heard this one
                    return

        threads = [threading.Thread(target=client) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(answers) < 3:
            time.sleep(0.02)
        server.send_signal(signal.SIGTERM)
        code = server.wait(40)
        ended.set()
        for thread in threads:
            thread.join()
        assert answers.count(200) == len(tally.read_text())
        return answers, code, server.stderr.read()
