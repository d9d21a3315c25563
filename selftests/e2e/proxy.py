# SPDX-License-Identifier: MIT
"""The client's address by PROXY protocol: accepted from named addresses, and told to containers.

`--proxy-protocol-from` names the client's namespace; the edge's own addresses are not listed. The
container `raw` records what comes in as it is; `told` has kakuremichi.proxy-protocol=v2.
"""
import socket
import time

import lib
import lib_tls
from lib import ENGINES, KiB, check, expect, wait_for
from lib_tls import V2_SIGNATURE, hello, records, tlv, v1, v2

V4 = ("192.0.2.7", 40007), ("203.0.113.9", 443)
V6 = ("2001:db8::7", 40007), ("2001:db8:1::9", 443)
ALERT = 0x15
GET = b"GET /x HTTP/1.1\r\nHost: %s\r\n\r\n"
NGINX = """
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    ssl_certificate /tls/front/cert.pem;
    ssl_certificate_key /tls/front/key.pem;
    server {
        listen 80 proxy_protocol;
        listen 8443 ssl proxy_protocol;
        location / {
            set $source "$proxy_protocol_addr $proxy_protocol_port";
            return 200 "$source $proxy_protocol_server_addr $proxy_protocol_server_port\\n";
        }
    }
}
"""


def ready_agent(lab, *flags, listed=True):
    command = ["python3", "/e2e/lib_tls.py", 8000]
    tls = {"kakuremichi.tls": "passthrough"}
    lab.container("raw", "raw.test", keep=True, command=command, labels=tls)
    lab.container("told", "told.test", keep=True, command=command, labels={
        **tls, "kakuremichi.proxy-protocol": "v2"})
    if listed:
        flags += ("--proxy-protocol-from", f"{lab.client_addr}/32,{lab.client_addr6}/128")
    agent = lab.agent("--access-log", "on", *flags)
    for name in ("raw", "told"):
        agent.wait_route(f"{name}.test", name)
    return agent


class Tape:
    """What the container has recorded since."""

    def __init__(self, lab, name):
        self.container = lab.kept[name]
        self.seen = len(self.container.log())

    def connections(self):
        """The bytes of each connection, without those that came with none."""
        return [bytes.fromhex(c["bytes"]) for c in self.container.log()[self.seen:] if c["bytes"]]

    def wait(self, wanted, what):
        """That, and nothing more."""
        try:
            wait_for(lambda: self.connections() == wanted, what)
        except AssertionError:
            expect(self.connections(), wanted, what)


def host(name="raw"):
    return GET % f"{name}.test".encode()


def text(end):
    """As access log and `connections` write it."""
    address, port = end
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def ask(lab, data, name="raw", **options):
    """This is sent, and a container answers."""
    with lab.connect(**options) as client:
        client.send(data)
        answer = client.response()
        expect((answer.status, answer.container), (200, name), f"answer to {data[:60]}")
        return client.sock.getsockname()[:2]


def refused(lab, data, what, **options):
    """This is sent; the connection ends, by a 400 or without a word. Status or None."""
    with lab.connect(**options) as client:
        try:
            client.send(data)
            answer = client.file.read()
        except (ConnectionResetError, BrokenPipeError):
            return None
        check(answer == b"" or answer.startswith(b"HTTP/1.1 400 Bad Request\r\n") and
              b"x-container" not in answer.lower(), f"the answer to {what}: {answer[:200]}")
        return 400 if answer else None


def logged(agent, status=None):
    """Clients in the access log, in order."""
    return [e["client"] for e in agent.logs(msg="access") if status in (None, e["status"])]


HEADERS = {
    "v1 TCP4": (v1("TCP4", V4[0][0], V4[1][0], V4[0][1], V4[1][1]), V4[0]),
    "v1 TCP6": (v1("TCP6", V6[0][0], V6[1][0], V6[0][1], V6[1][1]), V6[0]),
    "v1 TCP6, the longest": (v1("TCP6", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff7",
                                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535, 65535),
                             ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff7", 65535)),
    "v1 UNKNOWN": (v1("UNKNOWN"), None),
    "v1 UNKNOWN and more": (v1("UNKNOWN", "ffff::1", "ffff::2", 65535, 65535), None),
    "v2 IPv4": (v2(*V4), V4[0]),
    "v2 IPv6": (v2(*V6), V6[0]),
    "v2 IPv4 with TLVs": (v2(*V4, tlvs=tlv(1, b"h2") + tlv(4, b"") + tlv(0xea, bytes(300))), V4[0]),
    "v2 IPv6 with TLVs": (v2(*V6, tlvs=tlv(2, b"raw.test") + tlv(5, bytes(128))), V6[0]),
    "v2 IPv4 with 4 KiB of TLVs": (v2(*V4, tlvs=tlv(4, b"G" * (4 * KiB - 3))), V4[0]),
    "v2 LOCAL": (v2(command=0x20), None),
    "v2 LOCAL with an address": (v2(*V4, command=0x20), None),
    "v2 LOCAL with TLVs": (v2(command=0x20, tlvs=tlv(4, bytes(500))), None),
}


@lib.each(*ENGINES)
def test_accepted(lab, engine):
    """v1 and v2 from a listed address: taken off; `connections` and the log have its address"""
    agent = ready_agent(lab, "--datapath", engine)
    for what, (header, source) in HEADERS.items():
        tape, before = Tape(lab, "raw"), len(logged(agent))
        with lab.connect() as client:
            client.send(header + host())    # in one segment
            expect(client.response().container, "raw", f"who answers after {what}")
            wanted = text(source or client.sock.getsockname())
            connection, = agent.connections()
            expect(connection["client"], wanted, f"client of {what} in `connections`")
            client.send(host())
            expect(client.response().container, "raw", f"who answers the second after {what}")
        tape.wait([host() * 2], f"what arrives after {what}")
        wait_for(lambda: logged(agent)[before:] == [wanted] * 2,
                 f"client of {what} in the access log: {logged(agent)[before:]}, {wanted}")
        wait_for(lambda: not agent.connections(), "closed")
    ask(lab, HEADERS["v1 TCP6"][0] + host(), address=lab.edge_addr6)


@lib.each(*ENGINES)
def test_segments(lab, engine):
    """a header in segments, cut at each byte, and byte by byte"""
    ready_agent(lab, "--datapath", engine)
    tape, count = Tape(lab, "raw"), 0
    for what in ("v1 TCP4", "v1 UNKNOWN", "v2 IPv4", "v2 IPv6 with TLVs", "v2 LOCAL"):
        header = HEADERS[what][0]
        data = header + host()
        for cut in range(1, len(header) + 3):
            with lab.connect() as client:
                client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.send(data[:cut])
                client.send(data[cut:])
                expect(client.response().container, "raw", f"who answers {what} cut at {cut}")
            count += 1
        with lab.connect() as client:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(len(data)):
                client.send(data[at:at + 1])
            expect(client.response().container, "raw", f"who answers {what} byte by byte")
        count += 1
    tape.wait([host()] * count, "what arrives")


@lib.each(*ENGINES)
def test_missing(lab, engine):
    """no header from a listed address: nothing is forwarded"""
    agent = ready_agent(lab, "--datapath", engine)
    tape = Tape(lab, "raw")
    for data in (host(), b"POST /up HTTP/1.1\r\nHost: raw.test\r\nContent-Length: 5\r\n\r\nhello",
                 b"P" + host(), b"\r\n" + host(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        refused(lab, data, data[:20])
        refused(lab, data, data[:20], address=lab.edge_addr6)
    refused(lab, records(hello(b"raw.test")), "a hello without header", port=443)
    expect(agent.stats().upstream_connects, 0, "upstream_connects")
    expect(tape.connections(), [], "what arrives")


def malformed():
    s, d, sp, dp = V4[0][0], V4[1][0], V4[0][1], V4[1][1]
    ipv4 = v2(*V4)
    return {
        "no ports": v1("TCP4", s, d),
        "one port": v1("TCP4", s, d, sp),
        "a word more": v1("TCP4", s, d, sp, dp, "x"),
        "no address": v1("TCP4"),
        "octet 256": v1("TCP4", "192.0.2.256", d, sp, dp),
        "three octets": v1("TCP4", "192.0.2", d, sp, dp),
        "leading zero in an octet": v1("TCP4", "192.0.02.7", d, sp, dp),
        "IPv6 in TCP4": v1("TCP4", V6[0][0], V6[1][0], sp, dp),
        "IPv4 in TCP6": v1("TCP6", s, d, sp, dp),
        "port 65536": v1("TCP4", s, d, 65536, dp),
        "port -1": v1("TCP4", s, d, -1, dp),
        "port +1": v1("TCP4", s, d, "+1", dp),
        "port with a leading zero": v1("TCP4", s, d, "0443", dp),
        "port in words": v1("TCP4", s, d, "http", dp),
        "two blanks": v1("TCP4", "", s, d, sp, dp),
        "tab": v1("TCP4\t" + s, d, sp, dp),
        "TCP5": v1("TCP5", s, d, sp, dp),
        "UDP4": v1("UDP4", s, d, sp, dp),
        "small letters": v1("TCP4", s, d, sp, dp).lower(),
        "LF alone": v1("TCP4", s, d, sp, dp, end=b"\n"),
        "CR alone": v1("TCP4", s, d, sp, dp, end=b"\r"),
        "NUL": v1("TCP4", s + "\0", d, sp, dp),
        "too long": v1("UNKNOWN", "x" * 200),
        "zone": v1("TCP6", "fe80::1%eth0", V6[1][0], sp, dp),
        "another signature": b"\r\n\r\n\0\r\nQUIX\n" + ipv4[12:],
        "version 1 in v2": V2_SIGNATURE + b"\x11" + ipv4[13:],
        "version 3": V2_SIGNATURE + b"\x31" + ipv4[13:],
        "command 2": V2_SIGNATURE + b"\x22" + ipv4[13:],
        "too short for IPv4": V2_SIGNATURE + b"\x21\x11\0\x0b" + bytes(11),
        "IPv4's length for IPv6": V2_SIGNATURE + b"\x21\x21" + ipv4[14:],
        "no length": V2_SIGNATURE + b"\x21\x11\0\0",
    }


@lib.each(*ENGINES)
def test_malformed(lab, engine):
    """a malformed header is refused, on both listeners, and nothing is forwarded"""
    agent = ready_agent(lab, "--datapath", engine)
    tape = Tape(lab, "raw")
    for what, header in malformed().items():
        started = time.monotonic()
        refused(lab, header + host(), what)
        with lab.connect(port=443) as client:
            try:
                client.send(header + records(hello(b"raw.test")))
                got = client.file.read()
                check(got == b"" or got[0] == ALERT, f"the answer to {what} and a hello: {got!r}")
            except (ConnectionResetError, BrokenPipeError):
                pass
        check(time.monotonic() - started < 5, f"{what}: refused at once")
    expect(agent.stats().upstream_connects, 0, "upstream_connects")
    expect(tape.connections(), [], "what arrives")
    ask(lab, HEADERS["v2 IPv4"][0] + host())


@lib.each(*ENGINES)
def test_twice(lab, engine):
    """one header a connection: a second one, at once or later, is no request"""
    ready_agent(lab, "--datapath", engine)
    tape = Tape(lab, "raw")
    for header in (HEADERS["v1 TCP4"][0], HEADERS["v2 IPv4"][0]):
        expect(refused(lab, header * 2 + host(), "two headers"), 400, "answer to two headers")
        with lab.connect() as client:
            client.send(header + host())
            expect(client.response().container, "raw", "who answers")
            client.send(header + host())
            expect(client.response().status, 400, "status of a later header")
            client.ends()
    tape.wait([host()] * 2, "what arrives")


@lib.each(*ENGINES)
def test_not_listed(lab, engine):
    """a header from an address that is not listed: 400, and nothing reaches a container"""
    agent = ready_agent(lab, "--datapath", engine)
    tape = Tape(lab, "raw")
    edge = {"ns": lab.edge_ns}
    for what, (header, _) in HEADERS.items():
        expect(refused(lab, header + host(), what, **edge), 400, f"the answer to {what}")
        with lab.connect(port=443, **edge) as client:
            try:
                client.send(header + records(hello(b"raw.test")))
                expect(client.file.read(), b"", f"the answer to {what} and a hello")
            except (ConnectionResetError, BrokenPipeError):
                pass
    expect(agent.stats().upstream_connects, 0, "upstream_connects")
    source = ask(lab, host(), **edge)       # while it needs none
    tape.wait([host()], "what arrives")
    expect(logged(agent, 200), [text(source)], "client in the access log")


@lib.each(*ENGINES)
def test_not_configured(lab, engine):
    """without --proxy-protocol-from, or with others in it, a header is a bad request"""
    for flags in ((), ("--proxy-protocol-from", "198.19.0.3/32,198.19.1.0/24,::/128")):
        agent = ready_agent(lab, "--datapath", engine, *flags, listed=False)
        tape = Tape(lab, "raw")
        for what in ("v1 TCP4", "v1 UNKNOWN", "v2 IPv4", "v2 LOCAL"):
            expect(refused(lab, HEADERS[what][0] + host(), what), 400, f"the answer to {what}")
        expect(agent.stats().upstream_connects, 0, "upstream_connects")
        ask(lab, host())
        tape.wait([host()], "what arrives")
        lab.agents.remove(agent)
        agent.finish()


def test_cidrs(lab):
    """CIDRs of several lengths and of both families; what is no CIDR is exit 2"""
    for cidrs in ("198.19.0.0/24", "10.0.0.0/8,198.19.0.2/32", "0.0.0.0/0", "198.18.0.0/15"):
        agent = ready_agent(lab, "--proxy-protocol-from", cidrs, listed=False)
        ask(lab, HEADERS["v2 IPv4"][0] + host())
        ask(lab, host(), address=lab.edge_addr6)
        lab.agents.remove(agent)
        agent.finish()
    for cidrs in ("fd6b:6b6d::/64", "::/0"):
        agent = ready_agent(lab, "--proxy-protocol-from", cidrs, listed=False)
        ask(lab, HEADERS["v2 IPv4"][0] + host(), address=lab.edge_addr6)
        ask(lab, host())
        lab.agents.remove(agent)
        agent.finish()
    for wrong in ("198.19.0.0/33", "198.19.0/24", "example.com", "::/129", "198.19.0.2/",
                  "1.2.3.4/-1"):
        done = lib.run(lib.BINARY, "run", "--proxy-protocol-from", wrong, env=lab.environ)
        expect(done.returncode, 2, f"exit status of {wrong}: {done.stderr}")
        check("proxy-protocol-from" in done.stderr.lower().replace("_", "-"),
              f"it names the option: {done.stderr}")


@lib.each(*ENGINES)
def test_timeout(lab, engine):
    """a header that is not completed ends with --head-timeout"""
    agent = ready_agent(lab, "--datapath", engine, "--head-timeout", "600ms")
    for data in (b"PROXY TCP4 192", V2_SIGNATURE, V2_SIGNATURE + b"\x21\x11\xff\xff" + bytes(5000)):
        for port in (80, 443):
            started = time.monotonic()
            with lab.connect(port=port) as client:
                client.send(data)
                try:
                    got = client.file.read()
                except ConnectionResetError:
                    got = b""
            check(got == b"" or port == 80 and got.startswith(b"HTTP/1.1 4"), f"the answer: {got}")
            check(time.monotonic() - started < 5, "closed in time")
    expect(agent.stats().upstream_connects, 0, "upstream_connects")


def by_curl(lab, *arguments):
    done = lab.client("curl", "-sSk", "--max-time", "10", "--haproxy-protocol", *arguments)
    expect((done.returncode, done.stderr), (0, ""), f"curl {arguments}")
    return done.stdout


@lib.each(*ENGINES)
def test_others(lab, engine):
    """curl's header comes in and nginx reads the agent's, on both listeners"""
    directory = lib.Path(lab.dir) / "tls/front"
    if "front" not in lab.kept:
        lib_tls.certificate(directory, "front.test")
        (directory / "nginx.conf").write_text(NGINX)
    lab.container("front", "front.test", image="nginx", keep=True,
                  options=("-v", f"{directory.parent}:/tls:ro"),
                  command=["nginx", "-c", "/tls/front/nginx.conf", "-g", "daemon off;"],
                  labels={"kakuremichi.tls": "passthrough", "kakuremichi.tls.port": 8443,
                          "kakuremichi.proxy-protocol": "v2"})
    agent = ready_agent(lab, "--datapath", engine)
    agent.wait_route("front.test", "front")
    for scheme, port in (("http", 80), ("https", 443)):
        seen = by_curl(lab, "--resolve", f"front.test:{port}:{lab.edge_addr}",
                       f"{scheme}://front.test/").split()
        check(seen[0] == lab.client_addr and seen[2:] == [lab.edge_addr, str(port)],
              f"what nginx has read by {scheme}: {seen}")
        seen = by_curl(lab, "--resolve", f"front.test:{port}:[{lab.edge_addr6}]",
                       f"{scheme}://front.test/").split()
        check(seen[0] == lab.client_addr6 and seen[2:] == [lab.edge_addr6, str(port)],
              f"what nginx has read by {scheme} over IPv6: {seen}")
        with lab.connect(ns=lab.edge_ns) as client:     # not listed, and told as it is
            source = client.sock.getsockname()
            body = client.get("/", "front.test").body.decode().split()
            expect(body, [source[0], str(source[1]), lab.edge_addr, "80"], "what nginx has read")


def header_of(client):
    """The header that a container is to get for this client, without one of its own."""
    return v2(client.sock.getsockname()[:2], client.sock.getpeername()[:2])


@lib.each(*ENGINES)
def test_told(lab, engine):
    """kakuremichi.proxy-protocol=v2: 28 bytes (52 for IPv6) once a connection, then the requests"""
    agent = ready_agent(lab, "--datapath", engine, listed=False)
    for address in (lab.edge_addr, lab.edge_addr6):
        tape = Tape(lab, "told")
        requests = [host("told"), b"HEAD /x HTTP/1.1\r\nhost:TOLD.test.\r\nX-Odd:   y \r\n\r\n",
                    b"PUT /up HTTP/1.1\r\nHost: told.test\r\nContent-Length: 70000\r\n\r\n" +
                    bytes(70000), host("told")]
        with lab.connect(address=address) as client:
            for request in requests:
                client.send(request)
                expect(client.response(request.split()[0].decode()).container, "told", "who")
            header = header_of(client)
            expect(len(header), 28 if address == lab.edge_addr else 52, "bytes of the header")
            tape.wait([header + b"".join(requests)], "what arrives")
            # a POST takes a connection of its own where the last has been idle for long
            time.sleep(1.2)
            post = b"POST /up HTTP/1.1\r\nHost: told.test\r\nContent-Length: 2\r\n\r\nhi"
            client.send(post)
            expect(client.response().container, "told", "who answers the POST")
            tape.wait([header + b"".join(requests), header + post], "what arrives with the POST")
        with lab.connect(address=address) as client:    # pipelined
            tape = Tape(lab, "told")
            client.send(host("told") * 5)
            for _ in range(5):
                expect(client.response().container, "told", "who answers of five")
            tape.wait([header_of(client) + host("told") * 5], "what arrives of five")
    routes = {r["domain"]: r["backends"][0] for r in agent.document("routes")["routes"]}
    check("proxy" in str(routes["told.test"]) and "v2" in str(routes["told.test"]) or
          any("proxy" in k and v for k, v in routes["told.test"].items()),
          f"`routes` shows it: {routes['told.test']}")


@lib.each(*ENGINES)
def test_told_between(lab, engine):
    """a connection whose requests go to a container with the label and to one without"""
    ready_agent(lab, "--datapath", engine, listed=False)
    raw, told = Tape(lab, "raw"), Tape(lab, "told")
    with lab.connect() as client:
        for name in ("told", "raw", "raw", "told", "raw", "told"):
            client.send(host(name))
            expect(client.response().container, name, "who answers")
        told.wait([header_of(client) + host("told") * 3], "what arrives at told")
        raw.wait([host("raw") * 3], "what arrives at raw")


@lib.each(*ENGINES)
def test_told_many(lab, engine):
    """clients at once, each with its own address: no connection to a container is shared"""
    ready_agent(lab, "--datapath", engine, listed=False)
    tape = Tape(lab, "told")
    clients = [lab.connect() for _ in range(20)]
    for _ in range(2):
        for client in clients:
            client.send(host("told"))
        for client in clients:
            expect(client.response().container, "told", "who answers")
    wanted = sorted(header_of(client) + host("told") * 2 for client in clients)
    expect(sorted(tape.connections()), wanted, "what arrives")


@lib.each(*ENGINES)
def test_told_tls(lab, engine):
    """with TLS the header comes before the ClientHello, which passes as it is, in pieces too"""
    agent = ready_agent(lab, "--datapath", engine, listed=False)
    for size, length in ((0, 1 << 14), (0, 10), (20_000, 5000)):
        tape = Tape(lab, "told")
        data = records(hello(b"Told.test", size=size), length)
        with lab.connect(port=443) as client:
            cut = len(data) // 2
            client.send(data[:cut])
            client.send(data[cut:])
            client.send(b"and more\n")
            tape.wait([header_of(client) + data + b"and more\n"], "what arrives")
            client.half_close()
            client.ends()
    expect(agent.stats().sockmap_enrolled, 0, "sockmap_enrolled")


@lib.each(*ENGINES)
def test_chained(lab, engine):
    """a header in and v2 out: that has the addresses of the former, or of the connection"""
    agent = ready_agent(lab, "--datapath", engine)
    cases = {"v1 TCP4": V4, "v1 TCP6": V6, "v2 IPv4": V4, "v2 IPv6 with TLVs": V6,
             "v2 IPv4 with 4 KiB of TLVs": V4, "v1 UNKNOWN": None, "v2 LOCAL": None,
             "v2 LOCAL with an address": None}
    for what, ends in cases.items():
        tape = Tape(lab, "told")
        with lab.connect() as client:
            client.send(HEADERS[what][0] + host("told"))
            expect(client.response().container, "told", f"who answers after {what}")
            client.send(host("told"))
            expect(client.response().container, "told", f"who answers after {what}")
            wanted = v2(*ends) if ends else header_of(client)
            tape.wait([wanted + host("told") * 2], f"what arrives after {what}")
        tape = Tape(lab, "told")
        data = records(hello(b"told.test"))
        with lab.connect(port=443) as client:
            client.send(HEADERS[what][0] + data)
            wanted = v2(*ends) if ends else header_of(client)
            tape.wait([wanted + data], f"what arrives by TLS after {what}")
    wait_for(lambda: not agent.connections(), "all are closed")


@lib.each(*ENGINES)
def test_tls(lab, engine):
    """the TLS listener takes headers from listed addresses, and the alert comes as ever"""
    agent = ready_agent(lab, "--datapath", engine)
    data = records(hello(b"raw.test"))
    for what, (header, source) in HEADERS.items():
        tape = Tape(lab, "raw")
        with lab.connect(port=443) as client:
            client.send(header + data + b"echo\n")
            client.send(b"more")
            expect(client.file.read(4), b"more", f"the echo after {what}")
            connection, = agent.connections()
            expect(connection["client"], text(source or client.sock.getsockname()),
                   f"client of {what} in `connections`")
            tape.wait([data + b"echo\nmore"], f"what arrives after {what}")
        wait_for(lambda: not agent.connections(), "closed")
        with lab.connect(port=443) as client:
            client.send(header + records(hello(b"none.test")))
            got = client.file.read()
            check(len(got) == 7 and got[0] == ALERT and
                  got[6] == lib_tls.UNRECOGNIZED_NAME, f"the answer to an unknown name: {got!r}")


def test_labels(lab):
    """kakuremichi.proxy-protocol takes `v2` alone; else the container is rejected"""
    bad = {"pp-one": "v1", "pp-on": "true", "pp-big": "V3"}
    for name, value in bad.items():
        lab.container(name, f"{name}.test", image="busybox", wait=False,
                      labels={"kakuremichi.proxy-protocol": value})
    agent = ready_agent(lab)
    wait_for(lambda: sorted(agent.refused()) == sorted(bad), "all are rejected")
    for name in bad:
        expect(agent.refused()[name]["label"], "kakuremichi.proxy-protocol", f"label of {name}")


lib.main("e2eproxy")
