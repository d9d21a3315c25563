# SPDX-License-Identifier: MIT
"""Runs in the client's namespace, where wrk does not do.

  client.py down|up ADDRESS PORT HOST STREAMS SECONDS    prints bytes a second, all streams
  client.py idle ADDRESS PORT HOST CONNECTIONS           prints `open`, holds them until stdin ends

Bulk is read and written 256 KiB at a time, as curl and browsers do it; wrk reads 8 KiB at a time,
and would be measured itself. One process a stream.
"""
import os
import socket
import sys
import time

PIECE = 256 << 10
WARM = 0.2      # seconds that are not counted: buffers fill, windows open
ENDLESS = 1 << 40


def connect(address, port):
    sock = socket.create_connection((address, port), 20)
    sock.settimeout(20)
    return sock


def request(sock, method, path, host, *fields):
    lines = (f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", "")
    sock.sendall("\r\n".join(lines).encode())


def answer(sock, buffer):
    """The length that its head names, and how much of the body came with it."""
    head = b""
    while b"\r\n\r\n" not in head:
        count = sock.recv_into(buffer)
        if not count:
            sys.exit("client: the connection ended in an answer's head")
        head += buffer[:count]
    head, _, body = head.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    if b" 200" not in lines[0]:
        sys.exit(f"client: {lines[0].decode()}")
    for line in lines:
        if line.startswith(b"content-length:"):
            return int(line[15:]), len(body)
    sys.exit("client: an answer without a length")


def down(sock, host):
    """Counts that go up, of objects that are asked for one after the other."""
    buffer, total = bytearray(PIECE), 0
    while True:
        request(sock, "GET", "/bulk", host)
        length, body = answer(sock, buffer)
        while body < length:
            count = sock.recv_into(buffer)
            if not count:
                sys.exit("client: the connection ended in an object")
            body += count
            yield total + body
        total += length


def up(sock, host):
    """The same for one body that never ends."""
    piece, total = bytes(PIECE), 0
    request(sock, "PUT", "/", host, f"Content-Length: {ENDLESS}")
    while True:
        total += sock.send(piece)
        yield total


def stream(function, address, port, host, seconds):
    """Bytes a second, once the stream is under way."""
    with connect(address, port) as sock:
        start = time.monotonic()
        first = since = None
        for total in function(sock, host):
            now = time.monotonic()
            if first is None and now > start + WARM:
                first, since = total, now
            elif now > start + WARM + seconds:
                return (total - first) / (now - since)
    return 0


def bulk(function, address, port, host, streams, seconds):
    read, write = os.pipe()
    for _ in range(streams):
        if not os.fork():
            os.write(write, b"%d\n" % stream(function, address, port, host, seconds))
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as results:
        rates = [int(line) for line in results]
    for _ in range(streams):
        os.wait()   # else the runner does not see what they have used
    if len(rates) < streams:
        sys.exit("client: a stream failed")
    print(sum(rates))


def idle(address, port, host, connections):
    buffer, socks = bytearray(PIECE), []
    for _ in range(connections):
        sock = connect(address, port)
        request(sock, "GET", "/small", host)
        length, body = answer(sock, buffer)
        while body < length:
            body += sock.recv_into(buffer)
        socks.append(sock)
    print("open", flush=True)
    sys.stdin.read()


def main():
    what, address, port, host, count, *seconds = sys.argv[1:]
    if what == "idle":
        idle(address, int(port), host, int(count))
    else:
        function = {"down": down, "up": up}[what]
        bulk(function, address, int(port), host, int(count), float(seconds[0]))


if __name__ == "__main__":
    main()
