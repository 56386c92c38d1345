"""Hostile and unlucky clients, in short form. The server has to answer a good request after each of them."""

import base64
import concurrent.futures
import contextlib
import os
import signal
import socket
import time

import pytest

pytest.importorskip("fastapi", reason="needs the extra [server]")
from florentune.server import Limits
from server_fakes import CRASH, HANG, SLOW, Running, png, spool_of

LIMITS = Limits(
    body=200_000,
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
    with raw(ask, post("/v1/detect", "Transfer-Encoding: chunked"), *[chunk] * 5) as connection:
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
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"y" * 200_000,
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 20_000,
        post("/v1/detect", "Transfer-Encoding: chunked") + b"zz\r\n",
        post("/v1/detect", "Content-Length: 5", "Content-Length: 6") + b"hello",
        post("/v1/detect", "Content-Length: -5"),
        b"GET /\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["long header", "many headers", "bad chunk", "two lengths", "negative", "HTTP/0.9", "TLS", "no host"],
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


def test_a_websocket_is_not_opened(ask):
    upgrade = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    with raw(ask, upgrade) as connection:
        assert b"101" not in answer_on(connection)[:12]


def test_ten_thousand_parts_are_refused(ask):
    part = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    answer = ask("POST", "/v1/detect", part * 3000 + b"--B--\r\n", Content_Type="multipart/form-data; boundary=B")
    assert (answer.status, answer.json["reason"]) == (400, "bad_input")


def test_a_big_part_without_a_name_is_refused(ask):
    body = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"x" * 150_000 + b"\r\n--B--\r\n"
    answer = ask("POST", "/v1/detect", body, Content_Type="multipart/form-data; boundary=B")
    assert answer.status == 400


@pytest.mark.parametrize("name", ["../../x", "a\\..\\b.png", "x" * 5000, "<script>alert(1)</script>", "a\x00b\x1b[31m"])
def test_file_names_are_only_shown(ask, server, name):
    head = f'--B\r\nContent-Disposition: form-data; name="f"; filename="{name}"\r\n\r\n'.encode()
    answer = ask("POST", "/v1/detect", head + png() + b"\r\n--B--\r\n", Content_Type="multipart/form-data; boundary=B")
    if answer.status == 200:
        shown = answer.json["image"]
        assert len(shown) <= 120
        assert shown.isprintable()
        assert ".." not in shown
    else:
        assert answer.status == 400
    assert not spool_of(server)


@pytest.mark.parametrize(
    "path",
    ["/../app.py", "/%2e%2e/app.py", "/%252e%252e/app.py", "/..%5capp.py", "//etc/passwd", "/static/../app.py"]
    + [f"/v1/jobs/{name}/document" for name in ("..", "%2e%2e", "..%2f..%2fx")],
)
def test_no_path_leads_out(ask, path):
    assert ask("GET", path).status in (404, 405)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/", "http://169.254.169.254/", "file:///etc/passwd"])
def test_addresses_are_never_fetched(ask, address):
    trap = socket.create_server(("127.0.0.1", 0))
    trap.settimeout(0.1)
    target = address.replace(":9/", f":{trap.getsockname()[1]}/")
    with trap:
        assert ask("POST", f"/v1/detect?url={target}", target.encode()).status == 415
        assert ask("POST", "/v1/extract", target.encode(), Content_Type="text/uri-list").status == 415
        with pytest.raises(TimeoutError):
            trap.accept()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", ""])
def test_other_host_names_are_not_answered(ask, host):
    assert ask("GET", "/v1/models", Host=host).status in (400, 421)


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


def test_a_hanging_image_is_ended_at_its_deadline_and_its_mates_are_answered(ask, server):
    before = server.service.pool.pids
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        hang = threads.submit(ask, "POST", "/v1/detect", png(HANG))
        time.sleep(0.1)
        answer = hang.result()
    assert (answer.status, answer.json["reason"]) == (504, "timeout")
    ask.wait_for("/readyz", lambda answer: answer.status == 200, 90)
    assert server.service.pool.pids != before


def test_a_crash_is_contained(ask):
    answer = ask("POST", "/v1/detect", png(CRASH))
    assert (answer.status, answer.json["reason"]) == (503, "worker_died")
    assert "retry-after" in answer.headers


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


def hanging_pdf() -> bytes:
    """One page that is HANG pixels wide at 72 dpi."""
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.open(io.BytesIO(png(HANG))).convert("RGB").save(stream, "PDF", resolution=72)
    return stream.getvalue()


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


def test_every_route_wants_the_token():
    with Running(token=TOKEN, hosts=None) as running:
        ask = running.client
        routes = [(m, r.path) for r in flat(running.app.routes) for m in sorted(r.methods or ())]
        assert len(routes) > 10
        for method, path in [*routes, ("GET", "/nothing")]:
            status = ask(method, path.replace("{id}", "x").replace("{number}", "1")).status
            assert (status != 401) == (path in ("/healthz", "/readyz")), path
        for shown in (
            "Bearer wrong-token-wrong",
            "Bearer ",
            f"Bearer {TOKEN}x",
            f"Token {TOKEN}",
            "Bearer " + "x" * 9999,
        ):
            assert ask("GET", "/v1/models", Authorization=shown).status == 401
        basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
        for shown in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Basic {basic}"):
            assert ask("GET", "/v1/models", Authorization=shown).status == 200
        assert ask("GET", "/v1/models", Authorization="Basic %%%").status == 401


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
