# SPDX-License-Identifier: MIT
"""Runs in a container: reads a request's body, keeps nothing, and answers; on port 8000."""
import socket
import threading

PIECE = 256 << 10


def serve(sock):
    buffer, used = bytearray(PIECE), 0
    while True:
        while (end := buffer.find(b"\r\n\r\n", 0, used)) < 0:
            count = sock.recv_into(memoryview(buffer)[used:])
            if not count:
                return
            used += count
        fields = (line.partition(b":") for line in bytes(buffer[:end]).lower().split(b"\r\n"))
        left = {name: int(value) for name, _, value in fields if name == b"content-length"}
        left = left.get(b"content-length", 0) - (used - end - 4)
        while left > 0:
            count = sock.recv_into(buffer, min(left, PIECE))
            if not count:
                return
            left -= count
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        used = 0


def handle(sock):
    with sock:
        try:
            serve(sock)
        except OSError:
            pass    # the benchmark ends its uploads in the middle


def main():
    with socket.create_server(("", 8000), backlog=128) as listener:
        while True:
            threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    main()
