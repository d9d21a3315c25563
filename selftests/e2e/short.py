# SPDX-License-Identifier: MIT
"""The short way, from outside: whole answers and requests that the kernel carries, and what must not
change by that: order, ends, time-outs, drains, logs, bounds; and that it can be left at any moment.
"""
import itertools
import json
import random
import re
import signal
import threading
import time
from urllib.parse import parse_qsl, urlsplit

import lib
import lib_backend
import memory
from lib import KiB, MiB, check, expect, pattern, pattern_sha256, wait_for
from requests import NAMES, Setup, Talk, mix, say, seeded, wire

ENGINES = ("responses", "both")
AT_ONCE = 0.3   # s: no look once a second is needed for it

# The scripted backend and more:
#   /trickle?n=&pause=   an answer that is begun, and its body: n letters, each after so many seconds
#   /pace?rate=          a 101; behind `release` what comes is read at so many bytes a second, and
#                        when that is taken back, by `arm`, as fast as it can be
#   /kept                an answer, and nothing of this connection is read or closed any more
#   /late                the body (Content-Length) is not touched before `release`; then it is read
#                        by recv() to its end or a reset, an event `late`
SCRIPT = """
import sys, time, threading
sys.path.insert(0, "/e2e")
import lib_backend as b

KEPT = []

def do_trickle(self):
    n = self.number("n")
    self.sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % n)
    for _ in range(n):
        time.sleep(float(self.query["pause"]))
        self.sock.sendall(b"x")

def do_pace(self):
    self.sock.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\n"
                      b"Upgrade: opaque\\r\\n\\r\\n")
    rate = self.number("rate")
    digest, size = b.hashlib.sha256(), 0
    b.RELEASE.wait(120)
    while piece := self.file.read1(rate // 20):
        digest.update(piece)
        size += len(piece)
        if b.RELEASE.is_set():
            time.sleep(0.05)
    b.LOG.add("body", peer=self.peer, sha256=digest.hexdigest(), size=size)
    return False

def do_kept(self):
    self.answer(b"kept\\n")
    KEPT.append((self.sock, self.file))
    b.RELEASE.wait(600)
    return False

def do_late(self):
    left, digest, how = int(self.fields["content-length"]), b.hashlib.sha256(), "eof"
    b.RELEASE.wait(120)
    size = 0
    try:
        while piece := self.file.read1(1 << 20):
            digest.update(piece)
            size += len(piece)
    except OSError as error:
        how = type(error).__name__
    b.LOG.add("late", sha256=digest.hexdigest(), size=size, how=how)
    return False

for function in (do_trickle, do_pace, do_kept, do_late):
    setattr(b.Connection, function.__name__, function)

plain = b.socket.socket
class Roomy(plain):
    def bind(self, address):
        self.setsockopt(b.socket.SOL_SOCKET, b.socket.SO_RCVBUF, int(b.os.environ["ROOM"]))
        super().bind(address)
if "ROOM" in b.os.environ:
    b.socket.socket = Roomy
b.main()
"""


def scripted(lab, agent, name="script", **options):
    """A container, at NAME.test, with what SCRIPT adds."""
    container = lab.container(name, f"{name}.test", command=("python3", "-c", SCRIPT, 8000),
                              **options)
    agent.wait_route(f"{name}.test", name)
    return container


def engine_of(agent, domain):
    """(up, down) of each connection to the domain's container."""
    return [(c["engine_up"], c["engine_down"]) for c in agent.connections()
            if c["domain"] == domain]


def hides(setup):
    """Whether requests with a body keep to legs that are not enrolled: see exact.Setup.small_reads."""
    return setup.engine == "responses" and \
        any("FIONREAD" in str(entry) for entry in setup.agent.logs("WARN"))


# Order

def small(rng, methods=("GET", "POST")):
    """A request whose answer is small, its answer, and whether that may go by the short way."""
    name = rng.choice(NAMES)
    if rng.random() < 0.5:
        answer = f"HTTP/1.1 200 OK\r\nX-Container: {name}\r\nContent-Length: {len(name) + 1}\r\n\r\n"
        return wire("/name", name), answer.encode() + name.encode() + b"\n", True
    method = rng.choice(methods)
    body = rng.randbytes(rng.randint(1, 500)) if method == "POST" else b""
    seed = rng.getrandbits(32)
    target = f"/mix?seed={seed}&n={rng.randint(0, 3000)}&framing=length" \
             f"&status={rng.choice((200, 404, 204, 304))}&hints=0"
    request = wire(target, name, method, *([f"Content-Length: {len(body)}"] if body else [])) + body
    answer = lib_backend.mixed(name, lib.sha256([request]), method,
                               dict(parse_qsl(urlsplit(target).query)))
    cut = random.Random(str(seed)).randint(0, len(answer))     # of the backend, into two writes
    return request, answer, cut == 0 or cut >= answer.index(b"\r\n\r\n") + 4


@lib.each(*ENGINES)
def test_pipelined(lab, engine):
    """600 pipelined requests in bursts, Hosts at random, all framings: each has its own answer"""
    setup = Setup(lab, engine)
    rng = seeded()
    with setup.connect() as client:
        sent = 0
        while sent < 600:
            burst = [mix(rng, 0.01) if rng.random() < 0.2 else small(rng)[:2]
                     for _ in range(rng.choice((1, 2, 5, 40)))]
            data = b"".join(request for request, _ in burst)
            cut = rng.randint(0, len(data)) if rng.random() < 0.3 else len(data)
            writer = threading.Thread(target=lambda pieces: [client.send(p) for p in pieces],
                                      args=((data[:cut], data[cut:]),), daemon=True)
            writer.start()
            for request, answer in burst:
                client.takes(answer, f"answer {sent} to {request[:150]!r}")
                sent += 1
            writer.join()
    stats = setup.agent.stats()
    lib.comment(f"{engine}: {stats.short_answers} short answers of {sent}")
    check(hides(setup) or stats.short_answers > 20, f"{stats.short_answers} short answers")
    check(engine != "both" or stats.short_up_bytes, "requests went by the short way")
    expect(stats.promises_broken, 0, "promises broken")


@lib.each(*ENGINES)
def test_one_by_one(lab, engine):
    """400 small requests, one after the other, Hosts at random: nearly all answers are short"""
    setup = Setup(lab, engine)
    rng = seeded()
    eligible = 0
    methods = ("GET",) if hides(setup) else ("GET", "POST")
    with setup.connect() as client:
        for number in range(400):
            request, answer, may = small(rng, methods)
            client.send(request)
            client.takes(answer, f"answer {number} to {request[:150]!r}")
            eligible += may
    stats = setup.agent.stats()
    check(eligible * 0.95 <= stats.short_answers <= eligible,
          f"{stats.short_answers} short answers of {eligible} that may be")
    check(engine != "both" or stats.short_up_bytes, "requests went by the short way")
    expect(stats.promises_broken, 0, "promises broken")


# Changes of engine

class Traffic:
    """Clients that go on until they are told to end, and compare all that comes."""

    def __init__(self, setup, rng):
        self.setup, self.stop, self.errors = setup, threading.Event(), []
        self.done = dict.fromkeys(("down", "up", "small", "stream"), 0)
        self.threads = []
        for kind, count in (("down", 2), ("up", 2), ("small", 3), ("stream", 2)):
            for _ in range(count):
                self.threads.append(threading.Thread(
                    target=self.loop, args=(kind, random.Random(rng.getrandbits(32))), daemon=True))
        for thread in self.threads:
            thread.start()

    def loop(self, kind, rng):
        try:
            while not self.stop.is_set():
                with Talk(self.setup.lab) as client:
                    getattr(self, kind)(client, rng)
        except Exception as error:
            self.errors.append(f"{kind}: {lib.describe(error)}")
            self.stop.set()

    def times(self, rng, most):
        """A connection's, each of which counts."""
        return itertools.takewhile(lambda _: not self.stop.is_set(), range(rng.randint(1, most)))

    def down(self, client, rng):
        for _ in self.times(rng, 30):
            size = rng.choice((rng.randint(0, 3000), rng.randint(0, 70_000), 300_000))
            framing = rng.choice(("length", "length", "chunked"))
            name = rng.choice(NAMES)
            answer = client.get(f"/down?n={size}&framing={framing}&write={rng.randint(300, 70_000)}",
                                f"{name}.test")
            expect((answer.container, answer.size, answer.sha256),
                   (name, size, pattern_sha256(size)), "a download")
            self.done["down"] += 1

    def up(self, client, rng):
        for _ in self.times(rng, 30):
            size = rng.choice((rng.randint(1, 3000), rng.randint(1, 70_000), 300_000))
            client.send(wire("/up", rng.choice(NAMES), "POST", f"Content-Length: {size}"))
            for piece in pattern(size, rng.randint(300, 70_000)):
                client.send(piece)
            expect(json.loads(client.response().body),
                   {"sha256": pattern_sha256(size), "size": size}, "an upload")
            self.done["up"] += 1

    def small(self, client, rng):
        for _ in self.times(rng, 100):
            request, answer, _ = small(rng)
            client.send(request)
            client.takes(answer, f"the answer to {request[:100]!r}")
            self.done["small"] += 1

    def stream(self, client, rng):
        """An echo: what the client writes goes both ways."""
        client.upgrade("echo", "red.test")
        size = rng.choice((1000, 100_000, 500_000))
        write = rng.choice((100, 5000, 40_000))
        writer = threading.Thread(target=lambda: [client.send(p) for p in pattern(size, write)] and
                                  client.half_close(), daemon=True)
        writer.start()
        answer = client.read_all()
        writer.join(20)
        expect((answer.size, answer.sha256), (size, pattern_sha256(size)), "an echo")
        self.done["stream"] += 1

    def goes_on(self, what, kinds=("down", "up", "small", "stream"), more=1):
        """So many of each kind are done from now on."""
        wanted = {kind: self.done[kind] + more for kind in kinds}
        wait_for(lambda: self.errors or all(self.done[k] >= n for k, n in wanted.items()),
                 f"traffic goes on {what}: {self.done}", 15)
        check(not self.errors, "; ".join(self.errors))

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(20)
        check(not self.errors, "; ".join(self.errors))
        check(not any(t.is_alive() for t in self.threads), "all clients come to an end")


@lib.each(*ENGINES)
def test_changes(lab, engine):
    """SIGUSR1 and SIGUSR2 at random moments of traffic: exact, and each does what it says"""
    setup = Setup(lab, engine)
    agent, rng = setup.agent, seeded()
    traffic = Traffic(setup, rng)

    def short():
        stats = agent.stats()
        return stats.short_bytes, stats.short_up_bytes
    for _ in range(3):
        # these two stay: they have to leave, though nothing ends
        idle, stream = setup.connect(), setup.connect()
        idle.names("green")
        stream.upgrade("echo", "blue.test")
        before = short()
        wait_for(lambda: traffic.errors or short()[0] > before[0] and
                 (engine != "both" or short()[1] > before[1]), "bytes go by the short way")
        traffic.goes_on("by sockmap", more=rng.randint(1, 3))
        agent.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: agent.status().get("engine") == "relay", "status says relay")
        wait_for(lambda: all(c["engine_up"] == c["engine_down"] == "relay"
                             for c in agent.connections()), "all connections are relayed")
        left = short()
        traffic.goes_on("by relay", more=rng.randint(1, 3))
        idle.names("green")
        stream.send(b"both ways")
        expect(stream.file.read(9), b"both ways", "the echo of a stream that was open before")
        expect(short(), left, "bytes by the short way, before SIGUSR1 and some time after it")
        idle.close()
        stream.close()
        agent.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: agent.status().get("engine") == "sockmap", "status says sockmap")
        with setup.connect() as client:
            client.names("red")
        wait_for(lambda: traffic.errors or short()[0] > left[0], "the short way is used again")
    # and without a condition, one right after the other
    for _ in range(20):
        agent.process.send_signal(rng.choice((signal.SIGUSR1, signal.SIGUSR2)))
        traffic.goes_on("between signals", kinds=("small",))
    traffic.goes_on("at last")
    traffic.end()
    lib.comment(f"{engine}: {traffic.done}")
    expect(agent.stats().promises_broken, 0, "promises broken")


def test_bytes_outlive_the_agent(lab):
    """300 kB of a POST that were put into its reader's socket, unread when the agent exits: it gets them"""
    agent = lab.agent("--datapath", "both", "--drain-timeout", "1s")
    container = scripted(lab, agent, environ={"ROOM": 4 * MiB})
    size = 300_000
    container.ask("arm")
    with lab.connect() as client:
        client.request("/late", "script.test", method="POST", body=b"".join(pattern(size)))
        request_size = len("POST /late HTTP/1.1\r\nHost: script.test\r\nContent-Length: 300000\r\n\r\n")
        wait_for(lambda: [c for c in agent.connections() if c["bytes_up"] == request_size + size],
                 f"all is sent to the container: {agent.connections()}")
        put = agent.stats().short_up_bytes
        check(put > request_size + 1, f"a part of the body went by the short way: {put}")
        lib.comment(f"{put} of {request_size + size} bytes by the short way")
        begun = time.monotonic()
        expect(agent.stop(), 0, "exit status")
        check(time.monotonic() - begun < 4, "the drain ends in time")
        lib.check(not container.log("late"), "nothing was read by then")
    container.release()
    event, = wait_for(lambda: container.log("late"), "the reader comes to an end")
    expect((event["size"], event["sha256"]), (size, pattern_sha256(size)), "what it got")
    check(event["how"] in ("eof", "ConnectionResetError"), f"how it ended: {event}")


def test_off(lab):
    """kakuremichi.sockmap=off: nothing of HTTP is enrolled; another container's is"""
    agent = lab.agent("--datapath", "both")
    for name, takes_it in (("shy", False), ("bold", True)):
        labels = {} if takes_it else {"kakuremichi.sockmap": "off"}
        lab.container(name, f"{name}.test", labels=labels)
        agent.wait_route(f"{name}.test", name)
        before = agent.stats()
        with lab.connect() as client:
            for _ in range(20):
                expect(client.get("/name", f"{name}.test").container, name, "who answers")
            expect(engine_of(agent, f"{name}.test"),
                   [("sockmap", "sockmap") if takes_it else ("relay", "relay")], f"of {name}")
        moved = agent.stats().since(before)
        expect((moved.sockmap_enrolled, moved.short_answers, moved.short_bytes > 0,
                moved.short_up_bytes > 0),
               (int(takes_it), 20 * takes_it, takes_it, takes_it), f"what {name} took")


# Logs and ends

@lib.each(*ENGINES)
def test_access_log(lab, engine):
    """a line for each short answer, though the client asks for nothing more; its duration is its own"""
    setup = Setup(lab, engine, "--access-log", "on", "--workers", "1")
    agent, asked = setup.agent, []

    def line(what):
        """The last of them, though nobody asks for anything: the bound is the look once a second."""
        found = wait_for(lambda: len(f := agent.logs(msg="access")) >= len(asked) and f,
                         f"the line of {what}", 2.5)
        expect(len(found), len(asked), "lines")
        return found[-1]
    with setup.connect() as client:
        for number, name in enumerate(("red", "red", "green", "blue", "red")):
            target = ("/name", say(b"HTTP/1.1 404 No\r\nContent-Length: 3\r\n\r\nabc"))[number % 2]
            client.request(target, f"{name}.test")
            answer = client.response()
            asked.append(name)
            entry = line(f"request {number}")
            expect((entry["status"], entry["bytes"], entry["container"], entry["domain"],
                    entry["method"], entry["engine"]),
                   ((200, 404)[number % 2], answer.wire, name, f"{name}.test", "GET", "sockmap"),
                   "the line")
            check(0 <= entry["duration_ms"] < 500, f"duration: {entry}")
        begun = time.monotonic()
        expect(client.get("/slow", "red.test").size, 5, "a slow answer")
        took = (time.monotonic() - begun) * 1000
        asked.append("red")
        entry = line("the slow answer")
        check(690 <= entry["duration_ms"] <= took + 20, f"duration, of {took} ms: {entry}")
        expect(entry["engine"], "sockmap", "engine")
    with setup.connect() as client:     # a client that ends behind its answer
        client.names("green")
        asked.append("green")
    entry = line("one whose client has ended")
    expect((entry["container"], entry["status"], entry["engine"]), ("green", 200, "sockmap"), "it")
    expect(agent.stats().short_answers, len(asked), "short answers")


@lib.each(*ENGINES)
def test_drain(lab, engine):
    """SIGTERM: an idle connection whose last answer was short ends soon; one under way is answered"""
    setup = Setup(lab, engine, "--drain-timeout", "60s")
    agent = setup.agent
    with setup.connect() as idle, setup.connect() as late, setup.connect() as slow:
        for client in (idle, late, slow):
            client.names("red")
        expect(agent.stats().short_answers, 3, "short answers")
        requests = agent.stats().requests
        slow.request("/slow", "red.test")
        wait_for(lambda: agent.stats().requests == requests + 1, "it is under way")
        begun = time.monotonic()
        agent.process.terminate()
        expect(slow.response().body, b"late\n", "the answer that was under way")
        slow.ends("the connection with the slow answer")
        idle.ends("the idle connection")
        check(time.monotonic() - begun < 4, "they end soon")
        late.ends("the other one")
        for client in (slow, idle, late):
            client.close()
        expect(agent.process.wait(10), 0, "exit status")


@lib.each(*ENGINES)
def test_at_once(lab, engine):
    """who waits for the end of a short answer is not kept waiting for the look once a second"""
    setup = Setup(lab, engine)
    rng = seeded()
    late = []

    def within(what, begun):
        took = time.monotonic() - begun
        if took > AT_ONCE:
            late.append((what, round(took, 3)))
    for number in range(25):
        with setup.connect() as client:
            client.names("red")
            name = rng.choice(NAMES)
            begun = time.monotonic()
            if number % 2:      # together; or the second in the first's time
                client.send(wire("/name", "red") + wire("/name", name))
            else:
                client.send(wire("/name", "red"))
                client.send(wire("/name", name))
            expect([client.response().container for _ in range(2)], ["red", name], "answers")
            within("a pipelined request", begun)
            begun = time.monotonic()
            client.send(wire("/name", name))
            client.half_close()
            expect(client.response().container, name, "the answer to a half-closed client")
            client.ends()
            within("a half-close behind a request", begun)
        with setup.connect() as client:
            begun = time.monotonic()
            client.send(wire("/name", name))
            expect(client.response().container, name, "an answer")
            client.half_close()     # when it has it
            client.ends()
            within("a half-close behind an answer", begun)
    check(len(late) <= 2, f"late: {late}")     # of 75, on a machine that does something else, too
    check(setup.agent.stats().short_answers > 25, f"{setup.agent.stats().short_answers} short answers")


@lib.each(*ENGINES)
def test_container_ends(lab, engine):
    """a container that ends right behind a short answer: the client goes on with its next request"""
    setup = Setup(lab, engine)
    ok = b"HTTP/1.1 200 OK\r\nX-Container: red\r\nContent-Length: 2\r\n\r\nok"
    with setup.connect() as client:
        for number in range(30):
            before, ends = setup.agent.stats().short_answers, len(setup.red.log("end"))
            client.send(wire(say(ok, then=("close", "reset")[number % 2], acked=1), "red"))
            client.takes(ok, f"answer {number}")
            check(number % 2 or setup.agent.stats().short_answers == before + 1, "it was short")
            if number % 3 or hides(setup):
                client.names(NAMES[number % 3], f"who answers behind {number}")
            else:   # which cannot be sent again: when the end is known
                wait_for(lambda: len(setup.red.log("end")) > ends and
                         not engine_of(setup.agent, "red.test"), "the agent knows it, too")
                client.send(wire("/up", "red", "POST", "Content-Length: 5") + b"hello")
                expect(json.loads(client.response().body)["sha256"], lib.sha256([b"hello"]), "a POST")
    check(setup.agent.stats().short_answers >= 30, "short answers")


@lib.each(*ENGINES)
def test_expect_and_early(lab, engine):
    """Expect: 100-continue, and an answer before the request's end; the connection goes on"""
    setup = Setup(lab, engine)
    body = b"".join(pattern(20_000))
    with setup.connect() as client:
        for _ in range(5):
            client.names("red")
            client.send(wire("/continue", "red", "POST", f"Content-Length: {len(body)}",
                             "Expect: 100-continue"))
            expect(client.head().status, 100, "the interim answer")
            client.send(body)
            expect(client.response().body, b"continued\n", "the answer")
            client.send(wire("/early", "green", "POST", f"Content-Length: {len(body)}"))
            client.send(body[:100])
            answer = client.response()
            expect((answer.status, answer.container), (413, "green"), "the early answer")
            client.send(body[100:])
            client.names("green", "who answers behind the rest of the body")
    with setup.connect() as client:
        client.names("red")
        client.send(wire("/early?close=1", "red", "POST", "Content-Length: 300000") + body)
        expect(client.response().status, 413, "the early answer")
        client.ends()
    check(setup.agent.stats().short_answers >= (1 if hides(setup) else 10), "short answers")


@lib.each(*ENGINES)
def test_idle(lab, engine):
    """bytes by the short way keep a connection from being idle; without them it ends"""
    agent = lab.agent("--datapath", engine, "--idle-timeout", "2s", "--head-timeout", "60s")
    container = scripted(lab, agent)
    with lab.connect() as client:
        # longer than the time-out, and nothing of it comes to the agent
        answer = client.get("/trickle?n=6&pause=0.5", "script.test")
        expect(answer.body, b"x" * 6, "an answer of 3 s")
        stats = agent.stats()
        expect((stats.short_answers, stats.relay_down_bytes), (1, 0), "short answers, bytes relayed")
        client.request("/nothing", "script.test")   # and this says nothing
        begun = time.monotonic()
        try:
            client.ends()
        except ConnectionResetError:
            pass
        check(1.9 < time.monotonic() - begun < 5, f"it ends after {time.monotonic() - begun} s")
    wait_for(lambda: not agent.connections(), "its connection is gone")
    check(container.log("end"), "the container has been told")


# Bounds

def receive_queues(lab, container):
    """(in the receive buffer, its size) of each connection of the container's port."""
    pid = lab.docker("inspect", "-f", "{{.State.Pid}}", container.id)
    done = lib.run("nsenter", f"--net=/proc/{pid}/ns/net", "--", "ss", "-tmnOH", "state",
                   "established", "sport = :8000")
    return [tuple(map(int, m)) for m in re.findall(r"skmem:\(r(\d+),rb(\d+),", done.stdout)]


@lib.each(1000, 8000)
def test_flooded(lab, size):
    """a backend that reads 200 kB/s of a flood: its socket, and what the agent holds, stay bounded"""
    agent = lab.agent("--datapath", "both")
    container = scripted(lab, agent, environ={"ROOM": 64 * KiB})
    container.ask("arm")
    total, most = 12 * MiB, 0

    def look():
        nonlocal most
        queues = receive_queues(lab, container)
        check(queues, "the container's socket is seen")
        for held, room in queues:
            most = max(most, held)
            check(held <= room + 64 * KiB, f"{held} bytes in a receive buffer of {room}")
    with memory.Sampler(lab, agent) as sampler, lab.connect(timeout=60) as client:
        client.request("/pace?rate=200000", "script.test",
                       fields=("Connection: Upgrade", "Upgrade: opaque"))
        expect(client.response().status, 101, "status")
        pieces = pattern(total, size)
        sent = 0
        try:    # not in bulk: each is put into the container's socket, while it has room
            while sent < 600_000:
                piece = next(pieces)
                client.send(piece)
                sent += len(piece)
                wait_for(lambda: agent.connections()[0]["bytes_up"] > sent, "it is sent", 0.5)
                look()
            raise RuntimeError("it never has enough")
        except AssertionError as error:
            check("it is sent" in str(error), str(error))
        put = agent.stats().short_up_bytes
        check(put > 50_000, f"much went by the short way: {put}")
        thread = threading.Thread(target=lambda: [client.send(p) for p in pieces] and
                                  client.half_close(), daemon=True)
        thread.start()
        container.release()
        wait_for(lambda: look() or sampler.samples > memory.SECONDS * 5 + 5, "it is looked at", 40)
        container.ask("arm")    # and now as fast as it can
        thread.join(30)
        client.ends()
    event, = wait_for(lambda: container.log("body"), "the container has it all", 20)
    expect((event["size"], event["sha256"]), (total, pattern_sha256(total)), "what it got")
    lib.comment(f"writes of {size}: at most {most} bytes in the container's receive buffer")
    sampler.judge(f"flood, writes of {size}")


def test_no_places(lab):
    """more connections than the maps have places for: all are served, and it is counted"""
    agent = lab.agent("--workers", "1", "--max-connections", "10", "--datapath", "both", limit=300)
    names = [f"host{i}" for i in range(3)]
    for name in names:
        lab.container(name, f"{name}.test")
        agent.wait_route(f"{name}.test", name)
    kept = scripted(lab, agent, "keeper")
    kept.ask("arm")
    for number in itertools.count():
        # whoever never closes its socket, and has not read what was put into it, keeps its place
        requests = agent.stats().requests
        with lab.connect() as client:
            client.request("/kept", "keeper.test")
            expect(client.response().body, b"kept\n", f"answer {number}")
            client.request("/name", "keeper.test")
            wait_for(lambda: agent.stats().requests == requests + 2, "it is put there")
            client.reset()
        wait_for(lambda: not agent.connections(), "it is closed for the agent")
        if agent.stats().sockmap_full:
            break
        check(number < 500, "no map is ever full")
    before = agent.stats()
    clients = [lab.connect() for _ in range(9)]
    for turn, client in itertools.product(range(3), clients):
        for name in names:
            expect(client.get("/name", f"{name}.test").container, name, f"who answers, turn {turn}")
    moved = agent.stats().since(before)
    lib.comment(f"full after {number + 1}; then {moved.sockmap_full} of {moved.sockmap_wanted}")
    check(moved.sockmap_full > 0, "some found no place")
    check("relay" in [down for name in names for _, down in engine_of(agent, f"{name}.test")],
          "they are the relay's")
    for client in clients:
        client.close()
    kept.release()
    errors = {k: v for k, v in agent.stats().items() if k.startswith("answers_") and v}
    expect(errors, {}, "errors")


if __name__ == "__main__":
    lib.main("e2eshort")
