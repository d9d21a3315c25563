# SPDX-License-Identifier: MIT
"""What a Docker daemon does to those who rely on it: dies, restarts, freezes, hides behind a proxy
that cuts its events; with requests running. fakes.py has what a real one cannot be made to do."""
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import lib
from lib import check, expect, wait_for
from lib_load import Load, backend


def daemon_config(lab, **settings):
    """The daemon, restarted with these settings if it does not have them."""
    path = Path(f"{lab.dir}/daemon.json")
    config = {"deprecated-key-path": f"{lab.dir}/key.json", **settings}
    if json.loads(path.read_text()) != config:
        path.write_text(json.dumps(config))
        lab.restart_docker()


def daemon_pid(lab):
    return int(Path(f"{lab.dir}/docker.pid").read_text())


def connected(agent):
    return agent.status()["docker"]["connected"]


def warnings(agent):
    return [e for e in agent.logs() if e["level"] in ("WARN", "ERROR")]


def app(lab, name, *options):
    return backend(lab, name, f"{name}.test", options=options)


def address(lab, container):
    return lab.docker("inspect", "-f",
                      "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container.id)


def target(agent, domain):
    """The addresses that it is routed to."""
    return [b["address"] for r in agent.document("routes")["routes"] if r["domain"] == domain
            for b in r["backends"]]


class Deaths:
    """The time at which each container's process goes."""

    def __init__(self, lab, *containers):
        self.pids = {c.name: int(lab.docker("inspect", "-f", "{{.State.Pid}}", c.id))
                     for c in containers}
        self.times = {}
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while left := [n for n in self.pids if n not in self.times]:
            for name in left:
                if not os.path.exists(f"/proc/{self.pids[name]}"):
                    self.times[name] = time.monotonic()
            time.sleep(0.002)

    def tell(self, load):
        self.thread.join(30)
        for name, at in self.times.items():
            load.lost(name, at)


class Door:
    """The daemon's socket by another name, which can be shut: nobody gets in or stays."""

    def __init__(self, lab):
        self.path, self.target = f"{lab.dir}/door.sock", lab.docker_socket
        self.open()

    def open(self):
        if os.path.lexists(self.path):
            os.unlink(self.path)
        os.symlink(self.target, self.path)

    def shut(self):
        """What is connected stays so until the daemon ends."""
        os.unlink(self.path)


def owners(*containers):
    return {f"{c.name}.test": [c.name] for c in containers}


def test_killed_with_live_restore(lab):
    """dockerd SIGKILLed, containers live on but one: no other's request fails, no route goes"""
    daemon_config(lab, **{"live-restore": True})
    a, b = app(lab, "app-a"), app(lab, "app-b")
    agent = lab.agent()
    agent.wait_route("app-b.test", "app-b")
    routes = agent.routes()
    deaths = Deaths(lab, b)
    with Load(lab, owners(a, b)) as load:
        load.wait("app-a.test", "app-a")
        os.kill(daemon_pid(lab), signal.SIGKILL)
        load.event("SIGKILL")
        wait_for(lambda: not connected(agent), "the loss is seen")
        load.wait("app-b.test", "app-b", 50)
        load.only("app-b.test", 404, 502, 503, 504)
        os.kill(deaths.pids["app-b"], signal.SIGKILL)
        load.event("the end of app-b, of which nobody hears")
        expect(agent.routes(), routes, "routes while it is away")
        load.wait("app-a.test", "app-a", 50)
        expect(agent.health()[0], 200, "status of /readyz")
        lab.restart_docker()
        wait_for(lambda: connected(agent), "connected again", 30)
        agent.wait_route("app-b.test")
        load.wait("app-a.test", "app-a", 50)
        late = app(lab, "late")
        agent.wait_route("late.test", "late")
        late.kill()
        agent.wait_route("late.test")
        deaths.tell(load)
    expect(len(warnings(agent)), 1, f"warnings: {warnings(agent)}")
    check(not agent.logs(msg="Removing Docker tunnel", domain="app-a.test"), "no route was removed")


@lib.each("killed and unseen", *(["killed", "restarted"] if lib.LONG else []))
def test_other_addresses(lab, how):
    """containers come back with each other's addresses as dockerd does: never the wrong one"""
    # unseen: they are back for a while before the agent can ask the daemon anything
    daemon_config(lab)
    door = Door(lab)
    first = lab.container("first", image="busybox", wait=False)
    apps = [app(lab, f"app-{name}", "--restart", "always") for name in "abcd"]
    before = [c.address for c in apps]
    agent = lab.agent("--docker-socket", door.path)
    for c in apps:
        agent.wait_route(f"{c.name}.test", c.name)
    lab.docker("rm", "-f", first.id)    # so that at least one has to get another's
    lab.containers.remove(first)
    deaths = Deaths(lab, *apps)
    with Load(lab, owners(*apps)) as load:
        for c in apps:
            load.wait(f"{c.name}.test", c.name)
        # 404: a container that is heard to die is routed no more
        windows = [load.only(f"{c.name}.test", 404, 502, 503, 504) for c in apps]
        load.event("the end of dockerd")
        if "unseen" in how:
            door.shut()
        lab.restart_docker(*(["-9"] if "killed" in how else []))
        for c in apps:
            c.address = address(lab, c)
        if "unseen" in how:
            for c in apps:
                wait_for(c.listens, "it listens", 10)
            load.wait("app-a.test", {c.name for c in apps} | {404, 502, 503, 504}, 50)
            door.open()
        wait_for(lambda: connected(agent), "connected again", 30)
        lib.comment(f"{before} -> {[c.address for c in apps]}")
        check(before != [c.address for c in apps], "other addresses")
        for c in apps:
            wait_for(lambda: target(agent, f"{c.name}.test") == [c.address], "the address", 15)
            load.wait(f"{c.name}.test", c.name)
        for window in windows:
            window.end()
        for c in apps:
            load.wait(f"{c.name}.test", c.name, 20)
        deaths.tell(load)
    expect(len(warnings(agent)), 1, f"warnings: {warnings(agent)}")


def test_frozen(lab):
    """dockerd SIGSTOPped: seen without a word from it, said once, routes stay; and SIGCONT"""
    daemon_config(lab)
    a, b = app(lab, "app-a"), app(lab, "app-b")
    agent = lab.agent()
    agent.wait_route("app-b.test", "app-b")
    deaths = Deaths(lab, b)
    pid = daemon_pid(lab)
    with Load(lab, owners(a, b)) as load:
        load.wait("app-a.test", "app-a")
        begin = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for(lambda: not connected(agent), "the silence is seen", 60)
            lib.comment(f"seen after {time.monotonic() - begin:.1f} s")
            expect(agent.routes(), {f"{n}.test": [n] for n in ("app-a", "app-b")}, "routes")
            window = load.only("app-b.test", 502, 503, 504, 404)
            os.kill(deaths.pids["app-b"], signal.SIGKILL)
            load.wait("app-b.test", (502, 503))
            load.wait("app-a.test", "app-a", 50)
            expect(len(warnings(agent)), 1, f"warnings: {warnings(agent)}")
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: connected(agent), "connected again", 40)
        agent.wait_route("app-b.test")
        load.wait("app-b.test", 404)
        lab.docker("start", b.id)
        agent.wait_route("app-b.test", "app-b")
        b.address = address(lab, b)
        wait_for(b.listens, "it listens", 10)
        window.end()
        load.wait("app-b.test", "app-b", 20)
        deaths.tell(load)
    expect(len(warnings(agent)), 1, f"warnings: {warnings(agent)}")


PROXY = """
global
    log stdout format raw local0
    stats socket {dir}/haproxy.sock level admin
defaults
    mode http
    log global
    option dontlognull
    log-format "%HM %HU %ST %TR %ts"
    timeout connect 5s
    timeout client 1m
    timeout server 2s
frontend docker
    bind 127.0.0.1:2375
    http-request deny unless {{ method GET }}
    acl allowed path -m reg ^(/v[0-9.]+)?/(_ping|version|events)$
    acl allowed path -m reg ^(/v[0-9.]+)?/containers/([0-9a-f]+/)?json$
    http-request deny unless allowed
    default_backend docker
backend docker
    server docker unix@{socket}
"""


class Proxy:
    """HAProxy as people put it before their daemon; it cuts what says nothing for 2 s."""

    def __init__(self, lab):
        self.lab, self.log_path = lab, f"{lab.dir}/haproxy.log"
        config = Path(f"{lab.dir}/haproxy.cfg")
        config.write_text(PROXY.format(dir=lab.dir, socket=lab.docker_socket))
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{lab.edge_ns}", "--", "haproxy", "-db", "-f",
                 config], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

        def listens():
            with lab.socket(lab.edge_ns) as sock:
                return sock.connect_ex(("127.0.0.1", 2375)) == 0
        wait_for(listens, "HAProxy listens")

    def lines(self):
        """[method, path, status, …] of each request that has ended."""
        return [words for words in map(str.split, Path(self.log_path).read_text().splitlines())
                if len(words) == 5]

    def cuts(self):
        return sum("/events" in words[1] for words in self.lines())

    def stop(self):
        self.process.kill()
        self.process.wait()


def test_socket_proxy(lab):
    """a proxy that allows only GET and cuts a silent stream after 2 s: nothing missed or said"""
    daemon_config(lab)
    proxy = Proxy(lab)
    a, b = app(lab, "app-a"), app(lab, "app-b", "--restart", "no")
    agent = lab.agent("--docker-socket", None, environ={"DOCKER_HOST": "tcp://127.0.0.1:2375"})
    agent.wait_route("app-b.test", "app-b")
    worst = 0
    pause = threading.Event()
    try:
        with Load(lab, owners(a, b), extra=("app-b.test",)) as load:
            load.wait("app-a.test", "app-a")
            for turn in range(6 if not lib.LONG else 60):
                for verb, states in (("kill", ("draining", None)), ("start", ("active",))):
                    lab.docker(verb, b.id)
                    begin = time.monotonic()
                    wait_for(lambda: agent.states("app-b.test").get("app-b") in states, verb, 15)
                    worst = max(worst, time.monotonic() - begin)
                pause.wait(turn % 3 * 1.2)  # so that some is in a silence, and some at its end
            load.wait("app-a.test", "app-a", 50)
        lib.comment(f"{proxy.cuts()} streams cut; a change is routed after at most {worst:.2f} s")
        check(proxy.cuts() >= 2, "streams were cut")
        methods = {words[0] for words in proxy.lines()}
        expect(methods, {"GET"}, "methods")
        refused = [words for words in proxy.lines() if words[2] == "403"]
        expect(refused, [], "requests that the proxy refused")
        expect(warnings(agent), [], "warnings")
        said = [e["msg"] for e in agent.logs() if "connect" in e["msg"].lower()]
        check(len(said) < 3, f"it says {said}")
    finally:
        proxy.stop()


lib.main("e2efaul")
