# SPDX-License-Identifier: MIT
"""Requests all the while, GET and POST, on new and on kept connections, whose answers are counted
by who gave them, for fakes.py; lib_load.py is for containers that keep a journal."""
import collections
import os
import threading
import time

import lib
from lib import check


class Load:
    """`domains`: name -> those who may answer for it (X-Container). While it lasts four threads ask
    for each in turn, in all `rate` times a second; one that has no 200 is counted by its status."""

    def __init__(self, lab, domains, rate=300, path="/name"):
        self.lab, self.path = lab, path
        self.domains = {domain: set(names) for domain, names in domains.items()}
        self.pause = 4 / rate
        self.answers, self.wrong = collections.Counter(), []
        self.lock, self.over = threading.Lock(), threading.Event()
        self.start = time.monotonic()
        self.threads = [threading.Thread(target=self.loop, args=how, daemon=True)
                        for how in ((method, kept) for method in ("GET", "POST")
                                    for kept in (True, False))]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(30)
        self.seconds = time.monotonic() - self.start

    def loop(self, method, kept):
        client, number, due = None, 0, time.monotonic()
        while not self.over.is_set():
            domain = list(self.domains)[number % len(self.domains)]
            number += 1
            try:
                client = client or self.lab.connect()
                answer = client.get(self.path, domain, method=method,
                                    body=b"x" * 100 if method == "POST" else None)
                self.note(domain, answer.status, answer.container)
                ended = answer.status != 200
            except (OSError, ValueError) as error:
                self.note(domain, type(error).__name__, None)
                ended = True
            if client and (ended or not kept):
                client.close()
                # it would keep each until the end of the test
                self.lab.sockets[:] = [s for s in self.lab.sockets
                                       if s is not client.sock and s is not client.file]
                client = None
            due += self.pause
            self.over.wait(max(0, due - time.monotonic()))
        if client:
            client.close()

    def note(self, domain, status, container):
        with self.lock:
            self.answers[domain, status] += 1
            if status == 200 and container not in self.domains[domain]:
                self.wrong.append(f"{domain} by {container}")

    def count(self, domain=None, status=200):
        with self.lock:
            return sum(n for (d, s), n in self.answers.items()
                       if domain in (None, d) and status in (None, s))

    def goes_on(self, domain, times=8):
        """So many more answers of it."""
        before = self.count(domain)
        lib.wait_for(lambda: self.count(domain) >= before + times, f"{domain} answers", 10)

    def judge(self, *steady, least=200, failures=()):
        """Nobody's answer was another's; those of `steady` never failed; others only as named."""
        total = self.count(status=None)
        lib.comment(f"{total} requests, {total / self.seconds:.0f}/s: " + ", ".join(
            f"{d} {s} {n}" for (d, s), n in sorted(self.answers.items(), key=str)))
        check(not self.wrong, f"{len(self.wrong)} answers by the wrong container: "
                              f"{collections.Counter(self.wrong).most_common(3)}")
        for (domain, status), number in self.answers.items():
            check(status == 200 or domain not in steady and status in failures,
                  f"{number} requests for {domain}: {status}")
        # loaded machines are slow; what is asked for is three of two
        check(total / self.seconds > least or "san" in lib.BINARY, f"{total / self.seconds:.0f}/s")


def memory(pid):
    """Resident, in bytes."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
