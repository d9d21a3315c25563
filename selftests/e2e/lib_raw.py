# SPDX-License-Identifier: MIT
"""The backend that records, which runs in a container: `python3 lib_raw.py`, on port 8000.

It keeps every byte that it gets, as it comes, and answers each request with 200 and its name as
soon as all of it is there. It reads only what is well-formed: whatever else comes is kept, and
waits for an answer for ever.

Port 9000 takes lines, and answers each with a line of JSON:

  take           once no connection is open: what came since the last `take`, in its order, as
                 pairs of a connection's number and the bytes
  have N         once N bytes came since then: how many did

Both wait for 5 seconds at most.
"""
import json
import os
import signal
import socket
import threading

import lib_backend

PORT, WAIT = 8000, 5


class Request:
    def __init__(self, method, version, fields):
        self.method = method
        self.chunked = fields.get(b"transfer-encoding", b"").lower() == b"chunked"
        self.length = int(fields.get(b"content-length", 0))
        options = [o.strip().lower() for o in fields.get(b"connection", b"").split(b",")]
        self.version_1_0 = version == b"HTTP/1.0"
        self.last = b"close" in options or self.version_1_0 and b"keep-alive" not in options
        self.size = 0   # of all of it, in bytes


def first_request(data):
    """The one at the beginning of these bytes; None where it is not complete, or not readable."""
    head, end, _ = data.partition(b"\r\n\r\n")
    if not end:
        return None
    try:
        line, *lines = head.split(b"\r\n")
        method, _, version = line.split(b" ")
        fields = {}
        for name, _, value in (line.partition(b":") for line in lines):
            name = name.lower()
            fields[name] = fields.get(name, b"") + (b"," if name in fields else b"") + value.strip()
        request = Request(method.decode("latin-1"), version, fields)
        at = len(head) + 4
        request.size = end_of_chunks(data, at) if request.chunked else at + request.length
    except ValueError:
        return None
    return request if 0 < request.size <= len(data) else None


def end_of_chunks(data, at):
    """Where the trailer section ends; 0: not here."""
    size = 1
    while size:
        end = data.find(b"\r\n", at) + 2
        if end < 2:
            return 0
        size = int(data[at:end].split(b";")[0], 16)
        at = end + (size + 2 if size else 0)
    while data[at:at + 2] != b"\r\n":
        at = data.find(b"\r\n", at) + 2
        if at < 2:
            return 0
    return at + 2


class Record:
    """What came, for all connections."""

    def __init__(self):
        self.changed = threading.Condition()
        self.accepted, self.open, self.size, self.pieces = 0, 0, 0, []

    def accept(self):
        with self.changed:
            self.open += 1
            self.accepted += 1
            return self.accepted

    def add(self, connection, data):
        with self.changed:
            self.pieces.append((connection, data.decode("latin-1")))
            self.size += len(data)
            self.changed.notify_all()

    def close(self):
        with self.changed:
            self.open -= 1
            self.changed.notify_all()

    def take(self):
        with self.changed:
            self.changed.wait_for(lambda: not self.open, WAIT)
            taken, self.pieces, self.size = self.pieces, [], 0
            return {"pieces": taken, "open": self.open}

    def have(self, size):
        with self.changed:
            self.changed.wait_for(lambda: self.size >= size, WAIT)
            return self.size


RECORD = Record()


def answer(request):
    name = lib_backend.NAME.encode()
    head = b"HTTP/1.1 200 OK\r\nX-Container: %b\r\nContent-Length: %d\r\n" % (name, len(name))
    if request.last:
        head += b"Connection: close\r\n"
    elif request.version_1_0:
        head += b"Connection: keep-alive\r\n"
    return head + b"\r\n" + (b"" if request.method == "HEAD" else name)


def serve_requests(sock, connection):
    waiting = b""
    while data := sock.recv(1 << 18):
        RECORD.add(connection, data)
        waiting += data
        while request := first_request(waiting):
            waiting = waiting[request.size:]
            sock.sendall(answer(request))
            if request.last:
                return


def serve(sock, connection):
    try:
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve_requests(sock, connection)
    except OSError:
        pass    # reset, which the agent may do where a body is at fault
    finally:
        RECORD.close()


def accept_all(listener):
    while True:
        sock, peer = listener.accept()
        if peer[0] == "127.0.0.1":
            sock.close()
        else:
            threading.Thread(target=serve, args=(sock, RECORD.accept()), daemon=True).start()


def wait_for_earlier():
    """Connections are accepted in their order: those before this one have been, and are counted."""
    with socket.create_connection(("127.0.0.1", PORT), WAIT) as sock:
        sock.recv(1)


def control(sock):
    with sock, sock.makefile("rwb") as file:
        for line in file:
            word, *arguments = line.split()
            if word == b"take":
                wait_for_earlier()
                reply = RECORD.take()
            else:
                reply = RECORD.have(int(arguments[0]))
            file.write(json.dumps(reply).encode() + b"\n")
            file.flush()


def main():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    controls = lib_backend.listen(socket.AF_INET, lib_backend.CONTROL_PORT, control)
    controls.start()
    with socket.create_server(("", PORT), backlog=1024) as listener:
        accept_all(listener)


if __name__ == "__main__":
    main()
