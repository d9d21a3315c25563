# SPDX-License-Identifier: MIT
"""Start, end, crash; and that the programs take nobody else's sockets for ours."""
import itertools
import json
import os
import signal
import socket
import time
from pathlib import Path

import lib
import lib_backend
from exact import Held, held_container
from lib import ENGINES, KiB, MiB, check, expect, pattern_sha256, wait_for

SOCK_OPS = ["kkm_agent_end", "kkm_container_end"]
ATTACHED = {"relay": [], "sockmap": SOCK_OPS, "both": SOCK_OPS}


def attached(lab):
    """Names of the programs on the lab's cgroup."""
    text = lib.must("bpftool", "-j", "cgroup", "show", lab.cgroup)
    return sorted(p["name"] for p in json.loads(text.strip() or "[]"))


def programs(lab):
    """The ids of the loaded programs that use a map that is pinned for this lab's agent."""
    maps = set()
    for name in os.listdir(lab.bpf_dir):
        done = lib.run("bpftool", "-j", "map", "show", "pinned", f"{lab.bpf_dir}/{name}")
        if done.returncode == 0:
            maps.add(json.loads(done.stdout)["id"])
    return {p["id"] for p in json.loads(lib.must("bpftool", "-j", "prog", "list"))
            if maps & set(p.get("map_ids", []))}


def loaded():
    return {p["id"] for p in json.loads(lib.must("bpftool", "-j", "prog", "list"))}


def nothing_left(lab, ids):
    expect(attached(lab), [], "attached programs")
    check(not os.path.exists(lab.bpf_dir) or not os.listdir(lab.bpf_dir), "nothing is pinned")
    wait_for(lambda: not ids & loaded(), "the programs are unloaded")   # by RCU, so not at once


def start(lab, engine, *flags):
    container = held_container(lab, keep=True)
    agent = lab.agent("--datapath", engine, *flags)
    agent.wait_route("python.test", "python")
    return container, agent


def name_of(lab, host):
    with lab.connect() as client:
        answer = client.get("/name", host)
        return answer.container or answer.status


MESSAGES = b"".join(map(lib_backend.message, range(20)))


def stream(container, agent, client):
    """An upgraded stream of it, with messages; the bytes of it that took the short way."""
    before = agent.stats().short_bytes
    container.ask("arm")
    client.request("/switch?messages=20", f"{container.name}.test",
                   fields=("Connection: Upgrade", "Upgrade: opaque"))
    answer = client.response()
    expect((answer.status, answer.container), (101, container.name), "the answer")
    expect(client.file.read(12), b"right behind", "what comes right behind it")
    lib.counted(agent.lab, f"{container.name}.test", answer.wire + 12)
    container.release()
    expect(client.file.read(len(MESSAGES)), MESSAGES, "the messages")
    return agent.stats().short_bytes - before


def takes_short_way(lab, container, agent):
    with lab.connect() as client:
        return stream(container, agent, client) > 0


# Crash

@lib.each(*itertools.product(ENGINES, ENGINES))
def test_sigkill(lab, engine, then):
    """SIGKILLed and started again: serves, no stale route or connection, nothing attached twice"""
    container, agent = start(lab, engine)
    leaver = lab.container("leaver", "leaver.test", image="busybox")
    agent.wait_route("leaver.test", "leaver")
    ids = programs(lab)
    check(bool(ids) == (engine != "relay"), f"programs of the first: {ids}")
    expect(attached(lab), ATTACHED[engine], "attached before")
    with lab.connect() as client:
        expect(client.get("/down?n=300000", "python.test").sha256, pattern_sha256(300_000), "before")
        with lab.connect() as other:
            expect(stream(container, agent, other) > 0, engine != "relay", "by the short way")
            expect(len(agent.connections()), 2, "connections before")
            agent.kill()
            for connection in (client, other):
                try:
                    connection.ends("a connection of the killed")
                except ConnectionResetError:
                    pass
    leaver.remove()
    _, second = start(lab, then)
    expect(second.routes(), {"python.test": ["python"]}, "routes afterwards")
    expect(second.connections(), [], "connections afterwards")
    expect(second.document("routes")["stale"], False, "stale")
    expect(attached(lab), ATTACHED[then], "attached afterwards")
    wait_for(lambda: not ids & loaded(), "the programs of the first are unloaded")
    for _ in range(5):
        expect(name_of(lab, "python.test"), "python", "who answers")
    expect(name_of(lab, "leaver.test"), 404, "status of the route that is gone")
    expect(second.stats().short_bytes > 0, then != "relay", "answers by the short way until here")
    expect(takes_short_way(lab, container, second), then != "relay", "a stream by the short way")
    ids = programs(lab)
    expect(second.stop(), 0, "exit status")
    nothing_left(lab, ids)


def test_sigkill_again_and_again(lab):
    """SIGKILLed five times, at any moment of its start: then it starts and serves"""
    for number in range(5):
        agent = lab.agent("--datapath", "sockmap", ready=False)
        wait_for(lambda: len(agent.logs()) > 2 * number or agent.exited(), "it has begun")
        check(not agent.exited(), f"start {number}: {agent.text()}")
        agent.kill()
    container, agent = start(lab, "sockmap")
    expect(name_of(lab, "python.test"), "python", "who answers")
    check(takes_short_way(lab, container, agent), "a stream takes the short way")
    expect(attached(lab), ATTACHED["sockmap"], "attached")
    check(len(programs(lab)) <= 4, f"programs: {programs(lab)}")


def test_old_pins(lab):
    """pins of another layout are replaced, with a log line"""
    os.makedirs(lab.bpf_dir, exist_ok=True)
    for name in ("kkm_routes", "kkm_meta"):
        lib.must("bpftool", "map", "create", f"{lab.bpf_dir}/{name}", "type", "hash", "key", "4",
                 "value", "4", "entries", "7", "name", name)
    _, agent = start(lab, "sockmap")
    expect(name_of(lab, "python.test"), "python", "who answers")
    expect(list(agent.routes()), ["python.test"], "routes")
    check([e for e in agent.logs() if "kkm_" in str(e) or lab.bpf_dir in str(e)],
          "a log line tells of the old pins")


# Orderly end

@lib.each(*itertools.product(ENGINES, ("SIGTERM", "SIGINT")))
def test_sigterm(lab, engine, signal_name):
    """a signal during a slow download: it completes, exit 0, nothing is left attached or pinned"""
    _, agent = start(lab, engine, "--drain-timeout", "20s")
    ids = programs(lab)
    size = 16 * MiB
    client = lab.connect(receive_buffer=16 * KiB)
    client.request(f"/down?n={size}", "python.test")
    answer = client.head()
    client.take(answer, 200_000)
    agent.process.send_signal(getattr(signal, signal_name))
    wait_for(lambda: not listens(lab), "no new connection is accepted")
    check(not agent.exited(), "it waits for the download")
    client.take(answer, size - answer.size)
    expect((answer.size, answer.sha256), (size, pattern_sha256(size)), "the download")
    client.close()
    expect(agent.process.wait(10), 0, "exit status")
    nothing_left(lab, ids)


@lib.each(*ENGINES)
def test_sigterm_in_a_stream(lab, engine):
    """a signal during a slow upgraded stream: it comes to its end, by the short way, exit 0"""
    container, agent = start(lab, engine, "--drain-timeout", "20s")
    ids = programs(lab)
    size = 16 * MiB
    client = lab.connect(receive_buffer=16 * KiB)
    held = Held(agent, container, client, (size, 4096))
    held.go_on()
    answer = lib.Response(0, "", {})
    client.take(answer, 200_000)
    agent.process.terminate()
    wait_for(lambda: not listens(lab), "no new connection is accepted")
    short = held.moved().short_bytes
    client.take(answer, size - 4 * MiB - answer.size)
    check(not agent.exited(), "it waits for the stream")
    check(short > 0 if engine != "relay" else not held.moved().short_bytes, "short_bytes")
    client.take(answer, None)
    expect((answer.size, answer.sha256), (size, pattern_sha256(size)), "the stream")
    client.close()
    expect(agent.process.wait(10), 0, "exit status")
    nothing_left(lab, ids)


def listens(lab):
    with lab.socket() as sock:
        return sock.connect_ex((lab.edge_addr, 80)) == 0


@lib.each("a download", "a stream")
def test_drain_timeout(lab, what):
    """a connection that does not finish is cut off after the drain timeout, exit 0"""
    container, agent = start(lab, "sockmap", "--drain-timeout", "500ms")
    ids = programs(lab)
    with lab.connect(receive_buffer=16 * KiB) as client:
        if what == "a stream":
            held = Held(agent, container, client, (16 * MiB, 4096))
            held.go_on()
            client.take(lib.Response(0, "", {}), 200_000)
            check(held.moved().short_bytes > 0, "it takes the short way")
        else:
            client.request(f"/down?n={16 * MiB}", "python.test")
            client.take(client.head(), 200_000)
        begun = time.monotonic()
        expect(agent.stop(), 0, "exit status")
        seconds = time.monotonic() - begun
        check(0.4 < seconds < 3, f"it took {seconds} s")
    nothing_left(lab, ids)


def test_idle_at_stop(lab):
    """idle connections are closed when the agent stops, long before the drain timeout"""
    _, agent = start(lab, "sockmap", "--drain-timeout", "60s")
    with lab.connect() as used, lab.connect() as fresh:
        expect(used.get("/name", "python.test").status, 200, "status")
        begun = time.monotonic()
        agent.process.terminate()
        used.ends("the used connection")
        fresh.ends("the fresh connection")
    expect(agent.process.wait(30), 0, "exit status")
    seconds = time.monotonic() - begun
    check(seconds < 4, f"it took {seconds} s")
    lib.comment(f"idle connections were closed after {seconds:.1f} s")


@lib.each(*ENGINES)
def test_answer_at_stop(lab, engine):
    """a request under way when the agent stops is answered, and then its connection closes"""
    container, agent = start(lab, engine, "--drain-timeout", "60s")
    container.ask("arm")
    with lab.connect() as client, lab.connect() as upload:
        client.request("/hint", "python.test")
        expect(client.head().status, 103, "what comes before the answer")
        upload.send(b"POST /up HTTP/1.1\r\nHost: python.test\r\nContent-Length: 6\r\n\r\nabc")
        wait_for(lambda: container.log("request")[-1]["line"].startswith("POST"), "it is there")
        agent.process.terminate()
        wait_for(lambda: not listens(lab), "no new connection is accepted")
        time.sleep(1.5)     # longer than an idle connection lasts
        upload.send(b"def")
        expect(json.loads(upload.response().body)["size"], 6, "what arrived of an upload")
        begun = time.monotonic()
        upload.ends()
        container.release()
        expect(client.response().body, b"hinted\n", "the answer")
        client.ends()
        seconds = time.monotonic() - begun
        check(seconds < 0.5, f"both connections closed {seconds} s after the answers")
    expect(agent.process.wait(5), 0, "exit status")


def test_drain_ready(lab):
    """while draining, readyz is 503 and healthz 200"""
    _, agent = start(lab, "relay", "--drain-timeout", "10s")
    with lab.connect(receive_buffer=16 * KiB) as client:
        client.request(f"/down?n={16 * MiB}", "python.test")
        answer = client.head()
        expect(agent.health()[0], 200, "readyz before")
        agent.process.terminate()
        wait_for(lambda: agent.health()[0] == 503, "readyz is 503")
        expect(agent.health("/healthz")[0], 200, "healthz")
        client.take(answer, 16 * MiB)
    expect(agent.process.wait(10), 0, "exit status")


def test_auto(lab):
    """auto takes an engine that the self-test allows, and says in one line why not a faster one"""
    container, agent = start(lab, "auto")
    engine = agent.status()["engine"]
    check(engine in ENGINES, f"engine: {engine}")
    expect(attached(lab), ATTACHED[engine], "attached")
    why = [e for e in agent.logs() if "self-test" in e["msg"]]
    expect(len(why), 1 if engine == "relay" else 0, f"lines about the self-test: {why}")
    expect(name_of(lab, "python.test"), "python", "who answers")
    expect(agent.stats().short_answers > 0, engine != "relay", "an answer by the short way")
    expect(takes_short_way(lab, container, agent), False, "a stream by the short way")
    if engine == "relay":
        expect(programs(lab), set(), "programs that are left of the self-test")


def test_foreign_sockmap(lab):
    """somebody else's sockmap on this host is named by `check`"""
    def step():
        done = lab.edge(lib.BINARY, "check", "--json", "--cgroup", lab.cgroup, "--bpf-dir",
                        lab.bpf_dir, "--docker-enabled", "false")
        found, = [c for c in json.loads(done.stdout)["checks"] if "nobody else" in c["name"]]
        return found
    path = Path(lab.bpf_dir).parent / "foreign"
    lib.must("bpftool", "map", "create", path, "type", "sockhash", "key", "4", "value", "4",
             "entries", "1", "name", "foreign_hash")
    try:
        found = step()
        check(not found["ok"] and "foreign_hash" in found["detail"], f"it is named: {found}")
    finally:
        path.unlink()
    wait_for(lambda: "foreign_hash" not in step()["detail"], "it is gone")


@lib.each(*ENGINES)
def test_descriptors(lab, engine):
    """after hundreds of connections, that end in every way, no descriptor is left open"""
    lab.container("other", "other.test")
    _, agent = start(lab, engine)
    agent.wait_route("other.test", "other")

    def storm():
        for number in range(60):
            with lab.connect() as client:
                client.get("/down?n=100000", "python.test")
            with lab.connect() as client:
                client.get("/name", "none.test")
            with lab.connect() as client:
                client.upgrade("echo", "python.test")
                client.send(bytes(100_000))
            with lab.connect() as client:
                client.upgrade("source", "python.test", 100_000)
                if number % 2:
                    client.read_all()
            with lab.connect() as client:   # of both containers, the one idle
                client.get("/name", "python.test")
                client.get("/name", "other.test")
            client = lab.connect()
            client.request(f"/down?n={MiB}", "python.test")
            if number % 2:
                client.file.read(10)
            client.reset()
            lab.connect().close()
        wait_for(lambda: not agent.connections(), "all are closed")

    def descriptors():
        return len(os.listdir(f"/proc/{agent.pid}/fd"))
    storm()
    before = descriptors()  # pipes are pooled
    for _ in range(2):
        storm()
    check(descriptors() <= before + 8, f"{descriptors()} descriptors, {before} before")
    stats = agent.stats()
    expect(stats.connections_accepted, stats.connections_closed, "accepted and closed")


# Whose socket is it?

def sockets_of_cgroup(lab, namespace, count):
    """TCP sockets, made in the namespace by a process of the lab's cgroup."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            (Path(lab.cgroup) / "edge/cgroup.procs").write_text(str(os.getpid()))
            with lib.Namespace(namespace):
                made = [socket.socket() for _ in range(count)]
            socket.send_fds(there, [b"x"], [s.fileno() for s in made])
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    expect(status, 0, "exit status of the child that makes sockets")
    _, fds, _, _ = socket.recv_fds(here, 1, count)
    here.close()
    there.close()
    made = [socket.socket(fileno=fd) for fd in fds]
    for sock in made:
        sock.settimeout(5)
        lab.sockets.append(sock)
    return made


@lib.each("before the agent's end is established", "before the container's end is established")
def test_foreign(lab, moment):
    """sockets of another namespace with the same four numbers are never enrolled"""
    container = lab.container("target", "target.test")
    _, agent = start(lab, "sockmap", "--connect-timeout", "10s")
    agent.wait_route("target.test", "target")
    gateway = lab.docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}")
    namespace = lab.script("netns", "foreign").strip()
    for address in (gateway, container.address):
        lib.must("ip", "-n", namespace, "addr", "add", f"{address}/32", "dev", "lo")
    flags = "SYN" if moment.startswith("before the agent") else "ACK"
    rule = ("OUTPUT", "-p", "tcp", "-d", container.address, "--dport", "8000",
            "--tcp-flags", "SYN,ACK", flags, "-j", "DROP")
    state = {"SYN": "syn-sent", "ACK": "established"}[flags]
    client = lab.connect()
    lab.iptables("-I", *rule)
    try:
        before = agent.stats()
        client.request("/switch?messages=20", "target.test",
                       fields=("Connection: Upgrade", "Upgrade: opaque"))
        line = wait_for(lambda: lab.edge("ss", "-tnH", "state", state, "dst", container.address,
                                         "dport", "=", ":8000").stdout, "the agent connects")
        port = int(line.split()[2].rpartition(":")[2])
        listener, foreign = sockets_of_cgroup(lab, namespace, 2)
        listener.bind((container.address, 8000))
        listener.listen()
        foreign.bind((gateway, port))
        foreign.connect((container.address, 8000))
        accepted, _ = listener.accept()
        lab.sockets.append(accepted)
        expect(accepted.getpeername(), (gateway, port), "the same four numbers")
        foreign_talk(accepted, foreign)
        moved = agent.stats().since(before)
        expect((moved.sockmap_wanted, moved.sockmap_enrolled), (1, 0), "wanted and enrolled")
        if flags == "ACK":
            expect(moved.sockmap_foreign, 1, "sockmap_foreign")
    finally:
        lab.iptables("-D", *rule)
    answer = client.response()
    expect((answer.status, answer.container), (101, "target"), "the answer")
    expect(client.file.read(12), b"right behind", "what comes right behind it")
    lib.counted(lab, "target.test", answer.wire + 12)
    foreign_talk(accepted, foreign)
    container.release()
    expect(client.file.read(len(MESSAGES)), MESSAGES, "the messages")
    foreign_talk(accepted, foreign)
    moved = agent.stats().since(before)
    expect(moved.sockmap_enrolled, 1, "enrolled: ours, and it alone")
    expect(moved.short_bytes + moved.relay_down_bytes, answer.wire + 12 + len(MESSAGES),
           "bytes to the client")
    check(moved.short_bytes > 0, "ours takes the short way")
    lib.must("ip", "netns", "delete", namespace)


def foreign_talk(one, other):
    for source, target in ((one, other), (other, one)):
        source.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        expect(target.recv(1000), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "foreign bytes")


def test_dual_stack(lab):
    """the agent's IPv4 connection to a [::] listener in a container is enrolled"""
    dual = lab.container("dual", "dual.test", environ={"FAMILY": 6})
    _, agent = start(lab, "sockmap")
    agent.wait_route("dual.test", "dual")
    with lab.connect() as client:
        expect(client.get("/down?n=300000", "dual.test").sha256, pattern_sha256(300_000), "HTTP")
        short = stream(dual, agent, client)
        check(short > len(MESSAGES) // 2, f"only {short} bytes by the short way")
    with lab.connect(address=lab.edge_addr6) as client:
        short = stream(dual, agent, client)
        check(short > len(MESSAGES) // 2, f"only {short} bytes by the short way, by IPv6")
    stats = agent.stats()
    expect((stats.sockmap_enrolled, stats.sockmap_foreign), (3, 0), "enrolled and foreign")


def test_others_untouched(lab):
    """connections between containers, and from the edge to one, are never enrolled"""
    container, agent = start(lab, "sockmap")
    script = (f"import urllib.request as u; [print(u.urlopen('http://{container.address}:8000/name')"
              ".read()) for _ in range(5)]")
    done = lab.docker("run", "--rm", "python", "python3", "-c", script)
    expect(done.count("python"), 5, "answers between containers")
    with lab.connect(ns=lab.edge_ns, address=container.address, port=8000) as client:
        expect(client.get("/name", "x").container, "python", "who answers in the edge")
    stats = agent.stats()
    expect((stats.sockmap_wanted, stats.sockmap_enrolled, stats.short_messages), (0, 0, 0),
           "wanted, enrolled, short messages")


if __name__ == "__main__":
    lib.main("e2elifec")
