"""The server as a process: the command, a real checkpoint, signals, and crowds."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("fastapi", reason="needs the extra [server]")
from server_fakes import ink_server, png, process, stop_under_load


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
