# SPDX-License-Identifier: MIT
"""No byte is lost, doubled or reordered, whichever engine carries it; and the engine does carry it.

Each test measures what went by the short way, and fails where all went by the relay though some of it
should not have: answers (small ones, of known length) and streams to the client with `responses`;
requests and streams to the container with `both`, too.
"""
import array
import contextlib
import itertools
import json
import selectors
import socket
import threading
import time

import lib
from lib import KiB, MiB, check, expect, pattern, pattern_sha256, wait_for

ENGINES = ("relay", "responses", "both")
SHORT_MESSAGE = 32 * KiB    # a larger one is bulk
SIZES = (0, 1, 1000, 64 * KiB, 300_000, 4 * MiB, 64 * MiB)
FRAMINGS = ("length", "chunked", "eof")
ODD_WRITES = ((1000, 1), (4 * MiB, 65535), (3, 2), (300_000, 777), (0, 1), (4 * MiB, 1 * MiB),
              (64 * KiB, 99), (8 * MiB, 16384), (600, 600))
NGINX = """
worker_processes 1;
error_log /dev/stderr;
events {{ worker_connections 512; }}
http {{
	access_log off;
	keepalive_requests 1000000;
	client_max_body_size 0;
	sendfile on;
	server {{
		listen 80;
		location /return {{ return 200 "{text}"; }}
		location /static {{ root /var/www; }}
		location /proxied {{ proxy_pass http://127.0.0.1:81/; }}
		location /up {{ proxy_pass http://{python}:8000; proxy_request_buffering off; }}
	}}
	server {{ listen 127.0.0.1:81; location / {{ return 200 "{text}"; }} }}
}}
"""

# The scripted backend and one path more: /held?steps=SIZExWRITE,...&then=&body=1
# A 101; then, each after a `release`, so many bytes of the pattern in writes of so many, none of
# which meets bytes that the relay still carries; and then: end, half (a half-close, and what comes
# is read), stay (what comes is read), reset. body: it is read all the while.
HELD = """
import sys, threading
sys.path.insert(0, "/e2e")
import lib_backend as b

def do_held(self):
    self.sock.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\n"
                      b"Upgrade: opaque\\r\\nX-Container: %s\\r\\n\\r\\n" % b.NAME.encode())
    reader = threading.Thread(target=lambda: self.read_body(self.to_eof()), daemon=True)
    if "body" in self.query:
        reader.start()
    steps = self.query["steps"].split(",")
    for step in steps:
        b.RELEASE.wait(120)
        if len(steps) > 1:
            b.RELEASE.clear()
        size, write = map(int, step.split("x"))
        for piece in b.pattern(size, write):
            self.sock.sendall(piece)
    then = self.query["then"]
    if then == "reset":
        self.file.close()
        b.reset(self.sock)
    elif then == "half":
        self.sock.shutdown(b.socket.SHUT_WR)
    if "body" in self.query:
        reader.join()
    elif then in ("half", "stay"):
        self.read_body(self.to_eof())
    return False

b.Connection.do_held = do_held
b.main()
"""


def held_container(lab, **options):
    """python, at python.test, which knows /held."""
    return lab.container("python", "python.test", command=("python3", "-c", HELD, 8000), **options)


class Held:
    """An upgraded stream that the container holds back until it is told to go on."""

    def __init__(self, agent, container, client, *steps, then="end", body=False):
        """steps: (size, size of a write)"""
        self.agent, self.container, self.client = agent, container, client
        self.before = agent.stats()
        container.ask("arm")
        self.request(client, steps, then, body)
        answer = client.response()
        expect((answer.status, answer.container), (101, container.name), "the answer")
        self.wire = answer.wire
        wait_for(lambda: self.moved().relay_down_bytes == self.wire, "the 101 is counted")

    @staticmethod
    def request(client, steps, then="end", body=False):
        text = ",".join(f"{size}x{write}" for size, write in steps)
        client.request(f"/held?steps={text}&then={then}" + "&body=1" * body, "python.test",
                       fields=("Connection: Upgrade", "Upgrade: opaque"))

    def moved(self):
        return self.agent.stats().since(self.before)

    def go_on(self):
        self.container.release()

    def take(self, size, what="the stream"):
        """The next step's bytes, all of them, and what went by the short way until now."""
        answer = lib.Response(0, "", {})
        self.client.take(answer, size)
        expect_pattern(answer, size, what)
        self.wire += size
        return self.moved().short_bytes

    def take_all(self, size, what="the stream"):
        answer = self.client.read_all()
        expect_pattern(answer, size, what)
        self.wire += size


class Setup:
    """An agent with this engine, and the containers, which stay for all tests."""

    def __init__(self, lab, engine, *flags):
        self.lab, self.engine, self.up_bytes = lab, engine, 0
        self.python = held_container(lab, keep=True)
        self.agent = lab.agent("--datapath", engine, *flags)
        self.agent.wait_route("python.test", "python")

    def nginx(self):
        static = lib.Path(self.lab.dir) / "static"
        static.mkdir(exist_ok=True)
        (static / "small").write_bytes(bytes(pattern(600).__next__()))
        (static / "mb").write_bytes(b"".join(pattern(1_000_000)))
        conf = lib.Path(self.lab.dir) / "nginx.conf"
        conf.write_text(NGINX.format(text="nginx " * 100, python=self.python.address))
        self.lab.container("nginx", "nginx.test", image="nginx", keep=True, options=(
            "-v", f"{conf}:/etc/nginx/nginx.conf:ro", "-v", f"{static}:/var/www/static:ro"))
        self.agent.wait_route("nginx.test", "nginx")

    def node(self):
        self.lab.container("node", "node.test", image="node", keep=True,
                           command=("node", "/e2e/lib_node.js"))
        self.agent.wait_route("node.test", "node")

    def small_reads(self):
        """Whether this kernel's enrolled sockets hide what waits to be read, as the self-test says:
        then, with `responses`, what is large is not sent to them, and a stream leaves the short way
        before the client sends anything."""
        return self.engine == "responses" and \
            any("FIONREAD" in str(entry) for entry in self.agent.logs("WARN"))

    def held(self, client, *steps, **options):
        return Held(self.agent, self.python, client, *steps, **options)

    @contextlib.contextmanager
    def carried(self, wire=None, short=None):
        """What is carried within. wire(): the bytes that the client received. short: some of them
        take the short way, if the engine has it; False: none; None: it depends on when they come,
        or on what the kernel allows."""
        wait_for(lambda: not self.agent.connections(), "earlier connections are closed", 10)
        before = self.agent.stats()
        result = lib.Stats()
        yield result
        wait_for(lambda: not self.agent.connections(), "the connections are closed", 10)
        result.update(self.agent.stats().since(before))
        if self.engine == "relay":
            expect((result.short_bytes, result.sockmap_enrolled), (0, 0), "short_bytes, enrolled")
        elif short is not None:
            expect(result.short_bytes > 0, short, f"some went by the short way: {result}")
        self.up_bytes += result.short_up_bytes
        check(self.engine == "both" or not self.up_bytes, f"up_bytes: {self.up_bytes}")
        if wire:
            expect(result.short_bytes + result.relay_down_bytes, wire(),
                   "short_bytes + relay_down_bytes, and what the client received")
        expect((result.promises_late, result.promises_broken), (0, 0), "promises late, broken")

    def expect_up(self):
        """Some of all that the clients sent was put into the container's socket, with `both`: which
        depends on what the container does just then."""
        check(self.engine != "both" or self.up_bytes, "none went to the container by the short way")


def expect_pattern(answer, size, what):
    expect((answer.size, answer.sha256), (size, pattern_sha256(size)), what)


def chunk(piece):
    return b"%x\r\n%b\r\n" % (len(piece), piece)


@lib.each(*itertools.product(ENGINES, FRAMINGS))
def test_downloads(lab, engine, framing):
    """downloads of 0 to 64 M bytes"""
    setup = Setup(lab, engine)
    for size in SIZES:
        received = []
        # the head comes alone; what is of unknown length, or large, is not begun by the short way
        short = framing == "length" and size <= 32 * KiB
        with setup.carried(lambda: sum(received), short), lab.connect() as client:
            answer = client.get(f"/down?n={size}&framing={framing}", "python.test")
            expect_pattern(answer, size, f"{size} bytes")
            received.append(answer.wire)
    setup.expect_up()


@lib.each(*itertools.product(ENGINES, ("length", "chunked")))
def test_downloads_kept_alive(lab, engine, framing):
    """downloads one after the other on one connection, large ones and small, in odd writes"""
    setup = Setup(lab, engine)
    received = []
    with setup.carried(lambda: sum(received)), lab.connect() as client:
        for size, write in ODD_WRITES:
            answer = client.get(f"/down?n={size}&framing={framing}&write={write}", "python.test")
            expect_pattern(answer, size, f"{size} bytes in writes of {write}")
            received.append(answer.wire)


@lib.each(*ENGINES)
def test_streams(lab, engine):
    """upgraded streams of 0 to 64 M bytes, to their end"""
    setup = Setup(lab, engine)
    for size in SIZES:
        with setup.carried(lambda: held.wire, short=size > 0 or None), lab.connect() as client:
            held = setup.held(client, (size, 16384))
            held.go_on()
            held.take_all(size, f"{size} bytes")
            client.ends()


@lib.each(*ENGINES)
def test_stream_in_odd_writes(lab, engine):
    """one upgraded stream, large pieces and small, in odd writes: each takes the short way"""
    setup = Setup(lab, engine)
    with setup.carried(lambda: held.wire, short=True), lab.connect() as client:
        held = setup.held(client, *ODD_WRITES)
        short = 0
        for size, write in ODD_WRITES:
            held.go_on()
            before, short = short, held.take(size, f"{size} bytes in writes of {write}")
            check(engine == "relay" or not size or write > SHORT_MESSAGE or short > before,
                  f"none of {size} bytes in writes of {write} took the short way")
            if size <= 1000:    # which never fills a buffer
                expect(short - before, size if engine != "relay" else 0, "all of them do")
        client.ends()


@lib.each(*ENGINES)
def test_streams_at_once(lab, engine):
    """40 streams each of 1 k, 300 k and 4 M that begin with their 101, before it is passed on"""
    setup = Setup(lab, engine)
    for size in (1000, 300_000, 4 * MiB):
        received = []
        with setup.carried(lambda: sum(received), short=None):
            for _ in range(40):
                with lab.connect() as client:
                    wire = client.upgrade("source", "python.test", size).wire
                    answer = client.read_all()
                    expect_pattern(answer, size, f"{size} bytes right behind the 101")
                    received.append(wire + answer.size)


@lib.each(*ENGINES)
def test_stream_left_under_way(lab, engine):
    """a client that sends while the container does: exact, both ways, whenever it begins to"""
    setup = Setup(lab, engine)
    down, up = 8 * MiB, 300_000
    for begin in (0, 1, 100_000, 4 * MiB, 8 * MiB - 1):
        with setup.carried(lambda: held.wire, short=True if begin > 1 else None) as carried, \
                lab.connect() as client:
            held = setup.held(client, (down, 16384), then="half", body=True)
            held.go_on()
            answer = lib.Response(0, "", {})
            client.take(answer, begin)
            writer = threading.Thread(target=send_and_end, args=(client, up), daemon=True)
            writer.start()
            client.take(answer, None)
            expect_pattern(answer, down, f"the stream, left after {begin} bytes")
            held.wire += down
            writer.join(20)
            wait_for(lambda: setup.python.log("body")[-1]["sha256"] == pattern_sha256(up),
                     "what the client sent")
        if engine != "relay":
            expect(carried.sockmap_left, int(setup.small_reads()), "sockmap_left")


def send_and_end(client, size):
    for piece in pattern(size, 10_000):
        client.send(piece)
    client.half_close()


@lib.each(*ENGINES)
def test_stream_after_requests(lab, engine):
    """an upgrade behind ordinary requests of the connection, and behind a refused one"""
    setup = Setup(lab, engine)
    with setup.carried(short=True) as carried, lab.connect() as client:
        expect_pattern(client.get("/down?n=300000", "python.test"), 300_000, "an answer before")
        client.request("/name", "python.test", fields=("Connection: Upgrade", "Upgrade: x"))
        expect(client.response().status, 200, "status of a refused upgrade")
        expect_pattern(client.get("/down?n=300000", "python.test"), 300_000, "an answer behind it")
        held = setup.held(client, (300_000, 4096))
        held.go_on()
        held.take_all(300_000)
        client.ends()
    if engine != "relay":
        expect(carried.sockmap_wanted, 3, "sockmap_wanted: anew behind each large answer")


@lib.each(*ENGINES)
def test_downloads_ipv6(lab, engine):
    """downloads by a client of IPv6"""
    setup = Setup(lab, engine)
    received = []
    with setup.carried(lambda: sum(received)), lab.connect(address=lab.edge_addr6) as client:
        for size in (0, 1000, 300_000, 4 * MiB):
            answer = client.get(f"/down?n={size}", "python.test")
            expect_pattern(answer, size, f"{size} bytes")
            received.append(answer.wire)
    for size in (1, 1000, 300_000, 4 * MiB):
        with setup.carried(lambda: held.wire, short=True), \
                lab.connect(address=lab.edge_addr6) as client:
            held = setup.held(client, (size, 16384))
            held.go_on()
            held.take_all(size, f"a stream of {size} bytes")


def upload(client, size, framing, then_half_close=False):
    """The SHA-256 that the container says."""
    if framing == "eof":
        client.upgrade("sink", "python.test")
    else:
        field = f"Content-Length: {size}" if framing == "length" else "Transfer-Encoding: chunked"
        client.request("/up", "python.test", method="POST", fields=(field,))
    for piece in pattern(size, 65537):
        client.send(chunk(piece) if framing == "chunked" else piece)
    if framing == "chunked":
        client.send(b"0\r\n\r\n")
    if framing == "eof" or then_half_close:
        client.half_close()
    answer = client.read_all() if framing == "eof" else client.response()
    return json.loads(answer.body)["sha256"]


@lib.each(*itertools.product(ENGINES, FRAMINGS))
def test_uploads(lab, engine, framing):
    """uploads of 0 to 64 M bytes"""
    setup = Setup(lab, engine)
    for size in SIZES:
        with setup.carried() as carried, lab.connect() as client:
            expect(upload(client, size, framing), pattern_sha256(size), f"{size} bytes")
        check(carried.relay_up_bytes >= size, f"relay_up_bytes: {carried.relay_up_bytes} of {size}")
    setup.expect_up()


@lib.each(*itertools.product(ENGINES, ("length", "eof")))
def test_uploads_half_closed(lab, engine, framing):
    """60 uploads each of 1 k, 300 k and 4 M that end in shutdown(SHUT_WR)"""
    setup = Setup(lab, engine)
    for size in (1000, 300_000, 4 * MiB):
        wrong = 0
        with setup.carried():
            for _ in range(60):
                with lab.connect() as client:
                    wrong += upload(client, size, framing, True) != pattern_sha256(size)
        expect(wrong, 0, f"wrong of 60 uploads of {size} bytes")
    setup.expect_up()


@lib.each(*ENGINES)
def test_uploads_kept_alive(lab, engine):
    """uploads and downloads by turns on one connection"""
    setup = Setup(lab, engine)
    with setup.carried(), lab.connect() as client:
        expect_pattern(client.get("/down?n=300000", "python.test"), 300_000, "a download before")
        for size in (1, 300_000, 0, 4 * MiB, 1000):
            for framing in ("length", "chunked"):
                expect(upload(client, size, framing), pattern_sha256(size), f"{size} bytes up")
                expect_pattern(client.get(f"/down?n={size}&framing={framing}", "python.test"),
                               size, f"{size} bytes down")


@lib.each(*ENGINES)
def test_upload_to_nginx(lab, engine):
    """nginx, which reads by FIONREAD, takes 8 MB uploads, on a new connection and on a used one"""
    if engine == "both":
        return  # what does not go there by the short way is hidden from it: see `check`
    setup = Setup(lab, engine)
    setup.nginx()
    body = b"".join(pattern(8 * MiB))
    with setup.carried():
        for used in (False, True):
            with lab.connect() as client:
                if used:
                    expect(client.get("/return", "nginx.test").size, 600, "an answer before")
                answer = client.get("/up", "nginx.test", method="POST", body=body)
                expect(json.loads(answer.body)["sha256"], pattern_sha256(len(body)), "upload")
                expect(client.get("/return", "nginx.test").size, 600, "an answer afterwards")


class Reader:
    """One of many clients, driven by one selector; `pace` bytes at a time, every `pause` s."""

    def __init__(self, lab, begin, pace, pause):
        """begin(client): asks for something, to the connection's end."""
        self.client = lab.connect(receive_buffer=16 * KiB if pause else None)
        begin(self.client)
        self.client.sock.setblocking(False)
        self.pace, self.pause = pace, pause
        self.next, self.data = 0.0, bytearray()

    def read(self, now):
        """False at the end."""
        piece = self.client.sock.recv(self.pace)
        self.data += piece
        self.next = now + self.pause
        return bool(piece)


def fifty(lab, begin, all_begun=lambda: None):
    """What 50 clients at once received, every fifth of them slow."""
    readers = [Reader(lab, begin, 16 * KiB if i % 5 == 0 else MiB, 0.02 if i % 5 == 0 else 0)
               for i in range(50)]
    all_begun()
    selector = selectors.DefaultSelector()
    for reader in readers:
        selector.register(reader.client.sock, selectors.EVENT_READ, reader)
    resting = []
    deadline = time.monotonic() + 20
    while selector.get_map() or resting:
        now = time.monotonic()
        left = [len(r.data) for r in readers]
        check(now < deadline, f"clients hang after {sorted(left)} bytes")
        for reader in [r for r in resting if r.next <= now]:
            resting.remove(reader)
            selector.register(reader.client.sock, selectors.EVENT_READ, reader)
        for key, _ in selector.select(0.005):
            reader = key.data
            more = reader.read(now)
            if not more or reader.pause:
                selector.unregister(reader.client.sock)
                if more:
                    resting.append(reader)
    for reader in readers:
        reader.client.close()
    return [bytes(r.data) for r in readers]


@lib.each(*itertools.product(ENGINES, ("python", "nginx", "node")))
def test_fifty(lab, engine, server):
    """1 MB to 50 clients at once, every fifth of them slow: none hangs"""
    setup = Setup(lab, engine)
    expected = lib.sha256(pattern(1_000_000))
    if server == "node":
        setup.node()
        expected = lib.sha256([array.array("I", range(250_000)).tobytes()])
    elif server == "nginx":
        setup.nginx()
    target = {"python": "/down?n=1000000", "nginx": "/static/mb", "node": "/?n=1000000"}[server]
    received = []
    with setup.carried(lambda: sum(map(len, received))):
        received += fifty(lab, lambda client: client.request(target, f"{server}.test",
                                                             fields=("Connection: close",)))
    bodies = [data.partition(b"\r\n\r\n")[2] for data in received]
    wrong = [len(body) for body in bodies if lib.sha256([body]) != expected]
    expect(wrong, [], "sizes of the wrong ones of 50 bodies")


@lib.each(*ENGINES)
def test_fifty_streams(lab, engine):
    """upgraded streams of 1 MB to 50 clients at once, every fifth of them slow: none hangs"""
    setup = Setup(lab, engine)
    received, heads = [], []

    def begin(client):
        Held.request(client, ((1_000_000, 16384),))
        answer = client.response()
        expect(answer.status, 101, "status")
        heads.append(answer.wire)
    setup.python.ask("arm")
    with setup.carried(lambda: sum(heads) + sum(map(len, received)), short=True):
        received += fifty(lab, begin, setup.python.release)
    wrong = [len(body) for body in received if lib.sha256([body]) != pattern_sha256(1_000_000)]
    expect(wrong, [], "sizes of the wrong ones of 50 streams")

# Ends

@lib.each(*ENGINES)
def test_half_close_by_client(lab, engine):
    """the client's half-close reaches the container, and what the container sends still comes"""
    setup = Setup(lab, engine)
    for size in (0, 1000, 4 * MiB):
        with setup.carried(), lab.connect() as client:
            expect(client.get("/name", "python.test").container, "python", "an answer before")
            client.request(f"/down?n={size}", "python.test")
            client.half_close()
            expect_pattern(client.response(), size, "answer after the half-close")
            client.ends()   # as the container ends when it sees it
        with setup.carried(), lab.connect() as client:
            client.request(f"/down?n={size}", "python.test")
            client.half_close()
            expect_pattern(client.response(), size, "answer to a half-closed client")
            client.ends()
        with setup.carried(lambda: held.wire, short=True), lab.connect() as client:
            held = setup.held(client, (1000, 100), (size, 4096), then="stay")
            held.go_on()
            held.take(1000, "before the half-close")
            client.half_close()
            held.go_on()
            held.take_all(size, "after the half-close")
            wait_for(lambda: setup.python.log("end")[-1]["how"] == "eof", "how it ended")
    with setup.carried(short=None), lab.connect() as client:
        client.upgrade("echo", "python.test")
        client.send(b"hello")
        client.half_close()
        expect(client.read_all().body, b"hello", "echo")
        expect(setup.python.log("end")[-1]["how"], "eof", "how it ended for the container")


@lib.each(*ENGINES)
def test_half_close_by_container(lab, engine):
    """the container's half-close reaches the client, and what the client sends still comes"""
    setup = Setup(lab, engine)
    with setup.carried(short=None), lab.connect() as client:
        client.upgrade("halfclose", "python.test")
        expect(client.read_all().body, b"bye\n", "what comes before the half-close")
        for piece in pattern(4 * MiB, 64 * KiB):
            client.send(piece)
        client.half_close()
        wait_for(lambda: setup.python.log("body")[-1:] and
                 setup.python.log("body")[-1]["sha256"] == pattern_sha256(4 * MiB), "the upload")
    for size in (1, 300_000, 4 * MiB):
        with setup.carried(lambda: held.wire, short=True), lab.connect() as client:
            held = setup.held(client, (size, 16384), then="half")
            held.go_on()
            held.take_all(size, "the stream, to the half-close")
            send_and_end(client, 300_000)
            wait_for(lambda: setup.python.log("body")[-1]["sha256"] == pattern_sha256(300_000),
                     "the upload after the stream's end")
    with setup.carried(), lab.connect() as client:   # an answer before the body
        client.request("/halfclose?n=1000", "python.test", method="POST",
                       fields=("Content-Length: 300000",))
        expect_pattern(client.response(), 1000, "the early answer, to its end")
        for piece in pattern(300_000, 64 * KiB):
            client.send(piece)
        wait_for(lambda: setup.python.log("body")[-1]["sha256"] == pattern_sha256(300_000),
                 "the upload after the answer's end")


@lib.each(*ENGINES)
def test_reset_by_client(lab, engine):
    """the client's reset reaches the container as a reset, idle or in the middle of something"""
    setup = Setup(lab, engine)

    def accepted():
        return setup.python.log("request")[-1]
    with setup.carried():
        client = lab.connect()
        expect(client.get("/name", "python.test").status, 200, "status")
        peer = accepted()["peer"]
        client.reset()
        expect(how_ended(setup.python, peer), "ConnectionResetError", "idle: how it ended")
    with setup.carried():
        client = lab.connect(receive_buffer=16 * KiB)
        client.request(f"/down?n={64 * MiB}", "python.test")
        check(client.file.read(100_000), "the answer begins")
        peer = accepted()["peer"]
        client.reset()
        check(how_ended(setup.python, peer) in ("ConnectionResetError", "BrokenPipeError"),
              "in a download")
    with setup.carried():
        client = lab.connect()
        client.request("/up", "python.test", method="POST", fields=("Content-Length: 1000000",))
        client.send(bytes(300_000))
        peer = wait_for(lambda: accepted()["line"].startswith("POST") and accepted(), "it")["peer"]
        client.reset()
        expect(how_ended(setup.python, peer), "ConnectionResetError", "in an upload")
    with setup.carried(short=True):
        client = lab.connect()
        held = setup.held(client, (300_000, 4096), then="stay")
        held.go_on()
        held.take(300_000)
        client.reset()
        expect(how_ended(setup.python, accepted()["peer"]), "ConnectionResetError",
               "an idle stream that took the short way")
    with setup.carried(short=True):
        client = lab.connect(receive_buffer=16 * KiB)
        held = setup.held(client, (64 * MiB, 16384))
        held.go_on()
        check(client.file.read(100_000), "the stream begins")
        client.reset()
        check(how_ended(setup.python, accepted()["peer"]) in ("ConnectionResetError",
                                                              "BrokenPipeError"), "in a stream")


def how_ended(container, peer):
    return wait_for(lambda: [e["how"] for e in container.log("end") if e["peer"] == peer],
                    f"the connection of {peer} ends at the container")[-1]


@lib.each(*ENGINES)
def test_reset_by_container(lab, engine):
    """the container's reset reaches the client as a reset, idle or in the middle of something"""
    setup = Setup(lab, engine)
    lone = lab.container("lone", "lone.test")
    setup.agent.wait_route("lone.test", "lone")

    def wait_reset(client):
        try:
            while client.file.read1(MiB):
                pass
        except ConnectionResetError:
            return True
        return False
    with setup.carried(short=None), lab.connect() as client, lab.connect() as other:
        client.upgrade("reset", "lone.test")
        other.request(f"/reset?n={300_000}", "lone.test")
        check(other.file.read(1000), "the answer begins")
        lone.release()
        check(wait_reset(client), "idle after an upgrade: the client sees a reset, not an end")
        check(wait_reset(other), "in an answer: the client sees a reset, not an end")
    with setup.carried(lambda: held.wire, short=True), lab.connect() as client:
        held = setup.held(client, (300_000, 4096), (0, 1), then="reset")
        held.go_on()
        held.take(300_000)
        held.go_on()
        check(wait_reset(client), "a stream that took the short way: a reset, not an end")
    with setup.carried(), lab.connect() as client:  # a 101 that nobody asked for is no answer
        client.request("/upgrade?then=source&n=1000", "python.test")
        expect(client.response().status, 502, "status")
        client.ends()


@lib.each(*ENGINES)
def test_both_ways(lab, engine):
    """64 MiB each way at once, through an echo"""
    setup = Setup(lab, engine)
    size = 64 * MiB
    with setup.carried(short=None), lab.connect() as client:
        client.upgrade("echo", "python.test")

        def write():
            for piece in pattern(size, 256 * KiB):
                client.send(piece)
            client.half_close()
        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        expect_pattern(client.read_all(), size, "echo")
        thread.join(20)


@lib.each(*ENGINES)
def test_one_byte_segments(lab, engine):
    """a chunked upload in segments of one byte, and a request that follows it closely"""
    setup = Setup(lab, engine)
    with setup.carried(), lab.connect() as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = (b"POST /up HTTP/1.1\r\nHost: python.test\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
                b"GET /name HTTP/1.1\r\nHost: python.test\r\n\r\n")
        for byte in wire:
            client.send(bytes([byte]))
        expect(json.loads(client.response().body)["sha256"], lib.sha256([b"hello!"]), "the upload")
        expect(client.response().container, "python", "the next answer")


if __name__ == "__main__":
    lib.main("e2eexact")
