# SPDX-License-Identifier: MIT
"""Certificates, ClientHellos and PROXY headers; and, run as a program, a server that records.

This file needs the standard library alone, since `python3 /e2e/lib_tls.py PORT` runs in containers.
There each connection's bytes are recorded as they came. Whatever begins with a PROXY v2 header has
that taken off first. Then, by the next byte:

  a TLS record    it is read, and then a line that says what to do: sink (the SHA-256 of all that
                  comes, at its end), echo, halfclose (a line and a half-close, and all that comes
                  is still read), reset (after `release`); without such a line all is read
  a request       of HTTP with a Content-Length or no body; the answer has the status of the path's
                  number (/304), or 200 and the container's name

Port 9000 takes one line, as lib_backend's: `log` answers with the connections so far, `release`
lets go what is held.
"""
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading

CONTROL_PORT = 9000
HANDSHAKE, ALERT = 22, 21
PADDING = 21            # RFC 7685
RECORD = 1 << 14        # the longest fragment
UNRECOGNIZED_NAME = 112
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


# Tests that need a program or a module

def needs(what, there):
    """The test is skipped, with the reason in its name, where `there` is false."""
    def decorate(function):
        if there:
            return function

        def skipped(*_):
            pass
        skipped.__doc__ = f"{function.__doc__.splitlines()[0]} # SKIP {what} is not installed"
        skipped.__module__ = function.__module__
        return skipped
    return decorate


def needs_program(name):
    return needs(name, shutil.which(name))


# Certificates

def certificate(directory, name):
    """cert.pem and key.pem, self-signed; the fingerprint: SHA-256 of the certificate's DER."""
    os.makedirs(directory, exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem"],
        check=True, capture_output=True, timeout=20)
    with open(f"{directory}/cert.pem") as file:
        return pem_fingerprint(file.read())


def pem_fingerprint(text):
    """Of the first certificate in it."""
    import base64
    body = re.search("-----BEGIN CERTIFICATE-----(.*?)-----END", text, re.S)
    return hashlib.sha256(base64.b64decode(body[1])).hexdigest() if body else None


# Hellos

def vector(data, width):
    return len(data).to_bytes(width, "big") + data


def extension(number, data):
    return struct.pack(">H", number) + vector(data, 2)


def sni(name):
    return extension(0, vector(b"\0" + vector(name, 2), 2))


def hello(name, *, size=0, filler=PADDING, extensions=b""):
    """A ClientHello message of TLS 1.2, without its record, so that the server's certificate comes
    in the clear. name: bytes or None. size: of the message, by one more extension, `filler`."""
    fields = b"" if name is None else sni(name)
    fields += extension(10, vector(bytes.fromhex("0017001d"), 2))           # groups
    fields += extension(11, vector(b"\0", 1))                               # point formats
    fields += extension(13, vector(bytes.fromhex("0403050308040401"), 2))   # signatures
    fields += extensions
    start = b"\x03\x03" + os.urandom(32) + vector(b"", 1) + \
        vector(bytes.fromhex("c02bc02cc02fc030"), 2) + vector(b"\0", 1)
    if size:
        fields += extension(filler, bytes(size - 4 - len(start) - 2 - len(fields) - 4))
    return b"\1" + vector(start + vector(fields, 2), 3)


def records(message, size=RECORD):
    """The message in records of `size` bytes each."""
    return b"".join(bytes((HANDSHAKE, 3, 1)) + vector(message[at:at + size], 2)
                    for at in range(0, len(message), size))


def messages(data):
    """What the records of this hold, without their heads."""
    out = b""
    while data:
        length = int.from_bytes(data[3:5], "big")
        out += data[5:5 + length]
        data = data[5 + length:]
    return out


def exactly(sock, size):
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError(f"the connection ended after {data!r}")
        data += piece
    return data


def server_certificate(sock):
    """The fingerprint of the certificate that answers a hello(); nothing is sent."""
    flight = b""
    while True:
        kind, _, length = struct.unpack(">BHH", exactly(sock, 5))
        data = exactly(sock, length)
        if kind != HANDSHAKE:
            raise ConnectionError(f"no certificate: a record of type {kind}: {data.hex()}")
        flight += data
        at = 0
        while at + 4 <= len(flight):
            size = int.from_bytes(flight[at + 1:at + 4], "big")
            message = flight[at + 4:at + 4 + size]
            if flight[at] == 11 and len(message) == size:
                first = int.from_bytes(message[3:6], "big")
                return hashlib.sha256(message[6:6 + first]).hexdigest()
            at += 4 + size


# PROXY protocol

def v1(protocol, *words, end=b"\r\n"):
    return " ".join(("PROXY", protocol, *map(str, words))).encode() + end


def v2(source=None, destination=None, *, tlvs=b"", command=0x21):
    """source, destination: (address, port), of IPv4 or IPv6; None: of no family."""
    if source is None:
        return V2_SIGNATURE + bytes((command, 0)) + vector(tlvs, 2)
    family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    addresses = b"".join(socket.inet_pton(family, end[0]) for end in (source, destination)) + \
        struct.pack(">HH", source[1], destination[1])
    return V2_SIGNATURE + bytes((command, 0x21 if family == socket.AF_INET6 else 0x11)) + \
        vector(addresses + tlvs, 2)


def tlv(kind, data):
    return bytes((kind,)) + vector(data, 2)


# The server that records

KEPT = 1 << 20      # bytes of each connection
RELEASE = threading.Event()
CONNECTIONS = []


class Recorder:
    def __init__(self, sock):
        self.sock, self.bytes, self.end = sock, bytearray(), None
        self.peer = "%s:%d" % sock.getpeername()[:2]
        self.file = sock.makefile("rb", 1 << 18)
        CONNECTIONS.append(self)

    def describe(self):
        return {"event": "connection", "peer": self.peer, "bytes": self.bytes.hex(),
                "end": self.end}

    def record(self, data):
        self.bytes += data[:KEPT - len(self.bytes)]
        return data

    def take(self, size):
        """Fewer at the end."""
        return self.record(self.file.read(size))

    def line(self):
        return self.record(self.file.readline(1 << 17))

    def serve(self):
        try:
            self.speak()
            self.end = self.end or "eof"
        except OSError as error:
            self.end = type(error).__name__
        self.file.close()
        self.sock.close()

    def speak(self):
        # Not read by the line: a line of the signature ends it early.
        if self.file.peek(1)[:1] == b"\r":
            self.take(14)
            self.take(int.from_bytes(self.take(2), "big"))
        if self.file.peek(1)[:1] == bytes((HANDSHAKE,)):
            self.take(3)
            self.take(int.from_bytes(self.take(2), "big"))
            getattr(self, "do_" + self.line().decode("latin-1").strip(), self.to_eof)()
        else:
            while self.serve_request():
                pass

    def serve_request(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.line()
            if not line:
                return False
            head += line
        found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
        self.take(int(found[1]) if found else 0)
        number = re.match(rb"\S+ /(\d{3}) ", head)
        status = number[1].decode() if number else "200"
        body = (os.environ.get("NAME", "") + "\n").encode()
        length = "" if status == "204" else "Content-Length: %d\r\n" % len(body)
        answer = "HTTP/1.1 %s Answer\r\nX-Container: %s\r\n%s\r\n" % (
            status, os.environ.get("NAME"), length)
        bodiless = status in ("204", "304") or head.startswith(b"HEAD ")
        self.sock.sendall(answer.encode() + (b"" if bodiless else body))
        return True

    def to_eof(self):
        while self.take(1):
            pass

    def do_sink(self):
        digest, size = hashlib.sha256(), 0
        while piece := self.file.read1(1 << 20):
            digest.update(self.record(piece))
            size += len(piece)
        self.sock.sendall(json.dumps({"sha256": digest.hexdigest(), "size": size}).encode())

    def do_echo(self):
        while piece := self.file.read1(1 << 20):
            self.sock.sendall(self.record(piece))

    def do_halfclose(self):
        self.sock.sendall(b"bye\n")
        self.sock.shutdown(socket.SHUT_WR)
        self.to_eof()

    def do_reset(self):
        RELEASE.wait(120)
        self.file.close()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end = "has reset"


def control(sock):
    with sock, sock.makefile("rb") as file:
        word = file.readline().strip()
        if word == b"release":
            RELEASE.set()
        elif word == b"log":
            sock.sendall("".join(json.dumps(c.describe()) + "\n"
                                 for c in list(CONNECTIONS)).encode())


def listen(port, handler):
    listener = socket.create_server(("", port), backlog=1024)

    def loop():
        while True:
            threading.Thread(target=handler, args=(listener.accept()[0],), daemon=True).start()
    return threading.Thread(target=loop)


def main():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    threads = [listen(int(sys.argv[1]), lambda sock: Recorder(sock).serve()),
               listen(CONTROL_PORT, control)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
