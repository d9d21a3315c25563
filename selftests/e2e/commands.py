# SPDX-License-Identifier: MIT
"""The commands that look: what they say of containers in every state, to eyes and to programs."""
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import threading

import lib
from lib import check, expect, wait_for

ESC = "\x1b"
HOSTILE = f"{ESC}[2J{ESC}]0;owned\x07\r\n\x9b31m‮漢字 {'long ' * 60}"
WIDE = "説明: 漢字とカナ"
LABEL = "kakuremichi."


def world(lab):
    """A container in each state that the commands have to tell of; made once."""
    lab.container("active", "active.test", image="busybox", keep=True,
                  labels={LABEL + "description": WIDE})
    lab.container("starting", "starting.test", image="busybox", keep=True, wait=False,
                  options=("--health-cmd", "false", "--health-interval", "300s"))
    lab.container("paused", "paused.test", image="busybox", keep=True)
    if lab.docker("inspect", "-f", "{{.State.Paused}}", "paused") == "false":
        lab.docker("pause", "paused")
    lab.container("rejected", "rejected.test", image="busybox", keep=True, wait=False,
                  labels={LABEL + "port": "99999"})
    lab.container("conflict", "active.test", image="busybox", keep=True, wait=False,
                  labels={LABEL + "description": "another one"})
    lab.container("named", None, image="busybox", keep=True, labels={
        LABEL + "enabled": "true", LABEL + "web.domain": "web.test", LABEL + "web.port": "80",
        LABEL + "api.domain": "api.test", LABEL + "api.port": "80"})
    lab.container("wild", "*.wild.test", image="busybox", keep=True, labels={
        LABEL + "tls": "passthrough", LABEL + "tls.port": "443", LABEL + "sockmap": "off"})
    lab.container("hostile", "hostile.test", image="busybox", keep=True,
                  labels={LABEL + "description": HOSTILE})
    # what is cut to the room that there is is cut inside of a character
    lab.container("long", "long.test", image="busybox", keep=True, wait=False,
                  labels={LABEL + "domain": "x" + "漢" * 200, LABEL + "port": "none"})
    lab.container("hostile2", "hostile2.test", image="busybox", keep=True, wait=False,
                  labels={LABEL + f"x{ESC}[31m\n": HOSTILE})


def agent_of(lab, *flags):
    world(lab)
    agent = lab.agent(*flags)
    wait_for(lambda: len(agent.routes()) == 7 and len(agent.refused()) == 4,
             f"all are known: {agent.routes()} {agent.refused()}")
    return agent


def command(agent, noun, *arguments):
    return [lib.BINARY, noun, "--bpf-dir", agent.flags["--bpf-dir"], "--run-dir",
            agent.flags["--run-dir"], *arguments]


class Terminal:
    """A command whose output is a terminal of this many columns."""

    def __init__(self, lab, words, columns=200, **environ):
        self.fd, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self.process = subprocess.Popen(words, stdin=other, stdout=other, stderr=other,
                                        start_new_session=True, env={
                                            **lab.environ, "TERM": "xterm", **environ})
        os.close(other)
        self.text = ""

    def read(self):
        """What has come so far; False at the end."""
        while select.select([self.fd], [], [], 0)[0]:
            try:
                piece = os.read(self.fd, 65536)
            except OSError:     # EIO: nobody has it open any more
                return False
            self.text += piece.decode()
        return True

    def finish(self):
        wait_for(lambda: not self.read(), "the command ends", 20)
        os.close(self.fd)
        return self.process.wait(5)


def on_terminal(lab, agent, noun, *arguments, columns=200, **environ):
    terminal = Terminal(lab, command(agent, noun, *arguments), columns, **environ)
    expect(terminal.finish(), 0, f"exit status of {noun}")
    return terminal.text.replace("\r\n", "\n")


def no_controls(text, what):
    bad = [c for c in text if (ord(c) < 0x20 and c != "\n") or 0x7f <= ord(c) < 0xa0 or c == "‮"]
    check(not bad, f"{what}: control characters {bad[:5]!r}")


def test_routes(lab):
    """routes: every container with state, owner and via; the others below, each with its reason"""
    agent = agent_of(lab)
    document = agent.document("routes")
    routes = {r["domain"]: r for r in document["routes"]}
    expect({d: r["state"] for d, r in routes.items()},
           {"active.test": "active", "starting.test": "starting", "paused.test": "paused",
            "web.test": "active", "api.test": "active", "*.wild.test": "active",
            "hostile.test": "active"}, "states of the routes")
    backend, = routes["active.test"]["backends"]
    expect((backend["container"], backend["service"], backend["port"], backend["owner"],
            backend["via"], backend["description"]),
           ("active", None, 80, "docker", "network bridge", WIDE), "a backend")
    expect([routes[d]["backends"][0]["service"] for d in ("web.test", "api.test")], ["web", "api"],
           "services")
    rejected = {r["container"]: r for r in document["rejected"]}
    expect(rejected["rejected"]["label"], LABEL + "port", "the label at fault")
    expect(rejected["rejected"]["wanted"], "rejected.test", "what it wanted")
    check(rejected["long"]["wanted"].startswith("x漢漢"), f"it is cut: {rejected['long']}")
    conflict, = document["conflicts"]
    expect((conflict["container"], conflict["domain"]), ("conflict", "active.test"), "the conflict")
    check("active" in conflict["reason"], f"it names who has the domain: {conflict}")

    lines = agent.command("routes").stdout.split("\n")
    active = next(line for line in lines if line.startswith("active.test"))
    check(all(word in active for word in ("active", ":80", "docker", "network bridge", WIDE)), active)
    head = lines[0]
    check(all(word in head for word in ("DOMAIN", "CONTAINER", "SERVICE", "ADDRESS", "STATE",
                                        "OWNER", "VIA", "DESCRIPTION")), head)
    expect({line.index(":80") + 3 <= head.index("STATE") for line in lines if ":80" in line
            and "kakuremichi" not in line}, {True}, "addresses are in their column")
    starts = [line.split()[:1] for line in lines]
    check(["rejected"] in starts and ["conflict"] in starts, "the others are below")
    check(lines.index(active) < starts.index(["rejected:"]) < starts.index(["conflicts:"]),
          f"routes, then the rejected, then conflicts: {starts}")
    check("kakuremichi.port" in "\n".join(lines), "with the label at fault")


def test_screens(lab):
    """colours on a terminal only, NO_COLOR, --color; narrow ones keep names whole; labels are tame"""
    agent = agent_of(lab)
    for noun in ("routes", "stats", "status", "connections", "check", "explain"):
        words = ("active.test",) if noun == "explain" else ()
        flags = [w for pair in lib.default_flags(lab).items() for w in pair] if noun == "check" else ()
        piped = agent.command(noun, *words, *flags)
        expect(piped.returncode, 0, f"exit status of {noun}: {piped.stderr}")
        no_controls(piped.stdout, f"{noun}, piped")
        text = agent.command(noun, *words, *flags, "--json").stdout
        no_controls(text.replace("\t", " "), f"{noun} --json")
        json.loads(text)
        expect(agent.command(noun, *words, *flags, "--color", "never").stdout.count(ESC), 0, noun)
        colored = on_terminal(lab, agent, noun, *words, *flags)
        check(f"{ESC}[" in colored, f"{noun} is coloured on a terminal")
        for environ in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            no_controls(on_terminal(lab, agent, noun, *words, *flags, **environ), f"{noun}, {environ}")
        check(ESC in on_terminal(lab, agent, noun, *words, *flags, NO_COLOR=""), f"{noun}, NO_COLOR=")
    check(ESC in agent.command("routes", "--color", "always").stdout, "--color always")
    tame = lib.re.sub(ESC + r"\[\d+m", "", on_terminal(lab, agent, "routes"))
    no_controls(tame, "routes on a terminal, but for its colours")
    check("hostile2" in tame and WIDE in tame, "UTF-8 passes")
    for columns in (100, 80, 60, 40, 30):
        text = lib.re.sub(ESC + r"\[\d+m", "", on_terminal(lab, agent, "routes", columns=columns))
        words = text.split()
        for name in ("active.test", "starting.test", "hostile", "paused", "*.wild.test", "conflict"):
            check(name in words, f"{name} is whole with {columns} columns: {text}")
        wide = [line for line in text.split("\n") if len(line) > columns]
        check(not wide, f"no line is wider than {columns}: {wide}")


def test_connections_and_stats(lab):
    """connections: the oldest first, sizes for eyes, exact in JSON; stats: groups, every counter"""
    world(lab)
    lab.container("app", "app.test")
    agent = lab.agent()
    agent.wait_route("app.test", "app")
    check("no connection" in agent.command("connections").stdout, "it says that there is none")
    clients = []
    for size in (3 << 20, 1000):
        client = lab.connect()
        clients.append(client)
        received = client.upgrade("echo", "app.test").wire + size
        for piece in [size] if size < 65536 else [65536] * (size // 65536):
            client.send(b"x" * piece)
            expect(len(client.file.read(piece)), piece, "bytes that come back")
        wait_for(lambda: len(agent.connections()) == len(clients) and
                 agent.connections()[-1]["bytes_down"] == received, f"{size} bytes are counted")
    found = agent.connections()
    check(found[0]["bytes_down"] > 3 << 20 > found[1]["bytes_down"] > 1000, f"exact: {found}")
    check(found[0]["age_ms"] >= found[1]["age_ms"], f"the oldest first: {found}")
    head, first, second = agent.command("connections").stdout.rstrip("\n").split("\n")
    check("3.0 MiB" in first and "KiB" in second, f"{first}\n{second}")
    expect({line.index("app.test") for line in (first, second)}, {head.index("DOMAIN")}, "columns")
    for client in clients:
        client.close()
    stats = agent.document("stats")["stats"]
    lines = agent.command("stats").stdout.split("\n")
    shown = {words[0]: words[1] for words in map(str.split, lines) if len(words) > 2 and
             words[1].isdigit()}
    expect(set(shown), set(stats), "every counter is shown, once")
    expect(int(shown["connections_accepted"]), stats["connections_accepted"], "and its value")
    check("clients" in lines and "the short way" in lines, "in groups")
    dim = on_terminal(lab, agent, "stats")
    check(f"{ESC}[2manswers_405{ESC}[0m" in dim, "zeros are dim")
    check(f"{ESC}[2mconnections_accepted" not in dim, "others are not")


def test_status(lab):
    """status says which engine and why, and on which addresses it listens"""
    agent = agent_of(lab, "--datapath", "relay")
    status = agent.status()
    expect((status["engine"], status["engine_reason"]), ("relay", "asked for by --datapath relay"),
           "engine and reason")
    check({"address": "0.0.0.0:80", "protocol": "http"} in status["listeners"] and
          {"address": "0.0.0.0:443", "protocol": "tls"} in status["listeners"],
          f"listeners: {status['listeners']}")
    text = agent.command("status").stdout
    check("ready" in text and "--datapath relay" in text and "connected" in text, text)


def documents(stream):
    return [json.loads(line) for line in stream.read_text().splitlines()]


def test_watch(lab):
    """routes --watch shows a container that comes, goes, and an agent that goes and comes back"""
    agent = agent_of(lab)
    out = lib.Path(lab.dir) / "watch.json"
    with open(out, "w") as file:
        watch = subprocess.Popen(command(agent, "routes", "--watch", "--json"), stdout=file,
                                 stderr=file, env=lab.environ)
    terminal = Terminal(lab, command(agent, "routes", "--watch"))

    def last(condition, what, timeout=8):
        def look():
            terminal.read()
            found = documents(out)
            return found and condition(found[-1])
        wait_for(look, what, timeout)

    def domains(document):
        return {r["domain"] for r in document["routes"]}
    try:
        last(lambda d: len(domains(d)) == 7 and d["running"], "the routes as they are")
        shown = len(documents(out))
        comes = lab.container("comes", "comes.test", image="busybox")
        last(lambda d: "comes.test" in domains(d), "the one that comes")
        wait_for(lambda: terminal.read() and "comes.test" in terminal.text, "on the terminal too", 8)
        comes.remove()
        last(lambda d: "comes.test" not in domains(d), "and goes")
        check(len(documents(out)) > shown + 1, "a line for each")
        agent.kill()
        last(lambda d: d["stale"] and not d["running"] and len(domains(d)) == 7, "a crash")
        agent = agent_of(lab)
        last(lambda d: d["running"] and len(domains(d)) == 7, "the next agent")
        expect(agent.stop(), 0, "exit status of the agent")
        last(lambda d: not d["running"] and not d["routes"], "an orderly stop")
        wait_for(lambda: terminal.read() and "waiting for an agent" in terminal.text,
                 "the terminal says so", 8)
        quiet = len(documents(out))
        agent = agent_of(lab)
        last(lambda d: d["running"] and len(domains(d)) == 7, "and it is back")
        check(len(documents(out)) > quiet, "it goes on")
        watch.send_signal(signal.SIGINT)
        expect(watch.wait(5), 0, "exit status after ^C")
        terminal.process.send_signal(signal.SIGINT)
        expect(terminal.finish(), 0, "exit status after ^C on the terminal")
    finally:
        for process in (watch, terminal.process):
            if process.poll() is None:
                process.kill()
                process.wait()
    expect([d["schema"] for d in documents(out)], [1] * len(documents(out)), "documents")


def test_watch_is_quiet(lab):
    """routes --watch says nothing where nothing changes"""
    agent = agent_of(lab)
    out = lib.Path(lab.dir) / "quiet.json"
    with open(out, "w") as file:
        watch = subprocess.Popen(command(agent, "routes", "--watch", "--json"), stdout=file,
                                 stderr=file, env=lab.environ)

    def looks():
        """It sleeps once between two."""
        status = lib.Path(f"/proc/{watch.pid}/status").read_text()
        return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    try:
        wait_for(lambda: documents(out), "the first document")
        # the same routes, written once more: kkm_meta tells of it
        agent.process.send_signal(signal.SIGUSR1)
        before = looks()
        wait_for(lambda: looks() > before + 3, "more looks", 10)
        expect(len(documents(out)), 1, "documents")
        watch.terminate()
        expect(watch.wait(5), 0, "exit status after SIGTERM")
    finally:
        if watch.poll() is None:
            watch.kill()
            watch.wait()


def explained(agent, domain):
    done = agent.command("explain", domain, "--json")
    expect((done.returncode, done.stderr), (0, ""), f"exit status of explain {domain}")
    document = json.loads(done.stdout)
    steps = {}
    for step in document["steps"]:
        steps.setdefault(step["step"], []).append((step["result"], step["detail"]))
    return document, steps


def test_explain(lab):
    """explain: each verdict with the steps that lead to it, and what a request gets is the same"""
    agent = agent_of(lab, "--datapath", "relay")
    cases = {
        # domain: verdict, rule, state of its backend
        "active.test": ("routed", "exact", "active"),
        "ACTIVE.test.:80": ("routed", "exact", "active"),
        "a.b.wild.test": ("routed", "wildcard", "active"),
        "api.test": ("routed", "exact", "active"),
        "starting.test": ("503", "exact", "starting"),
        "paused.test": ("503", "exact", "paused"),
        "rejected.test": ("404", "none", None),
        "nobody.test": ("404", "none", None),
        "192.0.2.1": ("404", "none", None),
    }
    for domain, (verdict, rule, state) in cases.items():
        document, steps = explained(agent, domain)
        expect((document["verdict"], steps["route"][0][0],
                steps["backend"][0][0] if state else steps.get("backend")),
               (verdict, rule, state), f"explain {domain}")
        expect(document["route"] and document["route"]["rule"], None if rule == "none" else rule,
               f"route of {domain}")
        with lab.connect() as client:
            status = client.get("/", domain).status
        # busybox answers / with 404 or 200 of its own; 503 is the agent's alone
        check(str(status) == verdict or verdict == "routed" and status != 503,
              f"{domain}: {verdict}, and a request gets {status}")
        text = agent.command("explain", domain).stdout
        check(verdict in text.rstrip("\n").split("\n")[-1], f"the text ends so: {text}")
    _, steps = explained(agent, "active.test")
    check("conflict" == steps["conflict"][0][0] and "older" in steps["conflict"][0][1], f"{steps}")
    check("network bridge" in steps["backend"][0][1], f"via: {steps}")
    check(steps["engine"][0][0] == "relay" and "--datapath relay" in steps["engine"][0][1], f"{steps}")
    check("0.0.0.0:80" in steps["listener"][0][1], f"{steps}")
    expect(steps["tls"][0][0], "unrecognized_name", "TLS without its label")
    _, steps = explained(agent, "x.wild.test")
    check(steps["tls"][0][0] == "passthrough" and "0.0.0.0:443" in steps["tls"][0][1], f"{steps}")
    _, steps = explained(agent, "rejected.test")
    check(steps["rejected"][0][0] == "rejected" and LABEL + "port" in steps["rejected"][0][1], f"{steps}")
    for typed, meant in (("actvie.test", "active.test"), ("www.active.test", "active.test"),
                         ("wild.test", "*.wild.test")):
        _, steps = explained(agent, typed)
        check((meant) in [s[0] for s in steps["similar"]], f"{typed}: {steps}")
    _, steps = explained(agent, "nobody.test")
    check("similar" not in steps and "rejected" not in steps, f"{steps}")
    _, steps = explained(agent, "paused.test")
    check("unpause" in steps["backend"][0][1] and "choice" in steps and "engine" not in steps, f"{steps}")


def test_explain_engine(lab):
    """explain: the engine, and why not a faster one: label, SIGUSR1; the catch-all"""
    world(lab)
    lab.container("rest", "*", image="busybox")
    agent = lab.agent("--datapath", "sockmap")
    agent.wait_route("*", "rest")
    document, steps = explained(agent, "active.test")
    check(steps["engine"][0][0] == "sockmap" and "forced" in steps["engine"][0][1], f"{steps}")
    expect(agent.status()["engine"], "sockmap", "engine")
    _, steps = explained(agent, "x.wild.test")
    check(steps["engine"][0][0] == "relay" and "sockmap=off" in steps["engine"][0][1], f"{steps}")
    document, steps = explained(agent, "actve.test")
    expect((document["verdict"], steps["route"][0][0]), ("routed", "catch-all"), "the catch-all")
    check(steps["similar"][0][0] == "active.test", f"and a slip: {steps}")
    agent.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: "SIGUSR1" in agent.status()["engine_reason"], "the reason is SIGUSR1")
    _, steps = explained(agent, "active.test")
    check(steps["engine"][0][0] == "relay" and "SIGUSR1" in steps["engine"][0][1], f"{steps}")
    agent.process.send_signal(signal.SIGUSR2)
    wait_for(lambda: "forced" in agent.status()["engine_reason"], "and it is taken back")


def test_explain_stale(lab):
    """explain, and exit statuses: stale is marked, not running is 1, a bad domain is 2"""
    agent = agent_of(lab)
    agent.kill()
    done = agent.command("explain", "active.test", "--json")
    document = json.loads(done.stdout)
    expect((done.returncode, document["stale"], document["verdict"]), (0, True, "routed"), "stale")
    expect(document["steps"][0]["result"], "gone", "the first step")
    check("stale" in done.stderr, f"and on stderr: {done.stderr}")
    for bad, word in (("", "empty"), ("a b", "character"), ("*.test", "wildcard"),
                      ("http://active.test/", "page"), ("a.test:x", "port"), (f"{ESC}[31m", "?[31m")):
        done = agent.command("explain", bad)
        expect((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1), f"{bad!r}")
        check(word in done.stderr and ESC not in done.stderr, f"{bad!r}: {done.stderr!r}")
    for words in (("explain",), ("explain", "a", "b"), ("status", "--watch"), ("run", "--json"),
                  ("version", "--watch"), ("routes", "active.test"), ("routes", "--color", "blue"),
                  ("explain", "a.test", "--watch"), ("stats", "--json=1")):
        done = lib.run(lib.BINARY, *words)
        expect((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1), f"{words}")
    done = lib.run(lib.BINARY, "explain", "active.test", "--bpf-dir", f"{lab.dir}/none", "--run-dir",
                   f"{lab.dir}/none")
    expect((done.returncode, done.stdout), (1, ""), "exit status of explain without an agent")
    check("not running" in done.stderr and done.stderr.count("\n") == 1, done.stderr)


class Listener:
    """Docker's socket, seen through one that writes down what it is asked."""

    def __init__(self, lab):
        self.path, self.upstream, self.lines = f"{lab.dir}/asked.sock", lab.docker_socket, []
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(16)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            with client, socket.socket(socket.AF_UNIX) as upstream:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(65536)
                self.lines.append(head.split(b"\r\n")[0].decode())
                upstream.connect(self.upstream)
                upstream.sendall(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                while piece := upstream.recv(65536):
                    client.sendall(piece)


def checked(lab, *flags):
    words = [w for pair in {**lib.default_flags(lab), **dict(zip(flags[::2], flags[1::2]))}.items()
             for w in pair]
    done = lab.edge(lib.BINARY, "check", "--json", *words, env=lab.environ)
    document = json.loads(done.stdout)
    expect(done.returncode, 0 if document["ok"] else 1, f"exit status of check: {done.stderr}")
    return document


def test_check(lab):
    """check finds bad labels and conflicts of running containers: GET only, nothing is touched"""
    agent = agent_of(lab)
    asked = Listener(lab)
    before = agent.document("routes")
    document = checked(lab, "--docker-socket", asked.path)
    containers = document["containers"]
    expect((document["ok"], containers["count"], containers["fine"]), (True, 10, 6), "containers")
    expect({(r["container"], r["label"]) for r in containers["rejected"]
            if r["container"] == "rejected"}, {("rejected", LABEL + "port")}, "rejected")
    conflict, = containers["conflicts"]
    expect((conflict["container"], conflict["domain"]), ("conflict", "active.test"), "conflict")
    expect({r["container"]: r["reason"] for r in containers["rejected"] + containers["conflicts"]},
           {name: r["reason"] for name, r in agent.refused().items()}, "as the agent says it")
    check(asked.lines and all(line.startswith("GET ") for line in asked.lines), f"{asked.lines}")
    expect(agent.document("routes"), before, "routes")
    asked.listener.close()
    text = lab.edge(lib.BINARY, "check", *[w for pair in lib.default_flags(lab).items() for w in pair],
                    env=lab.environ).stdout
    check("6 of 10" in text and LABEL + "port" in text and "run would work" in text, text)
    no_controls(text, "check")


def test_check_engines(lab):
    """check says for each engine what it needs, and what to do: without an agent, Docker, capabilities"""
    document = checked(lab, "--docker-socket", f"{lab.dir}/none.sock")
    expect(document["containers"], None, "containers without Docker")
    expect(document["ok"], True, "run would work without Docker")
    found = {c["name"]: c for c in document["checks"]}
    docker = found["Docker socket"]
    check(not docker["ok"] and not docker["needed"] and "--docker-socket" in docker["advice"], f"{docker}")
    expect({c["engine"] for c in document["checks"]}, {None, "relay", "sockmap", "handover"}, "engines")
    for name in ("engine relay", "engine sockmap", "engine handover", "cgroup v2", "CAP_BPF",
                 "BPF file system", "sockmap in this kernel", "CAP_NET_BIND_SERVICE"):
        check(name in found, f"it looks at {name}")
    check(all(c["ok"] or c["advice"] or c["engine"] == "handover" for c in document["checks"]),
          "who is not there has advice")
    words = [w for pair in lib.default_flags(lab).items() for w in pair]
    bare = lab.edge("setpriv", "--bounding-set=-all", "--inh-caps=-all", lib.BINARY, "check", "--json",
                    *words, "--docker-enabled", "false", "--listen-http", "127.0.0.1:8080",
                    "--listen-tls", "off", env=lab.environ)
    found = {c["name"]: c for c in json.loads(bare.stdout)["checks"]}
    expect((bare.returncode, found["CAP_BPF"]["ok"]), (0, False), "without capabilities")
    for word in ("cap_add", "--cap-add", "AmbientCapabilities"):
        check(word in found["CAP_BPF"]["advice"], f"{word}: {found['CAP_BPF']}")
    taken = lab.socket(lab.edge_ns)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("0.0.0.0", 80))
    taken.listen()
    document = checked(lab, "--listen-http", "0.0.0.0:80")
    found = {c["name"]: c for c in document["checks"]}["listen on 0.0.0.0:80"]
    check(not document["ok"] and found["needed"] and "ss -ltnp" in found["advice"], f"{found}")
    document = checked(lab, "--docker-enabled", "false")
    check(document["ok"], "a default address that is taken is a note")
    check(not lib.Path(lab.bpf_dir).exists(), "nothing is pinned")


if __name__ == "__main__":
    lib.main("e2ecmd")
