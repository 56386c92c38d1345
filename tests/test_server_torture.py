"""The server for longer than is comfortable: overload, slow crowds, kills, stops, soaks and broken files.

Counts are asserted; times are recorded for the report (`--torture-report`), never asserted. The short forms run always.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra [server]")
from server_fakes import Running, ink_server, pdf, pids_of, png, process, stop_under_load

NANO = [sys.executable, "-m", "florentune", "serve", "--port", "0"]
POST = """
wrk.method = "POST"
local file = io.open("{image}", "rb")
wrk.body = file:read("*a")
function delay() return math.random(0, 2 * {delay}) end
"""


def resident(pid):
    """Bytes of memory of a process and all below it; what they share counts once for each."""
    pages = 0
    for one in pids_of(pid):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def handles(pid):
    """Open files and threads of the process itself."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def timed(ask, *request, **headers):
    began = time.perf_counter()
    return ask(*request, **headers).status, time.perf_counter() - began


def percentile(seconds, share):
    return 1000 * sorted(seconds)[int(share * (len(seconds) - 1))]


@pytest.mark.parametrize(
    "seconds",
    [pytest.param(60, marks=[pytest.mark.torture, pytest.mark.timeout(900)]), pytest.param(4, marks=pytest.mark.slow)],
)
def test_ten_times_overload(tmp_path, seconds, record_property):
    """wrk offers ten times what eight patient clients get: 200 or 503 for all, and memory that does not grow.

    Their rate is taken before and after, since that of a shared machine wanders; goodput is set beside the mean.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        pytest.skip("there is no wrk on this machine")
    image = tmp_path / "page.png"
    image.write_bytes(png(800, 1000, (100, 100, 600, 400)))
    with process(NANO) as (server, ask):
        capacity = rate_of(ask, image.read_bytes(), max(seconds / 3, 4))
        script = tmp_path / "post.lua"
        script.write_text(POST.format(image=image, delay=max(round(1000 * 80 / (10 * capacity)), 1)))
        before = metrics(ask)
        command = [wrk, "-t1", "-c80", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{ask.port}/v1/detect"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            memory, waits = [], []
            while load.poll() is None:
                memory.append(resident(server.pid))
                status, took = timed(ask, "POST", "/v1/detect", image.read_bytes(), timeout=120)
                assert status in (200, 503)
                waits += [took] if status == 503 else []
                time.sleep(0.25)
            assert load.returncode == 0
        after = metrics(ask)
        back = wait_until_answered(ask, image.read_bytes())
        ask.wait_for("/metrics", lambda answer: b"florentune_images_in_work 0.0" in answer.body)
        afterwards = rate_of(ask, image.read_bytes(), max(seconds / 3, 4))
    statuses = {status: after.get(status, 0) - before.get(status, 0) for status in after}
    assert {status for status, count in statuses.items() if count} <= {"200", "503", "499"}
    assert statuses.get("503", 0) > 0
    assert statuses["200"] > 0
    assert statuses.get("499", 0) <= 2 * 80  # what was under way when wrk left
    third = len(memory) // 3
    growth = statistics.mean(memory[-third:]) - statistics.mean(memory[third : 2 * third]) if third else 0
    assert growth < 30 * 2**20
    record_property("capacity before / after, pages/s", f"{capacity:.1f} / {afterwards:.1f}")
    record_property("offered, requests/s", round(sum(statuses.values()) / seconds, 1))
    record_property("goodput beside capacity", round(2 * statuses["200"] / seconds / (capacity + afterwards), 2))
    if waits:
        record_property("503 p50 / p99, ms", f"{percentile(waits, 0.5):.0f} / {percentile(waits, 0.99):.0f}")
    record_property("memory growth, MB", round(growth / 2**20, 1))
    record_property("seconds to the next answer", round(back, 2))


def rate_of(ask, image, seconds):
    """Answers a second that eight clients get which wait for each."""
    ends_by, counts = time.monotonic() + seconds, []

    def client(_):
        while time.monotonic() < ends_by:
            assert ask("POST", "/v1/detect", image, timeout=120).status == 200
            counts.append(1)

    began = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(client, range(8)))
    return len(counts) / (time.monotonic() - began)


def metrics(ask):
    """Answers of /v1/detect by status."""
    lines = ask("GET", "/metrics").body.decode().splitlines()
    rows = [line for line in lines if line.startswith("florentune_requests_total") and "/v1/detect" in line]
    return {row.partition('status="')[2][:3]: float(row.rpartition(" ")[2]) for row in rows}


def wait_until_answered(ask, image):
    began = time.monotonic()
    while ask("POST", "/v1/detect", image, timeout=120).status != 200:
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.torture
@pytest.mark.timeout(900)
def test_two_hundred_slow_clients_and_a_good_one(record_property):
    """Half of them trickle a header, half a body; the good one gets every answer, and all slow ones are dropped."""
    with process(NANO) as (_, ask):
        alone = [timed(ask, "POST", "/v1/detect", png()) for _ in range(60)]
        ended, dropped = threading.Event(), []

        def trickle(number):
            starts = (
                b"GET / HTTP/1.1\r\nX: ",
                b"POST /v1/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n\r\n",
            )
            with socket.create_connection(("127.0.0.1", ask.port), timeout=60) as connection:
                with contextlib.suppress(OSError):
                    connection.sendall(starts[number % 2])
                    while not ended.wait(1):
                        connection.sendall(b"x")
                        connection.settimeout(0.01)
                        with contextlib.suppress(TimeoutError):
                            if not connection.recv(65536):
                                break
                dropped.append(number) if not ended.is_set() else None

        with ThreadPoolExecutor(200) as threads:
            for number in range(200):
                threads.submit(trickle, number)
            time.sleep(1)
            among = [timed(ask, "POST", "/v1/detect", png()) for _ in range(60)]
            ask.wait_for("/healthz", lambda answer: len(dropped) == 200, 60)
            ended.set()
    assert {status for status, _ in alone + among} == {200}
    for name, found in (("alone", alone), ("among 200", among)):
        seconds = [took for _, took in found]
        record_property(f"{name}: p50 / p99, ms", f"{percentile(seconds, 0.5):.0f} / {percentile(seconds, 0.99):.0f}")


@pytest.mark.torture
@pytest.mark.timeout(900)
def test_more_silent_connections_than_there_may_be(record_property):
    """1,200 say nothing; the good client gets every answer, and all of them are dropped."""
    with process(NANO) as (server, ask), contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", ask.port), timeout=60)) for _ in range(1200)
        ]
        answers = [ask("POST", "/v1/detect", png(), timeout=120).status for _ in range(20)]
        assert answers == [200] * 20
        for connection in silent:
            with contextlib.suppress(ConnectionError):
                assert connection.recv(1) == b""
        ask.wait_for("/healthz", lambda answer: handles(server.pid)[0] < 100)
    record_property("silent connections, all dropped", len(silent))


@pytest.mark.torture
@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", [False, True], ids=["raw", "form"])
def test_fifty_endless_uploads_at_once(form, record_property):
    """Each is cut at 20 MiB, however it is sent; they cost disk while they last, not memory."""
    head = ["POST /v1/detect HTTP/1.1", "Host: 127.0.0.1", "Transfer-Encoding: chunked"]
    head += ["Content-Type: multipart/form-data; boundary=B"] if form else []
    part = b'--B\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n' if form else b"x"
    sent = "\r\n".join([*head, "", ""]).encode() + f"{len(part):x}\r\n".encode() + part + b"\r\n"
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    with process(NANO) as (server, ask):
        assert ask("POST", "/v1/detect", png(), timeout=120).status == 200
        before, ended, memory = resident(server.pid), threading.Event(), []

        def watch():
            while not ended.wait(0.1):
                memory.append(resident(server.pid))

        def upload(_):
            with socket.create_connection(("127.0.0.1", ask.port), timeout=120) as connection:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(sent)
                    for _ in range(1024):
                        connection.sendall(chunk)
                with contextlib.suppress(ConnectionError):
                    return connection.recv(12)
                return b""

        with ThreadPoolExecutor(51) as threads:
            threads.submit(watch)
            answers = list(threads.map(upload, range(50)))
            ended.set()
        assert set(answers) <= {b"HTTP/1.1 413", b"HTTP/1.1 408", b""}
        assert ask("POST", "/v1/detect", png(), timeout=120).status == 200
    record_property("uploads of up to 1 GiB, refused", len(answers))
    record_property("memory growth, MB", round((max(memory) - before) / 2**20, 1))


@pytest.mark.parametrize("kills", [pytest.param(30, marks=[pytest.mark.torture, pytest.mark.timeout(1800)]), 2])
def test_kill_9_of_the_model_in_a_loop(kills, record_property):
    """At random moments under load: every request gets 200 or 503, and the model comes back each time."""
    chance, statuses, ended = random.Random(8), [], threading.Event()
    with Running() as running:
        pool, ask = running.service.pool, running.client

        def client(_):
            while not ended.is_set():
                statuses.append(ask("POST", "/v1/detect", png(), timeout=120).status)

        with ThreadPoolExecutor(4) as threads:
            clients = threads.map(client, range(4))
            back = []
            for _ in range(kills):
                ask.wait_for("/readyz", lambda answer: answer.status == 200, 120)
                time.sleep(chance.random() / 2)
                (before,) = pool.pids
                os.kill(before, signal.SIGKILL)
                began = time.monotonic()
                ask.wait_for("/readyz", lambda answer, old=before: answer.status == 200 and pool.pids != [old], 120)
                back.append(time.monotonic() - began)
            ended.set()
            list(clients)
        assert ask("POST", "/v1/detect", png()).status == 200
    assert set(statuses) <= {200, 503}
    record_property("kills", kills)
    record_property("answers 200 / 503", f"{statuses.count(200)} / {statuses.count(503)}")
    record_property("seconds until it is back, most", round(max(back), 1))


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_twenty_stops_under_load(tmp_path, record_property):
    answered = 0
    for _ in range(20):
        answers, code, errors = stop_under_load(ink_server(tmp_path), tmp_path)
        assert (code, errors) == (0, "")
        assert set(answers) <= {200, 503}
        answered += len(answers)
    record_property("stops with exit code 0", 20)
    record_property("requests, all answered", answered)


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(20_000, marks=[pytest.mark.torture, pytest.mark.timeout(5400)]),
        pytest.param(200, marks=pytest.mark.slow),
    ],
)
def test_a_soak_leaks_nothing(count, tmp_path, record_property):
    """Mixed requests to nano, a fifth of them through the model; the first tenth is to warm up."""
    kinds = [
        ("GET", "/healthz", None),
        ("POST", "/v1/detect", png()),
        ("POST", "/v1/detect", b"hello"),
        ("GET", "/metrics", None),
        ("POST", "/v1/detect", png()[:-40]),
    ]

    def files():
        return sum(path.is_file() for path in tmp_path.rglob("*"))

    with process(["env", f"TMPDIR={tmp_path}", *NANO]) as (server, ask):
        memory = []
        for number in range(count):
            if number % 500 == 250:
                assert ask("POST", "/v1/extract?dpi=72", pdf(1), timeout=120).status == 200
            assert ask(*kinds[number % len(kinds)], timeout=120).status in (200, 415, 422)
            if number == count // 10:
                before, kept = handles(server.pid), files()
            if number >= count // 10 and number % max(count // 100, 1) == 0:
                memory.append((number / 1000, resident(server.pid) / 2**20))
        ask.wait_for("/healthz", lambda answer: handles(server.pid) <= before, 10)
        after = handles(server.pid)
        assert files() == kept
    slope = float(np.polyfit(*zip(*memory, strict=True), 1)[0])
    if count >= 10_000:
        assert slope < 1
    record_property("requests", count)
    record_property("memory slope of all processes, MB per 1,000", round(slope, 3))
    record_property("open files and threads, before and after", f"{before} {after}")
    record_property("temporary files, before and after", f"{kept} {kept}")


@pytest.mark.parametrize("step", [pytest.param(1, marks=[pytest.mark.torture, pytest.mark.timeout(3600)]), 20])
def test_every_broken_file_gets_an_answer(shared, step, record_property):
    """Files of bad_inputs, four at a time: one answer each, never a 500, and the server well at the end."""
    files = [path for path in sorted((shared / "bad_inputs").rglob("*")) if path.is_file()][::step]
    with Running() as running:

        def post(path):
            route = "/v1/extract" if "pdf" in path.parent.name else "/v1/detect"
            answer = running.client("POST", route, path.read_bytes(), timeout=120)
            assert answer.status in (200, 400, 413, 415, 422, 503, 504), (path.name, answer.body[:200])
            if answer.status != 200:
                assert answer.json["reason"] not in ("", "overloaded"), path.name
            return answer.status

        with ThreadPoolExecutor(4) as threads:
            statuses = list(threads.map(post, files))
        running.client.wait_for("/readyz", lambda answer: answer.status == 200)
        assert running.client("POST", "/v1/detect", png()).status == 200
    for status in sorted(set(statuses)):
        record_property(f"answers {status}", statuses.count(status))
