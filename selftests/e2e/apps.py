#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Applications as people run them, behind sockets that the agent may have enrolled: nginx, Node, Python,
Java, Go, and HAProxy that splices. Each reads and writes in its own way, and must not notice.

What breaks under `both`, where requests are put into its sockets, has the label here that README
names for it, kakuremichi.sockmap=off:
- nginx, where the kernel breaks FIONREAD for enrolled sockets: an upload of more than 100 kB or so
  goes on through TCP, and stalls;
- HAProxy that reads with splice(2), on every kernel so far: in mode tcp it stalls at the second
  request of a connection, in mode http at an upload.
"""
import concurrent.futures
import itertools
import json
import os
import random
import time
from pathlib import Path

import lib
from lib import KiB, MiB, check, expect, pattern, pattern_sha256

ENGINES = ("auto", "relay", "responses", "both")
FIONREAD = "sockmap: FIONREAD on an enrolled socket"
PUT_SPLICE = "sockmap: requests: splice(2) reads what was put into a socket"
# Steps of the self-test that `auto` does not ask for
NO_MATTER = ("sockmap: requests: ", "sockmap: a reader blocked in recv()")
# app -> the step without which `both` breaks it
APPS = {"nginx-static": FIONREAD, "nginx-proxy": FIONREAD, "node": None, "python": None,
        "java": None, "go": None, "haproxy-tcp": PUT_SPLICE, "haproxy-http": PUT_SPLICE}
# Per cent of 50 small answers, one after the other, that go by the short way; so far it was 100 always
SHARE = 96
SMALL, BIG = 600, 8 * MiB
# around what the kernel takes: messages of 32 KiB, bodies of 64 KiB
SIZES = (0, 1, SMALL, 4000, 32 * KiB - 300, 32 * KiB, 32 * KiB + 1, 64 * KiB, 64 * KiB + 1, 300_000)
BOUND = 20      # seconds: what takes longer hangs
COOKIE = "Cookie: " + "c" * 3000
shares = {}


class Files:
    """What the applications serve, and what they are made of."""

    def __init__(self, lab):
        self.directory = Path(lab.dir) / "files"
        self.mount = ("-v", f"{self.directory}:/files:ro")
        self.go = Path(lab.dir) / "lib_app"
        if self.directory.exists():
            return
        self.directory.mkdir()
        for size in (*SIZES, BIG):
            (self.directory / str(size)).write_bytes(b"".join(pattern(size)))
        lib.must("/usr/bin/go", "build", "-o", self.go, lib.HERE / "lib_app.go", timeout=180, env={
            **os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off", "GOPROXY": "off", "GOFLAGS": "",
            "GOCACHE": str(lib.ROOT / "build/go-cache")})

    def config(self, name, go):
        """A file with the Go server's address in it."""
        path = self.directory.parent / name
        path.write_text((lib.HERE / f"lib_app_{name}").read_text().replace("@GO@", f"{go.address}:80"))
        return f"{path}"


def java_mounts():
    """The image has its libraries; it is too large to be copied."""
    home = Path("/usr/bin/java").resolve().parents[1]
    etc = (home / "conf/net.properties").resolve().parent
    return "-v", f"{home}:{home}:ro", "-v", f"{etc}:{etc}:ro"


def start(lab, app, off=False):
    """The application's container, which stays; off: another one, with the label."""
    files = Files(lab)
    kind, _, variant = app.partition("-")
    options, command, port = files.mount, None, 80
    if kind in ("nginx", "haproxy"):
        name, path = {"nginx": ("nginx.conf", "/etc/nginx/nginx.conf"),
                      "haproxy": ("haproxy.cfg", "/etc/haproxy.cfg")}[kind]
        options += ("-v", f"{files.config(name, start(lab, 'go'))}:{path}:ro")
        port = 81 if variant in ("proxy", "http") else 80
    elif kind == "go":
        options += ("-v", f"{files.go}:/lib_app:ro")
        command = ("/lib_app", ":80")
    elif kind == "java":
        options += java_mounts()
        command = ("java", "/e2e/lib_app.java", 80)
    else:
        command = (kind, f"/e2e/lib_app.{'js' if kind == 'node' else 'py'}", 80)
        command = ("python3", *command[1:]) if kind == "python" else command
    name = app + "-off" * off
    return lab.container(name, f"{name}.test", image="busybox" if kind == "go" else kind, port=port,
                         command=command, options=options, keep=True,
                         labels={"kakuremichi.sockmap": "off"} if off else None)


class Setup:
    def __init__(self, lab, engine, app):
        self.lab, self.app, self.engine = lab, app, engine
        self.agent = lab.agent("--datapath", engine)
        self.failed = failed_steps(lab)
        self.off = engine == "both" and APPS[app] in self.failed
        self.container = start(lab, app, self.off)
        self.domain = f"{self.container.name}.test"
        self.agent.wait_route(self.domain, self.container.name)
        self.enrols = not self.off and (
            engine in ("responses", "both") or engine == "auto" and not
            [step for step in self.failed if not step.startswith(NO_MATTER)])
        # then what is large is not sent to an enrolled socket
        self.small_reads = engine == "responses" and FIONREAD in self.failed
        self.wire = 0

    def connect(self):
        return self.lab.connect(timeout=BOUND)

    def get(self, client, size, fields=()):
        answer = client.get(f"/{size}", self.domain, fields=fields)
        expect((answer.status, answer.size, answer.sha256), (200, size, pattern_sha256(size)),
               f"status, size and SHA-256 of {size} bytes")
        self.wire += answer.wire

    def upload(self, client, size, chunk=None):
        """chunk: in such chunks, not with a length"""
        name = f"put/{id(client)}"
        method, target = ("PUT", "/" + name) if self.app == "nginx-static" else ("POST", "/up")
        if chunk:
            client.request(target, self.domain, method=method, fields=("Transfer-Encoding: chunked",))
            for piece in (*pattern(size, chunk), b""):
                client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            client.request(target, self.domain, method=method, body=b"".join(pattern(size)))
        answer = client.response()
        if self.app == "nginx-static":
            check(answer.status in (201, 204), f"status {answer.status}")
            digest = self.lab.docker("exec", self.container.id, "sha256sum", "/tmp/" + name)
        else:
            digest = answer.body.decode()
        expect(digest.split()[0], pattern_sha256(size), f"SHA-256 of {size} bytes, says {self.app}")
        self.wire += answer.wire

    def carried(self, what, function):
        """What is carried by it, which has to be done in time, every byte of it counted."""
        before, wire, began = self.agent.stats(), self.wire, time.monotonic()
        with self.connect() as client:
            function(client)
        took = time.monotonic() - began
        check(took < BOUND, f"{what} took {took:.1f} s")
        lib.wait_for(lambda: not self.agent.connections(), "the connection is closed", 10)
        moved = self.agent.stats().since(before)
        expect(moved.short_bytes + moved.relay_down_bytes, self.wire - wire,
               f"{what}: short_bytes + relay_down_bytes, and what the client received")
        expect((moved.promises_broken, moved.answers_502, moved.requests_repeated), (0, 0, 0),
               f"{what}: promises broken, 502, repeated")
        if not self.enrols:
            expect((moved.sockmap_enrolled, moved.short_bytes, moved.short_up_bytes), (0, 0, 0),
                   f"{what}: enrolled, short_bytes, short_up_bytes")
        return moved


def failed_steps(lab):
    """Those of the self-test, by their names in `check`."""
    flags = itertools.chain(*lib.default_flags(lab).items())
    done = lab.edge(lib.BINARY, "check", "--json", *flags, env=lab.environ)
    steps = [c for c in json.loads(done.stdout)["checks"] if c["name"].startswith("sockmap: ")]
    check({FIONREAD, PUT_SPLICE} <= {step["name"] for step in steps}, f"check names them: {steps}")
    return [step["name"] for step in steps if not step["ok"]]


@lib.each(*itertools.product(ENGINES, APPS))
def test_app(lab, engine, app):
    """50 small answers on a connection, 8 MiB down, 8 MiB up, and a mixture on one connection"""
    setup = Setup(lab, engine, app)

    def fifty(client):
        for _ in range(50):
            setup.get(client, SMALL)
    moved = setup.carried("fifty", fifty)
    expect(moved.requests, 50, "requests")
    if setup.enrols:
        expect(moved.sockmap_enrolled, 1, "enrolled")
        share = 100 * moved.short_answers // moved.requests
        check(share >= SHARE, f"only {share} % of the answers went by the short way: {moved}")
        expect(moved.short_up_messages > 0, engine == "both", "requests went by the short way")
        if engine == "responses":
            shares[app] = share
    setup.carried("down", lambda client: setup.get(client, BIG))
    moved = setup.carried("up", lambda client: setup.upload(client, BIG))
    if setup.enrols:
        expect(moved.sockmap_enrolled, int(not setup.small_reads), "enrolled, for an upload")

    def heads(client):
        setup.get(client, SMALL)
        setup.get(client, SMALL, (COOKIE,))
        setup.upload(client, 100)
        setup.get(client, SMALL)
    moved = setup.carried("heads", heads)
    if setup.enrols:
        expect((moved.upstream_connects, moved.sockmap_enrolled), (1 + setup.small_reads, 1),
               "connections, and enrolled: large heads and uploads may need another one")

    def mixture(client):
        for size in SIZES:
            setup.get(client, size)
        setup.upload(client, 100_000)
        for size in reversed(SIZES):
            setup.get(client, size)
    setup.carried("mixture", mixture)
    if app.startswith("haproxy"):
        pipes = [line for line in setup.container.ask("show info").splitlines()
                 if line.startswith(("PipesUsed: ", "PipesFree: "))]
        check(sum(int(line.split()[1]) for line in pipes) > 0, f"HAProxy does splice: {pipes}")
    if engine == "responses" and app == list(APPS)[-1]:
        lib.comment("share of answers by the short way:",
                    ", ".join(f"{name} {share} %" for name, share in shares.items()))


def one_of_many(setup, seed):
    """A client that does 60 things in a random order."""
    rng = random.Random(seed)
    client = setup.connect()
    for _ in range(60):
        what = rng.choices(("get", "big", "cookie", "up", "chunks", "pipeline", "leave"),
                           (40, 2, 5, 5, 5, 8, 4))[0]
        size = rng.choice(SIZES)
        if what == "get":
            setup.get(client, size)
        elif what == "big":
            setup.get(client, BIG)
        elif what == "cookie":
            setup.get(client, SMALL, (COOKIE[:rng.choice((900, 1500, 3000))],))
        elif what == "up" or what == "chunks" and setup.app == "python":    # which knows no chunks
            setup.upload(client, rng.choice((1, 999, 5000, 65536, 300_000, 3_000_000)))
        elif what == "chunks":
            setup.upload(client, rng.choice((999, 65536, 300_000)), rng.choice((333, 16384, 65536)))
        elif what == "pipeline":
            sizes = rng.choices(SIZES, k=rng.randint(2, 6))
            client.send("".join(f"GET /{s} HTTP/1.1\r\nHost: {setup.domain}\r\n\r\n"
                                for s in sizes).encode())
            for size in sizes:
                answer = client.response()
                expect((answer.size, answer.sha256), (size, pattern_sha256(size)),
                       f"{size} of pipelined {sizes}")
        else:
            client.request(f"/{rng.choice((size, BIG))}", setup.domain)
            if rng.random() < .5:
                client.file.read1(rng.choice((1, 1000, 70000)))
            (client.reset if rng.random() < .5 else client.close)()
            client = setup.connect()
    client.close()


@lib.each(*(itertools.product(ENGINES, APPS) if lib.LONG else ()))
def test_many(lab, engine, app):
    """16 clients at once, each with a random mixture on its connection, some of which leave early"""
    setup = Setup(lab, engine, app)
    before = setup.agent.stats()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(one_of_many, setup, seed) for seed in range(16)]:
            done.result()
    lib.wait_for(lambda: not setup.agent.connections(), "the connections are closed", 10)
    moved = setup.agent.stats().since(before)
    expect(moved.promises_broken, 0, "promises broken")
    expect(moved.short_answers > 0, setup.enrols, "answers went by the short way")


if __name__ == "__main__":
    lib.main("e2eapps")
