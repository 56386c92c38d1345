"""The server as a process: the command, a real checkpoint, signals, and crowds."""

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra [server]")
from server_fakes import HANG, SLOW, hanging_pdf, ink_server, pdf, pids_of, png, process, stop_under_load

TOKEN = "0123456789abcdef-token"


@pytest.fixture
def command(tmp_path):
    return ink_server(tmp_path)


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


def test_a_stop_loses_no_accepted_request(command, tmp_path):
    answers, code, errors = stop_under_load(command, tmp_path)
    assert code == 0
    assert set(answers) <= {200, 503}
    assert errors == ""


def test_work_that_does_not_end_is_given_up_after_the_grace(tmp_path):
    """A job of 28 pages, a document and an image that somebody waits for, none of which will ever be done."""
    with process(ink_server(tmp_path, grace=1.5)) as (server, ask):
        with ThreadPoolExecutor(2) as threads:
            assert ask("POST", "/v1/extract?dpi=72", hanging_pdf(28), Prefer="respond-async").status == 202
            waiting = [
                threads.submit(ask, "POST", "/v1/extract?dpi=72", hanging_pdf()),
                threads.submit(ask, "POST", "/v1/detect", png(HANG)),
            ]
            ask.wait_for("/metrics", lambda answer: in_work(answer)[1] == 2 and in_work(answer)[0] > 1)
            server.send_signal(signal.SIGTERM)
            answers = [one.result() for one in waiting]
        assert [(answer.status, answer.json["reason"]) for answer in answers] == [(503, "stopping")] * 2
        assert server.wait(60) == 0
        assert re.fullmatch(r"\d+ images and 2 documents were given up after 1.5 s\n", server.stderr.read())


def in_work(answer):
    """How many images and documents the server is at, from its metrics."""
    rows = dict(line.split(" ") for line in answer.body.decode().splitlines() if line[0] != "#")
    return tuple(float(rows[f"florentune_{kind}_in_work"]) for kind in ("images", "documents"))


def test_a_stop_waits_until_the_result_of_a_job_is_fetched(command):
    with process(command) as (server, ask):
        place = ask("POST", "/v1/extract", pdf(3), Prefer="respond-async").headers["location"]
        server.send_signal(signal.SIGTERM)
        ask.wait_for(place, lambda answer: answer.json["status"] == "ok")
        time.sleep(1)
        assert ask("POST", "/v1/detect", png()).json["reason"] == "stopping"
        assert len(ask("GET", f"{place}/document").json["figures"]) == 3
        assert server.wait(60) == 0


@pytest.mark.slow
def test_a_stop_that_is_stuck_ends_and_says_where(tmp_path):
    stuck = (
        "import florentune.server.run as run, time; run._END_SECONDS = 1; run.Service.stop = lambda _: time.sleep(999)"
    )
    command = ink_server(tmp_path, grace=0.5)
    script = Path(command[1])
    script.write_text(script.read_text().replace("import server_fakes", f"import server_fakes; {stuck}"))
    with process(command) as (server, _):
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 1
        assert "in _drain" in server.stderr.read()


def test_sixty_four_open_files_are_enough(command):
    """A hundred silent clients wait in vain; a good one gets all its answers."""
    few = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", *command]
    with process(few) as (server, ask), contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", ask.port), timeout=10))
            time.sleep(0.01)  # the queue of the listener holds two; who finds it full tries again a second later
        for _ in range(5):
            assert ask("POST", "/v1/detect", png()).status == 200
            assert ask("POST", "/v1/extract?dpi=72", pdf(1)).status == 200
        with ThreadPoolExecutor(16) as threads:
            answers = threads.map(lambda _: post_and_forget(ask, png(SLOW)), range(12))
        assert set(answers) <= {200, 503, None}  # None: a newer connection took its place
        assert ask("POST", "/v1/detect", png()).status == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert server.stderr.read() == ""


def test_too_few_open_files_are_said(command):
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 40 && exec "$@"', "sh", sys.executable, "-m", "florentune", "serve", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "ulimit -n" in done.stderr


@pytest.fixture
def small_disk(tmp_path):
    """Four megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mount: {done.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_refuses_what_does_not_fit_and_nothing_else(command, small_disk):
    """Whether the upload, the pages, the crops or the archive find no room; afterwards there is room again."""
    with process(["env", f"TMPDIR={small_disk}", *command]) as (server, ask):
        noise, statuses = np.random.default_rng(0), []
        for megabytes in (0.5, 1, 1.5, 2, 3, 5):
            side = int((megabytes * 2**20 / 3) ** 0.5)
            stream = io.BytesIO()
            Image.fromarray(noise.integers(0, 255, (side, side, 3), "uint8")).save(stream, "PNG")
            form = b'--B\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n'
            for body, headers in (
                (stream.getvalue(), {}),
                (form + stream.getvalue() + b"\r\n--B--\r\n", {"Content_Type": "multipart/form-data; boundary=B"}),
            ):
                for path in ("/v1/detect", "/v1/extract"):
                    answer = ask("POST", path, body, Accept="application/zip", **headers)
                    assert answer.status == 200 or answer.json["reason"] == "disk_full", (megabytes, path, answer.body)
                    statuses.append(answer.status)
            assert ask("POST", "/v1/detect", png()).status == 200
        ask.wait_for("/healthz", lambda answer: not [path for path in small_disk.rglob("*") if path.is_file()], 10)
        assert set(statuses) == {200, 507}
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert server.stderr.read() == ""
    assert not list(small_disk.iterdir())


def test_the_token_is_in_no_output_and_no_command_line(tmp_path):
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    command = [sys.executable, "-m", "florentune", "serve", "--port", "0", "--token-file", str(secret)]
    with process(command) as (server, ask):
        for shown in (f"Bearer {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN}\xff"):
            for method, path in (("GET", "/metrics"), ("POST", "/v1/detect"), ("GET", f"/v1/{TOKEN}")):
                answer = ask(method, path, b"no image" if method == "POST" else None, Authorization=shown)
                assert TOKEN.encode() not in answer.body
        with socket.create_connection(("127.0.0.1", ask.port)) as broken:
            broken.sendall(f"GET /{TOKEN} HTTP/9.9\r\nAuthorization: {TOKEN}\r\n\r\n".encode())
            assert TOKEN.encode() not in broken.recv(65536)
        for one in pids_of(server.pid):
            assert TOKEN.encode() not in Path(f"/proc/{one}/cmdline").read_bytes()
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert TOKEN not in server.stdout.read() + server.stderr.read()


def test_a_second_signal_ends_it_at_once(command):
    with process(command) as (server, ask):
        hang = threading.Thread(target=post_and_forget, args=(ask, png(HANG)))
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
        return ask("POST", "/v1/detect", body).status
