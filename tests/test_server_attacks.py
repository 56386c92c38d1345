"""Hostile and unlucky clients, in short form. The server has to answer a good request after each of them."""

import asyncio
import base64
import concurrent.futures
import contextlib
import http.client
import http.server
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

pytest.importorskip("fastapi", reason="needs the extra [server]")
from florentune.server import Limits, pool
from florentune.server.metrics import Metrics
from florentune.server.problems import Problem
from server_fakes import CRASH, HANG, SLOW, SLOW_SECONDS, InkDetector, Running, hanging_pdf, png, spool_of

LIMITS = Limits(
    body=600_000,
    pages=5,
    deadline=4.0,
    batch=2,
    waiting=2,
    connect_time=0.6,
    header_time=0.6,
    body_time=0.9,
    write_time=0.6,
)
TOKEN = "0123456789abcdef-token"
HOST = b"Host: 127.0.0.1\r\n"


@pytest.fixture(scope="module")
def server():
    with Running(limits=LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def guarded():
    """A server that wants a token, with the limits it has by default."""
    with Running(token=TOKEN, hosts=None) as running:
        yield running


@pytest.fixture
def ask(server):
    """A client; afterwards the server must be well."""
    yield server.client
    server.client.wait_for("/readyz", lambda answer: answer.status == 200, 90)
    assert server.client("POST", "/v1/detect", png()).status == 200


@contextlib.contextmanager
def raw(ask, *sent: bytes):
    """A connection on which something has been sent."""
    with socket.create_connection(("127.0.0.1", ask.port), timeout=10) as connection:
        for data in sent:
            connection.sendall(data)
        yield connection


def answer_on(connection) -> bytes:
    """All that comes until the server closes; b"" when it just does."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            found += data
    return found


def post(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()


@pytest.mark.parametrize("path", ["/v1/detect", "/v1/extract", "/healthz", "/nothing"])
def test_an_announced_body_over_the_limit_is_not_read(ask, path):
    with raw(ask, post(path, "Content-Length: 1000000000", "Expect: 100-continue")) as connection:
        answer = answer_on(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"100 Continue" not in answer


def test_an_endless_body_is_cut_at_the_limit(ask):
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with raw(ask, post("/v1/detect", "Transfer-Encoding: chunked"), *[chunk] * 12) as connection:
        assert answer_on(connection).startswith(b"HTTP/1.1 413")


def test_a_client_that_sends_half_and_leaves_holds_nothing(ask, server):
    with raw(ask, post("/v1/detect", "Content-Length: 50000"), b"x" * 100) as connection:
        connection.shutdown(socket.SHUT_WR)
        answer_on(connection)
    ask.wait_for("/healthz", lambda answer: not spool_of(server), 5)


@pytest.mark.parametrize(
    ("sent", "reply"),
    [(b"", b""), (b"GET / HTT", b""), (post("/v1/detect", "Content-Length: 100") + b"xx", b"HTTP/1.1 408")],
    ids=["silent", "header", "body"],
)
def test_slow_clients_are_dropped(ask, sent, reply):
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(raw(ask, sent)) for _ in range(20)]
        assert ask("POST", "/v1/detect", png()).status == 200
        assert all(answer_on(connection).startswith(reply) for connection in slow)
        if not reply:
            assert all(not answer_on(connection) for connection in slow)


def test_a_trickled_header_does_not_renew_its_deadline(ask):
    with raw(ask, b"GET /healthz HTTP/1.1\r\n" + HOST) as connection:
        dropped = False
        for _ in range(30):
            try:
                connection.sendall(b"X: y\r\n")
            except ConnectionError:
                dropped = True
                break
            time.sleep(0.1)
    assert dropped


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 2**20,
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 20_000,
        post("/v1/detect", "Transfer-Encoding: chunked") + b"zz\r\n",
        post("/v1/detect", "Content-Length: " + "9" * 5000),
        post("/v1/detect", "Content-Length: 5", "Content-Length: 6") + b"hello",
        post("/v1/detect", "Content-Length: -5"),
        b"GET /\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=[
        "long header",
        "many headers",
        "bad chunk",
        "5000 digits",
        "two lengths",
        "negative",
        "HTTP/0.9",
        "TLS",
        "no host",
    ],
)
def test_broken_http_is_refused(ask, sent):
    with contextlib.suppress(ConnectionError), raw(ask, sent) as connection:
        answer = answer_on(connection)
        assert answer == b"" or answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 421", b"HTTP/1.1 431")


def test_length_and_chunks_together_are_one_request(ask):
    sent = (
        post("/v1/detect", "Content-Length: 4", "Transfer-Encoding: chunked")
        + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
    )
    with raw(ask, sent) as connection:
        assert b"smuggled" not in answer_on(connection)


def test_a_good_body_is_asked_for(ask):
    image = png()
    with raw(
        ask, post("/v1/detect", f"Content-Length: {len(image)}", "Expect: 100-continue", "Connection: close")
    ) as it:
        assert it.recv(100).startswith(b"HTTP/1.1 100")
        it.sendall(image)
        assert answer_on(it).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("ranges", ["0-," * 5000, "0-1," * 99, ",".join(f"{n}-" for n in range(0, 200, 2)), "-1," * 90])
def test_a_flood_of_ranges_gets_little_more_than_the_file(ask, ranges):
    whole = len(ask("GET", "/page.js").body)
    answer = ask("GET", "/page.js", Range="bytes=" + ranges)
    assert answer.status in (200, 206, 400, 416)
    assert len(answer.body) < 2 * whole


def test_a_websocket_is_not_opened(ask):
    upgrade = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    with raw(ask, upgrade) as connection:
        assert b"101" not in answer_on(connection)[:12]


def test_ten_thousand_parts_are_refused(ask):
    part = b"--B\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n"
    answer = ask("POST", "/v1/detect", part * 10_000 + b"--B--\r\n", Content_Type="multipart/form-data; boundary=B")
    assert (answer.status, answer.json["reason"]) == (400, "bad_input")


def test_a_big_part_without_a_name_is_refused(ask):
    body = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"x" * 500_000 + b"\r\n--B--\r\n"
    answer = ask("POST", "/v1/detect", body, Content_Type="multipart/form-data; boundary=B")
    assert answer.status == 400


@pytest.mark.parametrize(
    "name", ["../../x", "a\\..\\b.png", "x" * 10_000, "<script>alert(1)</script>", "a\x00b\x1b[31m", "a\r\nX-Evil: 1"]
)
def test_file_names_are_only_shown(ask, server, name):
    head = f'--B\r\nContent-Disposition: form-data; name="f"; filename="{name}"\r\n\r\n'.encode()
    answer = ask("POST", "/v1/detect", head + png() + b"\r\n--B--\r\n", Content_Type="multipart/form-data; boundary=B")
    if answer.status == 200:
        shown = answer.json["image"]
        assert len(shown) <= 120
        assert shown.isprintable()
        assert ".." not in shown
        assert "x-evil" not in answer.headers
    else:
        assert answer.status == 400
    assert not spool_of(server)


BOMBS = {
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deeper": b'{"a":' * 50_000,
    "not a number": b'{"conf": NaN, "dpi": -Infinity}',
    "5000 digits": b'{"dpi": ' + b"9" * 5000 + b"}",
    "base64": b'{"image": "' + base64.b64encode(bytes(300_000)) + b'"}',
    "lone surrogate": b'{"name": "\\ud800"}',
    "not text": b'{"name": "\xed\xa0\x80"}',
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_json_is_refused_unread(ask, bomb):
    for path in ("/v1/detect", "/v1/extract"):
        for kind in ("application/json", "text/json", "application/octet-stream"):
            assert ask("POST", path, bomb, Content_Type=kind).status == 415
        part = b'--B\r\nContent-Disposition: form-data; name="f"; filename="a.json"\r\n\r\n' + bomb + b"\r\n--B--\r\n"
        assert ask("POST", path, part, Content_Type="multipart/form-data; boundary=B").status == 415


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "1e999", "9" * 5000, "0x1", "%ED%A0%80", "[[]]", "1&conf=nan"])
def test_numbers_that_are_none_are_refused(ask, number):
    assert ask("POST", f"/v1/detect?conf={number}", png()).status == 422
    assert ask("POST", f"/v1/extract?dpi={number}", png()).status == 422
    assert ask("GET", f"/v1/jobs/x/pages/{number}").status in (404, 422)


@pytest.mark.parametrize(
    "path",
    ["/../app.py", "/%2e%2e/app.py", "/%252e%252e/app.py", "/..%5capp.py", "//etc/passwd", "/%2fetc%2fpasswd"]
    + ["/static/../app.py", "/page.js/../../app.py", "/page.js%00.css", "/%c0%ae%c0%ae/app.py"]
    + [f"/v1/jobs/{name}/document" for name in ("..", "%2e%2e", "..%2f..%2fx")],
)
def test_no_path_leads_out(ask, path):
    assert ask("GET", path).status in (404, 405)


# PORT is the trap's
ADDRESSES = """
http://127.0.0.1:PORT/ http://127.1:PORT/ http://127.0.1:PORT/ http://127.255.255.254:PORT/ http://localhost:PORT/
http://LOCALHOST.:PORT/ http://0.0.0.0:PORT/ http://0:PORT/ http://[::1]:PORT/ http://[::]:PORT/
http://[::ffff:127.0.0.1]:PORT/ http://[0:0:0:0:0:ffff:7f00:1]:PORT/ http://2130706433:PORT/ http://0x7f000001:PORT/
http://0x7f.0.0.1:PORT/ http://0177.0.0.1:PORT/ http://017700000001:PORT/ http://127.0.0.1.nip.io:PORT/
http://example.org@127.0.0.1:PORT/ http://127.0.0.1:PORT#@example.org/ http://127.0.0.1:PORT\\@example.org/
http://\u2460\u2461\u2466.0.0.1:PORT/ http://127.0.0.1:PORT/redirect http://127.0.0.1:PORT/loop
ftp://127.0.0.1:PORT/ gopher://127.0.0.1:PORT/_x //127.0.0.1:PORT/ http://169.254.169.254/latest/meta-data/
file:///etc/passwd data:image/png;base64,iVBORw0KGgo=
""".split()  # noqa: SIM905 - a line each would be a page


@pytest.fixture
def trap():
    """A web server that keeps what it is asked for, and sends everyone on to itself."""

    class Trap(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()

        do_HEAD = do_POST = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Trap) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_addresses_are_never_fetched(ask, trap):
    """Wherever a client might put one: the query, the body as any type, a field or the file of a form, a header."""
    port = trap.server_address[1]
    assert len(ADDRESSES) == 30
    form = {"Content_Type": "multipart/form-data; boundary=B"}
    for number, address in enumerate(address.replace("PORT", str(port)).encode() for address in ADDRESSES):
        route = ("detect", "extract")[number % 2]
        path = f"/v1/{route}?url=" + "".join(f"%{byte:02x}" for byte in address)
        assert ask("POST", path, address).status == 415
        assert ask("POST", path, address, Content_Type="text/uri-list").status == 415
        assert ask("POST", path, b'{"url": "' + address + b'"}', Content_Type="application/json").status == 415
        field = b'--B\r\nContent-Disposition: form-data; name="url"\r\n\r\n' + address + b"\r\n--B--\r\n"
        assert ask("POST", path, field, **form).status == 400
        assert ask("POST", path, field.replace(b"url", b'file"; filename="x.url', 1), **form).status == 415
        if address.isascii():
            where = address.decode()
            assert ask("GET", "/healthz", Referer=where, X_Image_Url=where, Content_Location=where).status == 200
    assert trap.asked == []
    with socket.create_connection(trap.server_address) as known:  # the trap does listen
        known.sendall(b"GET /known HTTP/1.0\r\n\r\n")
        assert known.recv(12) == b"HTTP/1.0 302"
    assert trap.asked == ["/known"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", ""])
def test_other_host_names_are_not_answered(ask, host):
    assert ask("GET", "/v1/models", Host=host).status in (400, 421)


def test_a_preflight_of_another_site_gets_no_leave(ask):
    wish = {"Origin": "http://evil.example", "Access_Control_Request_Method": "POST"}
    answer = ask("OPTIONS", "/v1/detect", **wish)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_other_sites_are_not_answered(ask, origin):
    answer = ask("POST", "/v1/detect", png(), Origin=origin)
    assert (answer.status, answer.json["reason"]) == (403, "origin")
    assert "access-control-allow-origin" not in answer.headers


def test_the_own_page_is_answered(ask):
    home = f"http://127.0.0.1:{ask.port}"
    assert ask("POST", "/v1/detect", png(), Origin=home, Sec_Fetch_Site="same-origin").status == 200


@pytest.mark.parametrize("path", ["/", "/page.js", "/v1/models", "/nothing", "/metrics"])
def test_every_answer_has_the_safe_headers(ask, path):
    headers = ask("GET", path).headers
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


def test_over_capacity_is_refused_at_once_and_all_accepted_is_answered(ask):
    def one(_):
        started = time.monotonic()
        answer = ask("POST", "/v1/detect", png(SLOW))
        return answer, time.monotonic() - started

    with concurrent.futures.ThreadPoolExecutor(24) as threads:
        answers = [answer for answer, _ in threads.map(one, range(24))]
    statuses = {status: [a for a in answers if a.status == status] for status in (200, 503)}
    assert len(statuses[200]) + len(statuses[503]) == 24
    assert len(statuses[200]) >= LIMITS.batch
    assert statuses[503]
    assert all(a.headers["retry-after"] == "1" and a.json["reason"] == "overloaded" for a in statuses[503])


def test_a_hanging_image_is_ended_at_its_deadline_and_its_mates_are_answered(ask, server, monkeypatch):
    before = server.service.pool.pids
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        hang = threads.submit(ask, "POST", "/v1/detect", png(HANG))
        ask.wait_for("/healthz", lambda answer: server.service.pool.load == 1, 3)
        # they may wait for longer, since a busy machine takes its time to start another worker
        monkeypatch.setattr(server.service, "limits", replace(LIMITS, deadline=60))
        mates = [threads.submit(ask, "POST", "/v1/detect", png(), 120) for _ in range(2)]
        assert (hang.result().status, hang.result().json["reason"]) == (504, "timeout")
        assert [(mate.result().status, len(mate.result().json["regions"])) for mate in mates] == [(200, 1)] * 2
    assert server.service.pool.pids != before


def test_mates_of_a_hanging_image_have_the_whole_of_their_deadline_again(monkeypatch):
    """The pool by itself: its worker does nothing, the image with the shorter deadline is the one that hangs."""
    children = []
    monkeypatch.setattr(pool, "Child", lambda *_: children.append(mock.MagicMock(pid=1)) or children[-1])

    async def test():
        found = pool.ModelPool(InkDetector, 1, Limits(), Metrics())
        found.start()
        found._hear(found._seats[0], {"event": "ready", "name": "x", "labels": [], "thresholds": {}})
        bad = asyncio.create_task(found.detect(Path("bad"), "bad", None, 0.3))
        mate = asyncio.create_task(found.detect(Path("mate"), "mate", None, 60))
        await asyncio.sleep(0)
        (before,) = [one.timer.when() for one in found._seats[0].working.values() if one.name == "mate"]
        with pytest.raises(Problem, match="deadline"):
            await bad
        assert children[0].kill.called
        assert [one.name for one in found._queue] == ["mate"]
        assert found._queue[0].timer.when() >= before + 0.25
        mate.cancel()

    asyncio.run(test())


def test_a_crash_is_contained(guarded):
    """The image fails, and not those that are in its worker with it."""
    ask = partial(guarded.client, "POST", "/v1/detect", timeout=120, Authorization=f"Bearer {TOKEN}")
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        first = threads.submit(ask, png(SLOW))
        time.sleep(SLOW_SECONDS / 4)  # so that the next three wait together
        crash = threads.submit(ask, png(CRASH))
        mates = [first, *(threads.submit(ask, png()) for _ in range(2))]
        assert (crash.result().status, crash.result().json["reason"]) == (503, "worker_died")
        assert crash.result().headers["retry-after"] == "1"
        assert [(mate.result().status, len(mate.result().json["regions"])) for mate in mates] == [(200, 1)] * 3


def test_a_killed_worker_comes_back(ask, server):
    before = server.service.pool.pids
    os.kill(before[0], signal.SIGKILL)
    ask.wait_for("/readyz", lambda answer: answer.status == 200 and server.service.pool.pids != before, 90)


def test_a_client_that_leaves_while_it_waits_gives_its_place_back(ask, server):
    image = png(SLOW)
    for _ in range(3):
        with raw(ask, post("/v1/detect", f"Content-Length: {len(image)}"), image):
            time.sleep(0.05)
    ask.wait_for("/healthz", lambda answer: server.service.pool.load == 0, 5)


def test_cancel_ends_the_work(ask, server):
    """The second page hangs the model; the cancel frees the document worker at once."""
    place = ask("POST", "/v1/extract?dpi=72", hanging_pdf(), Prefer="respond-async").headers["location"]
    ask.wait_for(place, lambda answer: answer.json["status"] == "running")
    assert ask("DELETE", place).status == 204
    assert server.service.documents.load == 0
    assert ask("GET", place).status == 404
    ask.wait_for("/healthz", lambda answer: server.service.pool.load == 0 and not spool_of(server), 10)


def test_a_document_over_its_deadline_is_ended(ask, server):
    answer = ask("POST", "/v1/extract?dpi=72", hanging_pdf())
    assert (answer.status, answer.json["reason"]) == (504, "timeout")
    assert server.service.documents.load == 0


def test_a_client_that_leaves_while_its_document_is_read_ends_the_work(ask, server):
    document = hanging_pdf()
    with raw(ask, post("/v1/extract?dpi=72", f"Content-Length: {len(document)}"), document):
        ask.wait_for("/healthz", lambda answer: server.service.documents.load == 1, 5)
    ask.wait_for("/healthz", lambda answer: server.service.documents.load == 0, 2)
    ask.wait_for("/healthz", lambda answer: not spool_of(server), 10)


def test_who_is_refused_keeps_the_connection(ask):
    """A client that has sent all need not connect again; one that is still sending is told to stop."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", ask.port, timeout=10)) as connection:

        def status():
            connection.request("POST", "/v1/detect", png())
            answer = connection.getresponse()
            answer.read()
            return answer.status

        with mock.patch.object(pool.ModelPool, "full", True):
            assert status() == 503
            kept = connection.sock
            assert status() == 503
            for headers in ([], ["Expect: 100-continue"]):
                with raw(ask, post("/v1/detect", "Content-Length: 500000", *headers), b"x" * (not headers)) as sending:
                    answer = answer_on(sending).lower()
                assert answer.startswith(b"http/1.1 503")
                assert b"connection: close" in answer
        assert status() == 200
        assert connection.sock is kept is not None


def test_who_has_no_token_does_not_learn_how_busy_the_server_is(guarded):
    with mock.patch.object(pool.ModelPool, "full", True):
        assert guarded.client("POST", "/v1/detect", png()).status == 401


def test_too_many_documents_are_refused(ask):
    places = []
    statuses = []
    for _ in range(4):
        answer = ask("POST", "/v1/extract?dpi=72", hanging_pdf(), Prefer="respond-async")
        statuses.append(answer.status)
        places += [answer.headers["location"]] if answer.status == 202 else []
    for place in places:
        ask("DELETE", place)
    assert statuses == [202, 202, 202, 503]


def test_every_route_wants_the_token(guarded):
    ask = guarded.client
    routes = [(m, r.path) for r in flat(guarded.app.routes) for m in sorted(r.methods or ())]
    assert len(routes) > 10
    for method, path in [*routes, ("GET", "/nothing")]:
        status = ask(method, path.replace("{id}", "x").replace("{number}", "1")).status
        assert (status != 401) == (path in ("/healthz", "/readyz")), path
    wrong = ("Bearer wrong-token-wrong", "Bearer ", f"Bearer {TOKEN}x", f"Token {TOKEN}", "Bearer " + "x" * 9999)
    for shown in (*wrong, f"Bearer {TOKEN[:-1]}", "Basic %%%"):
        assert ask("GET", "/v1/models", Authorization=shown).status == 401
    basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    for shown in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Basic {basic}"):
        assert ask("GET", "/v1/models", Authorization=shown).status == 200


def test_the_token_is_compared_in_constant_time(guarded, monkeypatch):
    """All of what is shown with all of the token, whatever it begins with, and nothing else decides."""
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda one, other: compared.append((one, other)) or False)
    for shown in ("x", TOKEN[:-1], TOKEN):
        assert guarded.client("GET", "/v1/models", Authorization=f"Bearer {shown}").status == 401
        assert compared.pop() == (shown.encode(), TOKEN.encode())


def flat(routes):
    """The routes, those of included routers too."""
    for route in routes:
        if hasattr(route, "methods"):
            yield route
        else:
            inner = getattr(route, "routes", None) or route.original_router.routes
            yield from flat(inner)


@pytest.mark.parametrize(
    ("host", "token", "good"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("localhost", None, True),
        ("0.0.0.0", None, False),
        ("192.168.1.5", None, False),
        ("example.org", None, False),
        ("0.0.0.0", TOKEN, True),
        ("127.0.0.1", "short", False),
    ],
)
def test_an_address_that_others_reach_needs_a_token(host, token, good):
    from florentune.errors import InputError
    from florentune.server.run import check_exposure

    with contextlib.nullcontext() if good else pytest.raises(InputError, match="token"):
        check_exposure(host, token, [])


def test_a_jump_of_the_clock_changes_nothing(ask, monkeypatch):
    """Ten years on and back while a job is under way and kept: deadlines and what is kept count time that passes."""
    now = time.time
    place = ask("POST", "/v1/extract?dpi=36", png(600, 800), Prefer="respond-async").headers["location"]
    for jump in (3e8, -3e8):
        monkeypatch.setattr(time, "time", lambda jump=jump: now() + jump)
        assert ask("POST", "/v1/detect", png(SLOW)).status == 200
        done = ask.wait_for(place, lambda answer: answer.json["status"] not in ("queued", "running"))
        assert done.json["status"] == "ok"
        assert ask("GET", f"{place}/document").status == 200
    assert ask("DELETE", place).status == 204
