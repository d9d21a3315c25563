# SPDX-License-Identifier: MIT
"""No byte is lost, doubled or reordered, whichever engine carries it; and the engine does carry it.

Each test measures what went by the short way: with sockmap it fails where all went by the relay,
and with the relay it fails where anything did not.
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
from lib import ENGINES, KiB, MiB, check, expect, pattern, pattern_sha256, wait_for

SIZES = (0, 1, 1000, 64 * KiB, 300_000, 4 * MiB, 64 * MiB)
FRAMINGS = ("length", "chunked", "eof")
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


class Setup:
    """An agent with this engine, and the containers, which stay for all tests."""

    def __init__(self, lab, engine, *flags):
        self.lab, self.engine = lab, engine
        self.python = lab.container("python", "python.test", keep=True)
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

    def http_server(self):
        static = lib.Path(self.lab.dir) / "python"
        static.mkdir(exist_ok=True)
        (static / "small").write_bytes(bytes(600))
        script = ("import http.server as h; c = h.SimpleHTTPRequestHandler; "
                  "c.protocol_version = 'HTTP/1.1'; c.log_message = lambda *_: None; "
                  "h.ThreadingHTTPServer(('', 8000), c).serve_forever()")
        self.lab.container("simple", "simple.test", keep=True, control=8000, port=8001 - 1,
                           command=("python3", "-c", script),
                           options=("-v", f"{static}:/srv:ro", "-w", "/srv"))
        self.agent.wait_route("simple.test", "simple")

    @contextlib.contextmanager
    def carried(self, wire=None, short=True):
        """What is carried within. wire(): the bytes that the client received. short=False: none
        need take the short way, as the connection leaves it before a request with a body, or with
        Upgrade, is forwarded."""
        wait_for(lambda: not self.agent.connections(), "earlier connections are closed", 10)
        before = self.agent.stats()
        result = lib.Stats()
        yield result
        wait_for(lambda: not self.agent.connections(), "the connections are closed", 10)
        result.update(self.agent.stats().since(before))
        if self.engine == "relay":
            expect((result.short_bytes, result.sockmap_enrolled), (0, 0), "short_bytes, enrolled")
        elif short:
            check(result.short_bytes > 0, f"all went by the relay: {result}")
        if wire:
            expect(result.short_bytes + result.relay_down_bytes, wire(),
                   "short_bytes + relay_down_bytes, and what the client received")


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
        with setup.carried(lambda: sum(received)), lab.connect() as client:
            answer = client.get(f"/down?n={size}&framing={framing}", "python.test")
            expect_pattern(answer, size, f"{size} bytes")
            received.append(answer.wire)


@lib.each(*itertools.product(ENGINES, ("length", "chunked")))
def test_downloads_kept_alive(lab, engine, framing):
    """downloads one after the other on one connection, large ones and small, in odd writes"""
    setup = Setup(lab, engine)
    received = []
    with setup.carried(lambda: sum(received)), lab.connect() as client:
        for size, write in ((1000, 1), (4 * MiB, 65535), (3, 2), (300_000, 777), (0, 1),
                            (4 * MiB, 1 * MiB), (64 * KiB, 99), (8 * MiB, 16384), (600, 600)):
            before = setup.agent.stats()
            answer = client.get(f"/down?n={size}&framing={framing}&write={write}", "python.test")
            expect_pattern(answer, size, f"{size} bytes in writes of {write}")
            received.append(answer.wire)
            if engine == "sockmap":
                check(setup.agent.stats().since(before).short_bytes > 0,
                      f"none of {size} bytes in writes of {write} took the short way")


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
        with setup.carried(short=False) as carried, lab.connect() as client:
            expect(upload(client, size, framing), pattern_sha256(size), f"{size} bytes")
        check(carried.relay_up_bytes >= size, f"relay_up_bytes: {carried.relay_up_bytes} of {size}")


@lib.each(*itertools.product(ENGINES, ("length", "eof")))
def test_uploads_half_closed(lab, engine, framing):
    """60 uploads each of 1 k, 300 k and 4 M that end in shutdown(SHUT_WR)"""
    setup = Setup(lab, engine)
    for size in (1000, 300_000, 4 * MiB):
        wrong = 0
        with setup.carried(short=False):
            for _ in range(60):
                with lab.connect() as client:
                    wrong += upload(client, size, framing, True) != pattern_sha256(size)
        expect(wrong, 0, f"wrong of 60 uploads of {size} bytes")


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

    def __init__(self, lab, target, host, pace, pause):
        self.client = lab.connect(receive_buffer=16 * KiB if pause else None)
        self.client.request(target, host, fields=("Connection: close",))
        self.client.sock.setblocking(False)
        self.pace, self.pause = pace, pause
        self.next, self.data = 0.0, bytearray()

    def read(self, now):
        """False at the end."""
        piece = self.client.sock.recv(self.pace)
        self.data += piece
        self.next = now + self.pause
        return bool(piece)


def fifty(lab, target, host):
    """What 50 clients at once received, every fifth of them slow. Bodies, and all bytes."""
    readers = [Reader(lab, target, host, 16 * KiB if i % 5 == 0 else MiB, 0.02 if i % 5 == 0 else 0)
               for i in range(50)]
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
    return [bytes(r.data).partition(b"\r\n\r\n")[2] for r in readers], \
        sum(len(r.data) for r in readers)


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
    with setup.carried(lambda: sum(received)):
        bodies, size = fifty(lab, target, f"{server}.test")
        received.append(size)
    wrong = [len(body) for body in bodies if lib.sha256([body]) != expected]
    expect(wrong, [], "sizes of the wrong ones of 50 bodies")


# The share of the short way

def thousand(setup, target, host):
    """1,000 requests on one connection; the share of their bytes that took the short way."""
    received = []
    with setup.carried(lambda: sum(received)) as carried, setup.lab.connect() as client:
        first = client.get(target, host)
        received.append(first.wire)
        for _ in range(999):
            answer = client.get(target, host)
            expect((answer.status, answer.sha256), (200, first.sha256), "an answer")
            received.append(answer.wire)
    return carried.short_bytes / sum(received)


@lib.each(*ENGINES)
def test_share(lab, engine):
    """of 1,000 small answers of nginx (return, proxied) and of Node, 95 % take the short way"""
    setup = Setup(lab, engine)
    setup.nginx()
    setup.node()
    for target, host in (("/return", "nginx.test"), ("/proxied", "nginx.test"),
                         ("/?n=600", "node.test")):
        share = thousand(setup, target, host)
        lib.comment(f"{engine}: {host}{target}: {share:.1%} by the short way")
        check(share >= 0.95 if engine == "sockmap" else share == 0, f"{host}{target}: {share:.1%}")


def test_share_of_others(lab):
    """how much takes the short way of nginx's static files, Python, large answers of Node"""
    setup = Setup(lab, "sockmap")
    setup.nginx()
    setup.node()
    setup.http_server()
    for what, target, host in (
            ("nginx, static file of 600 bytes", "/static/small", "nginx.test"),
            ("Python's http.server, 600 bytes", "/small", "simple.test"),
            ("Python by sendall, head and body apart", "/down?n=600", "python.test")):
        lib.comment(f"{what}: {thousand(setup, target, host):.1%} by the short way")
    for what, target, host in (("nginx, static file of 1 MB", "/static/mb", "nginx.test"),
                               ("Node, 1 MB", "/?n=1000000", "node.test"),
                               ("Python by sendall, 64 MiB", f"/down?n={64 * MiB}", "python.test")):
        received = []
        with setup.carried(lambda: sum(received), short=False) as carried, lab.connect() as client:
            for _ in range(1 if "64" in what else 20):
                received.append(client.get(target, host).wire)
        lib.comment(f"{what}: {carried.short_bytes / sum(received):.1%} by the short way")


# Ends

@lib.each(*ENGINES)
def test_half_close_by_client(lab, engine):
    """the client's half-close reaches the container, and what the container sends still comes"""
    setup = Setup(lab, engine)
    for size in (0, 1000, 4 * MiB):
        # A client's socket that is half-closed already cannot take the short way.
        with setup.carried(), lab.connect() as client:
            expect(client.get("/name", "python.test").container, "python", "an answer before")
            client.request(f"/down?n={size}", "python.test")
            client.half_close()
            expect_pattern(client.response(), size, "answer after the half-close")
            client.ends()   # as the container ends when it sees it
        with setup.carried(short=False), lab.connect() as client:
            client.request(f"/down?n={size}", "python.test")
            client.half_close()
            expect_pattern(client.response(), size, "answer to a half-closed client")
            client.ends()
    with setup.carried(short=False), lab.connect() as client:
        client.upgrade("echo", "python.test")
        client.send(b"hello")
        client.half_close()
        expect(client.read_all().body, b"hello", "echo")
        expect(setup.python.log("end")[-1]["how"], "eof", "how it ended for the container")


@lib.each(*ENGINES)
def test_half_close_by_container(lab, engine):
    """the container's half-close reaches the client, and what the client sends still comes"""
    setup = Setup(lab, engine)
    with setup.carried(short=False), lab.connect() as client:
        client.upgrade("halfclose", "python.test")
        expect(client.read_all().body, b"bye\n", "what comes before the half-close")
        for piece in pattern(4 * MiB, 64 * KiB):
            client.send(piece)
        client.half_close()
        wait_for(lambda: setup.python.log("body")[-1:] and
                 setup.python.log("body")[-1]["sha256"] == pattern_sha256(4 * MiB), "the upload")
    with setup.carried(short=False), lab.connect() as client:   # an answer before the body
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
    with setup.carried(short=False):
        client = lab.connect()
        client.request("/up", "python.test", method="POST", fields=("Content-Length: 1000000",))
        client.send(bytes(300_000))
        peer = wait_for(lambda: accepted()["line"].startswith("POST") and accepted(), "it")["peer"]
        client.reset()
        expect(how_ended(setup.python, peer), "ConnectionResetError", "in an upload")


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
    with setup.carried(), lab.connect() as client, lab.connect() as other:
        client.upgrade("reset", "lone.test")
        other.request(f"/reset?n={300_000}", "lone.test")
        check(other.file.read(1000), "the answer begins")
        lone.release()
        check(wait_reset(client), "idle after an upgrade: the client sees a reset, not an end")
        check(wait_reset(other), "in an answer: the client sees a reset, not an end")
    with setup.carried(short=False), lab.connect() as client:   # a lie about the length, no reset
        client.request("/upgrade?then=source&n=1000", "python.test")
        expect(client.response().status, 101, "status")
        expect_pattern(client.read_all(), 1000, "what comes before the end")


@lib.each(*ENGINES)
def test_both_ways(lab, engine):
    """64 MiB each way at once, through an echo"""
    setup = Setup(lab, engine)
    size = 64 * MiB
    with setup.carried(short=False), lab.connect() as client:
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
    with setup.carried(short=False), lab.connect() as client:
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
