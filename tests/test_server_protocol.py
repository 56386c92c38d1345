"""The deadlines and the bound of connections, over real sockets with small buffers."""

import asyncio
import contextlib
import socket

import pytest

pytest.importorskip("fastapi", reason="needs the extra [server]")
import uvicorn
from uvicorn.server import ServerState

from florentune.server import Limits
from florentune.server.protocol import protocol_with

GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@contextlib.asynccontextmanager
async def listening(answer, **limits):
    """The port of a server that answers everything with `answer`, and its open connections."""

    async def app(scope, receive, send):
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    bounds = Limits(**limits)
    config = uvicorn.Config(app, http=protocol_with(bounds), ws="none", lifespan="off", timeout_keep_alive=1)
    config.load()
    state = ServerState()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # its connections inherit it

    def protocol():
        return config.http_protocol_class(config=config, server_state=state, app_state={})

    async with await asyncio.get_running_loop().create_server(protocol, sock=listener):
        yield listener.getsockname()[1], state.connections


async def connected(port, sent=b""):
    """A socket with a small buffer that has sent something."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port))
    await loop.sock_sendall(client, sent)
    return client


async def until(true, seconds=10):
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("size", "read"), [(40_000, 0), (400_000, 0), (400_000, 370_000)])
@pytest.mark.parametrize("rest", [b"\r\n", b"Connection: close\r\n\r\n", b"\r\nno HTTP at all\r\n\r\n"])
def test_who_does_not_read_an_answer_is_dropped(size, read, rest):
    """Also when what is left of the answer is so little that nothing waits for it to be written."""

    async def test():
        async with listening(b"x" * size, write_time=0.3) as (port, connections):
            with await connected(port, GET + rest) as client:
                await until(lambda: connections)
                got = 0
                while got < read:
                    got += len(await asyncio.get_running_loop().sock_recv(client, 4096))
                await until(lambda: not connections)

    asyncio.run(test())


def test_the_oldest_silent_connection_makes_room():
    async def test():
        async with listening(b"good", connections=5) as (port, connections):
            silent = [await connected(port) for _ in range(40)]
            await until(lambda: len(connections) == 5)
            with await connected(port, GET + b"Connection: close\r\n\r\n") as client:
                answer = b""
                while data := await asyncio.get_running_loop().sock_recv(client, 4096):
                    answer += data
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"good")
            alive = [not gone(client) for client in silent]
            assert alive == [False] * 36 + [True] * 4
            for client in silent:
                client.close()

    asyncio.run(test())


def gone(client):
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_working_connections_are_not_dropped_for_new_ones():
    """As many requests as there may be connections are under way: who comes then goes."""

    async def test():
        async with listening(b"x" * 400_000, connections=3, write_time=60) as (port, connections):
            working = [await connected(port, GET + b"\r\n") for _ in range(3)]
            await until(lambda: len(connections) == 3 and all(one.cycle for one in connections))
            late = [await connected(port) for _ in range(3)]
            await until(lambda: all(gone(client) for client in late))
            assert len(connections) == 3
            for client in working + late:
                client.close()

    asyncio.run(test())


def test_answers_do_not_wait_for_an_acknowledgement():
    """A second answer on a connection would otherwise come 40 ms late: header and body are two segments."""

    async def run():
        async with listening(b"x") as (port, connections):
            client = await connected(port, GET)
            await until(lambda: connections)
            sockets = [one.transport.get_extra_info("socket") for one in connections]
            delays = [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in sockets]
            client.close()
            return delays

    assert asyncio.run(run()) == [1]
