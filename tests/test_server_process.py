"""The server as a process: the command, a real checkpoint, signals, and crowds."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra [server]")
from server_fakes import Client, Running, png

SLOW_MODEL = """
import sys
sys.path.insert(0, {tests!r})
import server_fakes
from florentune.server import create_app, serve
if __name__ == "__main__":
    app = create_app(server_fakes.InkDetector)
    serve(app, "127.0.0.1", 0, lambda address: print(address, flush=True))
"""


@contextlib.contextmanager
def process(command):
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


@pytest.fixture
def command(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SLOW_MODEL.format(tests=str(Path(__file__).parent)))
    return [sys.executable, str(script)]


@pytest.mark.slow
def test_the_command_serves_a_real_checkpoint(tmp_path):
    """What the server answers is what the detector says in this process."""
    pytest.importorskip("torch")
    from florentune.detector import load_detector
    from tiny_model import tiny_checkpoint

    folder, image = tiny_checkpoint(tmp_path / "tiny"), tmp_path / "page.png"
    image.write_bytes(png())
    (page,) = load_detector(folder, engine="torch").detect([image], conf=0.0)
    arguments = ["serve", "--model", str(folder), "--engine", "torch", "--port", "0"]
    with process([sys.executable, "-m", "florentune", *arguments]) as (server, ask):
        answer = ask("POST", "/v1/detect?conf=0", png())
        assert answer.json["regions"] == [region.as_dict() for region in page.regions]
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no/such/folder"], "no/such/folder"),
        (["--host", "0.0.0.0"], "token"),
        (["--token-file", "no-such-file"], "no-such-file"),
    ],
)
def test_what_is_wrong_is_said_before_a_port_is_taken(arguments, message):
    environment = {name: value for name, value in os.environ.items() if name != "FLORENTUNE_TOKEN"}
    done = subprocess.run(
        [sys.executable, "-m", "florentune", "serve", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def stop_under_load(command):
    """Stop a server while clients ask; the answers that came, and the server's exit code."""
    with process(command) as (server, ask):
        answers, ended = [], threading.Event()

        def client():
            while not ended.is_set():
                try:
                    answers.append(ask("POST", "/v1/detect", png(303)).status)
                except ConnectionRefusedError:  # it does not listen any more
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
        return answers, code, server.stderr.read()


def test_a_stop_loses_no_accepted_request(command):
    answers, code, errors = stop_under_load(command)
    assert code == 0
    assert set(answers) <= {200, 503}
    assert errors == ""


def test_a_second_signal_ends_it_at_once(command):
    with process(command) as (server, ask):
        hang = threading.Thread(target=post_and_forget, args=(ask, png(301)))
        hang.start()
        time.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.poll() is None
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 143
        hang.join()


def post_and_forget(ask, body):
    with contextlib.suppress(OSError):
        ask("POST", "/v1/detect", body)


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_twenty_stops_under_load(command):
    for _ in range(20):
        answers, code, errors = stop_under_load(command)
        assert code == 0
        assert set(answers) <= {200, 503}
        assert errors == ""


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_twenty_thousand_requests_leak_nothing():
    """Resident memory, open files and threads after 20,000 mixed requests, against those after the first 2,000."""

    def state():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), threading.active_count()

    with Running() as running:
        bodies = [png(), b"hello", png()[:-40], b""]

        def some(count):
            for number in range(count):
                running.client("POST", "/v1/detect", bodies[number % len(bodies)])

        some(2_000)
        memory, files, threads = state()
        some(18_000)
        grown = state()
    assert (grown[0] - memory) / 18 < 2**20
    assert (grown[1] - files, grown[2] - threads) == (0, 0)


@pytest.mark.torture
def test_every_broken_file_gets_an_answer(shared):
    """All of bad_inputs posted: one answer each, never a 500, and the server well at the end."""
    files = [path for path in sorted((shared / "bad_inputs").rglob("*")) if path.is_file()]
    with Running() as running:
        for path in files:
            content = path.read_bytes()
            route = "/v1/extract" if "pdf" in path.parent.name else "/v1/detect"
            answer = running.client("POST", route, content, timeout=120)
            assert answer.status in (200, 400, 413, 415, 422, 503, 504), (path.name, answer.body[:200])
            if answer.status != 200:
                assert answer.json["reason"], path.name
        running.client.wait_for("/readyz", lambda answer: answer.status == 200)
