# SPDX-License-Identifier: MIT
"""What the end-to-end tests share: a lab, agents, containers, a client, and TAP.

A test file has functions `test_*(lab)`, whose docstring's first line is the test's name, and ends
in `lib.main("name")`. It runs by itself: `selftests/e2e/NAME.py [--long] [TEST]...`. Each file has
a lab of its own, made before the first test and removed at the end, however that comes. After each
test its agents are stopped (they must exit 0, with no connection left) and its containers removed,
but for those that were asked for with keep=True.

Sockets are made in a namespace of the lab and then used from here: a socket stays in the namespace
in which it was made.
"""
import ctypes
import hashlib
import inspect
import json
import os
import re  # noqa: F401 (for the tests)
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import lib_backend
from lib_backend import pattern, reset  # noqa: F401 (for the tests)

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
# check-long runs the agent that is built with sanitizers as well
BINARY = os.environ.get("TEST_AGENT", str(ROOT / "build/kakuremichi-agent"))
# What sockmap may carry is forced here, since on most kernels a step of the self-test forbids some.
FORCED = {"responses": {"--datapath": "sockmap", "--sockmap-requests": "off"},
          "both": {"--datapath": "sockmap", "--sockmap-requests": "on"}}
ENGINES = ("relay", "both")
LONG = "--long" in sys.argv
KiB, MiB = 1 << 10, 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


# Conditions

def expect(actual, wanted, what):
    if actual != wanted:
        raise AssertionError(f"{what}: {actual!r}, expected {wanted!r}")


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def wait_for(condition, what, timeout=5.0):
    """Until it is true, and that value; else an AssertionError with the last."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what} (last: {value!r})")
        time.sleep(0.005)
    return value


def run(*command, timeout=20, **options):
    """Output as text, both streams captured; never raises for the exit status."""
    return subprocess.run([str(c) for c in command], capture_output=True, text=True,
                          timeout=timeout, stdin=subprocess.DEVNULL, **options)


def must(*command, **options):
    done = run(*command, **options)
    check(done.returncode == 0, f"{' '.join(map(str, command))}: exit {done.returncode}: "
                                f"{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def sha256(pieces):
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


_digests = {}


def pattern_sha256(size):
    if size not in _digests:
        _digests[size] = sha256(pattern(size))
    return _digests[size]


# Namespaces

class Namespace:
    """The calling thread is in the namespace while it lasts."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.back = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._enter(f"/run/netns/{self.name}")

    def __exit__(self, *_):
        self._enter(self.back)
        os.close(self.back)

    @staticmethod
    def _enter(where):
        fd = os.open(where, os.O_RDONLY) if isinstance(where, str) else where
        try:
            if _libc.setns(fd, 0x40000000):
                raise OSError(ctypes.get_errno(), f"setns {where}")
        finally:
            if fd != where:
                os.close(fd)


# The lab

class Lab:
    def __init__(self, name):
        self.environ = {**os.environ, "LAB": name}
        for variable in list(self.environ):
            if variable.startswith(("KAKUREMICHI_", "DOCKER_", "CONTROL_URL", "API_KEY")):
                del self.environ[variable]
        self.script("up", timeout=120)
        for line in self.script("env").splitlines():
            key, value = line.split("=", 1)
            setattr(self, key.removeprefix("LAB_").lower(), value)
        self.agents, self.containers, self.sockets, self.kept = [], [], [], {}
        self.agent_count = 0

    def script(self, *arguments, timeout=60):
        return must(ROOT / "scripts/lab", *arguments, env=self.environ, timeout=timeout)

    def down(self):
        self.script("down")

    def docker(self, *arguments, timeout=30):
        return must("docker", "-H", f"unix://{self.docker_socket}", *arguments,
                    timeout=timeout).strip()

    def restart_docker(self, *arguments):
        self.script("restart-docker", *arguments, timeout=90)

    def edge(self, *command, **options):
        return run("nsenter", f"--net=/run/netns/{self.edge_ns}", "--", *command, **options)

    def client(self, *command, **options):
        return run("nsenter", f"--net=/run/netns/{self.client_ns}", "--", *command, **options)

    def iptables(self, *arguments):
        must("nsenter", f"--net=/run/netns/{self.edge_ns}", "--", "iptables", "-w", *arguments,
             env={**os.environ, "XTABLES_LOCKFILE": f"{self.dir}/xtables.lock"})

    def socket(self, ns=None, family=socket.AF_INET):
        with Namespace(ns or self.client_ns):
            sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(20)
        self.sockets.append(sock)
        return sock

    def connect(self, **options):
        return Client(self, **options)

    def agent(self, *flags, ready=True, **options):
        """Started; ready=False: which is not waited for, as it may never be ready."""
        agent = Agent(self, *flags, **options)
        self.agents.append(agent)
        if ready:
            agent.wait_ready()
        return agent

    def container(self, name, domain=None, **options):
        """A container with the scripted backend, or with another image. keep=True: the one that
        an earlier test has left, if it did."""
        if options.pop("keep", False):
            if name not in self.kept:
                self.docker("rm", "-f", name)   # one that died with its dockerd
                self.kept[name] = Container(self, name, domain, **options)
            return self.kept[name]
        container = Container(self, name, domain, **options)
        self.containers.append(container)
        return container

    def cleanup(self):
        """After a test. What should have been in order, and was not, is raised at the end."""
        errors = []
        sockets, self.sockets = self.sockets, []
        agents, self.agents = self.agents, []
        containers, self.containers = self.containers, []
        for sock in sockets:
            sock.close()
        for agent in agents:
            try:
                agent.finish()
            except Exception as error:  # the others have to end as well
                errors.append(str(error))
        if containers:
            self.docker("rm", "-f", "-v", *(c.id for c in containers))
        check(not errors, "; ".join(errors))


class Container:
    def __init__(self, lab, name, domain=None, *, image="python", port=None, command=None,
                 labels=None, environ=None, options=(), wait=True, network=None, control=None,
                 run=True):
        self.lab, self.name = lab, name
        lab.script("image", image)
        self.port = port or {"python": 8000, "nginx": 80, "node": 3000, "busybox": 80}[image]
        self.control_port = control or lib_backend.CONTROL_PORT
        if command is None and image == "python":
            command = ["python3", "/e2e/lib_backend.py", self.port]
        all_labels = {}
        if domain is not None:
            all_labels = {"kakuremichi.enabled": "true", "kakuremichi.domain": domain,
                          "kakuremichi.port": self.port}
        all_labels.update(labels or {})
        all_environ = {"NAME": name, "PYTHONDONTWRITEBYTECODE": "1", **(environ or {})}
        if control:
            all_environ["CONTROL"] = control
        arguments = ["run", "-d"] if run else ["create"]
        arguments += ["--name", name, "-v", f"{HERE}:/e2e:ro", *options]
        if network:
            arguments += ["--network", network]
        for key, value in all_labels.items():
            arguments += ["-l", f"{key}={value}"]
        for key, value in all_environ.items():
            arguments += ["-e", f"{key}={value}"]
        self.id = lab.docker(*arguments, image, *(command or ()))
        self.network = network or ""
        if run:
            self.started(wait)

    def start(self, wait=True):
        self.lab.docker("start", self.id)
        self.started(wait)

    def started(self, wait=True):
        self.address = self.lab.docker(
            "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}",
            self.id).split(" ")[0]
        if self.network:
            self.address = self.address or "127.0.0.1"
        if wait and not self.network.startswith("container:"):
            wait_for(self.listens, f"container {self.name} listens", 15)

    def listens(self):
        return self.takes(self.port) and (
            self.port != 8000 or self.takes(self.control_port))

    def takes(self, port):
        with self.lab.socket(self.lab.edge_ns) as sock:
            return sock.connect_ex((self.address, port)) == 0

    def ask(self, word):
        with self.lab.socket(self.lab.edge_ns) as sock:
            sock.connect((self.address, self.control_port))
            sock.sendall(word.encode() + b"\n")
            with sock.makefile("rb") as file:
                return file.read().decode()

    def log(self, event=None):
        events = [json.loads(line) for line in self.ask("log").splitlines()]
        return [e for e in events if event in (None, e["event"])]

    def release(self):
        self.ask("release")

    def kill(self, signal_name="KILL"):
        self.lab.docker("kill", "-s", signal_name, self.id)

    def remove(self):
        self.lab.docker("rm", "-f", "-v", self.id)
        if self in self.lab.containers:
            self.lab.containers.remove(self)


# The agent

def default_flags(lab):
    return {"--bpf-dir": lab.bpf_dir, "--run-dir": lab.run_dir, "--cgroup": lab.cgroup,
            "--docker-socket": lab.docker_socket, "--drain-timeout": "5s"}


class Agent:
    """flags: pairs "--name", "value", which go before the lab's own; None: not even that. wrapper: a
    command that runs it."""

    def __init__(self, lab, *flags, environ=None, limit=None, wrapper=(), ns="edge"):
        self.lab = lab
        self.flags = {**default_flags(lab), **dict(zip(flags[::2], flags[1::2]))}
        self.flags.update(FORCED.get(self.flags.get("--datapath"), {}))
        lab.agent_count += 1
        self.log_path = f"{lab.dir}/agent-{lab.agent_count}.log"
        command = [str(ROOT / "scripts/lab"), "run", ns, *wrapper, BINARY, "run"]
        if limit:   # of open files
            command = ["prlimit", f"--nofile={limit}:{limit}", *command]
        for flag, value in self.flags.items():
            if value is not None:
                command += [flag, str(value)]
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env={**lab.environ, **(environ or {})})
        self.pid = self.process.pid

    def wait_ready(self):
        wait_for(lambda: self.status().get("ready") or self.exited(), "the agent is ready")
        check(not self.exited(), f"the agent is up: {self.text()[-400:]}")

    def exited(self):
        return self.process.poll() is not None

    def text(self):
        return Path(self.log_path).read_text()

    def logs(self, level=None, **attributes):
        """The log's lines, as objects; those with these attributes."""
        found = []
        for line in self.text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"level": "", "msg": line}
            if level in (None, entry["level"]) and \
                    all(entry.get(k) == v for k, v in attributes.items()):
                found.append(entry)
        return found

    def command(self, noun, *arguments):
        return run(BINARY, noun, "--bpf-dir", self.flags["--bpf-dir"], "--run-dir",
                   self.flags["--run-dir"], *arguments, env=self.lab.environ)

    def document(self, noun):
        done = self.command(noun, "--json")
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def status(self):
        return self.document("status")

    def connections(self):
        return self.document("connections").get("connections", [])

    def stats(self):
        return Stats(self.document("stats")["stats"])

    def routes(self):
        """domain -> names of its containers"""
        return {r["domain"]: sorted(b["container"] for b in r["backends"])
                for r in self.document("routes").get("routes", [])}

    def states(self, domain):
        """container -> state"""
        return {b["container"]: b["state"] for r in self.document("routes")["routes"]
                if r["domain"] == domain for b in r["backends"]}

    def refused(self):
        """container -> what `routes` says of it, rejected and conflicting ones"""
        document = self.document("routes")
        return {r["container"]: r for r in document["rejected"] + document["conflicts"]}

    def wait_route(self, domain, *names):
        wait_for(lambda: self.routes().get(domain, []) == sorted(names),
                 f"{domain} is routed to {names or 'nobody'}")

    def health(self, path="/readyz"):
        """Status and body at the admin address."""
        with Client(self.lab, ns=self.lab.edge_ns, address="127.0.0.1", port=9180) as client:
            answer = client.get(path, "localhost")
            return answer.status, answer.body.decode()

    def stop(self, timeout=15):
        self.process.terminate()
        return self.process.wait(timeout)

    def kill(self):
        self.process.kill()
        self.process.wait(15)

    def finish(self):
        """It still runs; no connection is left; it stops with exit 0. Unless the test ended it."""
        if self.exited():
            return
        try:
            wait_for(lambda: not self.connections(), "no connection is left in kkm_conns", 10)
            expect(self.stop(), 0, "exit status of the agent at SIGTERM")
        finally:
            if not self.exited():
                self.kill()
        errors = self.logs("ERROR")
        check(not errors, f"no ERROR in the log: {errors[:3]}")


class Stats(dict):
    __getattr__ = dict.__getitem__

    def since(self, earlier):
        return Stats({name: value - earlier[name] for name, value in self.items()})


# A client that hides nothing

class Response:
    def __init__(self, status, reason, fields):
        self.status, self.reason, self.fields = status, reason, fields
        self.size, self.body, self.wire = 0, b"", 0
        self._digest = hashlib.sha256()

    def take(self, piece):
        self._digest.update(piece)
        self.size += len(piece)
        if self.size <= MiB:
            self.body += piece

    @property
    def sha256(self):
        return self._digest.hexdigest()

    @property
    def container(self):
        return self.fields.get("x-container")


class Client:
    """An HTTP connection from the client's namespace to the agent."""

    def __init__(self, lab, *, ns=None, address=None, port=80, receive_buffer=None, timeout=20):
        address = address or lab.edge_addr
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = lab.socket(ns, family)
        self.sock.settimeout(timeout)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.connect((address, port))
        self.file = self.sock.makefile("rb", 256 * KiB)
        lab.sockets.append(self.file)   # which keeps the socket open

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.sock.close()

    def reset(self):
        self.file.close()
        reset(self.sock)

    def send(self, data):
        self.sock.sendall(data)

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def request(self, target, host, method="GET", fields=(), body=None):
        """body: bytes, of which the length is sent as Content-Length."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))

    def get(self, target, host, **options):
        self.request(target, host, **options)
        return self.response(options.get("method", "GET"))

    def line(self):
        line = self.file.readline(65536)
        if not line.endswith(b"\n"):
            raise ConnectionError(f"the connection ended in {line!r}")
        self._wire += len(line)
        return line.decode("latin-1").rstrip("\r\n")

    def head(self):
        self._wire = 0
        _version, status, *reason = self.line().split(" ", 2)
        fields = {}
        while line := self.line():
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        return Response(int(status), " ".join(reason), fields)

    def response(self, method="GET"):
        response = self.head()
        if method == "HEAD" or response.status in (101, 204, 304):
            pass
        elif response.fields.get("transfer-encoding") == "chunked":
            while size := int(self.line(), 16):
                self.take(response, size)
                expect(self.line(), "", "what ends a chunk")
            expect(self.line(), "", "what ends the last chunk")
        elif "content-length" in response.fields:
            self.take(response, int(response.fields["content-length"]))
        else:
            self.take(response, None)
        response.wire = self._wire + response.size
        return response

    def take(self, response, left):
        while left is None or left:
            piece = self.file.read1(MiB if left is None else min(left, MiB))
            if not piece:
                if left is None:
                    return
                raise ConnectionError(f"the connection ended {left} bytes early")
            response.take(piece)
            left = None if left is None else left - len(piece)

    def upgrade(self, then, host, size=0):
        answer = self.get(f"/upgrade?then={then}&n={size}", host,
                          fields=("Connection: Upgrade", "Upgrade: opaque"))
        expect(answer.status, 101, "status of an upgrade")
        return answer

    def read_all(self):
        """To EOF; SHA-256 and size."""
        response = Response(0, "", {})
        self.take(response, None)
        return response

    def ends(self, what="the connection"):
        """EOF comes, and no byte before it."""
        piece = self.file.read1(1000)
        expect(piece, b"", f"what comes before the end of {what}")


def counted(lab, domain, received):
    """The agent has counted what the client received of an upgraded stream: only then can what the
    container sends next take the short way. For a stream that was asked for on a new leg."""
    wait_for(lambda: any(c["domain"] == domain and c["bytes_down"] >= received
                         for c in lab.agents[-1].connections()), "the 101 is counted")


# TAP

def each(*values):
    """The test runs once for each value, its second argument; a tuple is several of them."""
    def decorate(function):
        function.values = values
        return function
    return decorate


def comment(*words):
    print("#", *words, flush=True)


def _cases(module, wanted):
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if not name.startswith("test_") or function.__module__ != module.__name__ or \
                wanted and name not in wanted:
            continue
        title = inspect.getdoc(function).splitlines()[0]
        line = function.__code__.co_firstlineno
        for number, value in enumerate(getattr(function, "values", [None])):
            arguments = () if value is None else value if isinstance(value, tuple) else (value,)
            yield (line, number), title + "".join(f", {a}" for a in arguments), function, arguments


def describe(error):
    """What it says, and the lines of the test that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.endswith(("/lib.py", "subprocess.py"))] or frames
    return f"{type(error).__name__}: {error}\n" + "".join(
        f"  {os.path.basename(f.filename)}:{f.lineno}: {f.line}\n" for f in own)


def _run_case(lab, function, arguments):
    """Why it failed, or ''."""
    failure = ""
    try:
        function(lab, *arguments)
    except Exception as error:  # whatever it is, it is this test's
        failure = describe(error)
    agents = list(lab.agents)
    try:
        lab.cleanup()
    except Exception as error:
        failure += f"cleanup: {describe(error)}"
    for agent in agents if failure else ():
        failure += f"agent {agent.pid}, exit status {agent.process.returncode}:\n"
        failure += "".join(line + "\n" for line in agent.text().splitlines()[-8:])
    return failure


def main(lab_name):
    module = sys.modules["__main__"]
    cases = sorted(_cases(module, [a for a in sys.argv[1:] if not a.startswith("-")]))
    if not cases:
        sys.exit("no test of that name here")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    failures = 0
    lab = None
    try:
        lab = Lab(lab_name)
        print(f"1..{len(cases)}", flush=True)
        for number, (_, title, function, arguments) in enumerate(cases, 1):
            start = time.monotonic()
            failure = _run_case(lab, function, arguments)
            failures += failure != ""
            print(f"{'not ok' if failure else 'ok'} {number} - {title}", flush=True)
            for line in failure.splitlines():
                comment(line)
            if (seconds := time.monotonic() - start) > 5:
                comment(f"took {seconds:.0f} s")
    finally:
        if lab:
            lab.down()
        else:
            run(ROOT / "scripts/lab", "down", env={**os.environ, "LAB": lab_name}, timeout=60)
    os._exit(1 if failures else 0)  # not hindered by a thread that a failed test has left
