# SPDX-License-Identifier: MIT
"""A Docker daemon that does as it is told: on a Unix socket or TCP, with containers that exist only
in its answers, any range of API versions, and faults.

It answers what the real one would (moby's api/server and daemon): documents hang on the version
that is asked for, `filters` and `since` count, old and new versions are refused with 400. What a
test wants otherwise goes into `hooks`: {"events": f}, likewise "list", "inspect", "version", "ping";
f is called with the Request instead, and may return "pass" to have it answered as ever.
"""
import json
import os
import queue
import random
import re
import socket
import threading
import time
import urllib.parse

DOMAIN = "app-{}.fake.test"
REMEMBERED = 256    # events, as many as the real one


def number_of(version):
    return tuple(int(part) for part in version.split("."))


def matches(wanted, labels):
    return all(labels.get(key) == value if equals else key in labels
               for key, equals, value in (w.partition("=") for w in wanted))


def filter_values(filters, name):
    """Both spellings: a list, or the values as keys of an object."""
    return list(filters.get(name) or ())


class FakeContainer:
    """What the daemon says of one. Change it by the daemon's verbs, which send the events."""

    def __init__(self, name, address, labels, *, network="bridge", created=1700000000,
                 image="fake", stop_signal="SIGTERM", number=None):
        self.id = f"{random.getrandbits(256):064x}" if number is None else f"{number:064x}"
        self.name, self.address, self.labels, self.created = name, address, labels, created
        self.image, self.network, self.stop_signal = image, network, stop_signal
        self.state, self.health = "running", ""
        self.ports = []

    def status(self):
        if self.state in ("running", "paused"):
            extra = {"": "", "starting": " (health: starting)"}.get(self.health,
                                                                    f" ({self.health})")
            return "Up 2 hours" + extra + (" (Paused)" if self.state == "paused" else "")
        return {"created": "Created", "restarting": "Restarting (1) 1 second ago"}.get(
            self.state, "Exited (0) 2 seconds ago")

    def endpoint(self, version):
        up = self.state in ("running", "paused")
        fields = {"IPAMConfig": None, "Links": None, "Aliases": None, "NetworkID": "7" * 64,
                  "EndpointID": "8" * 64 if up else "", "Gateway": "10.9.0.1" if up else "",
                  "IPAddress": self.address if up else "", "IPPrefixLen": 16 if up else 0,
                  "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
                  "MacAddress": "02:42:0a:09:00:02" if up else ""}
        if version >= (1, 26):
            fields["DriverOpts"] = None
        if version >= (1, 44):
            fields["DNSNames"] = None
        if version >= (1, 48):
            fields["GwPriority"] = 0
        return fields

    def listed(self, version):
        """An element of GET /containers/json."""
        element = {
            "Id": self.id, "Names": ["/" + self.name], "Image": self.image,
            "ImageID": "sha256:" + "4" * 64, "Command": "/serve", "Created": self.created,
            "Ports": self.ports, "Labels": self.labels, "State": self.state,
            "Status": self.status(), "HostConfig": {"NetworkMode": self.network},
            "NetworkSettings": {"Networks": {self.network: self.endpoint(version)}}, "Mounts": []}
        if version >= (1, 46):
            element["HostConfig"]["Annotations"] = {}
        if version >= (1, 48):
            element["ImageManifestDescriptor"] = {"digest": "sha256:" + "5" * 64, "size": 401}
        if version >= (1, 52):
            element["Health"] = {"Status": self.health or "none", "FailingStreak": 0}
        return element

    def inspected(self, version):
        """GET /containers/X/json"""
        running = self.state in ("running", "paused")
        state = {"Status": self.state, "Running": running, "Paused": self.state == "paused",
                 "Restarting": self.state == "restarting", "OOMKilled": False, "Dead": False,
                 "Pid": 4711 if running else 0, "ExitCode": 0, "Error": "",
                 "StartedAt": "2026-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z"}
        if self.health:
            state["Health"] = {"Status": self.health, "FailingStreak": 0, "Log": []}
        settings = {"Networks": {self.network: self.endpoint(version)}, "Ports": {}}
        if version < (1, 52):
            settings.update(IPAddress=self.address if running else "", Bridge="", Gateway="")
        config = {"Hostname": self.id[:12], "Image": self.image, "Labels": self.labels,
                  "Env": [], "Cmd": ["/serve"]}
        if self.stop_signal:
            config["StopSignal"] = self.stop_signal
        return {"Id": self.id, "Created": "2023-11-14T22:13:20Z", "Path": "/serve", "Args": [],
                "State": state, "Image": "sha256:" + "4" * 64, "Name": "/" + self.name,
                "HostConfig": {"NetworkMode": self.network}, "Config": config,
                "NetworkSettings": settings}


class Request:
    """One that has come, for whoever answers it."""

    def __init__(self, daemon, sock, method, target):
        self.daemon, self.sock, self.method, self.target = daemon, sock, method, target
        self.path, _, query = target.partition("?")
        self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        match = re.match(r"/v(\d+\.\d+)(/.*)", self.path)
        self.asked_version, self.path = match.groups() if match else (None, self.path)
        self.version = number_of(self.asked_version or daemon.highest)
        self.filters = json.loads(self.query.get("filters") or "{}")

    def send(self, data):
        self.sock.sendall(data)

    def head(self, status, *fields):
        lines = [f"HTTP/1.1 {status}", f"Api-Version: {self.daemon.highest}",
                 "Server: Docker/fake (linux)", "Content-Type: application/json", *fields]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n")

    def answer(self, document, status="200 OK"):
        body = self.daemon.write(document).encode() + b"\n"
        self.head(status, f"Content-Length: {len(body)}")
        self.send(body)

    def begin_stream(self):
        self.head("200 OK", "Transfer-Encoding: chunked")

    def chunk(self, data):
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def pieces(self, data):
        """In a chunk each, and each chunk in two writes."""
        for piece in self.daemon.cut_pieces(data):
            wire = b"%x\r\n%b\r\n" % (len(piece), piece)
            at = self.daemon.random.randrange(len(wire))
            self.send(wire[:at])
            self.send(wire[at:])


class Daemon:
    """lowest=None: /version has no MinAPIVersion. address: a path, or (namespace, host, port)."""

    def __init__(self, address, *, lowest="1.12", highest="1.41", seed=1):
        self.address, self.lowest, self.highest = address, lowest, highest
        self.hooks, self.containers, self.requests = {}, {}, []
        self.events, self.streams, self.connections = [], [], set()
        self.silent = False     # streams stay open and hold nothing any more
        self.write = json.dumps
        self.asked = time.monotonic()
        self.random, self.lock = random.Random(seed), threading.RLock()
        self.last_ns = 0
        self.listener = None
        self.open()

    # Its socket

    def open(self):
        if isinstance(self.address, tuple):
            import lib
            namespace, host, port = self.address
            with lib.Namespace(namespace):
                self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind((host, port))
        else:
            if os.path.exists(self.address):
                os.unlink(self.address)
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(self.address)
        self.listener.listen(128)
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            try:
                sock = listener.accept()[0]
            except OSError:
                return
            with self.lock:
                self.connections.add(sock)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def hang_up(self):
        """Every connection ends, whatever is on it."""
        with self.lock:
            for sock in self.connections:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        """Gone, as a daemon that was killed; open() for one that is there again."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)    # which ends accept()
        except OSError:
            pass
        self.listener.close()
        self.hang_up()
        if isinstance(self.address, str) and os.path.exists(self.address):
            os.unlink(self.address)

    stop = close

    def quiet(self):
        """Nothing has been asked for a while."""
        return time.monotonic() - self.asked > 0.5

    # Requests

    def serve(self, sock):
        try:
            with sock.makefile("rb") as file:
                while self.serve_one(sock, file):
                    pass
        except (OSError, ValueError):
            pass    # whoever stops hangs up
        finally:
            with self.lock:
                self.connections.discard(sock)
            sock.close()

    def serve_one(self, sock, file):
        line = file.readline().split()
        if len(line) != 3:
            return False
        while file.readline() not in (b"\r\n", b""):
            pass
        method, target = line[0].decode(), line[1].decode()
        self.asked = time.monotonic()
        self.requests.append(f"{method} {target}")
        return self.dispatch(Request(self, sock, method, target))

    def dispatch(self, request):
        if request.method != "GET":
            request.answer({"message": "forbidden"}, "403 Forbidden")
            return True
        kind = {"/_ping": "ping", "/version": "version", "/events": "events",
                "/containers/json": "list"}.get(request.path)
        match = re.fullmatch(r"/containers/([^/]+)/json", request.path)
        if not kind and match:
            kind, request.id = "inspect", match.group(1)
        hook = self.hooks.get(kind)
        if hook:
            result = hook(request)
            if result != "pass":
                return result is not False
        refusal = self.refusal(request)
        if refusal:
            request.answer({"message": refusal}, "400 Bad Request")
        elif kind:
            return getattr(self, "do_" + kind)(request) is not False
        else:
            request.answer({"message": "page not found"}, "404 Not Found")
        return True

    def refusal(self, request):
        version = request.asked_version
        if version and request.version > number_of(self.highest):
            return (f"client version {version} is too new. Maximum supported API version is "
                    f"{self.highest}")
        if version and request.version < number_of(self.lowest or "1.12"):
            return (f"client version {version} is too old. Minimum supported API version is "
                    f"{self.lowest}, please upgrade your client to a newer version")
        return None

    def do_ping(self, request):
        request.head("200 OK", "Content-Length: 2")
        request.send(b"OK")

    def do_version(self, request):
        document = {"Platform": {"Name": "fake"}, "Version": "99.0", "ApiVersion": self.highest,
                    "GitCommit": "0", "GoVersion": "go1.99", "Os": "linux", "Arch": "amd64"}
        if self.lowest:
            document["MinAPIVersion"] = self.lowest
        request.answer(document)

    def do_list(self, request):
        request.answer(self.listing(request))

    def listing(self, request):
        filters = request.filters
        ids, names = filter_values(filters, "id"), filter_values(filters, "name")
        states = filter_values(filters, "status")
        every = states or request.query.get("all") in ("1", "true", "True")
        with self.lock:
            found = [c for c in self.containers.values()
                     if (every or c.state in ("running", "paused", "restarting"))
                     and (not states or c.state in states)
                     and (not ids or any(c.id.startswith(i) for i in ids))
                     and (not names or any(n in c.name for n in names))
                     and matches(filter_values(filters, "label"), c.labels)]
            found.sort(key=lambda c: -c.created)
            return [c.listed(request.version) for c in found]

    def do_inspect(self, request):
        with self.lock:
            for container in self.containers.values():
                if container.id.startswith(request.id) or container.name == request.id:
                    request.answer(container.inspected(request.version))
                    return
        request.answer({"message": f"No such container: {request.id}"}, "404 Not Found")

    # Events

    def do_events(self, request):
        stream = queue.Queue()
        with self.lock:
            past = []
            if "since" in request.query:
                seconds, _, fraction = request.query["since"].partition(".")
                since = int(seconds) * 10**9 + int(fraction.ljust(9, "0"))
                past = [e for e in self.events if e["timeNano"] >= since]
            self.streams.append(stream)
        request.begin_stream()
        try:
            self.send_events(request, past)
            while events := self.next_events(stream, request.sock):
                self.send_events(request, events)
        finally:
            with self.lock:
                self.streams.remove(stream)
        return False

    @staticmethod
    def next_events(stream, sock):
        """Those that there are; none when the other end has gone."""
        events = []
        while not events:
            try:
                events.append(stream.get(timeout=0.2))
                while True:
                    events.append(stream.get_nowait())
            except queue.Empty:
                try:
                    if not events and sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                        break
                except BlockingIOError:
                    pass
        return events

    def send_events(self, request, events):
        """Bytes are from raw(), and a chunk of their own."""
        if self.silent:
            return
        data = b""
        for event in events:
            if isinstance(event, bytes):
                request.pieces(data)
                request.chunk(event)
                data = b""
            elif self.is_wanted(request, event):
                data += self.event_text(event, request.version)
        request.pieces(data)

    @staticmethod
    def is_wanted(request, event):
        types = filter_values(request.filters, "type")
        kinds = filter_values(request.filters, "event")
        return (not types or event["Type"] in types) and \
            (not kinds or event["Action"].split(":")[0] in kinds) and \
            matches(filter_values(request.filters, "label"), event["Actor"]["Attributes"])

    def event_text(self, event, version):
        fields = {}
        if version < (1, 52) and event["Type"] == "container":
            fields = {"status": event["Action"], "id": event["Actor"]["ID"],
                      "from": event["Actor"]["Attributes"].get("image", "")}
        fields.update(Type=event["Type"], Action=event["Action"], Actor=event["Actor"])
        if version >= (1, 30):
            fields["scope"] = "local"
        fields.update(time=event["timeNano"] // 10**9, timeNano=event["timeNano"])
        return self.write(fields).encode() + b"\n"

    def cut_pieces(self, data):
        cuts = {self.random.randrange(len(data)) for _ in range(self.random.randrange(4)) if data}
        cuts = sorted({0, *cuts, len(data)})
        return [data[a:b] for a, b in zip(cuts, cuts[1:])]

    def event(self, container, action, **attributes):
        self.publish("container", action, container.id, {
            **container.labels, "image": container.image, "name": container.name, **attributes})

    def publish(self, kind, action, subject, attributes):
        with self.lock:
            self.last_ns = max(time.time_ns(), self.last_ns + 1)
            event = {"Type": kind, "Action": action, "timeNano": self.last_ns,
                     "Actor": {"ID": subject, "Attributes": attributes}}
            self.events.append(event)
            del self.events[:-REMEMBERED]
            for stream in self.streams:
                stream.put(event)

    def raw(self, data):
        """These bytes, a chunk of each open stream."""
        with self.lock:
            for stream in self.streams:
                stream.put(data)

    # What happens to containers

    def add(self, name, address, domain=None, *, port=8000, labels=None, quiet=False, **options):
        """Created and started."""
        every = {}
        if domain:
            every = {"kakuremichi.enabled": "true", "kakuremichi.domain": domain,
                     "kakuremichi.port": str(port)}
        container = FakeContainer(name, address, {**every, **(labels or {})}, **options)
        with self.lock:
            self.containers[container.id] = container
            if not quiet:
                self.event(container, "create")
                self.event(container, "start")
        return container

    def add_many(self, count, address, port=80):
        """Without an event each: `count` that all have this address."""
        for number in range(count):
            self.add(f"many-{number}", address, DOMAIN.format(number), port=port, quiet=True,
                     number=number, created=1700000000 + number)

    def start(self, container, address=None):
        with self.lock:
            container.state = "running"
            container.address = address or container.address
            self.containers[container.id] = container
            self.event(container, "start")

    def stop_container(self, container, code=0):
        """As `docker stop` does it."""
        with self.lock:
            self.event(container, "kill", signal="15")
            self.die(container, code)
            self.event(container, "stop")

    def die(self, container, code=1):
        with self.lock:
            container.state = "exited"
            self.event(container, "die", exitCode=str(code))

    def remove(self, container):
        with self.lock:
            if container.state in ("running", "paused"):
                self.event(container, "kill", signal="9")
                self.die(container, 137)
            del self.containers[container.id]
            self.event(container, "destroy")

    def change(self, container, action, **fields):
        """pause, unpause, rename, health_status: …; with what it looks like afterwards"""
        with self.lock:
            for name, value in fields.items():
                setattr(container, name, value)
            self.event(container, action)
