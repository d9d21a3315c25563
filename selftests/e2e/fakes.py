# SPDX-License-Identifier: MIT
"""What the real Docker daemon cannot be made to do: every API version, streams that break or lie,
answers without end, hundreds of containers at once, ten thousand cycles. lib_dockerd.py is the
daemon, lib_fleet.py the containers."""
import json
import os
import re
import time

import lib
from lib import MiB, check, expect, wait_for
from lib_dockerd import Daemon
from lib_faults import Load, cpu_seconds, memory, peak
from lib_fleet import Fleet

SANITIZED = "/san/" in lib.BINARY
NEWEST = 55     # the highest minor version that the agent speaks
CYCLES = 10_000
_shared = {}


def fake(lab, **options):
    """A daemon with one container, and the file's fleet."""
    if "fleet" not in _shared:
        _shared["fleet"] = Fleet(lab)
    if "daemon" in _shared:
        _shared["daemon"].close()
    daemon = _shared["daemon"] = Daemon(f"{lab.dir}/fake.sock", **options)
    daemon.one = add(daemon, "one", 1)
    return daemon


def add(daemon, name, number, **options):
    return daemon.add(name, Fleet.address(number), f"{name}.test", **options)


def start(lab, daemon, *flags):
    agent = lab.agent("--docker-socket", daemon.address, "--datapath", "relay", *flags)
    agent.wait_route("one.test", "one")
    return agent


def load(lab, *containers):
    return Load(lab, {f"{c.name}.test": {c.address} for c in containers})


def connected(agent):
    return agent.status()["docker"]["connected"]


def no_longer(agent, domain):
    """Nobody is sent there; it may be known as draining for two seconds."""
    wait_for(lambda: set(agent.states(domain).values()) <= {"draining"}, f"{domain} is gone")


def judge_requests(daemon):
    """Nothing but GET, and what has a version names it."""
    for request in daemon.requests:
        check(re.match(r"GET (/version|/_ping|/v1\.\d+/(events|containers/)\S*)$", request),
              request)


def asked(daemon, part, since=0):
    return sum(part in request for request in daemon.requests[since:])


# Versions

def reverse(document):
    """As JSON, the fields in the other order, with blanks everywhere."""
    def turn(node):
        if isinstance(node, dict):
            return {key: turn(value) for key, value in reversed(node.items())}
        return [turn(item) for item in node] if isinstance(node, list) else node
    return json.dumps(turn(document), indent=1)


def test_every_version(lab):
    """each API version from 1.24 to 1.55, fields in either order: found, started, paused, stopped"""
    for minor in range(24, NEWEST + 1):
        version = f"1.{minor}"
        daemon = fake(lab, highest=version, seed=minor,
                      lowest=None if minor < 25 else "1.12" if minor < 44 else "1.44")
        daemon.write = reverse if minor % 2 else json.dumps
        agent = start(lab, daemon)
        expect(agent.status()["docker"]["api_version"], version, "the version spoken")
        two = add(daemon, "two", 2)
        agent.wait_route("two.test", "two")
        daemon.change(two, "pause", state="paused")
        wait_for(lambda: agent.states("two.test") == {"two": "paused"}, "paused")
        daemon.change(two, "unpause", state="running")
        wait_for(lambda: agent.states("two.test") == {"two": "active"}, "active")
        daemon.change(two, "health_status: unhealthy", health="unhealthy")
        wait_for(lambda: agent.states("two.test") == {"two": "unhealthy"}, "unhealthy")
        daemon.stop_container(two)
        no_longer(agent, "two.test")
        judge_requests(daemon)
        wrong = [r for r in daemon.requests if re.match(r"GET /v1", r) and f"/v{version}/" not in r]
        expect(wrong, [], f"requests in another version than {version}")
        expect(warnings(agent), [], "warnings")
        expect(agent.stop(), 0, "exit status")


def warnings(agent):
    return [entry for entry in agent.logs() if entry["level"] in ("WARN", "ERROR", "")]


@lib.each(("1.60", "1.40", "1.55"), ("1.55", "1.55", "1.55"), ("1.56", None, "1.55"))
def test_newer_daemon(lab, highest, lowest, spoken):
    """a daemon that is newer than the agent, where the versions overlap"""
    daemon = fake(lab, highest=highest, lowest=lowest)
    agent = start(lab, daemon)
    expect(agent.status()["docker"]["api_version"], spoken, "the version spoken")


@lib.each(("1.60", "1.56"), ("1.23", "1.12"), ("1.23", None))
def test_no_overlap(lab, highest, lowest):
    """no version in common: one line that says so, tried again, well once the daemon is another"""
    daemon = fake(lab, highest=highest, lowest=lowest)
    agent = lab.agent("--docker-socket", daemon.address, ready=False)
    wait_for(lambda: asked(daemon, "/version") > 2, "it tries again", 20)
    lines = agent.logs("WARN")
    expect(len(lines), 1, f"warnings: {lines}")
    text = json.dumps(lines[0])
    for word in (lowest if lowest == "1.56" else highest, "1.55" if lowest == "1.56" else "1.24"):
        check(word in text, f"{word} is in {text}")
    expect(asked(daemon, "/events"), 0, "requests for events")
    expect(agent.health()[0], 503, "status of /readyz")
    daemon.close()
    daemon.highest, daemon.lowest = "1.41", "1.12"
    daemon.open()
    agent.wait_ready()
    agent.wait_route("one.test", "one")
    expect(len(agent.logs("WARN")), 1, f"warnings: {agent.logs('WARN')}")


def test_another_daemon(lab):
    """the daemon comes back with another version, higher and lower: spoken, requests running"""
    daemon = fake(lab)
    agent = start(lab, daemon)
    with load(lab, daemon.one) as running:
        for version in ("1.24", "1.55", "1.43"):
            daemon.close()
            wait_for(lambda: not connected(agent), "the loss is seen")
            daemon.highest, daemon.lowest = version, "1.44" if version == "1.55" else "1.12"
            daemon.open()
            wait_for(lambda: connected(agent), "connected again", 30)
            expect(agent.status()["docker"]["api_version"], version, "the version spoken")
            two = add(daemon, "two", 2)
            agent.wait_route("two.test", "two")
            daemon.remove(two)
            no_longer(agent, "two.test")
    running.judge("one.test")
    judge_requests(daemon)


def test_absent_then_there(lab):
    """no daemon at the start, then one, then none, then one: a line a change, routes stay"""
    daemon = fake(lab)
    daemon.close()
    agent = lab.agent("--docker-socket", daemon.address, ready=False)
    wait_for(lambda: agent.logs("WARN"), "it says that there is none")
    expect(agent.health()[0], 503, "status of /readyz")
    with lab.connect() as client:
        expect(client.get("/", "one.test").status, 503, "status before the first list")
    daemon.open()
    agent.wait_ready()
    agent.wait_route("one.test", "one")
    expect(len(agent.logs("WARN")), 1, f"warnings: {agent.logs('WARN')}")
    with load(lab, daemon.one) as running:
        daemon.close()
        wait_for(lambda: not connected(agent), "the loss is seen")
        running.goes_on("one.test", 300)
        code, body = agent.health()
        check(code == 200 and "ocker" in body, f"/readyz says {code} {body}")
        expect(agent.routes(), {"one.test": ["one"]}, "routes while it is away")
        daemon.one.address = Fleet.address(9)   # has come back with another
        running.domains["one.test"].add(daemon.one.address)
        daemon.open()
        wait_for(lambda: connected(agent), "connected again", 30)
        running.goes_on("one.test")
    running.judge("one.test")
    expect(len(agent.logs("WARN")), 2, f"warnings: {agent.logs('WARN')}")
    check(not agent.logs(msg="Removing Docker tunnel"), "no route was removed")


# Streams

def start_of_event(daemon, version):
    text = daemon.event_text({"Type": "container", "Action": "start", "timeNano": 1,
                              "Actor": {"ID": "f" * 64, "Attributes": {}}}, version)
    return text[:len(text) // 2]


def test_cut_in_an_object(lab):
    """cut within an object, six times, while containers come and go: none is missed"""
    daemon = fake(lab)
    agent = start(lab, daemon)
    with load(lab, daemon.one) as running:
        two = add(daemon, "two", 2)
        for turn in range(6):
            agent.wait_route("two.test", "two")
            before = len(daemon.requests)
            daemon.raw(start_of_event(daemon, (1, 41)))
            if turn % 2:
                daemon.hang_up()
                daemon.stop_container(two)
            else:
                daemon.stop_container(two)
                daemon.hang_up()
            daemon.start(two, Fleet.address(10 + turn))
            wait_for(lambda: asked(daemon, "/events", before), "a new stream", 20)
            wait_for(lambda: two.address in str(agent.document("routes")), "the new address")
        daemon.stop_container(two)
        no_longer(agent, "two.test")
    running.judge("one.test")
    expect(warnings(agent), [], "warnings, though each was a moment's loss")
    judge_requests(daemon)


def endless(piece):
    """This piece again and again, until the agent hangs up."""
    def hook(request):
        request.begin_stream()
        while True:
            request.chunk(piece)
    return hook


def wire(*pieces):
    """Answers with these bytes, and the end."""
    def hook(request):
        for piece in pieces:
            request.send(piece)
        return False
    return hook


def chunks(*pieces, stay=False):
    def hook(request):
        request.begin_stream()
        for piece in pieces:
            request.chunk(piece)
        while stay and request.sock.recv(1):
            pass
        return False
    return hook


def slowly(data, pause=0.05):
    """A byte at a time, and after the last nothing."""
    def hook(request):
        request.begin_stream()
        for byte in data:
            request.chunk(bytes([byte]))
            time.sleep(pause)
        while request.sock.recv(1):
            pass
        return False
    return hook


def status(line):
    def hook(request):
        request.answer({"message": "not today"}, line)
    return hook


EVENT = b'{"Type":"container","Action":"start","Actor":{"ID":"%s","Attributes":{"a":"%s"}}}\n'
STREAMS = {
    "garbage": chunks(b"SSH-2.0-OpenSSH_9.2p1\r\n", stay=True),
    "binary": chunks(bytes(range(256)) * 16, stay=True),
    "a closing brace": chunks(b"}" * 1000, stay=True),
    "an array": chunks(b"[" * 100_000, stay=True),
    "nested without end": endless(b'{"a":' * 10_000),
    "an object without end": endless(b'{"a":"' + b"a" * 65536),
    "an event of 2 MiB": chunks(EVENT % (b"f" * 64, b"a" * (2 * MiB)), stay=True),
    "bad chunks": wire(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    "a head without end": lambda r: [r.send(b"X: " + b"a" * 65536 + b"\r\n") for _ in range(4096)],
    "not HTTP": wire(b"\0" * 4096),
    "the end at once": chunks(),
    "not found": status("404 Not Found"),
    "an error": status("500 Internal Server Error"),
    "moved": wire(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n"
                  b"Content-Length: 0\r\n\r\n"),
}


def misbehave(lab, kind, hook):
    """For a while the daemon answers this to one kind of request, to whoever connects again. Routes
    stay, memory too; afterwards what has changed meanwhile is known."""
    daemon = fake(lab)
    agent = start(lab, daemon)
    before = peak(agent.pid)
    with load(lab, daemon.one) as running:
        calls, ended = [], []

        def called(request):
            calls.append(time.monotonic())
            try:
                return hook(request)
            finally:
                ended.append(request)
        daemon.hooks[kind] = called
        daemon.hang_up()
        wait_for(lambda: calls, "it is asked for", 20)
        begin = len(agent.logs())
        wait_for(lambda: len(calls) > 2 or time.monotonic() > calls[0] + 0.5, "for a while")
        if hook in ENDLESS:
            wait_for(lambda: ended, "the agent hangs up")
        running.goes_on("one.test", 100)
        expect(agent.routes(), {"one.test": ["one"]}, "routes")
        lines = agent.logs()[begin:]
        check(len(lines) < 12, f"{len(lines)} lines: {lines[:12]}")
        two = add(daemon, "two", 2)
        del daemon.hooks[kind]
        wait_for(lambda: agent.routes().get("two.test") == ["two"], "what came meanwhile", 45)
        daemon.remove(two)
        no_longer(agent, "two.test")
    running.judge("one.test")
    grown = (peak(agent.pid) - before) / MiB
    lib.comment(f"{grown:.0f} MiB more at the most")
    check(grown < 200 or SANITIZED, "memory is bounded")
    judge_requests(daemon)


RARE = {"bad chunks", "the end at once", "a list that is cut", "binary", "a closing brace",
        "an array", "nested without end", "not HTTP", "not found", "an error", "moved", "a list that is none",
        "a refused list", "a version that is none", "a version without end"}


def unless_rare(names):
    return [name for name in names if lib.LONG or name not in RARE]


@lib.each(*unless_rare(STREAMS))
def test_stream(lab, what):
    """a stream of events that is none: routes stay, and it goes on when there is one again"""
    misbehave(lab, "events", STREAMS[what])


def huge_list(request):
    """100 MB, all of it valid."""
    element = json.dumps(request.daemon.one.listed(request.version)).encode() + b","
    count = 100_000_000 // len(element)
    request.head("200 OK", f"Content-Length: {count * len(element) + 1}")
    request.send(b"[" + element * (count - 1) + element[:-1] + b"]")


ANSWERS = {
    "a list of 100 MB": ("list", huge_list),
    "a list without end": ("list", endless(b"[" + b"{}," * 21845)),
    "a list that is cut": ("list", wire(
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{\"Id\":")),
    "a list that is none": ("list", chunks(b'{"message":"x"}')),
    "a list of nonsense": ("list", lambda r: r.answer(
        [None, 5, "x", [], {}, {"Id": 5}, {"Id": "x" * 70}] * 1000)),
    "a refused list": ("list", status("403 Forbidden")),
    "a version without end": ("version", endless(b'{"ApiVersion":"1.41",' * 1000)),
    "a version that is none": ("version", chunks(b'{"ApiVersion":[1.41]}')),
    "a refused version": ("version", status("403 Forbidden")),
}


ENDLESS = [hook for what, hook in [*STREAMS.items(), *((w, h) for w, (_, h) in ANSWERS.items())]
           if "without end" in what]


@lib.each(*unless_rare(ANSWERS))
def test_answer(lab, what):
    """an answer that is none: routes stay, and it goes on when there is one again"""
    misbehave(lab, *ANSWERS[what])


@lib.each("events", *(("list", "version") if lib.LONG else ()))
def test_slow_answer(lab, kind):
    """an answer a byte at a time: others are served, and it does not wait for ever"""
    daemon = fake(lab)
    agent = start(lab, daemon)
    with load(lab, daemon.one) as running:
        slow = slowly(b" " * 1_000_000)
        daemon.hooks[kind] = slow
        before = len(daemon.requests)
        daemon.hang_up()
        part = {"list": "/containers/json", "version": "/version", "events": "/events"}[kind]
        wait_for(lambda: asked(daemon, part, before), "it is asked for", 20)
        running.goes_on("one.test", 300)
        del daemon.hooks[kind]      # but the slow one goes on
        two = add(daemon, "two", 2)
        since = time.monotonic()
        if kind == "events" and not lib.LONG:
            daemon.hang_up()        # blanks keep a stream alive; only the list tells, in its time
        wait_for(lambda: agent.routes().get("two.test") == ["two"], "what came meanwhile", 75)
        lib.comment(f"known after {time.monotonic() - since:.1f} s")
        daemon.remove(two)
        no_longer(agent, "two.test")
    running.judge("one.test")


def test_huge_container(lab):
    """a container whose labels are of 5 MB, in the list and in events: the others go on"""
    daemon = fake(lab)
    agent = start(lab, daemon)
    with load(lab, daemon.one) as running:
        huge = add(daemon, "huge", 2, labels={f"x{n}": "y" * 1000 for n in range(5000)})
        two = add(daemon, "two", 3)
        agent.wait_route("two.test", "two")
        wait_for(lambda: agent.routes().get("huge.test") == ["huge"], "the huge one", 20)
        daemon.remove(huge)
        wait_for(lambda: "huge.test" not in agent.routes(), "it is gone", 20)
        daemon.remove(two)
        no_longer(agent, "two.test")
    running.judge("one.test")


def test_half_dead_stream(lab):
    """a stream that tells nothing any more while the daemon answers: found within about a minute"""
    if not lib.LONG:
        return lib.comment("takes a minute: --long")
    daemon = fake(lab)
    agent = start(lab, daemon)
    with load(lab, daemon.one) as running:
        daemon.silent = True
        two, begin = add(daemon, "two", 2), time.monotonic()
        wait_for(lambda: agent.routes().get("two.test") == ["two"], "the container that came", 90)
        lib.comment(f"a start was found after {time.monotonic() - begin:.0f} s")
        daemon.die(two)
        begin = time.monotonic()
        wait_for(lambda: "two.test" not in agent.routes(), "the container that died", 90)
        lib.comment(f"an end was found after {time.monotonic() - begin:.0f} s")
    running.judge("one.test")
    expect(warnings(agent), [], "warnings")


# Many

def test_burst(lab):
    """200 containers at once: few updates of the maps, and as many when they go"""
    daemon = fake(lab)
    agent = start(lab, daemon)
    with load(lab, daemon.one) as running:
        for what in ("started", "stopped"):
            before = agent.stats()
            with daemon.lock:   # so that all events come at once
                if what == "started":
                    many = [add(daemon, f"b{n}", 100 + n) for n in range(200)]
                else:
                    for container in many:
                        daemon.stop_container(container)
            wanted = 201 if what == "started" else 1
            wait_for(lambda: agent.status()["counts"]["routes"] == wanted, f"{wanted} routes", 20)
            wait_for(daemon.quiet, "nothing is asked for any more", 20)
            updates = agent.stats().since(before).table_updates
            lib.comment(f"200 {what}: {updates} updates")
            check(updates <= 10, f"{updates} updates")
    running.judge("one.test")


def test_two_thousand(lab):
    """2,000 containers are listed and routed within a second of the agent's CPU"""
    daemon = fake(lab)
    agent = start(lab, daemon)
    add_many = [daemon.add(f"m{n}", Fleet.address(n), f"m{n}.test", quiet=True)
                for n in range(2000)]
    before = cpu_seconds(agent.pid)
    daemon.hang_up()
    wait_for(lambda: agent.status()["counts"]["routes"] == 2001, "all are routed", 30)
    used = cpu_seconds(agent.pid) - before
    wait_for(daemon.quiet, "nothing is asked for any more", 30)
    lib.comment(f"{used:.2f} s of CPU, {cpu_seconds(agent.pid) - before:.2f} s with all stop "
                f"signals and asking how far it is")
    with lab.connect() as client:
        expect(client.get("/", "m1999.test").container, add_many[-1].address, "who answers")
    check(used < 1 or SANITIZED, "a second of CPU")


def entries(lab):
    """Map -> how many entries, of those that hold what Docker says."""
    found = {}
    for name in os.listdir(lab.bpf_dir):
        shown = lib.run("bpftool", "-j", "map", "show", "pinned", f"{lab.bpf_dir}/{name}")
        if name != "kkm_conns" and shown.returncode == 0 and \
                "hash" in json.loads(shown.stdout)["type"]:
            dump = lib.must("bpftool", "-j", "map", "dump", "pinned", f"{lab.bpf_dir}/{name}")
            found[name] = len(json.loads(dump))
    return found


def cycle(daemon, agent, count, width=250):
    """`count` containers started and stopped, so many at once, in every way that one can end."""
    for at in range(0, count, width):
        batch = [daemon.add(f"c{n}", Fleet.address(n % 16000), f"c{n}.test")
                 for n in range(at, min(at + width, count))]
        wait_for(lambda: agent.status()["counts"]["routes"] == 1 + len(batch), "all started", 20)
        for number, container in enumerate(batch):
            (daemon.stop_container, daemon.die, daemon.remove)[number % 3](container)
        if at:      # else they are forgotten two seconds later
            for container in batch:
                if container.id in daemon.containers:
                    daemon.remove(container)
        wait_for(lambda: agent.status()["counts"]["routes"] == 1, "all stopped", 20)
    wait_for(daemon.quiet, "nothing is asked for any more", 30)


def test_cycles(lab):
    """10,000 containers started and stopped: memory, descriptors and maps do not grow"""
    daemon = fake(lab)
    agent = start(lab, daemon, "--log-level", "warn")
    with load(lab, daemon.one) as running:
        cycle(daemon, agent, 1000)
        fds, maps, rss = len(os.listdir(f"/proc/{agent.pid}/fd")), entries(lab), memory(agent.pid)
        begin = time.monotonic()
        cycle(daemon, agent, CYCLES)
        lib.comment(f"{CYCLES / (time.monotonic() - begin):.0f} cycles/s; {rss / MiB:.1f} MiB, "
                    f"then {memory(agent.pid) / MiB:.1f}; {maps}")
        expect(entries(lab), maps, "entries of the maps")
        check(memory(agent.pid) < rss + 2 * MiB or SANITIZED, "memory does not grow")
    running.judge("one.test")
    wait_for(lambda: len(os.listdir(f"/proc/{agent.pid}/fd")) <= fds, f"again {fds} descriptors")
    judge_requests(daemon)


lib.main("e2efake")
