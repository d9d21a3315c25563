# SPDX-License-Identifier: MIT
"""WebSockets, by client libraries of others, to a server that is one of theirs."""
import asyncio
import hashlib
import random
import sys
import threading

# Debian's python3-websockets and python3-websocket (websocket-client), of which the latter has this
# file's own name.
here = sys.path.pop(0)
try:
    import websockets
except ImportError:
    websockets = None
try:
    import websocket
except ImportError:
    websocket = None
sys.path.insert(0, here)

import lib  # noqa: E402
import lib_tls  # noqa: E402
from lib import ENGINES, KiB, check, expect, wait_for  # noqa: E402

PACKAGES = "/usr/lib/python3/dist-packages"
COUNT = 500
LARGEST = 200 * KiB


def ready_agent(lab, *flags):
    for name in ("ws", "other"):
        lab.container(name, f"{name}.test", keep=True, port=8080, options=(
            "-v", f"{PACKAGES}/websockets:{PACKAGES}/websockets:ro"),
            command=["python3", "/e2e/lib_websocket.py", 8080])
    lab.container("one", "one.test", keep=True)
    agent = lab.agent(*flags)
    for name in ("ws", "other", "one"):
        agent.wait_route(f"{name}.test", name)
    return agent


def messages(seed, count=COUNT):
    """Text and binary, most of them short, up to 200 KiB."""
    chance = random.Random(seed)
    for number in range(count):
        size = LARGEST if number == 7 else int(LARGEST ** chance.random()) - number % 2
        if number % 2:
            yield "".join(chance.choices("text \u00fc\u6f22\U0001f310\0\n", k=size // 4))
        else:
            yield chance.randbytes(size)


def client_of(lab, sock=None, path="/echo", host="ws.test", **options):
    """Of `websockets`; a context."""
    if sock is None:    # not lab.connect()'s, whose file would keep it open
        sock = lab.socket()
        sock.connect((lab.edge_addr, 80))
    sock.setblocking(False)
    return websockets.connect(f"ws://{host}{path}", sock=sock, max_size=None, **options)


def run(work, seconds=60):
    return asyncio.run(asyncio.wait_for(work, seconds))


def skip(function, *modules):
    for name, module in modules:
        function = lib_tls.needs(name, module)(function)
    return function


def needs_websockets(function):
    return skip(function, ("python3-websockets", websockets))


def needs_both(function):
    return skip(function, ("python3-websockets", websockets), ("python3-websocket", websocket))


@needs_websockets
@lib.each(*ENGINES)
def test_echo(lab, engine):
    """500 random messages, text and binary, up to 200 KiB, come back as they were sent"""
    agent = ready_agent(lab, "--datapath", engine)

    async def echo(compression):
        async with client_of(lab, compression=compression) as client:
            for message in messages(1, COUNT if compression is None else COUNT // 5):
                await client.send(message)
                got = await client.recv()
                check(got == message, f"{len(got)} of {len(message)}: {got[:50]!r}")
            await client.ping()
    run(echo(None))
    run(echo("deflate"))
    wait_for(lambda: not agent.connections(), "the connections are closed")


@needs_websockets
@lib.each(*ENGINES)
def test_ahead(lab, engine):
    """500 messages are sent without waiting for their echoes; all come back in order"""
    ready_agent(lab, "--datapath", engine)

    async def echo():
        async with client_of(lab, compression=None) as client:
            async def send():
                for message in messages(2):
                    await client.send(message)
            sender = asyncio.ensure_future(send())
            for number, message in enumerate(messages(2)):
                check(await client.recv() == message, f"echo {number}")
            await sender
    run(echo())


@needs_websockets
@lib.each(*ENGINES)
def test_one_way(lab, engine):
    """one way only: up, with a sum at the end; and down, closed by the server"""
    ready_agent(lab, "--datapath", engine)

    async def up():
        digest = hashlib.sha256()
        async with client_of(lab, path="/count", compression=None) as client:
            for message in messages(3):
                digest.update(message if isinstance(message, bytes) else message.encode())
                await client.send(message)
            await client.send("end")
            expect(await client.recv(), f"{COUNT} {digest.hexdigest()}", "what the server read")

    async def down(host, name):
        async with client_of(lab, path="/push", host=host) as client:
            got = [message async for message in client]
            expect(got, [f"message {i} of {name}" for i in range(100)], "messages")
            expect(client.close_code, 1000, "close code")
    run(up())
    run(down("ws.test", "ws"))
    run(down("OTHER.test:80", "other"))


@needs_both
@lib.each(*ENGINES)
def test_websocket_client(lab, engine):
    """the same by another library, websocket-client"""
    ready_agent(lab, "--datapath", engine)
    client = websocket.create_connection("ws://ws.test/echo", socket=lab.connect().sock)
    for message in messages(4, 200):
        binary = isinstance(message, bytes)
        client.send(message, websocket.ABNF.OPCODE_BINARY if binary else
                    websocket.ABNF.OPCODE_TEXT)
        got = client.recv()
        check(got == message, f"{len(got)} of {len(message)}: {got[:50]!r}")
    client.close()


@needs_websockets
@lib.each(*ENGINES)
def test_after_http(lab, engine):
    """requests, refused upgrades, more requests, then the WebSocket, on one connection"""
    ready_agent(lab, "--datapath", engine)
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    client = lab.connect()
    expect(client.get("/name", "one.test").container, "one", "who answers the first")
    answer = client.get("/name", "one.test", fields=upgrade)
    expect((answer.status, answer.container), (200, "one"), "answer to the refused upgrade")
    answer = client.get("/up", "one.test", method="POST", body=b"x" * 5000)
    check(b'"size": 5000' in answer.body, f"a body after it: {answer.body}")
    for _ in range(3):
        answer = client.get("/name", "one.test", fields=upgrade)
        expect((answer.status, answer.container), (200, "one"), "refused again")

    async def echo():
        async with client_of(lab, client.sock) as socket:
            for message in messages(5, 50):
                await socket.send(message)
                check(await socket.recv() == message, "echo")
    run(echo())


@needs_websockets
@lib.each(*ENGINES)
def test_refused(lab, engine):
    """a refusal by the server's library reaches the client; it is never opaque"""
    ready_agent(lab, "--datapath", engine)

    async def refused():
        try:
            async with client_of(lab, path="/refuse"):
                raise AssertionError("it was accepted")
        except websockets.InvalidStatusCode as error:
            expect((error.status_code, error.headers["X-Container"]), (403, "ws"), "refusal")
    run(refused())
    with lab.connect() as client:
        client.request("/refuse", "ws.test", fields=(
            "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
        client.request("/name", "one.test")
        answer = client.response()
        expect((answer.status, answer.body), (403, b"refused\n"), "answer")
        # the server has said Connection: close, or else the next is answered
        if answer.fields.get("connection") != "close":
            expect(client.response().container, "one", "who answers the next")


@needs_websockets
@lib.each(*ENGINES)
def test_many(lab, engine):
    """50 WebSockets to two containers at once, while requests are answered"""
    agent = ready_agent(lab, "--datapath", engine)
    done = threading.Event()
    failed = []

    def requests():
        while not done.is_set():
            with lab.connect() as client:
                for _ in range(10):
                    if client.get("/name", "one.test").container != "one":
                        failed.append("one.test")
    thread = threading.Thread(target=requests)

    async def echo(number):
        host = ("ws.test", "other.test")[number % 2]
        async with client_of(lab, host=host, compression=None) as client:
            for message in messages(number, 40):
                await client.send(message)
                check(await client.recv() == message, f"echo at {host}")

    async def all_of_them():
        await asyncio.gather(*(echo(number) for number in range(50)))
    thread.start()
    try:
        run(all_of_them())
    finally:
        done.set()
        thread.join()
    expect(failed, [], "wrong answers meanwhile")
    wait_for(lambda: not agent.connections(), "all are closed", 10)


@needs_websockets
@lib.each(*ENGINES)
def test_dies(lab, engine):
    """a client that is gone without a close frame is gone at the server; and the reverse"""
    agent = ready_agent(lab, "--datapath", engine)
    mortal = lab.container("mortal", "mortal.test", port=8080, options=(
        "-v", f"{PACKAGES}/websockets:{PACKAGES}/websockets:ro"),
        command=["python3", "/e2e/lib_websocket.py", 8080])
    agent.wait_route("mortal.test", "mortal")

    async def dies():
        client = await client_of(lab)
        await client.send("x" * KiB)
        expect(len(await client.recv()), KiB, "echo")
        client.transport.abort()
        client = await client_of(lab, host="mortal.test")
        await client.send("x")
        expect(await client.recv(), "x", "echo")
        mortal.kill()
        try:
            await client.recv()
            raise AssertionError("a message of the dead")
        except websockets.ConnectionClosed:
            pass
    run(dies())
    wait_for(lambda: not agent.connections(), "both are closed")


lib.main("e2ews")
