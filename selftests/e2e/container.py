# SPDX-License-Identifier: MIT
"""The agent in a container: the image, the compose files of README.md, less and less capabilities."""
import fcntl
import json
import os
import re
import socket
import threading
import time
from pathlib import Path

import lib
import lib_backend
from lib import ROOT, Client, KiB, MiB, check, expect, must, run, wait_for

IMAGE = "kakuremichi/agent:latest"
BINARY = "/usr/sbin/kakuremichi-agent"
CAPABILITIES = {"NET_BIND_SERVICE": 10, "NET_ADMIN": 12, "SYS_ADMIN": 21}
_image = []


def image(lab):
    if not _image:
        must(ROOT / "scripts/image", IMAGE, ROOT / "scripts/lab", "docker", env=lab.environ)
        _image.append(json.loads(lab.docker("image", "inspect", IMAGE))[0])
    return _image[0]


class Boxed:
    """The agent by `docker run`, removed at the end. capabilities: that it has, and no other."""

    def __init__(self, lab, capabilities, *options, cgroupns="host"):
        image(lab)
        self.lab = lab
        added = [word for name in capabilities for word in ("--cap-add", name)]
        # /sys/fs/cgroup is the host's, so that the lab's part of it is named
        self.id = lab.docker(
            "run", "-d", "--name", "kakuremichi-agent", "--network", "host", "--cgroupns", cgroupns,
            "--cap-drop", "ALL", *added, "-v", f"{lab.docker_socket}:/var/run/docker.sock:ro",
            "-v", f"{lab.dir}/bpf:/sys/fs/bpf", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:ro",
            "-e", f"KAKUREMICHI_CGROUP={lab.cgroup}", *options, IMAGE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lab.docker("rm", "-f", "-v", self.id)

    def inspect(self, form):
        return self.lab.docker("inspect", "-f", form, self.id)

    def run(self, *arguments):
        return run("docker", "-H", f"unix://{self.lab.docker_socket}", "exec", self.id, BINARY,
                   *arguments)

    def document(self, noun):
        done = self.run(noun, "--json")
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def serves(self, domain="app.example.com"):
        wait_for(lambda: answers(self.lab, domain), f"the agent in the container serves {domain}",
                 10)
        return self

    def logs(self, **wanted):
        lines = [json.loads(line) for line in self.lab.docker("logs", self.id).splitlines()]
        return [line for line in lines if all(line.get(k) == v for k, v in wanted.items())]


def answers(lab, domain, path="/name"):
    done = lab.client("curl", "-sf", "-m", "5", "-H", f"Host: {domain}",
                      f"http://{lab.edge_addr}{path}")
    return done.returncode == 0 and done.stdout


# The image

def test_image(lab):
    """the image: below 30 MB, with labels and ports; the same files are the same layer"""
    first = image(lab)
    lib.comment(f"{first['Size'] / 1e6:.1f} MB")
    check(first["Size"] < 30e6, f"size of the image: {first['Size']}")
    config = first["Config"]
    expect(config["Entrypoint"], [BINARY], "entry point")
    expect(config["Cmd"], ["run"], "command")
    expect(set(config["ExposedPorts"]), {"80/tcp", "443/tcp"}, "ports")
    labels = {k.removeprefix("org.opencontainers.image."): v for k, v in config["Labels"].items()}
    version = json.loads(must(lib.BINARY, "version", "--json"))
    expect(labels["version"], version["version"], "version in its label")
    expect(labels["revision"], version["commit"], "commit in its label")
    check({"title", "description", "licenses"} <= set(labels), f"labels: {labels}")
    second = int(time.time())
    wait_for(lambda: int(time.time()) != second, "times of files are others")
    must(ROOT / "scripts/image", "again:latest", ROOT / "scripts/lab", "docker", env=lab.environ)
    again = json.loads(lab.docker("image", "inspect", "again:latest"))[0]
    expect(again["RootFS"]["Layers"], first["RootFS"]["Layers"], "layers, made again")


def test_health(lab):
    """the image's health check: healthy while it answers, unhealthy when it hangs"""
    lab.container("app", "app.example.com", keep=True)
    options = ("--health-interval", "200ms", "--health-retries", "1", "--health-timeout", "1s",
               "--health-start-period", "0s")
    with Boxed(lab, CAPABILITIES, *options) as agent:
        wait_for(lambda: agent.inspect("{{.State.Health.Status}}") == "healthy", "it is healthy")
        pid = int(agent.inspect("{{.State.Pid}}"))
        os.kill(pid, 19)
        try:
            wait_for(lambda: agent.inspect("{{.State.Health.Status}}") == "unhealthy",
                     "it is unhealthy", 10)
        finally:
            os.kill(pid, 18)
        wait_for(lambda: agent.inspect("{{.State.Health.Status}}") == "healthy", "and healthy again")


def test_in_a_container(lab):
    """in a container with three capabilities: serves, by the short way; `docker stop` drains it"""
    backend = lab.container("app", "app.example.com", keep=True)
    with Boxed(lab, CAPABILITIES, "-e", "KAKUREMICHI_DATAPATH=sockmap") as agent:
        agent.serves()
        with lab.connect() as client:
            expect(client.get("/name", "app.example.com").container, backend.name,
                   "container that answers")
        with lab.connect() as client:
            client.request("/switch?messages=20", "app.example.com",
                           fields=("Connection: Upgrade", "Upgrade: opaque"))
            answer_101 = client.response()
            expect(answer_101.status, 101, "status of an upgrade")
            expect(client.file.read(12), b"right behind", "what comes right behind it")
            wait_for(lambda: any(c["bytes_down"] == answer_101.wire + 12 for c in
                                 agent.document("connections")["connections"]),
                     "the 101 is counted")
            backend.release()
            messages = b"".join(map(lib_backend.message, range(20)))
            expect(client.file.read(len(messages)), messages, "the messages of the stream")
            backend.ask("arm")
        short = agent.document("stats")["stats"]["short_bytes"]
        check(short > 0, f"bytes went by the short way: {short}")
        with lab.connect() as client:
            client.request("/hint", "app.example.com")
            expect(client.head().status, 103, "what comes first")
            lab.docker("kill", "-s", "TERM", agent.id)
            wait_for(lambda: agent.document("status").get("state") == "draining", "it drains")
            backend.release()
            expect(client.response().status, 200, "the answer that was under way")
        lab.docker("stop", "-t", "20", agent.id)
        expect(agent.inspect("{{.State.ExitCode}}"), "0", "exit status")
        backend.ask("arm")


def test_private_cgroups(lab):
    """with a cgroup namespace of its own: says that it is relay, why, and what would help; serves"""
    lab.container("app", "app.example.com", keep=True)
    with Boxed(lab, CAPABILITIES, cgroupns="private") as agent:
        agent.serves()
        expect(agent.document("status")["engine"], "relay", "engine")
        line, = agent.logs(msg="Datapath is relay: the self-test for sockmap failed here")
        expect(line["step"], "the cgroup namespace is the host's", "step that is named")
        check("--cgroupns=host" in line["consequence"], f"what would help: {line}")
        check("app.example.com" in agent.run("routes").stdout, "the maps are there all the same")
        step = next(c for c in agent.document("check")["checks"]
                    if c["name"] == "cgroup namespace is the host's")
        check(not step["ok"] and "--cgroupns=host" in step["advice"], f"what check says: {step}")


def answer_dns(sock):
    """To each question: 127.0.0.1, or no address of version 6. Ends with the socket."""
    try:
        while True:
            query, client = sock.recvfrom(512)
            end = query.index(0, 12) + 5
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if query[end - 3] == 1 else b""
            sock.sendto(query[:2] + b"\x81\x80\0\1\0" + bytes([record != b""]) + b"\0\0\0\0" +
                        query[12:end] + record, client)
    except OSError:
        pass


def test_names(lab):
    """a name in DOCKER_HOST is looked up in /etc/hosts and by DNS"""
    with lib.Namespace(lab.edge_ns):
        dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    lab.sockets.append(dns)
    dns.bind(("127.0.0.1", 53))
    threading.Thread(target=answer_dns, args=(dns,), daemon=True).start()
    for name, options, wish in (
            ("in-hosts.test", ("--add-host", "in-hosts.test:127.0.0.1"), "refused"),
            ("in-dns.test", ("--dns", "127.0.0.1"), "refused"),
            ("nowhere.test", (), "resolve")):
        with Boxed(lab, CAPABILITIES, "-e", f"DOCKER_HOST=tcp://{name}:1", *options) as agent:
            error = wait_for(lambda: agent.document("status").get("docker", {}).get("error"),
                             f"what {name} says", 10)
            check(wish in error.lower(), f"{name}: {error}")


# Fewer capabilities

def test_without_bpf(lab):
    """with NET_BIND_SERVICE alone: says so, once, and serves by the relay; nothing is pinned"""
    lab.container("app", "app.example.com", keep=True)
    with Boxed(lab, ["NET_BIND_SERVICE"], "-e", "KAKUREMICHI_DATAPATH=sockmap") as agent:
        agent.serves()
        warnings = agent.logs(level="WARN")
        expect([w["msg"].split(":")[0] for w in warnings],
               ["Datapath is relay, though sockmap is asked for", "No BPF maps"], "warnings")
        check("CAP_SYS_ADMIN" in warnings[0]["detail"], f"what it lacks: {warnings[0]}")
        expect(agent.document("status")["engine"], "relay", "engine")
        done = agent.run("routes")
        expect(done.returncode, 1, "exit status of `routes`")
        check("runs without BPF maps" in done.stderr, f"it says why: {done.stderr}")


# what it has, whether it has maps, whether it can have sockmap; by setpriv, since Docker 20.10 knows
# no CAP_BPF
@lib.each(("net_bind_service,net_admin,sys_admin", True, True),
          ("net_bind_service,net_admin,bpf,perfmon", True, False),
          ("net_bind_service,bpf", True, False),
          ("net_bind_service,sys_admin", True, False),
          ("net_bind_service,net_admin", False, False))
def test_capabilities(lab, names, maps, sockmap):
    """what each capability is for"""
    lab.container("app", "app.example.com", keep=True)
    limits = ["setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set",
              "-all," + ",".join(f"+{name}" for name in names.split(","))]
    agent = lab.agent("--datapath", "sockmap", wrapper=limits)
    agent.wait_ready()
    wait_for(lambda: answers(lab, "app.example.com"), "it serves")
    expect(agent.status()["engine"], "sockmap" if sockmap else "relay", "engine")
    expect("app.example.com" in agent.routes(), maps, "the route is in the maps")
    expect(len(agent.logs("WARN", msg="No BPF maps: routes and connections are not shown by "
                                      "commands")), 0 if maps else 1, "warnings of no maps")


def test_no_port(lab):
    """without NET_BIND_SERVICE: no listener, and so never ready, which /readyz says"""
    limits = ["setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set", "-all"]
    agent = lab.agent(wrapper=limits, ready=False)
    wait_for(lambda: agent.status().get("docker", {}).get("connected"), "it runs")
    expect(agent.health(), (503, "no listener could be bound\n"), "/readyz")
    lines = agent.logs("WARN", error="Permission denied")
    check({line["address"] for line in lines} >= {"0.0.0.0:80", "0.0.0.0:443"}, f"{lines}")


def pipe_sizes(pid):
    sizes = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(fd).startswith("pipe:"):
                with open(fd, "rb", buffering=0, opener=lambda p, f: os.open(
                        p, f | os.O_NONBLOCK)) as pipe:
                    sizes.append(fcntl.fcntl(pipe, 1032))   # F_GETPIPE_SZ
        except FileNotFoundError:
            pass
    return sizes


def test_pipes(lab):
    """where all pipes of a user are full (no SYS_RESOURCE, no SYS_ADMIN): smaller ones do"""
    lab.container("app", "app.example.com", keep=True)
    limits = ["setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set",
              "-all,+net_bind_service"]
    agent = lab.agent("--datapath", "relay", wrapper=limits)
    soft = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text()) * os.sysconf("SC_PAGESIZE")
    # as root's other processes may take them
    taken = []
    try:
        while sum(size for _, size in taken) < soft:
            ends = os.pipe()
            taken.append((ends, fcntl.fcntl(ends[0], 1031, MiB)))   # F_SETPIPE_SZ
        size = 24 * MiB
        with Client(lab, receive_buffer=64 * KiB) as client:
            client.request(f"/down?n={size}&framing=length", "app.example.com")
            head = client.head()
            sizes = wait_for(lambda: pipe_sizes(agent.pid), "a pipe is in use")
            check(max(sizes) <= 2 * os.sysconf("SC_PAGESIZE"), f"sizes of pipes: {sizes}")
            client.take(head, size)
            expect(head.sha256, lib.pattern_sha256(size), "what came")
    finally:
        for ends, _ in taken:
            for end in ends:
                os.close(end)


# README's compose files

def blocks():
    return re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)


def adapt(lab, text):
    """As it is, but for what of the lab is elsewhere, and what this machine cannot do."""
    def put(old, new, needed=True):
        nonlocal text
        check(old in text or not needed, f"{old!r} is in README.md's compose file")
        text = text.replace(old, new)

    put("/var/run/docker.sock:/", f"{lab.docker_socket}:/")
    put("/sys/fs/bpf:/", f"{lab.dir}/bpf:/", needed=False)
    # newer than docker-compose 1.29; with cgroup v1 beside v2 it is what dockerd does by itself
    put("    cgroup: host", "", needed=False)
    if "privileged: true" in text and run(
            "docker", "-H", f"unix://{lab.docker_socket}", "run", "--rm", "--privileged", "busybox",
            "true").returncode:
        lib.comment("privileged is refused here: all capabilities that there are, unconfined")
        put("privileged: true", "cap_add: [ALL]\n    cap_drop: [SYS_RESOURCE]\n"
            "    security_opt: ['seccomp=unconfined', 'apparmor=unconfined']")
    return text


class Compose:
    def __init__(self, lab, text):
        self.lab = lab
        self.path = f"{lab.dir}/compose.yml"
        Path(self.path).write_text(text)
        self("up", "-d", "--no-build")

    def __call__(self, *arguments):
        return must("docker-compose", "-H", f"unix://{self.lab.docker_socket}", "-p", "kkm", "-f",
                    self.path, *arguments, timeout=60, env=self.lab.environ)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self("down", "-t", "1", "--volumes")

    def agent(self):
        return self("ps", "-q", "kakuremichi-agent").strip()


WEB = """  web:
    image: nginx:latest
    labels:
      - "kakuremichi.enabled=true"
      - "kakuremichi.domain=web.example.com"
      - "kakuremichi.port=80"
"""


@lib.each("privileged", "capabilities", "socket proxy")
def test_compose(lab, which):
    """README's compose file: serves, answers `status`, and has the time that it needs to stop"""
    image(lab)
    lab.script("image", "nginx")
    number = ("privileged", "capabilities", "socket proxy").index(which)
    text = adapt(lab, blocks()[number])
    if number:
        text += WEB
    if which == "socket proxy":
        lab.script("image", "haproxy")
        lab.docker("tag", "haproxy:latest", "tecnativa/docker-socket-proxy:latest")
        check("image: tecnativa/docker-socket-proxy\n" in text, text)
        text = text.replace("image: tecnativa/docker-socket-proxy\n", "image: tecnativa/docker-"
                            "socket-proxy\n    command: haproxy -db -f /e2e/lib_docker_proxy.cfg\n")
        text = text.replace(f"      - {lab.docker_socket}:/", f"      - {lib.HERE}:/e2e:ro\n"
                            f"      - {lab.docker_socket}:/", 1)
    with Compose(lab, text) as compose:
        wait_for(lambda: answers(lab, "web.example.com", "/"), "web.example.com is served", 15)
        agent = compose.agent()
        must("docker", "-H", f"unix://{lab.docker_socket}", "exec", agent, BINARY, "status")
        status = Path("/proc", lab.docker("inspect", "-f", "{{.State.Pid}}", agent),
                      "status").read_text()
        effective = int(re.search(r"CapEff:\s*(\w+)", status)[1], 16)
        wanted = {"capabilities": sum(1 << b for b in CAPABILITIES.values()),
                  "socket proxy": 1 << CAPABILITIES["NET_BIND_SERVICE"]}
        if which in wanted:
            expect(f"{effective:x}", f"{wanted[which]:x}", "capabilities")
            expect(re.search(r"NoNewPrivs:\s*(\d)", status)[1], "1", "NoNewPrivs")
        expect(lab.docker("inspect", "-f", "{{.HostConfig.NetworkMode}}", agent), "host", "network")
        log = lab.docker("logs", agent)
        expect("No BPF maps" in log, which == "socket proxy", "it says that it has no maps")
        if which == "socket proxy":
            expect([m for m in json.loads(lab.docker("inspect", "-f", "{{json .Mounts}}", agent))
                    if "docker.sock" in m["Destination"]], [], "the agent has no socket of Docker")
            for method, path, wish in ("POST", "/containers/create", 403), ("GET", "/_ping", 200), \
                    ("GET", "/images/json", 403):
                expect(lab.edge("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method,
                                f"http://127.0.0.1:2375{path}").stdout, str(wish), path)
        drain = int(re.search(r"--drain-timeout .*\[(\d+)s\]", must(lib.BINARY, "--help"))[1])
        grace = int(lab.docker("inspect", "-f", "{{.Config.StopTimeout}}", agent))
        check(grace > drain, f"stop_grace_period {grace} s is longer than the drain, {drain} s")
        compose("stop", "kakuremichi-agent")
        expect(lab.docker("inspect", "-f", "{{.State.ExitCode}}", agent), "0", "exit status")


lib.main("e2econt")
