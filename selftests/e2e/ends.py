#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""How exchanges and tunnels end: nothing of an answer is lost, nothing lasts longer than it should."""
import time

import lib
from lib import ENGINES, KiB, MiB, check, expect, pattern_sha256, wait_for

PAUSE_S = 12    # longer than the agent's own patience with a client that has nothing more to get


def setup(lab, *flags):
    container = lab.container("app", "app.test", keep=True)
    agent = lab.agent(*flags)
    agent.wait_route("app.test", "app")
    return container, agent


def say(head, body, **query):
    """The target for an answer of these bytes; see lib_backend.do_say."""
    wire = head.encode() + b"\r\n\r\n" + body
    return "/say?hex=" + wire.hex() + "".join(f"&{k}={v}" for k, v in query.items())


def late_ping(client, agent):
    """The container has ended; what a client still says then makes its kernel send a reset, which
    throws away what the agent has not taken yet."""
    before = agent.stats()
    wire = client.upgrade("source", "app.test", MiB).wire

    def taken():
        moved = agent.stats().since(before)
        return moved.relay_down_bytes + moved.short_bytes == wire + MiB
    wait_for(taken, "the agent has all of it")
    for _ in range(2):
        client.send(b"ping")


CASES = {
    "a tunnel whose container has ended, and whose client says something": late_ping,
    "Content-Length, Connection: close": lambda client, _: client.request(
        f"/down?n={MiB}", "app.test", fields=("Connection: close",)),
    "up to the end of the connection": lambda client, _: client.request(
        f"/down?n={MiB}&framing=eof", "app.test"),
    "a reset of the container behind the whole answer": lambda client, _: client.request(
        say(f"HTTP/1.1 200 OK\r\nContent-Length: {MiB}", b"~", fill=MiB, acked=1, then="reset"),
        "app.test"),
}


@lib.each(*ENGINES)
def test_pause(lab, engine):
    """a client that pauses for 12 s gets the rest of what its container sent"""
    _, agent = setup(lab, "--datapath", engine)
    clients = {}
    for what, ask in CASES.items():
        clients[what] = lab.connect(receive_buffer=64 * KiB)
        ask(clients[what], agent)
    time.sleep(PAUSE_S)     # the silence is what is tested
    for what, client in clients.items():
        tunnel = what.startswith("a tunnel")
        size = 0
        try:
            if not tunnel:
                size = client.response().size
            while tunnel and (piece := client.file.read1(64 * KiB)):
                size += len(piece)
        except ConnectionResetError:
            pass            # behind everything, in the tunnel
        expect(size, MiB, f"bytes that came, {what}")
        client.close()


@lib.each(*ENGINES)
def test_stuck_tail(lab, engine):
    """answers of 0.5 to 3 MiB to clients that pause, so that any part is stuck, arrive whole"""
    setup(lab, "--datapath", engine)
    for framing in ("length", "chunked"):
        clients = {}
        for size in range(MiB // 2, 3 * MiB, 48 * KiB):
            clients[size] = lab.connect(receive_buffer=16 * KiB)
            clients[size].request(f"/down?n={size}&framing={framing}&write=8000", "app.test")
        time.sleep(1)       # until no more fits anywhere
        for size, client in clients.items():
            answer = client.response()
            expect((answer.size, answer.sha256), (size, pattern_sha256(size)), f"{framing}, {size}")
            expect(client.get("/name", "app.test").status, 200, f"the next, {framing}, {size}")
            client.close()


def test_early_end(lab):
    """a container that ends behind an early answer: the client is told, with its request unfinished"""
    setup(lab)
    with lab.connect(timeout=8) as client:
        client.send(b"POST /early?close=1 HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1000\r\n\r\n" +
                    bytes(100))
        expect(client.response().status, 413, "status")
        client.ends()


def test_idle_cut(lab):
    """an answer up to the end that the idle time-out cuts does not look complete"""
    container, _agent = setup(lab, "--idle-timeout", "1s")
    with lab.connect() as client:
        client.request(say("HTTP/1.1 200 OK", b"part", hold=1), "app.test")
        try:
            client.response()
            raise AssertionError("it ends as if it were complete")
        except ConnectionResetError:
            pass
    container.release()


def test_trickle(lab):
    """bytes that cannot be passed on yet keep a connection from being idle"""
    setup(lab, "--idle-timeout", "1s")
    with lab.connect() as client:
        client.send(b"POST /up HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n1;")
        for _ in range(20):
            client.send(b"x")
            time.sleep(0.1)     # the slowness is what is tested
        client.send(b"\r\n!\r\n0\r\n\r\n")
        expect(client.response().status, 200, "status")


def test_drain(lab):
    """the drain does not wait for a request that never comes behind an empty line"""
    _, agent = setup(lab, "--drain-timeout", "60s")
    with lab.connect() as client:
        client.send(b"GET /slow HTTP/1.1\r\nHost: app.test\r\n\r\n\r\n")
        wait_for(lambda: agent.stats().requests == 1, "the request is under way")
        agent.process.terminate()
        expect(client.response().status, 200, "status")
        expect(agent.process.wait(20), 0, "exit status, long before the end of the drain")


def test_reuse(lab):
    """a connection to a container is used again behind long answers"""
    _, agent = setup(lab)
    with lab.connect() as client:
        for _ in range(20):
            expect(client.get(f"/down?n={3 * MiB}", "app.test").size, 3 * MiB, "size")
    expect(agent.stats().upstream_connects, 1, "connections to the container")


def test_slots(lab):
    """idle connections to containers give way: to an upgrade that needs a row in kkm_slots"""
    names = [f"host{i}" for i in range(4)]
    for name in names:
        lab.container(name, f"{name}.test")
    agent = lab.agent("--workers", "1", "--max-connections", "10", "--datapath", "sockmap",
                      limit=300)
    for name in names:
        agent.wait_route(f"{name}.test", name)
    clients = [lab.connect() for _ in range(9)]
    for client in clients:
        for name in names:
            expect(client.get("/name", f"{name}.test").container, name, "who answers")
    check(len(agent.connections()) <= 31, "connections to containers are bounded by descriptors")
    wanted = agent.stats().sockmap_wanted
    with lab.connect() as client:
        client.upgrade("echo", "host0.test")
        expect(agent.stats().sockmap_wanted, wanted + 1, "sockmap_wanted")
    expect(agent.health("/healthz")[0], 200, "the admin address answers")
    for client in clients:
        client.close()


if __name__ == "__main__":
    lib.main("e2eends")
