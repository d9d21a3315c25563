# SPDX-License-Identifier: MIT
"""The lab, the two containers, and what stands between them and the client."""
import json
import os
import re
import shlex
import signal
import subprocess
import time

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.realpath(os.path.join(HERE, "../.."))
LAB = os.path.join(ROOT, "scripts/lab")
AGENT = os.path.join(ROOT, os.environ.get("O", "build"), "kakuremichi-agent")
THREADS = 2
WEB_DOMAIN, SINK_DOMAIN = "bench.example.com", "sink.example.com"
KiB, MiB = 1 << 10, 1 << 20
OBJECTS = {"64k": 64 * KiB, "1m": MiB, "bulk": 256 * MiB}

BASE = "haproxy-tcp"
PEERS = (BASE, "haproxy-splice", "haproxy-http", "nginx", "caddy")
# What splice-auto does not do by itself: always splice, with pipes as big as the agent's.
BULK_ONLY = ("haproxy-splice",)
OURS = {    # name -> what the agent is started with
    "relay": ("--datapath", "relay"),
    "responses": ("--datapath", "sockmap", "--sockmap-requests", "off"),
    "both": ("--datapath", "sockmap", "--sockmap-requests", "on"),
}
NAMES = (*PEERS, *OURS, "direct")


class Failure(Exception):
    """The benchmark cannot go on; the text says why."""


def output(*command, **options):
    """Its standard output as text; a Failure with what it says where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120,
                          stdin=subprocess.DEVNULL, **options)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-600:]
        raise Failure(f"{shlex.join(command)[:200]}: exit {done.returncode}: {said}")
    return done.stdout


def until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class Lab:
    """client -> edge -> containers, each in a network namespace of its own."""

    def __init__(self):
        output(LAB, "up")
        for line in output(LAB, "env").splitlines():
            name, value = line.split("=", 1)
            setattr(self, name.removeprefix("LAB_").lower(), value)
        self.scratch = os.path.join(self.dir, "bench")  # a tmpfs, which goes with the lab
        os.makedirs(os.path.join(self.scratch, "srv"))
        for name, size in OBJECTS.items():
            # Not sparse: holes are sent from one page that never leaves the cache.
            with open(os.path.join(self.scratch, "srv", name), "wb") as file:
                for left in range(size, 0, -MiB):
                    file.write(os.urandom(min(left, MiB)))
        output(LAB, "image", "nginx", "python")
        self.web = self.container("web", WEB_DOMAIN, 80, f"{HERE}/nginx.conf:/etc/nginx/nginx.conf",
                                  f"{self.scratch}/srv:/srv", image="nginx")
        self.sink = self.container("sink", SINK_DOMAIN, 8000, f"{HERE}/sink.py:/sink.py",
                                   image="python", command=("python3", "/sink.py"))
        output(LAB, "direct")
        # New connections by the thousand need ports, though the last ones' still wait for theirs.
        for side in ("client", "edge"):
            self.run(side, "sh", "-c", "echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range; "
                                       "echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse")

    def container(self, name, domain, port, *volumes, image, command=()):
        """Its address."""
        labels = {"enabled": "true", "domain": domain, "port": port}
        output(LAB, "docker", "run", "-d", "--name", name, "--init",
               *(f"--label=kakuremichi.{key}={value}" for key, value in labels.items()),
               *(f"--volume={volume}:ro" for volume in volumes), image, *command)
        return output(LAB, "docker", "inspect", "-f", "{{.NetworkSettings.IPAddress}}",
                      name).strip()

    @staticmethod
    def run_docker(*arguments):
        return output(LAB, "docker", *arguments)

    @staticmethod
    def run(side, *command):
        return output(LAB, "run", side, *command)


class Target:
    """What the client speaks to. `web` and `sink` are (address, port, Host)."""
    process = None

    def __init__(self, name, web, sink):
        self.name, self.web, self.sink = name, web, sink

    def start(self, lab, command, environ=None):
        self.log = os.path.join(lab.scratch, self.name + ".log")
        with open(self.log, "w", encoding="utf-8") as log:
            # Its own session, so that a Ctrl-C is ours alone and everything is ended in order.
            self.process = subprocess.Popen(
                [LAB, "run", "edge", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env={**os.environ, **(environ or {})})
        return self

    def wait(self):
        until(self.serves, f"{self.name} answers" + self.last_words())
        return self

    def last_words(self):
        if not self.process:
            return ""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return "; it said: " + log.read()[-400:] if self.process.poll() is not None else ""

    def serves(self):
        if self.process and self.process.poll() is not None:
            raise Failure(f"{self.name} has ended{self.last_words()}")
        address, port, host = self.web
        return subprocess.run(
            [LAB, "run", "client", "curl", "-sf", "-m", "2", "--noproxy", "*", "-o", "/dev/null",
             "-H", f"Host: {host}", f"http://{address}:{port}/small"],
            check=False).returncode == 0

    def stop(self):
        if not self.process:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:   # one that drains; the lab's end takes its children
            self.process.kill()
            self.process.wait()
        self.process = None

    def pids(self):
        """It and its children: nginx has a master that does nothing itself."""
        if not self.process:
            return []
        pids, known = [self.process.pid], {}
        for entry in os.listdir("/proc"):
            if entry.isdigit() and (fields := stat(entry)):
                known.setdefault(int(fields[1]), []).append(int(entry))
        for pid in pids:
            pids += known.get(pid, [])
        return pids

    def cpu(self):
        """Seconds that it has used so far."""
        ticks = sum(int(f[11]) + int(f[12]) for f in map(stat, self.pids()) if f)
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Resident bytes."""
        return sum(int(f[21]) for f in map(stat, self.pids()) if f) * os.sysconf("SC_PAGE_SIZE")


def stat(pid):
    """The fields behind the command's name; [] where there is no such process any more."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(") ")[2].split()
    except OSError:
        return []


class Agent(Target):
    """Ours. Its counters say which way the bytes went."""

    def __init__(self, lab, name, port, *options, docker=None, domain=WEB_DOMAIN):
        address = (lab.edge_addr, port)
        super().__init__(name, (*address, domain), (*address, SINK_DOMAIN))
        self.dirs = ("--bpf-dir", f"{lab.bpf_dir}-{name}", "--run-dir", f"{lab.run_dir}-{name}")
        self.start(lab, [
            AGENT, "run", *self.dirs, "--listen-http", f"{lab.edge_addr}:{port}",
            "--listen-tls", "off", "--admin", "off", "--workers", str(THREADS),
            "--log-level", "warn", "--docker-socket", docker or lab.docker_socket,
            "--cgroup", lab.cgroup, "--drain-timeout", "1s", *options])

    def carried(self):
        """Bytes so far, (by the kernel's short way, all), of (down, up)."""
        stats = json.loads(output(AGENT, "stats", "--json", *self.dirs))["stats"]
        # Up, the agent sends also what the kernel then takes out of TCP's way, and counts it.
        return ((stats["short_bytes"], stats["short_bytes"] + stats["relay_down_bytes"]),
                (stats["short_up_bytes"], stats["relay_up_bytes"]))


def peer_command(name, config):
    if name == "nginx":
        return ["nginx", "-e", "stderr", "-c", config]
    if name == "caddy":
        return ["caddy", "run", "--adapter", "caddyfile", "--config", config]
    return ["haproxy", "-db", "-f", config]


def peer(lab, name, port):
    template = {"nginx": "nginx-peer.conf", "caddy": "Caddyfile"}.get(name, "haproxy.cfg")
    values = {"THREADS": THREADS, "EDGE": lab.edge_addr, "PORT": port, "SINK_PORT": port + 100,
              "WEB": f"{lab.web}:80", "SINK": f"{lab.sink}:8000", "SCRATCH": lab.scratch,
              "MODE": "http" if name == "haproxy-http" else "tcp",
              "REUSE": "http-reuse always" if name == "haproxy-http" else "",
              "SPLICE": "option splice-auto", "PIPES": ""}
    if name == "haproxy-splice":
        values["SPLICE"] = "option splice-request\n\toption splice-response"
        values["PIPES"] = f"tune.pipesize {MiB}"
    with open(os.path.join(HERE, template), encoding="utf-8") as file:
        text = re.sub(r"@([A-Z_]+)@", lambda match: str(values[match.group(1)]), file.read())
    config = os.path.join(lab.scratch, f"{name}.conf")
    with open(config, "w", encoding="utf-8") as file:
        file.write(text)
    target = Target(name, (lab.edge_addr, port, WEB_DOMAIN),
                    (lab.edge_addr, port + 100, SINK_DOMAIN))
    return target.start(lab, peer_command(name, config),
                        {"HOME": lab.scratch, "GOMAXPROCS": str(THREADS)})


def start(lab, name):
    """One of NAMES, started; `wait` says when it serves."""
    port = 8001 + NAMES.index(name)
    if name == "direct":
        return Target(name, (lab.web, 80, WEB_DOMAIN), (lab.sink, 8000, SINK_DOMAIN))
    if name in OURS:
        return Agent(lab, name, port, *OURS[name])
    return peer(lab, name, port)


def versions():
    """name -> version, of everything that was measured or measured with."""
    found = {"kernel": os.uname().release}
    for name, command in (("haproxy", ["haproxy", "-v"]), ("nginx", ["nginx", "-v"]),
                          ("caddy", ["caddy", "version"]), ("agent", [AGENT, "version"]),
                          ("wrk", ["wrk", "-v"])):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        match = re.search(r"\d+\.\d+[^\s,]*", done.stdout + done.stderr)
        found[name] = match.group() if match else "unknown"
    return found
