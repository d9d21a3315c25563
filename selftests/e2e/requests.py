# SPDX-License-Identifier: MIT
"""Each request goes to the container of its Host, whatever connection it comes on.

One client connection, three containers of three domains: framing in all its forms, pipelining,
backends that end or lie, upgrades, and what the agent holds for it.
"""
import itertools
import random
import re
import socket
import threading
import time
from urllib.parse import parse_qsl, urlsplit

import lib
from lib import ENGINES, KiB, MiB, check, expect, pattern, pattern_sha256, wait_for
from lib_backend import chunked, message, mixed

NAMES = ("red", "green", "blue")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POISON = b"HTTP/1.1 200 OK\r\nX-Poison: 1\r\nContent-Length: 6\r\n\r\npoison"
UPGRADE = ("Connection: Upgrade", "Upgrade: opaque")
tags = itertools.count(1)


class Setup:
    """An agent, and the three containers, which stay for all tests; red.test is red, and so on."""

    def __init__(self, lab, engine, *flags):
        self.lab, self.engine = lab, engine
        self.red, self.green, self.blue = (
            lab.container(name, f"{name}.test", keep=True) for name in NAMES)
        self.agent = lab.agent("--datapath", engine, *flags)
        for name in NAMES:
            self.agent.wait_route(f"{name}.test", name)

    def connect(self, **options):
        return Talk(self.lab, **options)

    def used(self, name="red", **options):
        """A client connection with a leg that has carried an answer."""
        client = self.connect(**options)
        client.names(name)
        return client

    def legs(self):
        """The agent's connections to containers, as ss lists them."""
        done = self.lab.edge("ss", "-tnOH", "state", "established", "state", "close-wait",
                             "dport = :8000")
        return done.stdout.splitlines()

    def wait_dropped(self, peer):
        """The agent has closed its end of the connection that the container sees as `peer`."""
        port = peer.rpartition(":")[2]
        wait_for(lambda: not [leg for leg in self.legs() if f":{port} " in leg],
                 f"the agent closes its leg {peer}")


# Answers /HEX/THEN with these bytes as soon as the head is there, reads nothing else, and half a
# second later resets its connection, or holds it.
HASTY = """
import socket, struct, threading, time
def serve(sock):
    head = b""
    while not head.endswith(b"\\r\\n\\r\\n"):
        piece = sock.recv(1)
        if not piece:
            return sock.close()
        head += piece
    _, data, then = head.split(b" ")[1].split(b"/")
    sock.sendall(bytes.fromhex(data.decode()))
    time.sleep(0.5 if then == b"reset" else 60)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
listener = socket.create_server(("", 8001))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def hasty(setup):
    setup.lab.container("hasty", "hasty.test", keep=True, port=8001,
                        command=("python3", "-c", HASTY))
    setup.agent.wait_route("hasty.test", "hasty")


class Talk(lib.Client):
    def __init__(self, lab, **options):
        super().__init__(lab, **options)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def takes(self, wanted, what):
        """Exactly these bytes come next."""
        got = b""
        while len(got) < len(wanted):
            piece = self.file.read1(min(len(wanted) - len(got), MiB))
            if not piece:
                break
            got += piece
            if not wanted.startswith(got):
                break
        if got == wanted:
            return
        at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), len(got))
        raise AssertionError(f"{what}: byte {at} of {len(wanted)}: {got[at:at + 60]!r}, "
                             f"expected {wanted[at:at + 60]!r}, after {got[max(at - 40, 0):at]!r}")

    def rest(self):
        """All that comes, and how it ends."""
        data = b""
        try:
            while piece := self.file.read1(MiB):
                data += piece
        except ConnectionResetError:
            return data, "reset"
        return data, "end"

    def names(self, name, what="who answers"):
        answer = self.get("/name", f"{name}.test")
        expect((answer.status, answer.container, answer.body),
               (200, name, name.encode() + b"\n"), what)

    def own(self, status, what, method="GET"):
        """An answer of the agent's own, and the end."""
        try:
            answer = self.response(method)
        except ConnectionError as error:
            raise AssertionError(f"{what}: {error}, expected {status}") from error
        expect((answer.status, answer.container), (status, None), what)
        expect(answer.fields.get("content-type"), "text/plain; charset=utf-8", f"type, {what}")
        data, _ = self.rest()
        expect(data, b"", f"what comes behind the agent's {status}, {what}")


def say(data, then="keep", **options):
    """The target for which the backend answers with these bytes."""
    more = "".join(f"&{key}={value.hex() if isinstance(value, bytes) else value}"
                   for key, value in options.items())
    return f"/say?hex={data.hex()}&then={then}{more}"


def wire(target, name, method="GET", *fields, version="1.1"):
    lines = (f"{method} {target} HTTP/{version}", f"Host: {name}.test", *fields, "", "")
    return "\r\n".join(lines).encode()


def tagged(target):
    """A target that is told from all others, and what does so."""
    tag = f"tag={next(tags)}."
    return f"{target}{'&' if '?' in target else '?'}{tag}", tag


def deliveries(container, tag):
    """The peers from which the container got the requests of this tag."""
    return [e["peer"] for e in container.log("request") if f"{tag}" in e["line"]]


def accepts(container):
    return len(container.log("accept"))


def last_peer(container):
    return container.log("request")[-1]["peer"]


def how_ended(container, peer):
    return wait_for(lambda: [e["how"] for e in container.log("end") if e["peer"] == peer],
                    f"the connection of {peer} ends at {container.name}")[-1]


# All framings, all orders

def mix(rng, large=0.04):
    """One request for /mix: its bytes, and those of its answer."""
    name = rng.choice(NAMES)
    method = rng.choice(("GET", "GET", "HEAD", "POST", "PUT"))

    def size():
        if rng.random() < large:
            return rng.randint(100_000, 500_000)
        return rng.choice((0, 1, rng.randint(2, 300), rng.randint(300, 5000),
                           rng.randint(5000, 40_000)))
    framing = rng.choice(("length", "chunked"))
    hints = rng.choice((0, 0, 0, 1, 2))
    status = rng.choice((200, 200, 200, 404, 204, 304))
    target = (f"/mix?seed={rng.getrandbits(32)}&n={size()}&framing={framing}&status={status}"
              f"&hints={hints}")
    blanks = rng.choice(("", " ", "  "))
    request = [f"{method} {target} HTTP/1.1\r\nhOsT:{blanks}{name}.test\r\n".encode()]
    framing = rng.choice(("none", "zero", "length", "chunked"))
    if method in ("GET", "HEAD"):
        framing = rng.choice(("none", "none", "none", framing))
    body = rng.randbytes(size() if method in ("POST", "PUT") else rng.randint(1, 99))
    request.append({"none": b"\r\n", "zero": b"Content-Length: 0\r\n\r\n",
                    "length": b"Content-Length: %d\r\n\r\n" % len(body),
                    "chunked": b"Transfer-Encoding: chunked\r\n\r\n"}[framing])
    request.append({"length": body, "chunked": chunked(rng, body)}.get(framing, b""))
    query = dict(parse_qsl(urlsplit(target).query))
    return b"".join(request), mixed(name, lib.sha256(request), method, query)


def seeded():
    seed = random.randrange(1 << 32)
    lib.comment(f"seed {seed}")
    return random.Random(seed)


@lib.each(*ENGINES)
def test_thousand(lab, engine):
    """1,000 requests on one connection, Hosts at random, all framings: each has its own answer"""
    setup = Setup(lab, engine)
    rng = seeded()
    with setup.connect() as client:
        for number in range(1000):
            request, answer = mix(rng)
            cut = rng.choice((0, rng.randint(0, len(request)), rng.randint(0, 300)))
            client.send(request[:cut])
            client.send(request[cut:])
            client.takes(answer, f"answer {number} to {request[:150]!r}")
        client.names("red", "who answers at last")
        lib.comment(f"{engine}: {setup.agent.stats().upstream_connects} connections to containers")


@lib.each(*ENGINES)
def test_two_hundred_pipelined(lab, engine):
    """200 pipelined requests over three Hosts, written in one go, are answered in order"""
    setup = Setup(lab, engine)
    rng = seeded()
    for large in (0, 0.02):
        requests, answers = zip(*(mix(rng, large) for _ in range(200)))
        with setup.connect() as client:
            writer = threading.Thread(target=client.send, args=(b"".join(requests),), daemon=True)
            writer.start()
            for number, answer in enumerate(answers):
                client.takes(answer, f"answer {number} to {requests[number][:150]!r}")
            writer.join()
    with setup.connect() as client:
        client.send(b"".join(wire("/name", NAMES[i % 3]) for i in range(200)))
        for number in range(200):
            expect(client.response().container, NAMES[number % 3], f"who answers {number}")


@lib.each(*ENGINES)
def test_many_at_once(lab, engine):
    """24 clients at once, each with 60 requests of all framings, some of them pipelined"""
    setup = Setup(lab, engine)
    rng = seeded()
    errors = []

    def talk(client, pairs):
        try:
            while pairs:
                batch, pairs = pairs[:len(pairs) % 4 + 1], pairs[len(pairs) % 4 + 1:]
                writer = threading.Thread(target=client.send, daemon=True,
                                          args=(b"".join(request for request, _ in batch),))
                writer.start()
                for request, answer in batch:
                    client.takes(answer, f"answer to {request[:150]!r}")
                writer.join()
        except (AssertionError, OSError) as error:
            errors.append(error)
    threads = [threading.Thread(target=talk, daemon=True, args=(
        setup.connect(), [mix(rng, 0.01) for _ in range(60)])) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    expect(errors, [], "what went wrong")
    check(not [thread for thread in threads if thread.is_alive()], "all came to the end")


@lib.each(*ENGINES)
def test_both_in_turn(lab, engine):
    """large answers and uploads by turns between containers, one of 16 MiB each, in odd writes"""
    setup = Setup(lab, engine)
    with setup.connect() as client:
        for number, size in enumerate((1000, 16 * MiB, 0, 300_000, 4 * MiB, 1)):
            for framing in ("length", "chunked"):
                name = NAMES[number % 3]
                answer = client.get(f"/down?n={size}&framing={framing}&write=60000", f"{name}.test")
                expect((answer.container, answer.size, answer.sha256),
                       (name, size, pattern_sha256(size)), f"{framing}, {size} bytes down")
                name = NAMES[(number + 1) % 3]
                client.request("/up", f"{name}.test", method="PUT",
                               fields=(f"Content-Length: {size}",))
                for piece in pattern(size, 65537):
                    client.send(piece)
                answer = client.response()
                expect((answer.container, pattern_sha256(size) in answer.body.decode()),
                       (name, True), f"{size} bytes up")


def test_slow_later_head(lab):
    """a later head: --head-timeout runs from its first byte, however long it was idle before"""
    setup = Setup(lab, "relay", "--head-timeout", "1s")
    with setup.used() as client:
        time.sleep(1.3)     # longer than a head may take
        client.names("green", "after an idle time")
        time.sleep(0.6)
        begun = time.monotonic()
        for piece in (b"GET /name HTTP/1.1\r\nHo", b"st: red.te"):
            client.send(piece)
            time.sleep(0.3)
        client.own(408, "a later head that is not complete")
        check(0.9 < time.monotonic() - begun < 4, f"after {time.monotonic() - begun} s")
    with setup.used() as client:
        client.send(b"\r\n")      # an empty line is no begin of one
        time.sleep(1.3)
        client.names("red", "behind an empty line")


def test_own_answer_drains(lab):
    """an answer of the agent's own with much of the request unread: the end comes, no reset"""
    setup = Setup(lab, "relay")
    with setup.used() as client:
        client.send(wire("/up", "none", "POST", "Content-Length: 900000") + bytes(300_000))
        expect(client.response().status, 404, "status")
        for _ in range(5):
            client.send(bytes(100_000))     # a reset would be an error here
            time.sleep(0.05)
        expect(client.rest(), (b"", "end"), "what comes behind it")


def test_paused_while_connecting(lab):
    """a container that is paused while the agent connects to it gets no request: 503"""
    setup = Setup(lab, "relay", "--connect-timeout", "10s")
    late = lab.container("late", "late.test")
    setup.agent.wait_route("late.test", "late")
    rule = ("OUTPUT", "-p", "tcp", "-d", late.address, "--dport", "8000", "-j", "DROP")
    lab.iptables("-I", *rule)
    with setup.used() as client:
        try:
            client.request("/name", "late.test")
            wait_for(lambda: setup.agent.stats().upstream_connects == 2, "it connects")
            lab.docker("pause", late.id)
            wait_for(lambda: setup.agent.states("late.test") == {"late": "paused"}, "it is paused")
        finally:
            lab.iptables("-D", *rule)
        client.own(503, "the answer")   # as soon as the SYN is sent again


# Pipelining

@lib.each(*ENGINES)
def test_behind_a_slow_answer(lab, engine):
    """requests pipelined behind a slow answer wait for it, to whichever container they go"""
    setup = Setup(lab, engine)
    with setup.connect() as client:
        client.send(wire("/slow", "red") + wire("/name", "green") + wire("/name", "blue") +
                    wire("/slow", "green") + wire("/name", "red"))
        bodies = [client.response().body for _ in range(5)]
    expect(bodies, [b"late\n", b"green\n", b"blue\n", b"late\n", b"red\n"], "answers")


BAD = {
    "an unknown host": (404, wire("/name", "none")),
    "CONNECT": (405, b"CONNECT red.test:80 HTTP/1.1\r\nHost: red.test:80\r\n\r\n"),
    "two Hosts": (400, wire("/name", "red", "GET", "Host: green.test")),
    "two lengths": (400, wire("/name", "red", "POST", "Content-Length: 3", "Content-Length: 3")),
    "not HTTP": (400, b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"),
    "a bad chunk size": (400, wire("/up", "red", "POST", "Transfer-Encoding: chunked") +
                         b"3\r\nabc\r\nZZ\r\n"),
    "a coding": (501, wire("/name", "red", "POST", "Transfer-Encoding: gzip, chunked")),
    "a large head": (431, wire("/name", "red", "GET", "X: " + "x" * 70 * KiB)),
}


@lib.each(*ENGINES)
def test_pipelined_bad(lab, engine):
    """a bad request behind good ones: their answers, then its own, then the end"""
    setup = Setup(lab, engine)
    for what, (status, request) in BAD.items():
        for slow in (False, True):
            target, tag = tagged("/name")
            with setup.connect() as client:
                client.send(wire("/slow" if slow else "/name", "red") + wire("/name", "green") +
                            request + wire(target, "blue") + wire(target, "red"))
                expect(client.response().body, b"late\n" if slow else b"red\n", f"first, {what}")
                expect(client.response().body, b"green\n", f"second, {what}")
                client.own(status, what)
            expect(deliveries(setup.red, tag) + deliveries(setup.blue, tag), [],
                   f"requests delivered behind {what}")


# Each with a | before the byte at which it goes wrong.
BAD_CHUNKS = (b"|ZZ\r\n", b"5| \r\nhello\r\n", b"| 5\r\nhello\r\n", b"|-1\r\n", b"|+5\r\nhello\r\n",
              b"0|x5\r\nhello\r\n", b"|\r\n", b"ffffffffffffffff|f\r\n", b"5|\nhello\n",
              b"5\r\nhello|!", b"5;a|\nb\r\nhello\r\n", b"5;a\r|b\r\nhello\r\n",
              b"3\r\nabc|def\r\n", b"0| \r\n\r\n", b"0\r\nno| trailer\r\n\r\n")


@lib.each(*ENGINES)
def test_bad_chunks_up(lab, engine):
    """a bad chunk in a request: 400, or the end once an answer has begun; the leg is reset"""
    setup = Setup(lab, engine)
    good = b"2;x=y\r\nab\r\n"
    for bad in BAD_CHUNKS:
        for apart in (False, True):
            target, tag = tagged("/tape")
            head = wire(target, "red", "POST", "Transfer-Encoding: chunked")
            body = good + bad.replace(b"|", b"") + b"0\r\n\r\n"
            with setup.used("green") as client:
                client.send(head if apart else head + body)
                if apart:
                    wait_for(lambda: deliveries(setup.red, tag), "the head arrives")
                    client.send(body)
                client.own(400, f"{bad}")
            for peer in deliveries(setup.red, tag):
                expect(how_ended(setup.red, peer), "ConnectionResetError", f"how it ended, {bad}")
                tape = [bytes.fromhex(e["hex"]) for e in setup.red.log("tape") if e["peer"] == peer]
                most = good + bad.partition(b"|")[0]
                check(most.startswith(tape[-1]), f"{bad}: {tape[-1]} came")
    with setup.used("green") as client:
        client.send(wire("/early", "red", "POST", "Transfer-Encoding: chunked") + good)
        expect(client.response().status, 413, "the early answer")
        client.send(b"ZZ\r\n" + wire("/name", "green"))
        expect(client.rest()[0], b"", "what comes behind it")


@lib.each(*ENGINES)
def test_behind_connection_close(lab, engine):
    """Connection: close, by either side, however spelled: its answer, then the end"""
    setup = Setup(lab, engine)
    for field in ("Connection: close", "connection: x , CLOSE",
                  "Connection: x\r\nConnection: Close"):
        target, tag = tagged("/name")
        with setup.used("green") as client:
            client.send(wire("/name", "red", "GET", field) + wire(target, "red") +
                        wire(target, "green"))
            expect(client.response().container, "red", f"answer to {field!r}")
            expect(client.rest()[0], b"", f"what comes behind the answer to {field!r}")
        expect(deliveries(setup.red, tag) + deliveries(setup.green, tag), [], "behind the last")
    for answer in (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
                   b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nok"):
        for then in ("close", "keep"):
            target, tag = tagged("/name")
            with setup.used("green") as client:
                client.send(wire(say(answer, then), "red") + wire(target, "red") +
                            wire(target, "green"))
                client.takes(answer, "an answer with Connection: close")
                data, _ = client.rest()
                expect(data, b"", f"what comes behind it, {then}")
            expect(deliveries(setup.red, tag), [], "requests behind the last at its container")


# Legs that end

@lib.each(*itertools.product(ENGINES, ("close", "reset")))
def test_idle_leg_ends(lab, engine, then):
    """an idle leg's end is not the client's: the next request takes a new one"""
    setup = Setup(lab, engine)
    with setup.used() as client:
        for hold in (False, True):
            for method in ("GET", "POST"):
                setup.red.ask("arm")
                client.request(say(OK, then, **({"hold": 1} if hold else {})), "red.test")
                client.takes(OK, "answer")
                peer = last_peer(setup.red)
                client.names("green", "another container in between")
                setup.red.release()
                how_ended(setup.red, peer)
                setup.wait_dropped(peer)
                before = accepts(setup.red)
                answer = client.get("/up", "red.test", method=method)
                expect((answer.status, answer.container), (200, "red"), f"{method} afterwards")
                expect(accepts(setup.red) - before, 1, "connections that the container accepted")
                client.names("green", "another container afterwards")


@lib.each(*ENGINES)
def test_leg_ends_as_a_request_arrives(lab, engine):
    """a container ends its connection behind each answer, as the next GET is on its way"""
    setup = Setup(lab, engine)
    with setup.connect() as client:
        for number in range(200):
            client.request(say(OK, "close" if number % 2 else "reset"), "red.test")
            client.takes(OK, f"answer {number}")
        client.names("red", "the container")
    with setup.connect() as client:     # the same, pipelined
        client.send(b"".join(wire(say(OK, "close"), "red") for _ in range(100)))
        for number in range(100):
            client.takes(OK, f"pipelined answer {number}")


CUT = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "chunked, in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    "chunked, behind a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "chunked, before the trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    "large": b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 2000,
}


@lib.each(*itertools.product(ENGINES, ("close", "reset")))
def test_cut_answers(lab, engine, then):
    """an answer that is cut, by FIN or reset, is cut in the same way for the client"""
    setup = Setup(lab, engine)
    endless = {"to the end": b"HTTP/1.1 200 OK\r\n\r\nabc",
               "to the end, HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n"}
    for what, answer in {**CUT, **(endless if then == "reset" else {})}.items():
        for used in (False, True):
            setup.red.ask("arm")
            target, tag = tagged(say(answer, then, hold=1))
            with setup.used("red" if used else "green") as client:
                client.send(wire(target, "red") + wire("/name", "green"))
                client.takes(answer, f"what comes of it, {what}")
                setup.red.release()
                expect(client.rest(), (b"", "end" if then == "close" else "reset"),
                       f"what comes behind it, {what}")
            expect(len(deliveries(setup.red, tag)), 1, f"deliveries, {what}")


# The rule of retry

@lib.each(*itertools.product(ENGINES, ("close", "reset")))
def test_retry(lab, engine, how):
    """a used leg that ends without a byte: idempotent requests are sent once more on a fresh one"""
    setup = Setup(lab, engine)
    for method in ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"):
        target, tag = tagged(f"/once?t={next(tags)}&how={how}")
        body = b"b" * 1000 if method == "PUT" else None
        with setup.used() as client:
            answer = client.get(target, "red.test", method=method, body=body)
            expect((answer.status, answer.container), (200, "red"), f"answer to {method}")
            if method == "PUT":
                check(lib.sha256([body]) in answer.body.decode(), "the body of the second PUT")
            client.names("green", "another container afterwards")
            client.names("red", "the container afterwards")
        peers = deliveries(setup.red, tag)
        expect((len(peers), len(set(peers))), (2, 2), f"deliveries of {method}, connections")


@lib.each(*itertools.product(ENGINES, ("close", "reset")))
def test_retry_is_fresh(lab, engine, how):
    """with two legs to the container, the second try takes neither"""
    setup = Setup(lab, engine)
    with setup.used() as client:
        peers = {last_peer(setup.red)}
        client.request(say(OK), "red.test", fields=UPGRADE)     # by sockmap: a leg of its own
        client.takes(OK, "a refused upgrade")
        peers.add(last_peer(setup.red))
        target, tag = tagged(f"/once?t={next(tags)}&how={how}")
        expect(client.get(target, "red.test").status, 200, "status")
        first, second = deliveries(setup.red, tag)
        expect((first in peers, second in peers), (True, False), "is it a known leg, first, second")


@lib.each(*itertools.product(ENGINES, ("close", "reset")))
def test_never_twice(lab, engine, how):
    """POST, PATCH and methods unknown are never sent twice: 502"""
    setup = Setup(lab, engine)
    for method in ("POST", "PATCH", "PURGE", "get", "LOCK"):
        for body in (None, b"body"):
            target, tag = tagged(f"/once?t={next(tags)}&how={how}")
            with setup.used() as client:
                client.request(target, "red.test", method=method, body=body)
                client.own(502, f"answer to {method}")
            expect(len(deliveries(setup.red, tag)), 1, f"deliveries of {method}")


@lib.each(*itertools.product(ENGINES, ("close", "reset")))
def test_no_retry(lab, engine, how):
    """not again: on a fresh leg, after a byte of an answer, a large body, a second time"""
    setup = Setup(lab, engine)

    def delivered(what, target, count, used=True, method="GET", size=0, first=b""):
        target, tag = tagged(target)
        with setup.used("red" if used else "green") as client:
            fields = (f"Content-Length: {size}",) if size else ()
            client.request(target, "red.test", method=method, fields=fields)
            for piece in pattern(size, 64 * KiB):
                client.send(piece)
            client.takes(first, f"what comes first, {what}")
            if not first:
                client.own(502, what, method)
            else:
                data, _ = client.rest()
                check(data == b"" or data.startswith(b"HTTP/1.1 502 "), f"{what}: {data[:60]}")
        peers = deliveries(setup.red, tag)
        expect((len(peers), len(set(peers))), (count, count), f"deliveries, {what}")
    for method in ("GET", "HEAD", "DELETE"):
        delivered(f"{method} on a fresh leg", f"/once?t={next(tags)}&how={how}", 1, False, method)
        delivered(f"{method}, ended twice", f"/gone?how={how}", 2, method=method)
        delivered(f"{method}, ended on a fresh leg", f"/gone?how={how}", 1, False, method)
    for size in (66_000, 100_000, 130_000, 16 * MiB):   # just too large to be kept, or at all
        delivered(f"a PUT of {size} bytes", f"/once?t={next(tags)}&how={how}", 1, method="PUT",
                  size=size)
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    if how == "close":
        delivered("after a 103", say(hint, how), 1, first=hint)
        for part in (b"H", b"HTTP/1.1 200 OK\r\nContent-Le"):
            delivered(f"after {part}", say(part, how), 1)


@lib.each(*ENGINES)
def test_post_and_idle_legs(lab, engine):
    """POST and PATCH reuse a leg within a second of its last answer, then take a new one"""
    setup = Setup(lab, engine)
    with setup.used() as client:
        for method in ("POST", "PATCH"):
            setup.red.ask("arm")    # the second begins with the answer, not with the request
            timer = threading.Timer(1.3, setup.red.release)
            timer.start()
            expect(client.get("/up?hold=1", "red.test").status, 200, "status of a slow answer")
            before = accepts(setup.red)
            for _ in range(3):
                answer = client.get("/up", "red.test", method=method, body=b"x")
                expect(answer.status, 200, "status")
            timer.join()
            expect(accepts(setup.red) - before, 0, f"new connections for {method} at once")
            peer = last_peer(setup.red)
            time.sleep(1.2)     # that much time has to pass
            client.names("green", "another container, which keeps only its own leg busy")
            expect(client.get("/up", "red.test", method=method, body=b"x").status, 200, "status")
            expect(accepts(setup.red) - before, 1, f"new connections for {method} after 1.2 s")
            check(last_peer(setup.red) != peer, "it is not the old one")
            client.names("red", "who answers afterwards")


def test_idle_legs(lab):
    """a leg is used again when idle for 1.2 s, but not by a PUT of which not all is at hand"""
    setup = Setup(lab, "relay")
    with setup.used() as client:
        peer = last_peer(setup.red)
        for idle, method, size, same in ((0.5, "POST", 5, True), (1.2, "GET", 0, True),
                                         (1.2, "PUT", 5, True), (1.2, "PUT", 100_000, False)):
            time.sleep(idle)    # that much time has to pass
            answer = client.get("/up", "red.test", method=method, body=b"x" * size)
            expect((answer.status, last_peer(setup.red) == peer), (200, same),
                   f"status, and is it the same leg, {method} of {size} bytes after {idle} s")


def test_unused_leg(lab):
    """a leg that nobody uses ends after --idle-timeout, though its client speaks to others"""
    setup = Setup(lab, "relay", "--idle-timeout", "1s")
    with setup.used() as client:
        peer, begun = last_peer(setup.red), time.monotonic()
        while not (ends := [e["how"] for e in setup.red.log("end") if e["peer"] == peer]):
            check(time.monotonic() - begun < 5, "the leg ends")
            client.names("green", "another container")
            time.sleep(0.1)
        expect(ends, ["eof"], "how it ends")
        check(time.monotonic() - begun > 0.9, f"after {time.monotonic() - begun} s")
        client.names("red", "who answers afterwards")


def test_one_other_replica(lab):
    """three replicas that refuse the connect: two are tried, then it is 502"""
    names = [f"deaf{i}" for i in range(3)]
    for name in names:
        lab.container(name, "deaf.test", wait=False,
                      command=("python3", "/e2e/lib_backend.py", 8005))
    agent = lab.agent()
    agent.wait_route("deaf.test", *names)
    for number, method in enumerate(("GET", "POST"), 1):
        with Talk(lab) as client:
            client.request("/name", "deaf.test", method=method)
            client.own(502, f"answer to {method}")
        expect(agent.stats().upstream_connects, 2 * number, "upstream_connects")


def test_other_replica(lab):
    """a replica that refuses the connect: the other one takes the request, POST too"""
    lab.container("deaf", "pair.test", wait=False,
                  command=("python3", "/e2e/lib_backend.py", 8005))
    lab.container("keen", "pair.test")
    agent = lab.agent()
    agent.wait_route("pair.test", "deaf", "keen")
    clients = [Talk(lab) for _ in range(10)]
    for number, client in enumerate(clients):
        answer = client.get("/name", "pair.test", method="POST" if number % 2 else "GET")
        expect((answer.status, answer.container), (200, "keen"), f"answer to client {number}")


# Ends of messages

@lib.each(*ENGINES)
def test_answer_before_the_end(lab, engine):
    """413 while the body is still coming: it arrives; the rest is carried, or the end comes"""
    setup = Setup(lab, engine)
    body = b"".join(pattern(300_000))
    with setup.used("green") as client:
        for framing in ("length", "chunked"):
            if framing == "length":
                field, data = f"Content-Length: {len(body)}", body
            else:
                field, data = "Transfer-Encoding: chunked", chunked(random.Random(1), body)
            client.send(wire("/early", "red", "POST", field) + data[:2000])
            answer = client.response()
            expect((answer.status, answer.container), (413, "red"), "the early answer")
            client.send(data[2000:])
            client.names("blue", "the next request")
            client.names("red", "one more to that container")
            wait_for(lambda: lib.sha256([data]) in [e["sha256"] for e in setup.red.log("body")],
                     "the container has the whole body")
    with setup.used() as client:
        client.request("/early?close=1", "red.test", method="POST",
                       fields=(f"Content-Length: {64 * MiB}",))
        thread = threading.Thread(target=upload, args=(client, 64 * MiB), daemon=True)
        thread.start()
        answer = client.response()
        expect((answer.status, answer.body), (413, b"large\n"), "the answer with Connection: close")
        expect(client.rest()[0], b"", "what comes behind it")
        client.close()
        thread.join(20)
        check(not thread.is_alive(), "the writer comes to an end")


@lib.each("relay", "responses")     # `both`: its receive buffer is all that it is sent unread
def test_unread(lab, engine):
    """a container that leaves a request unread which it has answered: the next takes a new leg"""
    setup = Setup(lab, engine)
    hasty(setup)
    with setup.used("green") as client:
        for number in range(2):
            client.request(f"/{OK.hex()}/hold", "hasty.test", method="POST", body=bytes(600_000))
            client.takes(OK, f"early answer {number}")


@lib.each(*ENGINES)
def test_hasty_backend(lab, engine):
    """an early answer, then a reset or a bad chunk: what follows of the body is no request"""
    setup = Setup(lab, engine)
    hasty(setup)
    target, tag = tagged("/name")
    hidden = wire(target, "green") * 10
    with setup.used("green") as client:     # all of the answer, then a reset
        client.send(wire(f"/{OK.hex()}/reset", "hasty", "POST", "Content-Length: 10000") + b"begin")
        client.takes(OK, "the early answer")
        try:
            client.send(hidden)
            wait_for(lambda: not [leg for leg in setup.legs() if ":8001 " in leg], "it is reset")
            client.send(hidden)
        except OSError:
            pass
        expect(client.rest()[0], b"", "what comes behind the answer")
    begun = b"HTTP/1.0 200 OK\r\n\r\npart"
    with setup.used("green") as client:     # an answer up to the end, and a fault in the request
        client.send(wire(f"/{begun.hex()}/hold", "hasty", "POST", "Transfer-Encoding: chunked"))
        client.takes(begun, "the begin of an answer")
        client.send(b"ZZ\r\n" + hidden)
        expect(client.rest(), (b"", "reset"), "what comes behind it")
    expect(deliveries(setup.green, tag), [], "requests out of a body")
    agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: opaque\r\n\r\n"
    with setup.used("green") as client:     # it cannot have seen what it agrees to
        client.send(wire(f"/{agreed.hex()}/hold", "hasty", "POST", *UPGRADE,
                         "Content-Length: 1000") + b"begin")
        client.own(502, "a 101 before the end of the request")


def upload(client, size):
    try:
        for piece in pattern(size, 64 * KiB):
            client.send(piece)
    except OSError:
        pass    # the other side may close before the end


@lib.each(*ENGINES)
def test_informational(lab, engine):
    """100 Continue is waited for, 103 comes before the answer, both on a connection that goes on"""
    setup = Setup(lab, engine)
    with setup.used("green") as client:
        for _ in range(2):
            client.request("/continue", "red.test", method="PUT",
                           fields=("Expect: 100-continue", "Content-Length: 5"))
            client.takes(b"HTTP/1.1 100 Continue\r\n\r\n", "the 100")
            client.send(b"hello")
            expect(client.response().body, b"continued\n", "the answer")
            client.names("blue")
            setup.red.ask("arm")
            client.request("/hint", "red.test")
            client.takes(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", "the 103")
            setup.red.release()
            expect(client.response().body, b"hinted\n", "the answer")
            client.names("blue")


EMPTY = {
    "HEAD, length": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"),
    "HEAD, chunked": ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "HEAD, neither": ("HEAD", b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"),
    "304, length": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 12345\r\n\r\n"),
    "304, neither": ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "length 0": ("GET", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n"),
    "no chunk": ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
}


@lib.each(*ENGINES)
def test_answers_without_a_body(lab, engine):
    """answers that end with their head, whatever length they tell: the connection goes on"""
    setup = Setup(lab, engine)
    with setup.used("green") as client:
        for what, (method, answer) in EMPTY.items():
            client.request(say(answer), "red.test", method=method)
            client.takes(answer, what)
            client.names("green", f"another container after {what}")
            client.names("red", f"the container after {what}")


@lib.each(*ENGINES)
def test_http_1_0(lab, engine):
    """HTTP/1.0: the end behind the answer, unless both sides keep it alive; answers to EOF"""
    setup = Setup(lab, engine)
    with setup.used("green") as client:
        client.send(wire("/name", "red", version="1.0"))
        expect(client.response().container, "red", "answer to HTTP/1.0")
        expect(client.rest(), (b"", "end"), "what comes behind it")
    alive = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
    with setup.connect() as client:
        for name in ("red", "green", "red"):
            client.send(wire(say(alive), name, "GET", "Connection: keep-alive", version="1.0"))
            client.takes(alive, "answer to HTTP/1.0 with keep-alive")
        client.send(wire("/name", "blue", version="1.0"))
        expect(client.response().container, "blue", "answer to HTTP/1.0 at last")
        expect(client.rest(), (b"", "end"), "what comes behind it")
    for head in (b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n",
                 b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n"):
        with setup.used("green") as client:
            client.request(say(head + b"~\r\n\r\n" + POISON, "close", fill=70_000), "red.test")
            client.takes(head + b"x" * 70_000 + b"\r\n\r\n" + POISON, "an answer to EOF")
            expect(client.rest(), (b"", "end"), "what comes behind it")
    for size in (0, 1, 300_000, 4 * MiB):
        with setup.used() as client:
            answer = client.get(f"/down?n={size}&framing=eof", "red.test")
            expect((answer.size, answer.sha256), (size, pattern_sha256(size)), f"{size} to EOF")


# Backends that lie

def ok(*fields, body=b"hello"):
    return b"\r\n".join((b"HTTP/1.1 200 OK", *fields, b"", body))


FAULTS = {
    "two lengths": ok(b"Content-Length: 5", b"Content-Length: 6"),
    "two equal lengths": ok(b"Content-Length: 5", b"content-length: 5"),
    "a list of lengths": ok(b"Content-Length: 5, 5"),
    "length and coding": ok(b"Content-Length: 5", b"Transfer-Encoding: chunked",
                            body=b"0\r\n\r\n"),
    "coding and length": ok(b"Transfer-Encoding: chunked", b"Content-Length: 5",
                            body=b"0\r\n\r\n"),
    "gzip": ok(b"Transfer-Encoding: gzip"),
    "gzip, chunked": ok(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunked, chunked": ok(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked",
                           body=b"0\r\n\r\n"),
    "length with a sign": ok(b"Content-Length: +5"),
    "negative length": ok(b"Content-Length: -5"),
    "hexadecimal length": ok(b"Content-Length: 0x5"),
    "empty length": ok(b"Content-Length:"),
    "huge length": ok(b"Content-Length: 18446744073709551621"),
    "SSH": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "a page without a head": b"<html>HTTP/1.1 200 OK\r\n\r\n",
    "TLS": b"\x15\x03\x03\x00\x02\x02\x28",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80",
    "version": b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "version in small": b"http/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello",
    "bare LF": ok(b"Content-Length: 5").replace(b"\r\n", b"\n"),
    "bare LF in the middle": ok(b"X: a\nContent-Length: 5"),
    "bare CR": ok(b"X: a\rb", b"Content-Length: 5"),
    "NUL": ok(b"X: a\0b", b"Content-Length: 5"),
    "obs-fold": ok(b"X: a", b" b", b"Content-Length: 5"),
    "blank before the colon": ok(b"Content-Length : 5"),
    "no colon": ok(b"Content-Length 5", b"Content-Length: 5"),
    "101 not asked for": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                         b"Upgrade: opaque\r\n\r\nopaque bytes",
    "a large head": ok(b"X: ~", b"Content-Length: 5"),
    "a large head without an end": b"HTTP/1.1 200 OK\r\nX: ~",
}


@lib.each(*ENGINES)
def test_faulty_backends(lab, engine):
    """an answer that is not HTTP, or framed twice: 502, and not a byte of it reaches the client"""
    setup = Setup(lab, engine)
    for what, answer in FAULTS.items():
        fill = 70_000 if "large" in what else 1
        for then, step, used, method in (("keep", 0, "red", "GET"), ("close", 0, "green", "POST"),
                                         ("close", 1, "green", "GET")):
            if step and fill > 1 or then == "keep" and what in ("TLS", "HTTP/2"):
                continue    # so short that a lenient reader would wait for more
            with setup.used(used) as client:
                target, tag = tagged(say(answer, then, step=step, fill=fill))
                client.request(target, "red.test", method=method)
                client.own(502, f"{what}, step {step}")
            expect(len(deliveries(setup.red, tag)), 1, f"deliveries, {what}")
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    for what in ("two lengths", "SSH", "101 not asked for"):    # behind a 103
        with setup.used() as client:
            client.request(say(hint + FAULTS[what], "close"), "red.test")
            data, _ = client.rest()
            if data.startswith(hint):
                data = data[len(hint):]
            check(data == b"" or data.startswith(b"HTTP/1.1 502 "), f"{what} behind a 103: {data}")


@lib.each(*ENGINES)
def test_bad_chunks(lab, engine):
    """a bad chunk in an answer: the connection is cut, with no byte from there on"""
    setup = Setup(lab, engine)
    good = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6;x=y\r\nchunk1\r\n2\r\nc2\r\n"
    for bad in BAD_CHUNKS:
        for step in (0, 1):
            with setup.used("green") as client:
                answer = good + bad.replace(b"|", b"") + b"0\r\n\r\n"
                client.request(say(answer, step=step), "red.test")
                data, _ = client.rest()
            most = good + bad.partition(b"|")[0]
            check(most.startswith(data), f"{bad}: {data[len(good) - 10:]!r} came")


LONGER = {
    "two answers": ("GET", OK, POISON),
    "a line end": ("GET", OK, b"\r\n"),
    "rubbish": ("GET", OK, b"rubbish"),
    "HEAD with a body": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n", POISON),
    "204 with a body": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", POISON),
    "304 with a body": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", POISON),
    "chunked": ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                POISON),
    "a 103": ("GET", OK, b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "a 408": ("GET", OK, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"),
}


@lib.each(*itertools.product(ENGINES, ("at once", "later")))
def test_poison(lab, engine, when):
    """bytes behind an answer never reach the client, and that leg carries no other request"""
    setup = Setup(lab, engine)
    for what, (method, answer, more) in LONGER.items():
        setup.red.ask("arm")
        target, tag = tagged(say(answer + more) if when == "at once" else
                             say(answer, hold=1, later=more))
        with setup.used() as client:
            client.request(target, "red.test", method=method)
            client.takes(answer, f"the answer, {what}")
            peer = deliveries(setup.red, tag)[-1]
            client.names("green", f"another container, {what}")
            setup.red.release()
            how_ended(setup.red, peer)
            for _ in range(2):
                client.names("red", f"the next answer, {what}")
                client.names("blue", f"the one after, {what}")
            check(last_peer(setup.red) != peer, f"the leg is not used again, {what}")
    for what, (method, answer, more) in LONGER.items() if when == "at once" else ():
        with setup.used() as client:    # the next request to that container is there already
            client.send(wire(say(answer + more), "red", method) + wire("/name", "red") +
                        wire("/name", "green"))
            client.takes(answer, f"the answer, pipelined, {what}")
            for name in ("red", "green"):
                expect(client.response().body, name.encode() + b"\n", f"pipelined, {what}")


# The client's ends

@lib.each(*ENGINES)
def test_half_close(lab, engine):
    """a client's half-close: what it has asked for is answered; in a body: the leg's end"""
    setup = Setup(lab, engine)
    for requests in ((("/slow", "red"),), (("/name", "green"), ("/slow", "red"), ("/name", "blue")),
                     (("/down?n=4000000", "red"), ("/name", "red"))):
        with setup.used("green") as client:
            client.send(b"".join(wire(*request) for request in requests))
            client.half_close()
            for target, name in requests:
                answer = client.response()
                expect((answer.status, answer.container), (200, name), f"answer to {target}")
            expect(client.rest(), (b"", "end"), "what comes behind the answers")
    with setup.used("green") as client:     # the container waits for it
        target, tag = tagged("/nothing")
        client.request(target, "red.test")
        wait_for(lambda: deliveries(setup.red, tag), "the request arrives")
        client.half_close()
        expect(how_ended(setup.red, deliveries(setup.red, tag)[0]), "eof", "how it ended")
        client.own(502, "a container that ends, too")
    with setup.used("green") as client:     # within a head
        client.send(wire("/name", "red")[:-2])
        client.half_close()
        client.own(400, "half of a head")
    for framing in (("Content-Length: 1000",), ("Transfer-Encoding: chunked",)):
        with setup.used("green") as client:
            target, tag = tagged("/up")
            client.request(target, "red.test", method="POST", fields=framing)
            client.send(b"3e8\r\n" if "chunked" in framing[0] else b"")
            client.send(b"b" * 500)
            wait_for(lambda: deliveries(setup.red, tag), "the head arrives")
            client.half_close()
            expect(how_ended(setup.red, deliveries(setup.red, tag)[0]),
                   "the body ends 500 bytes early", "how it ended for the container")
            client.rest()


@lib.each(*ENGINES)
def test_client_reset(lab, engine):
    """a client's reset ends all its legs: idle ones, and as a reset the one at work"""
    setup = Setup(lab, engine)
    for target, method, fields, part in (
            (f"/down?n={64 * MiB}", "GET", (), b""), ("/nothing", "GET", (), b""),
            ("/up", "POST", ("Content-Length: 1000",), b"b" * 500)):
        target, tag = tagged(target)
        client = setup.connect(receive_buffer=16 * KiB)
        client.names("green")
        idle = last_peer(setup.green)
        client.request(target, "red.test", method=method, fields=fields)
        client.send(part)
        wait_for(lambda: deliveries(setup.red, tag), "the request arrives")
        client.reset()
        check(how_ended(setup.red, deliveries(setup.red, tag)[0]) in
              ("ConnectionResetError", "BrokenPipeError"), f"how {target} ended")
        how_ended(setup.green, idle)
    client = setup.used()
    client.names("blue")
    peers = last_peer(setup.red), last_peer(setup.blue)
    client.close()
    expect((how_ended(setup.red, peers[0]), how_ended(setup.blue, peers[1])), ("eof", "eof"),
           "how idle legs end when the client closes")
    wait_for(lambda: not setup.legs(), "no leg is left")


# Upgrades

@lib.each(*ENGINES)
def test_upgrade(lab, engine):
    """after a 101, and only then, all is opaque; as the first request and as the fifth"""
    setup = Setup(lab, engine)
    for before in ((), ("green", "blue", "red", "green")):
        for early in (b"", b"early \x00 bytes", wire("/name", "green")):
            with setup.connect() as client:
                for name in before:
                    client.names(name)
                client.send(wire("/switch", "red", "GET", *UPGRADE) + early)
                answer = client.response()
                expect((answer.status, answer.container), (101, "red"), "answer")
                client.takes(b"right behind" + early, "bytes behind the 101, and the early ones")
                expect(setup.red.log("early")[-1]["size"], 0, "bytes that came before the 101")
                for data in (b"\x81\x00", wire("/name", "green"), b"".join(pattern(1_000_000))):
                    writer = threading.Thread(target=client.send, args=(data,), daemon=True)
                    writer.start()
                    client.takes(data, "the echo")
                    writer.join()
                client.half_close()
                expect(client.rest(), (b"", "end"), "what comes at the end")


@lib.each(*ENGINES)
def test_refused_upgrade(lab, engine):
    """a refused upgrade stays HTTP: the next request is routed again, early bytes are requests"""
    setup = Setup(lab, engine)
    refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nno\n"
    with setup.connect() as client:
        for answer in (refusal, OK, refusal):
            client.request(say(answer), "red.test", fields=UPGRADE)
            client.takes(answer, "the refusal")
            client.names("green", "the next request")
        target, tag = tagged("/name")
        client.send(wire(say(refusal), "red", "GET", *UPGRADE) + wire(target, "green") +
                    wire(target, "blue"))
        client.takes(refusal, "the refusal")
        for name in ("green", "blue"):
            expect(client.response().container, name, "a request right behind it")
        expect(deliveries(setup.red, tag), [], "those at the one that refused")
        left = setup.agent.stats().sockmap_left
        check(left == 4 if engine == "sockmap" else not left, f"sockmap_left: {left}")
        client.request("/switch", "blue.test", fields=UPGRADE)
        expect(client.response().container, "blue", "an upgrade at last")
        client.takes(b"right behind", "bytes behind the 101")
        client.send(b"ping")
        client.takes(b"ping", "the echo")


@lib.each(*ENGINES)
def test_upgraded_source(lab, engine):
    """300 messages of a container behind a 101, to a client that is silent, take the short way"""
    setup = Setup(lab, engine)
    messages = [message(number) for number in range(300)]
    size = sum(map(len, messages))
    with setup.used("green") as client:
        setup.red.ask("arm")
        client.request("/switch?messages=300", "red.test", fields=UPGRADE)
        answer = client.response()
        expect(answer.status, 101, "status")
        client.takes(b"right behind", "bytes behind the 101")
        lib.counted(lab, "red.test", answer.wire + 12)
        before = setup.agent.stats()
        setup.red.release()
        client.takes(b"".join(messages), "the messages")
        moved = setup.agent.stats().since(before)
        lib.comment(f"{engine}: {moved.short_bytes} of {size} bytes by the short way")
        check(moved.short_bytes >= size * 0.95 if engine != "relay" else moved.short_bytes == 0,
              f"short_bytes: {moved.short_bytes} of {size}")
        client.send(b"and back")
        client.takes(b"and back", "the echo")


# What it holds

@lib.each(*ENGINES)
def test_bounded_legs(lab, engine):
    """a client that speaks to twelve backends holds at most eight connections, and all answer"""
    more = [lab.container(f"more{i}", f"more{i}.test", keep=True).name for i in range(9)]
    setup = Setup(lab, engine)
    names = [*NAMES, *more]
    for name in more:
        setup.agent.wait_route(f"{name}.test", name)
    most = 0
    with setup.connect() as client:
        for _ in range(3):
            for name in names:
                client.names(name)
                most = max(most, len(setup.legs()))
        client.send(b"".join(wire("/name", name) for name in names))
        for name in names:
            expect(client.response().container, name, "who answers, pipelined")
        most = max(most, len(setup.legs()))
    lib.comment(f"{engine}: at most {most} connections to containers")
    check(1 <= most <= 8, f"{most} connections to containers")
    wait_for(lambda: not setup.legs(), "none is left")


def rss(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", file.read(), re.M))
    return int(sizes["Rss"]) * KiB, int(sizes["Pss"]) * KiB


def sanitized():
    """Then the agent's memory is not what it is otherwise."""
    return b"__asan_init" in lib.Path(lib.BINARY).read_bytes()


@lib.each(*ENGINES)
def test_slow_loris(lab, engine):
    """5,000 clients that send a head byte by byte: others are served, each costs < 4 KiB"""
    setup = Setup(lab, engine, "--head-timeout", "100s")
    count = 5000
    for _ in range(100):
        setup.used().close()
    wait_for(lambda: not setup.legs(), "the agent is idle")
    before = rss(setup.agent.pid)
    with lib.Namespace(lab.client_ns):
        held = [socket.socket() for _ in range(count)]
    lab.sockets += held
    for sock in held:
        sock.connect((lab.edge_addr, 80))
        sock.send(b"GET /name HTTP/1.1\r\nHost: red.test\r\nUser-Agent: x")
    accepted = 100 + count
    wait_for(lambda: setup.agent.stats().connections_accepted >= accepted, "all are accepted")
    longest = 0
    for turn in range(10 if lib.LONG else 2):
        for number, sock in enumerate(held):
            sock.send(b"x")
            if number % 100 == 0:
                begun = time.monotonic()
                setup.used(NAMES[number // 100 % 3]).close()
                longest = max(longest, time.monotonic() - begun)
    after = rss(setup.agent.pid)
    costs = [(b - a) / count for a, b in zip(before, after)]
    lib.comment(f"{engine}: {costs[0]:.0f} bytes of RSS, {costs[1]:.0f} of PSS for each held "
                f"connection; others waited {longest * 1000:.0f} ms at most")
    check(max(costs) < 4 * KiB or sanitized(), f"{costs} bytes for each")
    check(longest < 1, f"another client waited {longest} s")
    expect(setup.agent.stats().answers_408, 0, "answers_408")
    for sock in (held[0], held[-1]):
        sock.settimeout(5)
        sock.send(b"\r\n\r\n")
        check(sock.recv(1000).startswith(b"HTTP/1.1 200 "), "one that comes to its end is answered")
    for sock in held:
        lib.reset(sock)     # nothing in TIME_WAIT
    wait_for(lambda: setup.agent.stats().connections_closed >= accepted, "all are closed", 10)


# The agent's end

@lib.each(*ENGINES)
def test_stop_idle(lab, engine):
    """SIGTERM while kept-alive connections are idle: they end, and the agent soon after"""
    setup = Setup(lab, engine, "--drain-timeout", "60s")
    with setup.used() as several, setup.used("green") as one, setup.connect():
        several.names("green")
        several.names("blue")
        begun = time.monotonic()
        setup.agent.process.terminate()
        for client in (several, one):
            expect(client.rest(), (b"", "end"), "what comes on an idle connection")
    expect(setup.agent.process.wait(30), 0, "exit status")
    check(time.monotonic() - begun < 5, f"it took {time.monotonic() - begun} s")


@lib.each(*ENGINES)
def test_stop_outstanding(lab, engine):
    """SIGTERM while an answer is outstanding: it comes, then the end of the connection, exit 0"""
    setup = Setup(lab, engine, "--drain-timeout", "60s")
    setup.red.ask("arm")
    body = b"".join(pattern(300_000))
    with setup.used("green") as client, setup.used("blue") as uploader:
        target, tag = tagged("/up?hold=1")
        client.request(target, "red.test")
        uploader.request(target, "red.test", method="POST",
                         fields=(f"Content-Length: {len(body)}",))
        uploader.send(body[:1000])
        wait_for(lambda: len(deliveries(setup.red, tag)) == 2, "the requests arrive")
        setup.agent.process.terminate()
        wait_for(lambda: refuses(lab), "no new connection is accepted")
        check(not setup.agent.exited(), "it waits for the answers")
        setup.red.release()
        expect(client.response().container, "red", "the answer")
        expect(client.rest(), (b"", "end"), "what comes behind it")
        uploader.send(body[1000:])
        check(lib.sha256([body]) in uploader.response().body.decode(), "the upload's answer")
        expect(uploader.rest(), (b"", "end"), "what comes behind it")
    expect(setup.agent.process.wait(10), 0, "exit status")


def refuses(lab):
    with lab.socket() as sock:
        return sock.connect_ex((lab.edge_addr, 80)) != 0


if __name__ == "__main__":
    lib.main("requests")
