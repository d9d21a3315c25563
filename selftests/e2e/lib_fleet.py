# SPDX-License-Identifier: MIT
"""As many containers as there are addresses: one process in a namespace of its own, which answers
each request with the address that it came to, as X-Container. For lib_dockerd's containers.

Run as a program it is that process.
"""
import socket
import subprocess
import sys
import threading
from pathlib import Path

PORT = 8000


class Fleet:
    """Bridge 10.9.0.1/16 in the edge; 10.9.64.0/18 are the containers."""

    def __init__(self, lab):
        import lib
        self.ns = lab.script("netns", "fleet").strip()
        edge = lab.edge_ns
        lib.must("ip", "-n", edge, "link", "add", "fleet0", "type", "veth", "peer", "name",
                 "eth0", "netns", self.ns)
        lib.must("ip", "-n", edge, "addr", "add", "10.9.0.1/16", "dev", "fleet0")
        lib.must("ip", "-n", edge, "link", "set", "fleet0", "up")
        lib.must("ip", "-n", self.ns, "addr", "add", "10.9.0.2/16", "dev", "eth0")
        lib.must("ip", "-n", self.ns, "link", "set", "eth0", "up")
        lib.must("ip", "-n", self.ns, "route", "add", "local", "10.9.64.0/18", "dev", "lo")
        self.process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.ns}", "--", sys.executable, Path(__file__)],
            stdin=subprocess.DEVNULL)

        def answers():
            with lab.socket(edge) as sock:
                return sock.connect_ex((self.address(0), PORT)) == 0
        lib.wait_for(answers, "the fleet answers")

    @staticmethod
    def address(number):
        number += 64 * 256 + 1
        return f"10.9.{number // 256}.{number % 256}"

    def stop(self):
        self.process.kill()
        self.process.wait()


def serve(sock):
    name = sock.getsockname()[0].encode()
    answer = b"HTTP/1.1 200 OK\r\nX-Container: %b\r\nContent-Length: 0\r\n\r\n" % name
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        with sock, sock.makefile("rb") as file:
            while line := file.readline():
                length = 0
                while (line := file.readline()) not in (b"\r\n", b""):
                    key, _, value = line.partition(b":")
                    length = int(value) if key.lower() == b"content-length" else length
                file.read(length)
                sock.sendall(answer)
    except OSError:
        pass


def main():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", PORT))
    listener.listen(1024)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    main()
