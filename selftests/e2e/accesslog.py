# SPDX-License-Identifier: MIT
"""--access-log=on: a JSON line for each request, whoever answers it, on stdout among the others."""
import json
import re

import lib
import lib_tls
from lib import ENGINES, KiB, MiB, check, expect, wait_for

KEYS = {"time", "level", "msg", "client", "domain", "container", "method", "status", "bytes",
        "duration_ms", "engine"}
OWN = KEYS - {"container", "domain", "engine", "method"}     # what is there for a bad request too
CARRIERS = ("relay", "sockmap", "handover")


def ready_agent(lab, *flags, on=True):
    lab.container("one", "one.test", keep=True)
    lab.container("two", "two.test", keep=True)
    lab.container("raw", "raw.test", keep=True, command=["python3", "/e2e/lib_tls.py", 8000],
                  labels={"kakuremichi.tls": "passthrough"})
    # workers write in no order between them
    agent = lab.agent("--workers", "1", *flags, *(("--access-log", "on") if on else ()))
    for name in ("one", "two", "raw"):
        agent.wait_route(f"{name}.test", name)
    return agent


def lines(agent, count):
    """The access log, of so many lines."""
    try:
        return wait_for(lambda: len(found := agent.logs(msg="access")) >= count and found,
                        f"{count} lines")
    finally:
        found = agent.logs(msg="access")
        expect(len(found), count, f"lines of the access log: {found[:3]}")


def some(entry, **wanted):
    expect({key: entry.get(key) for key in wanted}, wanted, f"in {entry}")


def shape(entry, keys=KEYS):
    check(keys <= set(entry), f"it has no {keys - set(entry)}: {entry}")
    check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", entry["time"]), f"time: {entry}")
    expect(entry["level"], "INFO", "level")
    for key in ("status", "bytes"):
        check(type(entry[key]) is int and entry[key] >= 0, f"{key} is a whole number: {entry}")
    check(type(entry["duration_ms"]) in (int, float) and 0 <= entry["duration_ms"] < 60_000,
          f"duration_ms is a number: {entry}")


def client_name(client):
    address, port = client.sock.getsockname()[:2]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@lib.each(*ENGINES)
def test_a_line(lab, engine):
    """a request is a line, with all its attributes, over IPv4 and IPv6"""
    agent = ready_agent(lab, "--datapath", engine)
    for number, address in enumerate((lab.edge_addr, lab.edge_addr6)):
        with lab.connect(address=address) as client:
            answer = client.get("/name", "ONE.test.:80")
            entry = lines(agent, number + 1)[-1]
            shape(entry)
            some(entry, client=client_name(client), container="one", method="GET", status=200,
                 bytes=answer.wire)
            check(entry["domain"].lower().startswith("one.test"), f"domain: {entry}")
            check(entry["engine"] in CARRIERS, f"engine: {entry}")
            if engine == "relay":
                expect(entry["engine"], "relay", "engine")


@lib.each(*ENGINES)
def test_off(lab, engine):
    """off by default, and at all levels"""
    for flags in ((), ("--access-log", "off"), ("--log-level", "debug")):
        agent = ready_agent(lab, "--datapath", engine, *flags, on=False)
        with lab.connect() as client:
            for host in ("one.test", "two.test", "none.test"):
                client.get("/name", host)
        wait_for(lambda: not agent.connections(), "closed")
        lab.agents.remove(agent)
        agent.finish()
        expect(agent.logs(msg="access"), [], f"lines of {flags}")
    done = lib.run(lib.BINARY, "run", "--access-log", "perhaps", env=lab.environ)
    expect(done.returncode, 2, "exit status of --access-log perhaps")


@lib.each("error", "warn", "debug")
def test_levels(lab, level):
    """it is written at any --log-level"""
    agent = ready_agent(lab, "--log-level", level)
    with lab.connect() as client:
        client.get("/name", "one.test")
        client.get("/name", "none.test")
    first, second = lines(agent, 2)
    some(first, status=200, container="one")
    some(second, status=404)
    if level == "error":
        expect([e for e in agent.logs() if e["msg"] != "access"], [], "other lines")


def test_text(lab):
    """--log-format text: a line of text for each"""
    agent = ready_agent(lab, "--log-format", "text")
    with lab.connect() as client:
        client.get("/name", "one.test")
    wait_for(lambda: [line for line in agent.text().splitlines()
                      if "access" in line and "one.test" in line and "200" in line], "a line")


@lib.each(*ENGINES)
def test_keep_alive(lab, engine):
    """five requests on a connection are five lines, each with its own container, method, status"""
    agent = ready_agent(lab, "--datapath", engine)
    wanted, names = [], []
    with lab.connect() as client:
        for host, method, target, status in (
                ("one.test", "GET", "/name", 200), ("two.test", "POST", "/up", 200),
                ("one.test", "PUT", "/missing", 404), ("raw.test", "DELETE", "/500", 500),
                ("two.test", "OPTIONS", "/name", 200)):
            body = b"x" * 1000 if method in ("POST", "PUT") else None
            answer = client.get(target, host, method=method, body=body)
            expect(answer.status, status, f"status of {method} {target}")
            wanted.append((host, host.split(".")[0], method, status, answer.wire))
            names.append(client_name(client))
    found = lines(agent, 5)
    expect([(e["domain"], e["container"], e["method"], e["status"], e["bytes"]) for e in found],
           wanted, "domain, container, method, status, bytes")
    expect([e["client"] for e in found], names, "clients")
    for entry in found:
        shape(entry)


@lib.each(*ENGINES)
def test_pipelined(lab, engine):
    """pipelined requests are lines in their order"""
    agent = ready_agent(lab, "--datapath", engine)
    hosts = ["one", "two", "raw", "two", "one"] * 8
    with lab.connect() as client:
        client.send(b"".join(b"GET /name HTTP/1.1\r\nHost: %s.test\r\n\r\n" % h.encode()
                             for h in hosts))
        for host in hosts:
            expect(client.response().container, host, "who answers")
    expect([e["container"] for e in lines(agent, len(hosts))], hosts, "containers in the log")


@lib.each(*ENGINES)
def test_bytes(lab, engine):
    """bytes are those of the answer as the client gets it: HEAD, 204, 304, chunked, to EOF, 1xx"""
    agent = ready_agent(lab, "--datapath", engine)
    sizes = []
    for method, target, host in (
            ("HEAD", "/down?n=100000", "one.test"), ("GET", "/204", "raw.test"),
            ("GET", "/304", "raw.test"), ("GET", "/down?n=0", "one.test"),
            ("GET", "/down?n=1", "one.test"), ("GET", f"/down?n={8 * MiB}", "one.test"),
            ("GET", "/down?n=0&framing=chunked", "one.test"),
            ("GET", "/down?n=300000&framing=chunked&write=777", "one.test"),
            ("GET", "/down?n=300000&framing=eof", "one.test")):
        if method == "HEAD":
            target, host = "/200", "raw.test"
        with lab.connect() as client:
            answer = client.get(target, host, method=method)
            sizes.append((method, answer.status, answer.wire))
    with lab.connect() as client:
        client.request("/continue", "one.test", method="POST", body=b"x",
                       fields=("Expect: 100-continue",))
        first = client.response("HEAD")     # which has no body
        expect(first.status, 100, "the first status")
        answer = client.response()
        # those of the 100 belong to it or not
        either = (answer.wire, answer.wire + first.wire)
    found = lines(agent, len(sizes) + 1)
    expect([(e["method"], e["status"], e["bytes"]) for e in found[:-1]], sizes,
           "method, status, bytes")
    some(found[-1], method="POST", status=200)
    check(found[-1]["bytes"] in either, f"bytes of the answer after a 100: {found[-1]}, {either}")


@lib.each(*ENGINES)
def test_duration(lab, engine):
    """duration_ms is the time to the answer's end"""
    agent = ready_agent(lab, "--datapath", engine)
    with lab.connect() as client:
        client.get("/name", "one.test")
        client.get("/slow", "one.test")     # 0.7 s
    fast, slow = lines(agent, 2)
    check(690 <= slow["duration_ms"] < 10_000, f"of /slow: {slow}")
    check(fast["duration_ms"] < slow["duration_ms"], f"of /name: {fast}")


def test_own_answers(lab):
    """answers of the agent's own are lines as well, without a container"""
    paused = lab.container("paused", "paused.test")
    lab.container("shut", "shut.test", labels={"kakuremichi.port": "1"})
    lab.container("silent", "silent.test")
    agent = ready_agent(lab, "--head-timeout", "500ms")
    for name in ("paused", "shut", "silent"):
        agent.wait_route(f"{name}.test", name)
    lab.docker("pause", paused.id)
    wait_for(lambda: agent.states("paused.test") == {"paused": "paused"}, "paused")
    cases = [
        (404, b"GET / HTTP/1.1\r\nHost: none.test\r\n\r\n", "none.test", "GET"),
        (404, b"GET / HTTP/1.0\r\n\r\n", None, "GET"),
        (405, b"CONNECT one.test:80 HTTP/1.1\r\nHost: one.test:80\r\n\r\n", None, "CONNECT"),
        (400, b"GET / HTTP/1.1\r\n\r\n", None, None),
        (400, b"GET / HTTP/1.1\r\nHost: one.test\r\nHost: one.test\r\n\r\n", None, None),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50), None, None),
        (501, b"GET / HTTP/1.1\r\nHost: one.test\r\nTransfer-Encoding: gzip\r\n\r\n", None, None),
        (431, b"GET / HTTP/1.1\r\nHost: one.test\r\nX: " + b"x" * 70 * KiB + b"\r\n\r\n",
         None, None),
        (408, b"GET / HTTP/1.1\r\nHost: one.te", None, None),
        (503, b"GET / HTTP/1.1\r\nHost: paused.test\r\n\r\n", "paused.test", "GET"),
        (502, b"GET / HTTP/1.1\r\nHost: shut.test\r\n\r\n", "shut.test", "GET"),
        (502, b"GET /garbage HTTP/1.1\r\nHost: silent.test\r\n\r\n", "silent.test", "GET"),
        (502, b"GET /close HTTP/1.1\r\nHost: silent.test\r\n\r\n", "silent.test", "GET"),
    ]
    for number, (status, request, domain, method) in enumerate(cases):
        with lab.connect() as client:
            client.send(request)
            answer = client.response()
            expect(answer.status, status, f"status of {request[:60]}")
            name = client_name(client)
            client.ends()
        entry = lines(agent, number + 1)[-1]
        shape(entry, OWN)
        some(entry, client=name, status=status, bytes=answer.wire)
        if domain != "shut.test" and domain != "silent.test":
            check(not entry.get("container"), f"no container: {entry}")
        if domain:
            some(entry, domain=domain, method=method)
        elif method:
            some(entry, method=method)
    with lab.connect() as client:       # no request: no line
        client.half_close()
        client.ends()
    with lab.connect():
        pass
    wait_for(lambda: not agent.connections(), "all are closed")
    lines(agent, len(cases))


def test_escaped(lab):
    """whatever a peer sends, each line is one JSON object in UTF-8 with nothing else in it"""
    agent = ready_agent(lab)
    odd = [
        b"!#$%&'*+-.^_`|~09AZ /name HTTP/1.1\r\nHost: one.test\r\n\r\n",
        b"GET\"} /name HTTP/1.1\r\nHost: one.test\r\n\r\n",
        b"G\xc3\xbcT /name HTTP/1.1\r\nHost: one.test\r\n\r\n",
        b"GET /\"\\\x7f HTTP/1.1\r\nHost: one.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\"b\\c.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\xfe\x80.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: b\xc3\xbccher.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \u2028\u6f22\U0001f310.test\r\n\r\n".encode(),
        b"GET / HTTP/1.1\r\nHost: \x1b[31mred.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\n{\"msg\":\"access\",\"status\":200}\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: %0a%22.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + b"h" * 5000 + b"\r\n\r\n",
        b"M" * 5000 + b" / HTTP/1.1\r\nHost: one.test\r\n\r\n",
        b"\0\x01\x02\" / HTTP/1.1\r\nHost: one.test\r\n\r\n",
    ]
    statuses = []
    for request in odd:
        with lab.connect() as client:
            client.send(request)
            statuses.append(client.response().status)
    found = lines(agent, len(odd))
    expect([e["status"] for e in found], statuses, "statuses")
    with open(agent.log_path, "rb") as file:
        for line in file.read().split(b"\n")[:-1]:
            entry = json.loads(line.decode("utf-8"))
            check(type(entry) is dict, f"an object: {line}")
            check(not set(line) & set(range(32)), f"no control character: {line}")
            check(len(line) < 4 * KiB, f"a line of {len(line)} bytes: {line[:100]}")
    expect(found[0]["method"], "!#$%&'*+-.^_`|~09AZ", "an odd method that is allowed")
    expect(found[0]["container"], "one", "its container")


@lib.each(*ENGINES)
def test_upgrade(lab, engine):
    """an upgrade is one line, with status 101; a refused one is like any request"""
    agent = ready_agent(lab, "--datapath", engine)
    with lab.connect() as client:
        client.get("/name", "one.test", fields=("Connection: Upgrade", "Upgrade: opaque"))
        head = client.upgrade("echo", "two.test")
        client.send(b"x" * 10_000)
        expect(len(client.file.read(10_000)), 10_000, "the echo")
        client.half_close()
        client.ends()
    refused, upgraded = lines(agent, 2)
    some(refused, status=200, container="one", method="GET")
    some(upgraded, status=101, container="two", method="GET", domain="two.test")
    check(upgraded["bytes"] in (head.wire, head.wire + 10_000), f"bytes: {upgraded}")


@lib.each(*ENGINES)
def test_cut(lab, engine):
    """an answer that is cut is a line, with the bytes that came; so is one whose client has gone"""
    agent = ready_agent(lab, "--datapath", engine)
    one = lab.kept["one"]
    with lab.connect() as client:
        client.request("/reset?n=1000", "one.test")
        head = client.head()
        got = client.file.read(1000)
        expect((head.status, len(got)), (200, 1000), "what comes")
        wire = client._wire + 1000
        one.release()
        try:
            client.ends("a cut answer")
        except ConnectionResetError:
            pass
    entry, = lines(agent, 1)
    some(entry, status=200, container="one", bytes=wire)
    with lab.connect(receive_buffer=4096) as client:
        client.request(f"/down?n={64 * MiB}", "one.test")
        expect(client.head().status, 200, "status")
        client.reset()
    entry = lines(agent, 2)[-1]
    some(entry, status=200, container="one")
    check(0 < entry["bytes"] < 64 * MiB, f"bytes: {entry}")


@lib.each(*ENGINES)
def test_many(lab, engine):
    """400 requests of curl and others at once: as many lines, none torn"""
    agent = ready_agent(lab, "--datapath", engine, "--workers", "2")
    urls = [f"http://{host}.test/name" for host in ("one", "two") for _ in range(100)]
    resolve = [a for h in ("one", "two") for a in ("--resolve", f"{h}.test:80:{lab.edge_addr}")]
    for flags in ((), ("--parallel", "--parallel-max", "30")):
        done = lab.client("curl", "-sS", *flags, "--max-time", "20", *resolve,
                          *(x for url in urls for x in ("-o", "/dev/null", url)))
        expect(done.returncode, 0, f"exit status of curl: {done.stderr}")
    found = lines(agent, 400)
    for name in ("one", "two"):
        expect(len([e for e in found if (e["container"], e["domain"], e["status"]) ==
                    (name, f"{name}.test", 200)]), 200, f"lines of {name}")
    for line in agent.text().splitlines():
        json.loads(line)


def test_environment(lab):
    """KAKUREMICHI_ACCESS_LOG is the same"""
    ready_agent(lab, on=False)
    lab.agents.pop().finish()
    agent = lab.agent(environ={"KAKUREMICHI_ACCESS_LOG": "on"})
    agent.wait_route("one.test", "one")
    with lab.connect() as client:
        client.get("/name", "one.test")
    some(*lines(agent, 1), container="one")


def test_tls(lab):
    """connections of the TLS listener have no requests to log, and harm nothing"""
    agent = ready_agent(lab)
    with lab.connect(port=443) as client:
        client.send(lib_tls.records(lib_tls.hello(b"raw.test")) + b"echo\nx")
        expect(client.file.read(1), b"x", "the echo")
    with lab.connect(port=443) as client:
        client.send(lib_tls.records(lib_tls.hello(b"none.test")))
        client.file.read()
    with lab.connect() as client:
        client.get("/name", "one.test")
    wait_for(lambda: not agent.connections(), "all are closed")
    expect([e["method"] for e in agent.logs(msg="access") if e.get("method")], ["GET"], "methods")


lib.main("e2eacc")
