# SPDX-License-Identifier: MIT
"""The TLS listener: each connection goes to the container of its SNI, and nothing is decrypted.

That nothing is, is seen by the fingerprint of the certificate that the client gets: only the
container has the key. Half of the tests speak TLS by a library, the others by bytes of their own.
"""
import fcntl
import json
import os
import random
import socket
import ssl
import struct
import termios
import threading
import time

import lib
import lib_tls
from lib import ENGINES, KiB, MiB, check, expect, pattern, pattern_sha256, reset, wait_for
from lib_tls import hello, records, server_certificate

TLS_PORT = 8443
SIZE = 64 * MiB
ALERTS = [bytes((0x15, 3, minor, 0, 2, 2, lib_tls.UNRECOGNIZED_NAME)) for minor in (1, 3)]
NGINX = """
pid /tmp/nginx.pid;
error_log stderr;
worker_processes 1;
events { worker_connections 1024; }
http {
    access_log off;
    default_type text/html;
    ssl_certificate /tls/NAME/cert.pem;
    ssl_certificate_key /tls/NAME/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    server {
        listen 80;
        listen 8443 ssl http2;
        set $seen "$scheme $server_protocol $ssl_server_name";
        location / { return 200 "<p>page of NAME</p> $seen\\n"; }
        location /big { alias /tls/big; }
    }
}
"""
SITES = {
    "alpha": "alpha.test, *.wild.test, app.example.com",
    "beta": "beta.test, exact.wild.test, *.deep.wild.test, b\u00fccher.test",
}
fingerprints = {}


def site(lab, name, domain, **labels):
    """nginx with a certificate of its own, 80 and 8443. It stays for all tests."""
    if name not in fingerprints:
        directory = lib.Path(lab.dir) / "tls" / name
        fingerprints[name] = lib_tls.certificate(directory, f"{name}.test")
        (directory / "nginx.conf").write_text(NGINX.replace("NAME", name))
        big = directory.parent / "big"
        if not big.exists():
            big.write_bytes(b"".join(pattern(SIZE)))
    return lab.container(
        name, domain, image="nginx", keep=True, options=("-v", f"{lab.dir}/tls:/tls:ro"),
        command=["nginx", "-c", f"/tls/{name}/nginx.conf", "-g", "daemon off;"],
        labels={"kakuremichi.tls": "passthrough", "kakuremichi.tls.port": TLS_PORT, **labels})


def recorder(lab, name="raw", domain="raw.test"):
    return lab.container(name, domain, command=["python3", "/e2e/lib_tls.py", 8000], keep=True,
                         labels={"kakuremichi.tls": "passthrough"})


def ready_agent(lab, *flags):
    for name, domain in SITES.items():
        site(lab, name, domain)
    # `plain` is not served by TLS
    lab.container("plain", "plain.test", keep=True)
    recorder(lab)
    agent = lab.agent(*flags)
    for name in (*SITES, "plain", "raw"):
        agent.wait_route(f"{name}.test", name)
    return agent


def each_engine(function):
    """The test gets an agent for each engine; TLS is never enrolled in a sockmap."""
    def test(lab, engine):
        agent = ready_agent(lab, "--datapath", engine)
        function(lab, agent)
        stats = agent.stats()   # requests: of plain HTTP, beside it
        check(stats.requests or not stats.sockmap_enrolled, f"enrolled: {stats.sockmap_enrolled}")
    test.__doc__, test.__code__ = function.__doc__, test.__code__.replace(
        co_firstlineno=function.__code__.co_firstlineno)
    return lib.each(*ENGINES)(test)


def connect(lab, address=None, **options):
    return lab.connect(port=443, address=address, **options)


def answer_to(lab, data, *, half_close=False, **options):
    """All that comes after these bytes, to the end; `reset` where it is one."""
    with connect(lab, **options) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            client.send(data)
            if half_close:
                client.half_close()
            return client.file.read()
        except (ConnectionResetError, BrokenPipeError):
            return "reset"


def who(lab, name, send=None, **options):
    """Which site's certificate answers this SNI (bytes), or the alert."""
    with connect(lab, **options) as client:
        message = name if name is not None and name[:1] == b"\1" else hello(name)
        if send:
            send(client.sock, message)
        else:
            client.send(records(message))
        if client.sock.recv(1, socket.MSG_PEEK) == b"\x15":
            alert = client.file.read()
            return "alert" if alert in ALERTS else alert
        found = server_certificate(client.sock)
        return {f: site for site, f in fingerprints.items()}.get(found, found)


# Clients of others

def context(protocols=()):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if protocols:
        made.set_alpn_protocols(protocols)
    return made


def fingerprint(tls):
    return lib.sha256([tls.getpeercert(binary_form=True)])


def fetch(lab, host, path="/", protocols=("http/1.1",), made=None):
    """By Python's ssl: fingerprint, protocol, body's size and SHA-256, body."""
    with connect(lab) as client, (made or context(protocols)).wrap_socket(
            client.sock, server_hostname=host) as tls:
        result = [fingerprint(tls), tls.selected_alpn_protocol()]
        tls.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        body = lib.Response(0, "", {})
        head = b""
        while b"\r\n\r\n" not in head:
            piece = tls.recv(64 * KiB)
            check(piece, f"an answer from {host}: {head!r}")
            head += piece
        body.take(head.split(b"\r\n\r\n", 1)[1])
        while piece := tls.recv(MiB):
            body.take(piece)
        return (*result, body)


def by_curl(lab, host, *arguments):
    done = lab.client("curl", "-sSk", "--max-time", "10",
                      "--resolve", f"{host}:443:{lab.edge_addr}", "-w",
                      "%{http_version}\n%{certs}", *arguments, f"https://{host}/")
    expect((done.returncode, done.stderr), (0, ""), f"curl of {host}")
    return done.stdout


def by_pipe(lab, host, *command):
    """A client that speaks what comes in by its stdin."""
    request = f"GET / HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n"
    # the end of stdin is not to come before the answer
    done = lab.client("sh", "-c", f"{{ printf '{request}'; sleep 1; }} | \"$@\"", "sh", *command)
    expect(done.returncode, 0, f"exit status of {command[0]}: {done.stdout} {done.stderr}")
    return done.stdout


def by_openssl(lab, host):
    return by_pipe(lab, host, "openssl", "s_client", "-connect", f"{lab.edge_addr}:443",
                   "-servername", host, "-ign_eof", "-showcerts")


def by_gnutls(lab, host):
    return by_pipe(lab, host, "gnutls-cli", "--insecure", "--sni-hostname", host, "--print-cert",
                   "-p", "443", lab.edge_addr)


def seen(text, name, what):
    expect(lib_tls.pem_fingerprint(text), fingerprints[name], f"certificate by {what}")
    check(f"page of {name}" in text, f"the page by {what}: {text}")


@each_engine
def test_clients(lab, agent):
    """curl, openssl s_client and Python get the page, and the container's own certificate"""
    for name in SITES:
        seen(by_curl(lab, f"{name}.test"), name, "curl")
        seen(by_curl(lab, f"{name}.test", "--tlsv1.2", "--tls-max", "1.2"), name, "curl, TLS 1.2")
        seen(by_openssl(lab, f"{name}.test"), name, "openssl s_client")
        found, _, body = fetch(lab, f"{name}.test")
        expect(found, fingerprints[name], "certificate by Python")
        check(f"page of {name}".encode() in body.body, f"the page by Python: {body.body}")
        check(f" https HTTP/1.0 {name}.test".encode() in body.body, f"nginx saw: {body.body}")


@lib_tls.needs_program("gnutls-cli")
@each_engine
def test_gnutls(lab, agent):
    """GnuTLS gets the page, and the container's own certificate"""
    for name in SITES:
        seen(by_gnutls(lab, f"{name}.test"), name, "gnutls-cli")


CHROMIUM = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--no-first-run", "--ignore-certificate-errors",
            "--disable-features=HttpsUpgrades", "--timeout=10000")


@lib_tls.needs_program("chromium")
@each_engine
def test_chromium(lab, agent):
    """Chromium gets the pages, one a host, by https and by http"""
    for host, name in (("app.example.com", "alpha"), ("beta.test", "beta")):
        for scheme in ("https", "http"):
            done = lab.client(*CHROMIUM, f"--user-data-dir={lab.dir}/chromium",
                              f"--host-resolver-rules=MAP * {lab.edge_addr}", "--dump-dom",
                              f"{scheme}://{host}/", timeout=60,
                              env={**os.environ, "HOME": lab.dir})
            check(f"<p>page of {name}</p> {scheme} " in done.stdout,
                  f"the page of {scheme}://{host}/: {done.stdout} {done.stderr[-500:]}")
            if scheme == "https":
                check("HTTP/2.0" in done.stdout, f"by HTTP/2: {done.stdout}")


@each_engine
def test_alpn(lab, agent):
    """ALPN passes: HTTP/2 where the client offers it, else HTTP/1.1 or none"""
    text = by_curl(lab, "alpha.test", "--http2")
    check("page of alpha</p> https HTTP/2.0 alpha.test" in text, f"nginx saw: {text}")
    check("\n2\n" in text, f"curl says version 2: {text}")
    text = by_curl(lab, "beta.test", "--http1.1")
    check("page of beta</p> https HTTP/1.1 beta.test" in text, f"nginx saw: {text}")
    for offered, chosen in ((("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1"), ((), None)):
        with connect(lab) as client, context(offered).wrap_socket(
                client.sock, server_hostname="alpha.test") as tls:
            expect(tls.selected_alpn_protocol(), chosen, f"the protocol of {offered}")


# Names

@each_engine
def test_names(lab, agent):
    """SNI: exact, wildcard, the longest match, IDNA, in any case, over IPv6 too"""
    for name, wanted in ((b"alpha.test", "alpha"), (b"beta.test", "beta"),
                         (b"ALPHA.test", "alpha"), (b"bEtA.TeSt", "beta"),
                         (b"x.wild.test", "alpha"), (b"y.x.wild.test", "alpha"),
                         (b"X.Wild.Test", "alpha"), (b"exact.wild.test", "beta"),
                         (b"EXACT.wild.test", "beta"), (b"x.exact.wild.test", "alpha"),
                         (b"deep.wild.test", "alpha"), (b"x.deep.wild.test", "beta"),
                         (b"y.x.deep.wild.test", "beta"), (b"xn--bcher-kva.test", "beta"),
                         (b"XN--Bcher-KVA.test", "beta"), (b"app.example.com", "alpha")):
        expect(who(lab, name), wanted, f"who answers {name}")
        expect(who(lab, name, address=lab.edge_addr6), wanted, f"who answers {name} over IPv6")


@each_engine
def test_no_route(lab, agent):
    """no SNI, an unknown one, one without the label: the alert unrecognized_name, then the end"""
    plain = lab.kept["plain"]
    before = len(plain.log("accept"))
    for name in (None, b"none.test", b"wild.test", b"test", b"x.alpha.test", b"alpha.test.evil",
                 b"plain.test", b"a" * 63 + b".test"):
        for message in (hello(name), hello(name, size=16 * KiB), hello(name, size=40_000)):
            for data in (records(message), records(message, 1000)):
                got = answer_to(lab, data)
                check(got in ALERTS, f"the answer to {name}, {len(message)} bytes: {got!r}")
        got = answer_to(lab, records(hello(name)), half_close=True)
        check(got in ALERTS, f"the answer to {name} and a half-close: {got!r}")
    for name in ("none.test", "plain.test"):
        try:
            fetch(lab, name)
            raise AssertionError(f"Python reached {name}")
        except ssl.SSLError as error:
            check("UNRECOGNIZED_NAME" in str(error), f"what Python says: {error}")
    done = lab.client("curl", "-sSk", "--max-time", "10", f"https://{lab.edge_addr}/")
    check(done.returncode == 35 and "unrecognized name" in done.stderr,
          f"what curl says without SNI: {done.stderr}")
    expect(agent.stats().upstream_connects, 0, "upstream_connects")
    expect(len(plain.log("accept")), before, "connections to `plain`")


@each_engine
def test_any(lab, agent):
    """`*` takes what nobody else claims; without SNI it is the alert still"""
    expect(who(lab, b"else.test"), "alert", "before")
    site(lab, "any", "*")
    try:
        agent.wait_route("*", "any")
        expect(who(lab, b"else.test"), "any", "who answers else.test")
        expect(who(lab, b"wild.test"), "any", "who answers wild.test")
        expect(who(lab, b"alpha.test"), "alpha", "who answers alpha.test")
        expect(who(lab, b"x.wild.test"), "alpha", "who answers x.wild.test")
        expect(who(lab, None), "alert", "the answer without SNI")
    finally:
        lab.kept.pop("any").remove()
    agent.wait_route("*")
    expect(who(lab, b"else.test"), "alert", "afterwards")


@each_engine
def test_bad_names(lab, agent):
    """an SNI that is no host name, or of another type, reaches nobody"""
    server_name = {
        "empty": lib_tls.sni(b""),
        "NUL": lib_tls.sni(b"alpha.test\0"),
        "NUL inside": lib_tls.sni(b"alpha.test\0.evil.test"),
        "blank": lib_tls.sni(b"alpha.test "),
        "port": lib_tls.sni(b"alpha.test:443"),
        "wildcard": lib_tls.sni(b"*.wild.test"),
        "address": lib_tls.sni(lab.edge_addr.encode()),
        "empty list": lib_tls.extension(0, b"\0\0"),
        "nothing": lib_tls.extension(0, b""),
        "other type": lib_tls.extension(0, lib_tls.vector(
            b"\1" + lib_tls.vector(b"alpha.test", 2), 2)),
        "list too long": lib_tls.extension(0, b"\xff\xff\0" + lib_tls.vector(b"alpha.test", 2)),
        "list too short": lib_tls.extension(0, b"\0\5\0" + lib_tls.vector(b"alpha.test", 2)),
        "name too long": lib_tls.extension(0, lib_tls.vector(b"\0\xff\xffalpha.test", 2)),
        "two extensions": lib_tls.sni(b"alpha.test") + lib_tls.sni(b"beta.test"),
        "two names": lib_tls.extension(0, lib_tls.vector(
            b"".join(b"\0" + lib_tls.vector(n, 2) for n in (b"alpha.test", b"beta.test")), 2)),
    }
    for what, fields in server_name.items():
        got = answer_to(lab, records(hello(None, extensions=fields)))
        # a hello that is malformed may end as garbage does
        check(got in (*ALERTS, "reset", b"") or len(got) == 7 and got[0] == 0x15,
              f"the answer to {what}: {got!r}")
    expect(agent.stats().upstream_connects, 0, "upstream_connects")


# Hellos in pieces

def slowly(sock, data):
    """A segment for each byte: the next is sent when the last has been acknowledged."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(len(data)):
        sock.sendall(data[at:at + 1])
        while struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]:
            pass


def whole_handshake(sock, host, send_hello, protocols=("http/1.1",)):
    """A handshake by Python's ssl, in which the hello goes out by send_hello(sock, bytes); and a
    request. Fingerprint and answer."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(protocols).wrap_bio(incoming, outgoing, server_hostname=host)

    def until(step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                flush()
                piece = sock.recv(64 * KiB)
                check(piece, f"{host}: the connection has ended")
                incoming.write(piece)

    def flush():
        nonlocal send_hello
        if data := outgoing.read():
            send_hello(sock, data)
            send_hello = socket.socket.sendall
    until(tls.do_handshake)
    tls.write(f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
    flush()
    answer = b""
    while b"</p>" not in answer:
        answer += until(lambda: tls.read(64 * KiB))
    return fingerprint(tls), answer


@each_engine
def test_segments(lab, agent):
    """a hello in segments of one byte ends at its container; so does one cut anywhere in two"""
    for name in SITES:
        expect(who(lab, f"{name}.test".encode(), lambda s, m: slowly(s, records(m))), name,
               "who answers")
        with connect(lab) as client:
            found, answer = whole_handshake(client.sock, f"{name}.test", slowly)
            expect(found, fingerprints[name], "certificate")
            check(f"page of {name}".encode() in answer, f"the page: {answer}")
    data = records(hello(b"beta.test"))
    for cut in range(1, len(data)):
        with connect(lab) as client:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.send(data[:cut])
            client.send(data[cut:])
            expect(server_certificate(client.sock), fingerprints["beta"], f"who answers, cut {cut}")


@each_engine
def test_records(lab, agent):
    """a hello over many TLS records ends at its container, and the handshake is completed"""
    for size in (1, 2, 5, 7, 50, 100):
        def send(sock, data):
            sock.sendall(records(lib_tls.messages(data), size))
        for name in SITES:
            with connect(lab) as client:
                found, answer = whole_handshake(client.sock, f"{name}.test", send)
                expect(found, fingerprints[name], f"certificate, records of {size}")
                check(f"page of {name}".encode() in answer, f"the page: {answer}")
        expect(who(lab, b"none.test", lambda s, m: s.sendall(records(m, size))), "alert",
               f"unknown, records of {size}")
    with connect(lab) as client:
        expect(whole_handshake(client.sock, "alpha.test", lambda sock, data: slowly(
            sock, records(lib_tls.messages(data), 3)))[0], fingerprints["alpha"],
            "records of 3, in segments of one byte")


@each_engine
def test_large(lab, agent):
    """a hello of 16 KiB and one of 60 KiB end at their container"""
    for size in (16 * KiB - 1, 16 * KiB, 16 * KiB + 1, 60 * KiB):
        for filler in (lib_tls.PADDING, 0x5aa5):
            for length in (lib_tls.RECORD, 4000):
                message = hello(b"beta.test", size=size, filler=filler)
                expect(who(lab, message, lambda s, m: s.sendall(records(m, length))), "beta",
                       f"who answers {size} bytes, extension {filler}, records of {length}")
    # by a library, as a list of protocols; the handshake is completed
    for count in (64, 250):
        protocols = [f"{i:0240d}" for i in range(count)] + ["http/1.1"]
        with connect(lab) as client:
            found, answer = whole_handshake(client.sock, "alpha.test", socket.socket.sendall,
                                            protocols)
            expect(found, fingerprints["alpha"], f"certificate, {count} protocols")
            check(b"page of alpha" in answer, f"the page: {answer}")


@each_engine
def test_too_large(lab, agent):
    """a hello that would be larger than 64 KiB ends the connection and reaches nobody"""
    message = hello(b"alpha.test", size=65_000)
    message += bytes(200_000)
    message = b"\1" + lib_tls.vector(message[4:], 3)
    started = time.monotonic()
    got = answer_to(lab, records(message))
    check(got == "reset" or len(got) in (0, 7), f"the answer: {got!r}")
    check(time.monotonic() - started < 5, "it took no timeout to end it")
    expect(agent.stats().upstream_connects, 0, "upstream_connects")


@each_engine
def test_garbage(lab, agent):
    """what is no ClientHello is closed at once, without an answer"""
    good = records(hello(b"alpha.test"))
    garbage = {
        "HTTP": b"GET / HTTP/1.1\r\nHost: alpha.test\r\n\r\n",
        "SSH": b"SSH-2.0-OpenSSH_9.2p1\r\n",
        "zeros": bytes(100),
        "SSLv2": bytes.fromhex("802e0100020015000000100100800700c0") + bytes(32),
        "another type of record": b"\x17" + good[1:],
        "another version": good[:1] + b"\x02" + good[2:],
        "a record too long": b"\x16\x03\x01\xff\xff" + bytes(1000),
        "ServerHello": good[:5] + b"\2" + good[6:],
        "PROXY": b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n" + good,
    }
    for what, data in garbage.items():
        started = time.monotonic()
        got = answer_to(lab, data)
        check(got in (b"", "reset"), f"the answer to {what}: {got!r}")
        check(time.monotonic() - started < 3, f"{what} is closed at once")
    truncated = {"by the record": records(hello(b"alpha.test")[:60]),
                 "session id": records(b"\1" + lib_tls.vector(b"\3\3" + bytes(32) + b"\xff", 3)),
                 "extensions": records(b"\1" + lib_tls.vector(
                     b"\3\3" + bytes(32) + b"\0\0\2\xc0\x2b\1\0\xff\xff" + bytes(10), 3))}
    for what, data in truncated.items():
        got = answer_to(lab, data, half_close=True)
        check(got == "reset" or len(got) in (0, 7), f"the answer to one cut {what}: {got!r}")
    expect(agent.stats().upstream_connects, 0, "upstream_connects")
    expect(who(lab, b"alpha.test"), "alpha", "who answers afterwards")


@lib.each(*ENGINES)
def test_timeout(lab, engine):
    """a hello that is not completed is closed after --head-timeout"""
    agent = ready_agent(lab, "--datapath", engine, "--head-timeout", "600ms")
    data = records(hello(b"alpha.test", size=2000), 500)
    for part in (0, 1, 4, 5, 100, 505, len(data) - 1):
        started = time.monotonic()
        got = answer_to(lab, data[:part])
        took = time.monotonic() - started
        check(got in (b"", "reset"), f"the answer to {part} bytes: {got!r}")
        check(0.4 < took < 5, f"{part} bytes were closed after {took:.2f} s")
    with connect(lab) as client:    # drops do not prolong it
        started = time.monotonic()
        try:
            for at in range(200):
                client.send(data[at:at + 1])
                time.sleep(0.05)
            raise AssertionError("still open after 10 s")
        except (ConnectionResetError, BrokenPipeError):
            check(time.monotonic() - started < 5, "closed in time")
    expect(agent.stats().upstream_connects, 0, "upstream_connects")
    expect(who(lab, b"alpha.test"), "alpha", "who answers afterwards")
    with connect(lab) as client, context().wrap_socket(
            client.sock, server_hostname="alpha.test") as tls:
        time.sleep(1)       # once routed it is no matter
        tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
        check(tls.recv(1000).startswith(b"HTTP/1.1 200"), "an answer later than --head-timeout")


# Many, large, and their ends

@each_engine
def test_many(lab, agent):
    """100 connections at once, their hellos in pieces and in random order: each its certificate"""
    chance = random.Random(4)
    names = [chance.choice(list(SITES)) for _ in range(100)]
    clients = [connect(lab) for _ in names]
    parts = []
    for name, client in zip(names, clients):
        data = records(hello(f"{name}.test".encode(), size=chance.choice((0, 700, 5000))))
        cut = chance.randrange(1, len(data))
        parts.append([(client, data[:cut]), (client, data[cut:])])
    while parts:
        number = chance.randrange(len(parts))
        client, data = parts[number].pop(0)
        client.send(data)
        if not parts[number]:
            del parts[number]
    for number in chance.sample(range(100), 100):
        expect(server_certificate(clients[number].sock), fingerprints[names[number]],
               f"certificate of {names[number]}")
    wait_for(lambda: len(agent.connections()) == 100, "all are listed")
    for client in clients:
        client.close()
    # the same by a library, in threads
    failed = []

    def many(start):
        for name in names[start::4]:
            found, _, body = fetch(lab, f"{name}.test")
            if found != fingerprints[name] or f"page of {name}".encode() not in body.body:
                failed.append((name, found, body.body))
    threads = [threading.Thread(target=many, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(failed, [], "wrong answers")


@each_engine
def test_download(lab, agent):
    """64 MiB come through TLS, each byte as it was sent"""
    found, _, body = fetch(lab, "alpha.test", "/big")
    expect((found, body.size, body.sha256), (fingerprints["alpha"], SIZE, pattern_sha256(SIZE)),
           "certificate, size and SHA-256")


@each_engine
def test_opaque(lab, agent):
    """after the hello whatever comes passes, 64 MiB up and 8 MiB both ways, HTTP for others too"""
    start = records(hello(b"raw.test"))
    with connect(lab) as client:
        client.send(start + b"sink\n")
        for piece in pattern(SIZE):
            client.send(piece)
        client.half_close()
        expect(json.loads(client.file.read()), {"sha256": pattern_sha256(SIZE), "size": SIZE},
               "what the container read")
    with connect(lab) as client:
        client.send(start + b"echo\n")
        for data in (b"GET / HTTP/1.1\r\nHost: alpha.test\r\n\r\n", records(hello(b"beta.test")),
                     b"\0"):
            client.send(data)
            expect(client.file.read(len(data)), data, "the echo")

        def write():
            for piece in pattern(8 * MiB):
                client.send(piece)
            client.half_close()
        writer = threading.Thread(target=write)
        writer.start()
        got = client.read_all()
        writer.join()
        expect((got.size, got.sha256), (8 * MiB, pattern_sha256(8 * MiB)), "the echo of 8 MiB")


@each_engine
def test_ends(lab, agent):
    """half-close passes as half-close, reset as reset, both ways"""
    raw = lab.kept["raw"]
    start = records(hello(b"raw.test"))

    def ends():
        return [c["end"] for c in raw.log() if c["bytes"].startswith(start.hex())]
    before = len(ends())
    with connect(lab) as client:
        client.send(start + b"halfclose\n")
        expect(client.file.readline(), b"bye\n", "what the container says")
        client.ends("the container's half")
        client.send(b"still read")
        client.half_close()
        wait_for(lambda: ends()[before:] == ["eof"], "the container has read to the end")
    said = bytes.fromhex([c for c in raw.log() if c["bytes"].startswith(start.hex())][-1]["bytes"])
    expect(said, start + b"halfclose\nstill read", "what the container read")
    with connect(lab) as client:
        client.send(start + b"echo\n")
        client.send(b"x")
        expect(client.file.read(1), b"x", "the echo")
        client.reset()
        wait_for(lambda: ends()[before + 1:] == ["ConnectionResetError"],
                 "the client's reset has reached the container")
    with connect(lab) as client:
        client.send(start + b"reset\n")
        wait_for(lambda: len(ends()) == before + 3, "it is there")
        raw.release()
        try:
            expect(client.file.read(), None, "an end where a reset was due")
        except ConnectionResetError:
            pass
    reset(connect(lab).sock)    # before any byte: no harm
    wait_for(lambda: not agent.connections(), "all are closed")


def test_refused(lab):
    """a container that refuses the connection: the client's ends, without an answer"""
    lab.container("shut", "shut.test", labels={"kakuremichi.tls": "passthrough",
                                               "kakuremichi.tls.port": 1})
    agent = ready_agent(lab)
    agent.wait_route("shut.test", "shut")
    got = answer_to(lab, records(hello(b"shut.test")))
    check(got == "reset" or got == b"" or got[0] == 0x15, f"the answer: {got!r}")
    with lab.connect() as client:
        expect(client.get("/name", "shut.test").container, "shut", "who answers on port 80")


def test_nobody_is_up(lab):
    """a known name whose container refuses, or is paused: the alert internal_error, then the end"""
    lab.container("shut", "shut.test", labels={"kakuremichi.tls": "passthrough",
                                               "kakuremichi.tls.port": 1})
    paused = lab.container("paused", "paused.test", labels={"kakuremichi.tls": "passthrough"})
    agent = ready_agent(lab)
    for name in ("shut", "paused"):
        agent.wait_route(f"{name}.test", name)
    lab.docker("pause", paused.id)
    wait_for(lambda: agent.states("paused.test") == {"paused": "paused"}, "it is paused")
    for name in (b"shut.test", b"paused.test"):
        got = answer_to(lab, records(hello(name)))
        check(len(got) == 7 and (got[0], got[1], *got[3:]) == (0x15, 3, 0, 2, 2, 80),
              f"the answer for {name}: {got!r}")
    expect(agent.stats().tls_refused, 2, "tls_refused")


# What is shown, and the listener itself

def test_shown(lab):
    """`routes` says which backend is served by TLS and at which port; `connections` lists them"""
    agent = ready_agent(lab)
    backends = {r["domain"]: r["backends"][0] for r in agent.document("routes")["routes"]}
    for domain in ("alpha.test", "*.wild.test", "exact.wild.test"):
        expect((backends[domain].get("tls"), backends[domain].get("tls_port"),
                backends[domain]["port"]), (True, TLS_PORT, 80), f"tls, tls_port, port of {domain}")
    expect((backends["raw.test"].get("tls"), backends["raw.test"].get("tls_port")), (True, 8000),
           "tls and tls_port where the port is the same")
    check(not backends["plain.test"].get("tls"), f"plain.test has none: {backends['plain.test']}")
    with connect(lab) as client:
        client.send(records(hello(b"X.Wild.Test")))
        expect(server_certificate(client.sock), fingerprints["alpha"], "certificate")
        connection, = agent.connections()
        check(connection["domain"] in ("*.wild.test", "x.wild.test"), f"domain: {connection}")
        check(str(client.sock.getsockname()[1]) in str(connection["client"]),
              f"client: {connection}")
    wait_for(lambda: not agent.connections(), "it is gone")


@lib.each(*ENGINES)
def test_plain_port(lab, engine):
    """the same domains on port 80 go to the plain port; those without the label work as ever"""
    agent = ready_agent(lab, "--datapath", engine)
    for host, page in (("alpha.test", b"page of alpha</p> http HTTP/1.1"),
                       ("beta.test", b"page of beta</p> http HTTP/1.1"),
                       ("x.deep.wild.test", b"page of beta</p> http HTTP/1.1")):
        with lab.connect() as client:
            answer = client.get("/", host)
            check(page in answer.body, f"the page of {host}: {answer.body}")
    with lab.connect() as client:
        expect(client.get("/name", "plain.test").container, "plain", "who answers plain.test")
    expect(who(lab, b"alpha.test"), "alpha", "who answers by TLS")
    expect(agent.stats().upstream_connects, 5, "upstream_connects")


def test_labels(lab):
    """kakuremichi.tls takes `passthrough` alone, tls.port a port; others are rejected"""
    bad = {"tls-word": ("kakuremichi.tls", "terminate"), "tls-zero": ("kakuremichi.tls.port", "0"),
           "tls-name": ("kakuremichi.tls.port", "https"),
           "tls-big": ("kakuremichi.tls.port", "65536")}
    for name, (label, value) in bad.items():
        lab.container(name, f"{name}.test", image="busybox", wait=False,
                      labels={"kakuremichi.tls": "passthrough", label: value})
    agent = ready_agent(lab)
    wait_for(lambda: sorted(agent.refused()) == sorted(bad), "all are rejected")
    for name, (label, _) in bad.items():
        expect(agent.refused()[name]["label"], label, f"the label of {name}")
        expect(who(lab, f"{name}.test".encode()), "alert", f"the answer to {name}")


def test_comes_and_goes(lab):
    """a container that starts is served by TLS at once, one that ends is not any more"""
    agent = ready_agent(lab)
    expect(who(lab, b"late.test"), "alert", "before")
    site(lab, "late", "late.test")
    agent.wait_route("late.test", "late")
    expect(who(lab, b"late.test"), "late", "while it runs")
    lab.kept.pop("late").remove()
    agent.wait_route("late.test")
    expect(who(lab, b"late.test"), "alert", "afterwards")


def test_off(lab):
    """--listen-tls off: nobody listens; an address of its own is listened at"""
    ready_agent(lab, "--listen-tls", "off")
    with lab.socket() as sock:
        check(sock.connect_ex((lab.edge_addr, 443)) != 0, "the connection is refused")
    lab.agents.pop().stop()
    ready_agent(lab, "--listen-tls", "0.0.0.0:8443")
    with lab.connect(port=8443) as client:
        client.send(records(hello(b"beta.test")))
        expect(server_certificate(client.sock), fingerprints["beta"], "certificate")


lib.main("e2etls")
