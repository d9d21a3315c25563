# SPDX-License-Identifier: MIT
"""Peers that do what they should not, or at a bad moment; each of these once went wrong."""
import time

import lib
from lib import KiB, MiB, check, each, expect, pattern_sha256, wait_for

OTHER = b"GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n"


def app(lab, *flags, keep=True):
    """keep=False: one of the test's own, which it may release."""
    backend = lab.container("app" if keep else "own", "app.test", keep=keep)
    agent = lab.agent(*flags)
    wait_for(lambda: "app.test" in agent.routes(), "app.test is routed")
    return backend, agent


@each("relay", "sockmap")
def test_continue(lab, engine):
    """100 Continue and 103 are passed on at once, before the final answer"""
    backend, _ = app(lab, "--datapath", engine, keep=False)
    for upgrade in ((), ("Connection: Upgrade", "Upgrade: h2c")):
        with lab.connect(timeout=5) as client:
            client.request("/continue", "app.test", method="POST",
                           fields=("Expect: 100-continue", "Content-Length: 5", *upgrade))
            expect(client.head().status, 100, "first answer")
            client.send(b"hello")
            expect(client.response().status, 200, "final answer")
        with lab.connect(timeout=5) as client:
            client.request("/hint", "app.test", fields=upgrade)
            expect(client.head().status, 103, "first answer")
            backend.release()
            expect(client.response().status, 200, "final answer")


@each("relay", "sockmap")
def test_unnoticed_reset(lab, engine):
    """a client's reset is noticed and passed on, though the container reads nothing"""
    backend, agent = app(lab, "--datapath", engine, keep=False)
    with lab.connect() as client:
        client.send(b"POST /up?hold=1 HTTP/1.1\r\nHost: app.test\r\nContent-Length: 99999999\r\n\r\n")
        client.sock.settimeout(1)
        try:
            while client.sock.send(bytes(64 * KiB)):
                pass
        except TimeoutError:
            pass
        client.reset()
    with lab.connect() as client:
        client.request("/nothing", "app.test", fields=("Connection: Upgrade", "Upgrade: x"))
        wait_for(lambda: any("/nothing" in e["line"] for e in backend.log("request")), "it came")
        client.reset()
    with lab.connect() as client:
        client.send(b"POST /up?hold=1 HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\n\r\nx")
        client.half_close()
        wait_for(lambda: len(backend.log("request")) >= 3, "it came")
        client.reset()
    wait_for(lambda: not agent.connections(), "none is left", 15)
    backend.release()


def test_head_and_get(lab):
    """an answer of the agent's own has a body or none by the method of its own request"""
    app(lab)
    with lab.connect() as client:
        client.get("/name", "app.test", method="HEAD")
        answer = client.get("/", "nobody.test")
        expect((answer.status, len(answer.body)), (404, 36), "status and body of the GET")
    with lab.connect() as client:
        client.get("/name", "app.test")
        client.request("/", "nobody.test", method="HEAD")
        expect(client.response("HEAD").status, 404, "status of the HEAD")
        client.ends()


def slowly(client, size, rate, receive=64 * KiB):
    """An answer of `size` bytes, read at `rate` bytes a second."""
    answer = client.head()
    left = size
    while left:
        piece = client.file.read1(min(left, receive))
        check(piece, f"the answer ended {left} bytes early")
        answer.take(piece)
        left -= len(piece)
        time.sleep(len(piece) / rate)  # what is tested is a slow reader
    expect(answer.sha256, pattern_sha256(size), "what arrived")


@each("relay", "sockmap")
def test_long_answer_before_a_refusal(lab, engine):
    """a long answer, read slowly, arrives whole before the refusal of the request behind it"""
    app(lab, "--datapath", engine, "--drain-timeout", "1s")
    with lab.connect(receive_buffer=64 * KiB) as client:
        client.send(b"GET /down?n=%d HTTP/1.1\r\nHost: app.test\r\n\r\n" % (8 * MiB) + OTHER)
        slowly(client, 8 * MiB, MiB)
        expect(client.response().status, 404, "status of the second answer")


def test_queued_tail(lab):
    """what is still queued to a slow client is not cut off by the end that follows it"""
    app(lab)
    with lab.connect(receive_buffer=64 * KiB) as client:
        client.send(b"GET /down?n=%d HTTP/1.1\r\nHost: app.test\r\n\r\n" % MiB)
        client.file.peek(1)
        client.send(OTHER)
        slowly(client, MiB, 150 * KiB)
        expect(client.response().status, 404, "status of the second answer")


def test_outstanding_at_a_proxy(lab):
    """nginx does not see a half-close while it owes an answer, so it does not give it up (499)"""
    backend, agent = app(lab)
    conf = f"{lab.dir}/nginx.conf"
    with open(conf, "w") as file:
        file.write("events {}\nhttp { server { listen 80; location / { proxy_pass "
                   f"http://{backend.address}:8000; }} }} }}\n")
    lab.container("nginx", "nginx.test", image="nginx",
                  options=("-v", f"{conf}:/etc/nginx/nginx.conf:ro"))
    agent.wait_route("nginx.test", "nginx")
    for last, status in ((b"GET /name HTTP/1.1\r\nHost: app.test\r\n\r\n", 200), (OTHER, 404)):
        with lab.connect() as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: nginx.test\r\n\r\n" + last)
            answer = client.response()
            expect((answer.status, answer.body), (200, b"late\n"), "the first answer")
            expect(client.response().status, status, "status of the second answer")


@each("GET /hint", "POST /up?hold=1")
def test_fault_behind_an_unanswered_request(lab, first):
    """a 400 waits for the answer that is outstanding, and nothing of the faulty body is sent"""
    backend = lab.container("lone", "lone.test")
    lab.agent().wait_route("lone.test", "lone")
    with lab.connect() as client:
        client.send(first.encode() + b" HTTP/1.1\r\nHost: lone.test\r\n\r\n"
                    b"POST /up HTTP/1.1\r\nHost: lone.test\r\nTransfer-Encoding: chunked\r\n\r\n"
                    b"zz\r\n")
        if "hint" in first:
            expect(client.head().status, 103, "the first answer's beginning")
        wait_for(lambda: backend.log("request"), "the first request is there")
        client.sock.settimeout(0.3)
        try:
            raise AssertionError(f"before the first answer: {client.sock.recv(1000)}")
        except TimeoutError:
            client.sock.settimeout(20)
        expect(len(backend.log("request")), 1, "requests until then")
        client.file = client.sock.makefile("rb")    # the other takes nothing behind a time-out
        lab.sockets.append(client.file)
        backend.release()
        expect(client.response().status, 200, "status of the first answer")
        expect(client.response().status, 400, "status of the second answer")
        client.ends()
    expect(len(backend.log("body")), int("POST" in first), "bodies that the container took")


def test_max_connections(lab):
    """at --max-connections accepting pauses, whichever worker it is, and nobody is dropped"""
    _, agent = app(lab, "--max-connections", "3", "--workers", "2")
    for _ in range(5):
        clients = [lab.connect() for _ in range(8)]
        for client in clients:
            client.request("/name", "app.test")
        served = []
        while clients:
            def answered():
                return [c for c in clients if c not in served and readable(c)]
            wait_for(lambda: len(served) + len(answered()) >= min(3, len(clients)),
                     "as many as may are served")
            check(len(served) + len(answered()) <= 3, "no more than may are served")
            served += answered()
            client = served.pop(0)
            expect(client.response().status, 200, "status")
            client.close()
            clients.remove(client)
    check(agent.stats().accept_paused > 0, "accepting paused")


def readable(client):
    client.sock.setblocking(False)
    try:
        client.sock.recv(1, lib.socket.MSG_PEEK)
        return True
    except BlockingIOError:
        return False
    finally:
        client.sock.settimeout(20)


def test_head_on_its_way_at_the_stop(lab):
    """half a head when the agent is told to stop: the request is still served"""
    _, agent = app(lab, "--drain-timeout", "20s")
    with lab.connect() as client:
        client.send(b"GET /name HTTP/1.1\r\n")
        wait_for(lambda: agent.status()["counts"]["connections"] == 1, "it is accepted")
        agent.process.terminate()
        wait_for(lambda: "draining" in agent.health()[1], "it drains")
        time.sleep(1.2)  # longer than the time that a connection without a byte gets
        client.send(b"Host: app.test\r\n\r\n")
        expect(client.response().status, 200, "status")
    expect(agent.process.wait(15), 0, "exit status")


lib.main("e2epeers")
