# SPDX-License-Identifier: MIT
"""Podman's service instead of Docker's daemon: Debian's podman, with containers of its own.

It differs where it matters (4.3.1): no event tells of a stop before the end, none of health; `kill`
does not name its signal; `remove` stands for `destroy`; an event of a network has the container
where Docker has the network; lists say nothing of health and network mode, and by default leave
paused containers out.
"""
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import lib
import lib_backend
from lib import HERE, ROOT, check, expect, must, wait_for
from lib_load import Load

CONFIG = """
[containers]
log_driver = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "lab"
lock_type = "file"
static_dir = "{dir}/root/libpod"
tmp_dir = "{dir}/tmp"
[engine.runtimes]
lab = ["{dir}/runc"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["/usr/lib/cni"]
network_config_dir = "{dir}/cni"
default_subnet = "198.18.4.0/24"
"""
STORAGE = """
[storage]
driver = "overlay"
runroot = "{dir}/run"
graphroot = "{dir}/root"
"""
# Podman always asks for limits, and without CAP_SYS_RESOURCE there are none to be had.
RUNC = """#!/bin/bash
for ((i = 1; i < $#; i++)); do
	next=$((i + 1))
	case ${!i} in
	--bundle) config=${!next}/config.json ;;
	--process) config=${!next} ;;
	*) continue ;;
	esac
	jq 'del(.process.rlimits, .rlimits)' "$config" >"$config.new"
	mv "$config.new" "$config"
done
exec runc "$@"
"""


class Podman:
    """Below the lab's directory, in the edge's namespace, with /run and /var/lib/cni to itself."""

    def __init__(self, lab):
        self.lab, self.dir = lab, f"{lab.dir}/podman"
        self.socket = f"{self.dir}/podman.sock"
        for name in ("root", "run", "tmp", "cni", "private/run", "private/cni"):
            os.makedirs(f"{self.dir}/{name}")
        for name, text in (("containers.conf", CONFIG), ("storage.conf", STORAGE)):
            Path(f"{self.dir}/{name}").write_text(text.format(dir=self.dir))
        Path(f"{self.dir}/runc").write_text(RUNC)
        os.chmod(f"{self.dir}/runc", 0o755)
        os.makedirs("/var/lib/cni", exist_ok=True)
        self.environ = {**lab.environ, "CONTAINERS_CONF": f"{self.dir}/containers.conf",
                        "CONTAINERS_STORAGE_CONF": f"{self.dir}/storage.conf"}
        self.holder = subprocess.Popen(
            [ROOT / "scripts/lab", "run", "edge", "unshare", "--mount", "--propagation",
             "unchanged", "bash", "-ec", """
                mount --make-private "$(findmnt -n -o TARGET -T /run)"
                mount --bind "$0/private/run" /run
                mount --make-private "$(findmnt -n -o TARGET -T /var/lib/cni)"
                mount --bind "$0/private/cni" /var/lib/cni
                touch "$0/held"
                exec sleep infinity""", self.dir], env=lab.environ, stdin=subprocess.DEVNULL)
        wait_for(lambda: os.path.exists(f"{self.dir}/held"), "the mount namespace")
        self.service = None
        self.start()

    def command(self, *arguments):
        return [ROOT / "scripts/lab", "run", "edge", "nsenter", "-m", "-t", self.holder.pid, "--",
                "podman", *arguments]

    def __call__(self, *arguments, timeout=30):
        return must(*self.command(*arguments), env=self.environ, timeout=timeout).strip()

    def start(self):
        with open(f"{self.dir}/service.log", "a") as log:
            self.service = subprocess.Popen(
                list(map(str, self.command("system", "service", "--time=0",
                                           f"unix://{self.socket}"))),
                env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def answers():
            return lib.run("curl", "-sf", "--unix-socket", self.socket, "http://d/_ping",
                           timeout=10).returncode == 0
        wait_for(answers, "the service answers", 20)

    def stop(self):
        self.service.kill()
        self.service.wait()

    def image(self, name):
        """From dockerd's, which scripts/lab has made."""
        if lib.run(*self.command("image", "exists", name), env=self.environ).returncode:
            self.lab.script("image", name)
            self.lab.docker("save", "-o", f"{self.dir}/{name}.tar", name)
            self("load", "-i", f"{self.dir}/{name}.tar")
            os.unlink(f"{self.dir}/{name}.tar")

    def run(self, name, domain, *options, owner=None):
        """The scripted backend, which keeps a journal."""
        self.image("python")
        os.makedirs(f"{self.lab.dir}/journal", exist_ok=True)
        labels = {"enabled": "true", "domain": domain, "port": "8000"}
        arguments = ["run", "-d", "--name", name, "--cgroups=no-conmon", "--cgroup-parent",
                     "/" + os.path.basename(self.lab.cgroup), "-v", f"{HERE}:/e2e:ro", "-v",
                     f"{self.lab.dir}/journal:/journal", "-e", f"NAME={name}", "-e",
                     f"JOURNAL=/journal/{name}", "-e", "PYTHONDONTWRITEBYTECODE=1"]
        for key, value in labels.items():
            arguments += ["-l", f"kakuremichi.{key}={value}"]
        self(*arguments, *options, "localhost/python:latest", "python3", "/e2e/lib_backend.py",
             "8000")
        container = Backend(self, name)
        wait_for(container.listens, f"{name} listens", 15)
        return container

    def clear(self):
        self("rm", "-f", "-a", "-t", "0")


class Backend:
    def __init__(self, podman, name):
        self.podman, self.name = podman, name

    def inspect(self, format_):
        return self.podman("inspect", "-f", format_, self.name)

    def addresses(self):
        return self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}").split()

    def listens(self):
        address = self.addresses()[0]
        with self.podman.lab.socket(self.podman.lab.edge_ns) as sock, \
                self.podman.lab.socket(self.podman.lab.edge_ns) as control:
            return sock.connect_ex((address, 8000)) == 0 and \
                control.connect_ex((address, lib_backend.CONTROL_PORT)) == 0

    def death(self):
        """A thread that notes when its process goes; `at` is the time."""
        pid = self.inspect("{{.State.Pid}}")
        thread = threading.Thread(target=self.watch, args=(pid,), daemon=True)
        thread.start()
        return thread

    def watch(self, pid):
        while os.path.exists(f"/proc/{pid}"):
            time.sleep(0.002)
        threading.current_thread().at = time.monotonic()


_shared = {}


def podman(lab):
    if "podman" not in _shared:
        _shared["podman"] = Podman(lab)
    _shared["podman"].clear()
    return _shared["podman"]


def connected(agent):
    return agent.status()["docker"]["connected"]


def state(agent, domain):
    """Of its only container, or None."""
    return next(iter(agent.states(domain).values()), None)


def test_what_it_is(lab):
    """check and status say that it is Podman; containers that were there are routed"""
    pod = podman(lab)
    pod.run("app", "app.test")
    agent = lab.agent("--docker-socket", pod.socket)
    agent.wait_route("app.test", "app")
    check("podman" in json.dumps(agent.status()).lower(), f"status: {agent.status()}")
    check("podman" in agent.command("status").stdout.lower(), agent.command("status").stdout)
    done = agent.command("check", "--docker-socket", pod.socket)
    check("podman" in done.stdout.lower(), done.stdout)
    expect([e for e in agent.logs() if e["level"] == "WARN"], [], "warnings")


@lib.each(("stop",), ("restart", "-t", "1"), ("rm", "-f", "-t", "1"),
          *([("kill",), ("kill", "-s", "TERM")] if lib.LONG else []))
def test_replica(lab, *command):
    """one of two replicas ends, and is back: the other has all"""
    pod = podman(lab)
    _, second = (pod.run(name, "pair.test") for name in ("pair-a", "pair-b"))
    agent = lab.agent("--docker-socket", pod.socket)
    agent.wait_route("pair.test", "pair-a", "pair-b")
    with Load(lab, {"pair.test": ["pair-a", "pair-b"]}) as load:
        load.wait("pair.test", "pair-b")
        death = second.death()
        load.event(" ".join(command))
        pod(*command, "pair-b")
        death.join(20)
        load.lost("pair-b", death.at)
        if command[0] != "restart":
            agent.wait_route("pair.test", "pair-a")
            load.wait("pair.test", "pair-a", 20)
        if command[0] == "rm":
            pod.run("pair-b", "pair.test")
        elif command[0] != "restart":
            pod("start", "pair-b")
        begin = time.monotonic()
        agent.wait_route("pair.test", "pair-a", "pair-b")
        lib.comment(f"back {time.monotonic() - begin:.2f} s after `podman start` has returned")
        wait_for(second.listens, "it listens", 10)
        load.wait("pair.test", "pair-b")


def test_pause(lab):
    """paused: 503 and shown as paused; unpaused: served; another signal changes nothing"""
    pod = podman(lab)
    app = pod.run("app", "app.test")
    other = pod.run("other", "other.test")
    agent = lab.agent("--docker-socket", pod.socket)
    agent.wait_route("app.test", "app")
    with Load(lab, {"app.test": ["app"], "other.test": ["other"]}) as load:
        load.wait("app.test", "app")
        pod("kill", "-s", "WINCH", app.name)
        load.wait("app.test", "app", 20)
        window = load.only("app.test", 503, 504)
        pod("pause", app.name)
        wait_for(lambda: state(agent, "app.test") == "paused", "it is shown as paused")
        load.wait("app.test", 503)
        pod("unpause", app.name)
        wait_for(lambda: state(agent, "app.test") == "active", "it is active")
        load.wait("app.test", "app")
        window.end()
        load.wait("app.test", "app", 20)
        load.wait("other.test", other.name, 20)


def test_rename_and_networks(lab):
    """renamed, connected to a second network, its own taken away: followed, served all the while"""
    pod = podman(lab)
    for net, subnet in (("front", "198.18.5.0/24"), ("back", "198.18.6.0/24")):
        lib.run(*pod.command("network", "create", "--subnet", subnet, net), env=pod.environ)
    app = pod.run("app", "app.test", "--network", "front", "-l", "kakuremichi.network=back")
    plain = pod.run("plain", "plain.test", "--network", "front")

    def routed_to(domain, prefix):
        return any(b["address"].startswith(prefix) for r in agent.document("routes")["routes"]
                   if r["domain"] == domain for b in r["backends"])
    agent = lab.agent("--docker-socket", pod.socket)
    agent.wait_route("plain.test", "plain")
    expect(agent.refused()["app"]["label"], "kakuremichi.network", "why the other is not")
    with Load(lab, {"plain.test": ["plain"], "app.test": ["app"]}, extra=("app.test",)) as load:
        pod("network", "connect", "back", app.name)
        wait_for(lambda: routed_to("app.test", "198.18.6."), "the address in back")
        load.add("app.test")
        load.wait("app.test", "app")
        pod("rename", "plain", "simple")
        plain.name = "simple"
        agent.wait_route("plain.test", "simple")
        pod("network", "connect", "back", "simple")
        window = load.only("plain.test", 502, 503, 504)
        load.lost("plain", load.event("disconnect"))
        pod("network", "disconnect", "front", "simple")
        wait_for(lambda: routed_to("plain.test", "198.18.6."), "the other address")
        window.end()
        load.wait("plain.test", "plain", 20)
        load.wait("app.test", "app", 20)


def test_health(lab):
    """starting, healthy, unhealthy, though no event tells: 503, served, 503"""
    pod = podman(lab)
    app = pod.run("app", "app.test", "--health-cmd",
                  "test -e /tmp/well", "--health-retries", "1", "--health-interval", "disable")
    agent = lab.agent("--docker-socket", pod.socket)

    def becomes(wanted):
        begin = time.monotonic()
        wait_for(lambda: state(agent, "app.test") == wanted, wanted, 15)
        lib.comment(f"{wanted} after {time.monotonic() - begin:.1f} s")
    becomes("starting")
    begin = time.monotonic()
    with Load(lab, {"app.test": ["app"]}) as load:
        window = load.only("app.test", 503, since=begin)
        load.wait("app.test", 503)
        pod("exec", app.name, "touch", "/tmp/well")
        pod("healthcheck", "run", app.name)
        becomes("active")
        load.wait("app.test", "app")
        window.end()
        load.wait("app.test", "app", 20)
        window = load.only("app.test", 503)
        pod("exec", app.name, "rm", "/tmp/well")
        lib.run(*pod.command("healthcheck", "run", app.name), env=pod.environ)
        becomes("unhealthy")
        load.wait("app.test", 503)


def test_service_restarts(lab):
    """the service is killed and started: routes stay, what changed meanwhile is known, one line"""
    pod = podman(lab)
    app = pod.run("app", "app.test")
    pod.run("leaver", "leaver.test")
    agent = lab.agent("--docker-socket", pod.socket)
    agent.wait_route("leaver.test", "leaver")
    with Load(lab, {"app.test": ["app"]}) as load:
        load.wait("app.test", app.name)
        pod.stop()
        wait_for(lambda: not connected(agent), "the loss is seen")
        load.wait("app.test", "app", 50)
        expect(sorted(agent.routes()), ["app.test", "leaver.test"], "routes")
        pod("rm", "-f", "-t", "0", "leaver")
        pod.start()
        wait_for(lambda: connected(agent), "connected again", 30)
        agent.wait_route("leaver.test")
        load.wait("app.test", "app", 20)
    warnings = [e for e in agent.logs() if e["level"] == "WARN"]
    expect(len(warnings), 1, f"warnings: {warnings}")


lib.main("e2epod")
