# SPDX-License-Identifier: MIT
"""The scripted backend, which runs in a container: `python3 lib_backend.py [PORT]`.

What it does is asked for by the request's path and query:

  /name                      the container's name
  /raw                       the request's head, byte for byte
  /down?n=&framing=&write=   n bytes of the pattern; length, chunked or eof; so many a write
  /up?hold=1                 the SHA-256 of the request's body; hold: not read before `release`
  /stuck?n=                  n bytes of the pattern, while the body is not read before `release`
  /halfclose?n=              an answer to EOF, and only after its end the request's body is read
  /nothing                   no answer
  /close, /reset?n=          the end, after n bytes of an answer
  /continue, /hint           100 and the answer; 103, and the answer after `release`
  /slow                      the answer after 0.7 s
  /load?id=&wait=            for lib_load.py: the request is written down in JOURNAL as soon as its
                             head is there; the answer after so many ms, JSON
  /garbage, /twice           an answer that is not HTTP; one that is framed twice
  /mix?seed=&n=&framing=&status=&hints=
                             the answer that mixed() makes, which tells of the request's bytes
  /say?hex=&then=            these bytes as they are, and then: keep, close, reset. fill=n: n times
                             an x instead of each ~; step=n: n bytes a write; hold=1: then only
                             after `release`; later=hex: and more bytes first
  /once?t=&how=              the end without a byte (close, reset), the first time for this t
  /gone?how=                 that, each time
  /early?close=1             413 before the body is read; close: with Connection: close
  /tape                      no answer; all that follows the head, hexadecimal, as an event `tape`
  /switch?messages=n         101 after 0.3 s in which nothing may come, bytes right behind it, and
                             then an echo, or n messages after `release`
  /upgrade?then=&n=          101, and then: sink (SHA-256 of all that comes, at its end), echo,
                             source (n bytes and the end), halfclose (a line and a half-close,
                             then as sink without an answer), reset

Another port, 9000, takes one line: `log` answers with the events so far, JSON, one a line;
`release` lets go what is held, until `arm`; `exit N` exits with that status at once; `eat` takes
memory until there is none. NAME, IGNORE_TERM, FAMILY=6, JOURNAL in the environment; GRACE=SIGNAL:
at this signal it goes on, and exits once no /load is under way and none has come for 0.3 s.
"""
import fcntl
import hashlib
import json
import os
import random
import signal
import socket
import struct
import sys
import termios
import threading
import time
from urllib.parse import parse_qsl, urlsplit

CONTROL_PORT = 9000
BLOCK = 4 << 20
BLOCKS = 16
_blocks = {}


def block(index):
    """The pattern repeats itself after 64 MiB, and in no other way."""
    index %= BLOCKS
    if index not in _blocks:
        _blocks[index] = memoryview(random.Random(index + 1).randbytes(BLOCK))
    return _blocks[index]


def pattern(size, piece=BLOCK):
    """`size` bytes of the pattern, in pieces of at most `piece`."""
    for start in range(0, size, BLOCK):
        part = block(start // BLOCK)[:size - start]
        for at in range(0, len(part), piece):
            yield part[at:at + piece]


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def chunked(rng, body):
    """In chunks of random sizes and spellings, some with an extension; with trailers or without."""
    pieces, at = [], 0
    while at < len(body):
        piece = body[at:at + rng.randint(1, 1 + len(body) // 3)]
        at += len(piece)
        size = rng.choice((b"%x", b"%X", b"000%x")) % len(piece)
        extension = rng.choice((b"", b"", b";a", b";name=value", b';q="a;b"'))
        pieces += [size, extension, b"\r\n", piece, b"\r\n"]
    trailers = rng.choice((b"", b"", b"X-Trailer: 1\r\nX-Trailer: a;b\r\n"))
    return b"".join(pieces) + rng.choice((b"0", b"0;last", b"0000")) + b"\r\n" + trailers + b"\r\n"


def mixed(name, wire, method, query):
    """The bytes of an answer to /mix. wire: SHA-256 of the request as it came."""
    rng = random.Random(query["seed"])
    body = rng.randbytes(int(query["n"]))
    status, framing = query["status"], query["framing"]
    head = "".join(f"HTTP/1.1 103 Early Hints\r\nLink: </{i}>\r\n\r\n"
                   for i in range(int(query["hints"])))
    head += f"HTTP/1.1 {status} Mixed\r\nX-Container: {name}\r\nX-Wire: {wire}\r\n"
    if status != "204":
        head += "transfer-ENCODING:  Chunked \r\n" if framing == "chunked" else \
            f"CONTENT-length:\t{len(body)}\r\n"
    head = head.encode() + b"\r\n"
    if method == "HEAD" or status in ("204", "304"):
        return head
    return head + (chunked(rng, body) if framing == "chunked" else body)


def message(number):
    """One of those that /switch sends."""
    return b"message %d\n" % number * (1 + number % 50)


class Log:
    def __init__(self):
        self.events = []
        self.ends = {}

    def add(self, event, **attributes):
        self.events.append({"event": event, **attributes})
        if event == "end":
            self.ends[attributes["peer"]] = self.events[-1]

    def begins(self, peer):
        """A port is used again after a while: how that connection ended is not this one's end."""
        earlier = self.ends.pop(peer, None)
        if earlier:
            earlier["peer"] = "earlier " + peer

    def text(self):
        return "".join(json.dumps(event) + "\n" for event in list(self.events))


LOG = Log()
ONCE = set()
RELEASE = threading.Event()
NAME = os.environ.get("NAME") or socket.gethostname()


class Journal:
    """What a killed container has received: one write a request, to a file that outlives it."""

    def __init__(self):
        path = os.environ.get("JOURNAL")
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if path else None

    def add(self, number, method, host):
        if self.fd is not None:
            os.write(self.fd, f"{time.monotonic()} {number} {method} {host}\n".encode())


JOURNAL = Journal()


class UnderWay:
    """How many requests are, and since when none is."""

    def __init__(self):
        self.lock, self.count, self.idle_since = threading.Lock(), 0, time.monotonic()

    def __enter__(self):
        with self.lock:
            self.count += 1

    def __exit__(self, *_):
        with self.lock:
            self.count -= 1
            self.idle_since = time.monotonic()

    def idle(self, seconds):
        return not self.count and time.monotonic() - self.idle_since > seconds


UNDER_WAY = UnderWay()


def leave_gracefully():
    while not UNDER_WAY.idle(0.3):
        time.sleep(0.02)
    os._exit(0)


class Connection:
    def __init__(self, sock):
        self.sock = sock
        self.peer = "%s:%d" % sock.getpeername()[:2]
        LOG.begins(self.peer)
        # A timeout makes the socket non-blocking underneath, as servers with an event loop have it.
        sock.settimeout(120)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = sock.makefile("rb", 1 << 18)

    def serve(self):
        LOG.add("accept", peer=self.peer)
        how = "eof"
        try:
            while self.serve_one():
                pass
        except ConnectionError as error:
            how = type(error).__name__
        except OSError as error:
            how = str(error)
        LOG.add("end", peer=self.peer, how=how)
        self.file.close()
        self.sock.close()

    def serve_one(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.file.readline(1 << 17)
            if not line:
                return False
            head += line
        self.head = head
        lines = head.decode("latin-1").split("\r\n")
        self.method, target, self.version = lines[0].split(" ", 2)
        self.fields = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            self.fields[name.strip().lower()] = value.strip()
        LOG.add("request", peer=self.peer, line=lines[0], host=self.fields.get("host"))
        url = urlsplit(target)
        self.query = dict(parse_qsl(url.query))
        answer = getattr(self, "do_" + url.path.strip("/"), None)
        if answer is None:
            self.read_body()
            self.answer(b"no such path\n", status="404 Not Found")
            return True
        more = answer()
        return more is not False and self.fields.get("connection", "").lower() != "close"

    def number(self, name, default=0):
        return int(self.query.get(name, default))

    def body(self):
        if self.fields.get("transfer-encoding", "").lower() == "chunked":
            yield from self.chunks()
        else:
            yield from self.bytes(int(self.fields.get("content-length", 0)))

    def bytes(self, left):
        while left:
            piece = self.file.read1(min(left, 1 << 20))
            if not piece:
                raise OSError("the body ends %d bytes early" % left)
            left -= len(piece)
            yield piece

    def chunks(self):
        while True:
            line = self.file.readline()
            if not line:
                raise OSError("the body ends before its last chunk")
            size = int(line.split(b";")[0], 16)
            if size:
                yield from self.bytes(size)
            if self.file.readline() != b"\r\n":
                raise OSError("a chunk ends wrongly")
            if not size:
                return

    def to_eof(self):
        while piece := self.file.read1(1 << 20):
            yield piece

    def read_body(self, pieces=None):
        """Its SHA-256 and its size, as JSON."""
        digest, size = hashlib.sha256(), 0
        for piece in self.body() if pieces is None else pieces:
            digest.update(piece)
            size += len(piece)
        result = {"sha256": digest.hexdigest(), "size": size}
        LOG.add("body", peer=self.peer, **result)
        return json.dumps(result).encode()

    def answer(self, body, status="200 OK"):
        head = "HTTP/1.1 %s\r\nX-Container: %s\r\nContent-Length: %d\r\n\r\n" % (
            status, NAME, len(body))
        self.sock.sendall(head.encode() + (b"" if self.method == "HEAD" else body))

    def do_name(self):
        self.read_body()
        self.answer(NAME.encode() + b"\n")

    def do_raw(self):
        self.answer(self.head)
        self.read_body()

    def do_down(self):
        self.read_body()
        return self.send_pattern(self.number("n"), self.query.get("framing", "length"))

    def send_pattern(self, size, framing):
        field = {"length": "Content-Length: %d\r\n" % size,
                 "chunked": "Transfer-Encoding: chunked\r\n",
                 "eof": "Connection: close\r\n"}[framing]
        self.sock.sendall(("HTTP/1.1 200 OK\r\nX-Container: %s\r\n%s\r\n" % (NAME, field)).encode())
        for piece in pattern(size, self.number("write", 65535)):
            if framing == "chunked":
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            self.sock.sendall(piece)
        if framing == "chunked":
            self.sock.sendall(b"0\r\n\r\n")
        return framing != "eof"

    def do_up(self):
        if "hold" in self.query:
            RELEASE.wait(120)
        self.answer(self.read_body())

    def do_stuck(self):
        writer = threading.Thread(target=self.send_pattern, args=(self.number("n"), "length"))
        writer.start()
        RELEASE.wait(120)
        self.read_body()
        writer.join()

    def do_halfclose(self):
        self.send_pattern(self.number("n"), "eof")
        self.sock.shutdown(socket.SHUT_WR)
        self.read_body()
        return False

    def do_nothing(self):
        for _ in self.to_eof():
            pass
        return False

    def do_continue(self):
        self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.read_body()
        self.answer(b"continued\n")

    def do_hint(self):
        self.sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        RELEASE.wait(120)
        self.answer(b"hinted\n")

    def do_slow(self):
        time.sleep(0.7)
        self.answer(b"late\n")

    def do_load(self):
        with UNDER_WAY:
            JOURNAL.add(self.query["id"], self.method, self.fields.get("host"))
            got = json.loads(self.read_body())
            time.sleep(self.number("wait") / 1000)
            got.update(id=self.query["id"], host=self.fields.get("host"))
            self.answer(json.dumps(got).encode())

    def do_close(self):
        return False

    def do_reset(self):
        size = self.number("n")
        if size:
            self.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * size))
            for piece in pattern(size):
                self.sock.sendall(piece)
            RELEASE.wait(120)
        self.file.close()
        reset(self.sock)
        return False

    def do_garbage(self):
        self.sock.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        return False

    def do_twice(self):
        self.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
                          b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        return False

    def raw_body(self):
        """As it came, with chunk sizes and trailers."""
        if self.fields.get("transfer-encoding", "").lower() != "chunked":
            yield from self.bytes(int(self.fields.get("content-length", 0)))
            return
        while True:
            line = self.file.readline()
            yield line
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            yield from self.bytes(size)
            yield self.file.readline()
        while line not in (b"\r\n", b""):
            line = self.file.readline()
            yield line

    def do_mix(self):
        digest = hashlib.sha256(self.head)
        for piece in self.raw_body():
            digest.update(piece)
        data = mixed(NAME, digest.hexdigest(), self.method, self.query)
        cut = random.Random(self.query["seed"]).randint(0, len(data))
        self.sock.sendall(data[:cut])
        self.sock.sendall(data[cut:])

    def leave(self, how):
        if how == "reset":
            self.file.close()
            reset(self.sock)
        return None if how == "keep" else False

    def do_say(self):
        self.read_body()
        data = bytes.fromhex(self.query.get("hex", ""))
        data = data.replace(b"~", b"x" * self.number("fill", 1))
        step = self.number("step") or len(data) or 1
        for at in range(0, len(data), step):
            self.sock.sendall(data[at:at + step])
        if "hold" in self.query:
            RELEASE.wait(120)
        self.sock.sendall(bytes.fromhex(self.query.get("later", "")))
        if "acked" in self.query:   # a reset throws away what the peer's kernel has not taken
            while struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)))[0]:
                time.sleep(0.005)
        return self.leave(self.query.get("then", "keep"))

    def do_once(self):
        body = self.read_body()
        if self.query["t"] not in ONCE:
            ONCE.add(self.query["t"])
            return self.leave(self.query["how"])
        self.answer(body)

    def do_gone(self):
        self.read_body()
        return self.leave(self.query["how"])

    def do_early(self):
        close = "close" in self.query
        self.sock.sendall(b"HTTP/1.1 413 Content Too Large\r\nX-Container: %s\r\n%s"
                          b"Content-Length: 6\r\n\r\nlarge\n" %
                          (NAME.encode(), b"Connection: close\r\n" if close else b""))
        if close:
            self.sock.shutdown(socket.SHUT_WR)
            self.read_body(self.to_eof())
            return False
        self.read_body(self.raw_body())

    def do_tape(self):
        data = b""
        try:
            for piece in self.to_eof():
                data += piece
        finally:
            LOG.add("tape", peer=self.peer, hex=data.hex())
        return False

    def do_switch(self):
        time.sleep(0.3)
        self.sock.settimeout(0)
        early = self.file.peek(1)
        self.sock.settimeout(120)
        LOG.add("early", peer=self.peer, size=len(early))
        self.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                          b"Upgrade: opaque\r\nX-Container: %s\r\n\r\nright behind" %
                          NAME.encode())
        if self.number("messages"):
            RELEASE.wait(120)
            for number in range(self.number("messages")):
                self.sock.sendall(message(number))
        for piece in self.to_eof():
            self.sock.sendall(piece)
        return False

    def do_upgrade(self):
        self.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                          b"Upgrade: opaque\r\nX-Container: %s\r\n\r\n" % NAME.encode())
        then = self.query["then"]
        if then == "sink":
            self.sock.sendall(self.read_body(self.to_eof()))
        elif then == "echo":
            for piece in self.to_eof():
                self.sock.sendall(piece)
        elif then == "source":
            for piece in pattern(self.number("n"), 65535):
                self.sock.sendall(piece)
        elif then == "halfclose":
            self.sock.sendall(b"bye\n")
            self.sock.shutdown(socket.SHUT_WR)
            self.read_body(self.to_eof())
        elif then == "reset":
            RELEASE.wait(120)
            self.file.close()
            reset(self.sock)
        return False


def control(sock):
    with sock, sock.makefile("rb") as file:
        word, *more = file.readline().split()
        if word == b"release":
            RELEASE.set()
        elif word == b"arm":
            RELEASE.clear()
        elif word == b"exit":
            os._exit(int(more[0]))
        elif word == b"eat":
            eaten = []
            while True:
                eaten.append(b"x" * (1 << 20))
        elif word == b"log":
            sock.sendall(LOG.text().encode())


def listen(family, port, handler):
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("", port))
    listener.listen(1024)

    def loop():
        while True:
            threading.Thread(target=handler, args=(listener.accept()[0],), daemon=True).start()
    return threading.Thread(target=loop)


def main():
    # As process 1 of a container it ignores what it does not handle. Only the main thread gets
    # signals: Python handles them there, and does not wake it for what another thread has got.
    mine = {signal.SIGTERM, *filter(None, [getattr(signal, os.environ.get("GRACE", ""), None)])}
    signal.pthread_sigmask(signal.SIG_BLOCK, mine)
    if not os.environ.get("IGNORE_TERM"):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if grace := os.environ.get("GRACE"):
        signal.signal(getattr(signal, grace), lambda *_: threading.Thread(
            target=leave_gracefully).start())
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    family = socket.AF_INET6 if os.environ.get("FAMILY") == "6" else socket.AF_INET
    threads = [listen(family, port, lambda sock: Connection(sock).serve()),
               listen(socket.AF_INET, int(os.environ.get("CONTROL", CONTROL_PORT)), control)]
    for thread in threads:
        thread.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, mine)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
