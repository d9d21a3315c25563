#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""How soon routes follow Docker: from its `start` event to the first answer, from `kill` to the last.

Run in the client's namespace it is the client, which asks again and again, each time on a new
connection, and tells when the status changes: `events.py ADDRESS PORT HOST`.
"""
import json
import socket
import subprocess
import sys
import time

from targets import LAB, output
import targets

CYCLES = 15
DOMAIN = "events.example.com"
# What serves while it is asked to stop, as a container that finishes its work does.
SERVER = ("trap : TERM; mkdir -p /srv; echo ok >/srv/small; httpd -f -p 80 -h /srv & "
          "while :; do wait; done")


def client(address, port, host):
    request = f"GET /small HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    last, before = None, 0
    while True:
        try:
            with socket.create_connection((address, port), 5) as sock:
                sock.sendall(request)
                status = sock.recv(4096)[9:12].decode() or "end"
        except OSError:
            status = "error"
        now = time.time_ns()
        if status != last:
            print(before, now, last, status, flush=True)
        last, before = status, now


def lines_of(process, wanted):
    """Until one satisfies; the caller has bounded the process's life."""
    for line in process.stdout:
        if wanted(line):
            return line
    raise RuntimeError(f"{process.args[:6]} ended")


class Watch:
    """A process whose lines are read, for at most so long."""

    def __init__(self, *command, seconds=20):
        self.process = subprocess.Popen(["timeout", str(seconds), *command], text=True,
                                        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)

    def __enter__(self):
        return self.process

    def __exit__(self, *_):
        self.process.terminate()
        self.process.stdout.close()
        self.process.wait()


def event_ns(process, action):
    return json.loads(lines_of(process, lambda line: json.loads(line)["Action"] == action))["timeNano"]


def cycle(lab, port):
    """Milliseconds from `start` to the first answer, and from `kill` to the last."""
    name = "events"
    since = f"{time.time():.9f}"
    with Watch(LAB, "run", "client", "python3", __file__, lab.edge_addr, str(port),
               DOMAIN) as asking, \
         Watch(LAB, "docker", "events", "--since", since, "--filter", f"container={name}",
               "--format", "{{json .}}") as events:
        lines_of(asking, lambda line: line.split()[3] != "200")
        lab.run_docker("run", "-d", "--name", name, "--label=kakuremichi.enabled=true",
                       f"--label=kakuremichi.domain={DOMAIN}", "--label=kakuremichi.port=80",
                       "busybox", "sh", "-c", SERVER)
        started = event_ns(events, "start")
        # 502: it is asked, and does not listen yet
        routed = lines_of(asking, lambda line: line.split()[3] in ("200", "502"))
        if routed.split()[3] != "200":
            lines_of(asking, lambda line: line.split()[3] == "200")
        lab.run_docker("kill", "-s", "TERM", name)
        killed = event_ns(events, "kill")
        last = int(lines_of(asking, lambda line: line.split()[2] == "200").split()[0])
    lab.run_docker("rm", "-f", name)
    return (int(routed.split()[1]) - started) / 1e6, (last - killed) / 1e6


def measure(lab, running, say):
    """[(start, kill)] in milliseconds."""
    running.append(targets.start(lab, "relay"))
    running[-1].wait()
    output(LAB, "image", "busybox")
    found = [cycle(lab, running[-1].web[1]) for _ in range(CYCLES)]
    running.pop().stop()
    for which, values in zip(("start", "kill"), zip(*found)):
        say(f"events   from `{which}`: " + " ".join(f"{value:.1f}" for value in values) + " ms")
    return found


if __name__ == "__main__":
    client(sys.argv[1], int(sys.argv[2]), sys.argv[3])
