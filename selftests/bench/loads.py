# SPDX-License-Identifier: MIT
"""What is measured. Each load is given a target and seconds, and returns {metric: value}."""
import os
import resource
import subprocess
import sys
import time

import targets
from targets import HERE, LAB, Failure, until

sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import lib_dockerd  # noqa: E402 (after the path)

IDLE_CONNECTIONS = 5000
ROUTES = (1, 1000, 10000)


def wrk(target, path, connections, seconds, *fields):
    """Requests, bytes, seconds, and the latency's percentiles in microseconds."""
    address, port, host = target.web
    headers = [word for field in (f"Host: {host}", *fields) for word in ("-H", field)]
    text = targets.Lab.run("client", "wrk", f"-t{min(connections, targets.THREADS)}",
                           f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s",
                           os.path.join(HERE, "wrk.lua"), *headers,
                           f"http://{address}:{port}{path}")
    lines = [line.split()[1:] for line in text.splitlines() if line.startswith("RESULT")]
    if not lines:
        raise Failure(f"{target.name}: wrk said no result:\n{text}")
    requests, count, duration, errors, *percentiles = map(int, lines[0])
    if errors or not requests:
        raise Failure(f"{target.name}: {errors} errors in {requests} requests:\n{text}")
    return requests, count, duration / 1e6, percentiles


def machine_cpu():
    """Seconds in which the machine's processors were not idle, all together."""
    with open("/proc/stat", encoding="utf-8") as file:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Others:
    """How busy those are who have nothing to do with the benchmark, the hypervisor among them."""

    def __init__(self, lab):
        self.lab = lab
        self.start = self.now()

    def now(self):
        with open("/proc/stat", encoding="utf-8") as file:
            stolen = int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
        with open(f"{self.lab.cgroup}/cpu.stat", encoding="utf-8") as file:
            ours = int(file.readline().split()[1]) / 1e6    # servers, proxies
        clients = resource.getrusage(resource.RUSAGE_CHILDREN)
        ours += clients.ru_utime + clients.ru_stime
        return time.monotonic(), machine_cpu() + stolen - ours

    def share(self):
        """Of the machine, since the last time."""
        (since, before), self.start = self.start, self.now()
        return max(0, self.start[1] - before) / (self.start[0] - since) / os.cpu_count()


def small(connections, *fields):
    def measure(target, seconds):
        proxy, machine = target.cpu(), machine_cpu()
        requests, _, duration, (p50, p99, p999) = wrk(target, "/small", connections, seconds,
                                                      *fields)
        per = 100000 / requests
        return {"rate": requests / duration, "p50": p50, "p99": p99, "p99.9": p999,
                "proxy CPU": (target.cpu() - proxy) * per,
                "machine CPU": (machine_cpu() - machine) * per}
    return measure


def objects(path, connections):
    def measure(target, seconds):
        requests, _, duration, _ = wrk(target, path, connections, seconds)
        return {"rate": requests / duration}
    return measure


def client(what, address, *words):
    return [sys.executable, "-I", os.path.join(HERE, "client.py"), what, *map(str, address),
            *map(str, words)]


def bulk(what, streams):
    def measure(target, seconds):
        address = target.web if what == "down" else target.sink
        return {"bytes": float(targets.Lab.run(
            "client", *client(what, address, streams, seconds)))}
    return measure


# What alternates in rounds: name -> title, metrics to be shown, function
ALTERNATING = {
    "small-1": ("small requests, 1 connection", ("rate", "p50", "p99", "p99.9"), small(1)),
    "small-32": ("small requests, 32 connections",
                 ("rate", "p50", "p99", "p99.9", "proxy CPU", "machine CPU"), small(32)),
    "small-256": ("small requests, 256 connections", ("rate", "p50", "p99", "p99.9"), small(256)),
    "new": ("new connections", ("rate", "proxy CPU"), small(32, "Connection: close")),
    "64k": ("objects of 64 KiB", ("rate",), objects("/64k", 32)),
    "1m": ("objects of 1 MiB", ("rate",), objects("/1m", 32)),
    "down-1": ("bulk down, 1 stream", ("bytes",), bulk("down", 1)),
    "down-4": ("bulk down, 4 streams", ("bytes",), bulk("down", 4)),
    "up-1": ("bulk up, 1 stream", ("bytes",), bulk("up", 1)),
    "up-4": ("bulk up, 4 streams", ("bytes",), bulk("up", 4)),
}


def cell(load, target, seconds):
    """What `load` measures of `target`; of ours, also the shares that went by the short way."""
    ours = isinstance(target, targets.Agent)
    before = target.carried() if ours else None
    found = ALTERNATING[load][2](target, seconds)
    if ours:
        found["short"] = [(short - short_before) / max(1, total - total_before)
                          for (short, total), (short_before, total_before)
                          in zip(target.carried(), before)]
    return found


BULK = ("64k", "1m", "down-1", "down-4", "up-1", "up-4")
NAMES = ("idle", *ALTERNATING, "routes", "events")


def kernel_memory():
    """Bytes of slabs and of socket buffers, all of the machine."""
    with open("/proc/meminfo", encoding="utf-8") as file:
        slab = next(int(line.split()[1]) << 10 for line in file if line.startswith("Slab:"))
    with open("/proc/net/sockstat", encoding="utf-8") as file:
        words = next(line for line in file if line.startswith("TCP:")).split()
    return slab + int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGE_SIZE")


def settle(seconds=5):
    """The kernel frees what the last target's sockets held a little later than they are closed."""
    end = time.monotonic() + seconds
    last = None
    while time.monotonic() < end and last != (last := kernel_memory() >> 20):
        time.sleep(0.2)


def idle(target, connections=IDLE_CONNECTIONS):
    """Bytes a connection that is kept alive, and does nothing, of a process that is new."""
    own, kernel = target.memory(), kernel_memory()
    process = subprocess.Popen([LAB, "run", "client", *client("idle", target.web, connections)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout.readline().strip() != "open":
            raise Failure(f"{target.name}: {connections} idle connections cannot be had")
        time.sleep(0.3)     # what is freed later than the last answer
        return {"own": (target.memory() - own) / connections,
                "kernel": (kernel_memory() - kernel) / connections}
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def routes(lab, rounds, seconds, say, running):
    """[{number of routes: requests a second}], one a round. Agents with a daemon that lists as many
    containers, all at the one address; the client asks for the last."""
    daemons, agents = [], {}
    try:
        for number, count in enumerate(ROUTES):
            path = os.path.join(lab.scratch, f"docker-{count}.sock")
            daemons.append(lib_dockerd.Daemon(path))
            daemons[-1].add_many(count, lab.web)
            agents[count] = targets.Agent(
                lab, f"routes-{count}", 8051 + number, "--datapath", "relay", docker=path,
                domain=lib_dockerd.DOMAIN.format(count - 1))
            running.append(agents[count])
        for target in agents.values():
            target.wait()
        start = time.monotonic()
        until(lambda: all(daemon.quiet() for daemon in daemons), "the agents know all", 120)
        say(f"routes: the agents are quiet after {time.monotonic() - start:.1f} s")
        results = []
        for number in range(rounds):
            order = ROUTES[number % len(ROUTES):] + ROUTES[:number % len(ROUTES)]
            results.append({count: objects("/small", 32)(agents[count], seconds)["rate"]
                            for count in order})
            say(f"round {number + 1}  routes     " +
                "  ".join(f"{count}: {results[-1][count]:.0f}/s" for count in ROUTES))
        return results
    finally:
        for target in agents.values():
            target.stop()
            running.remove(target)
        for daemon in daemons:
            daemon.stop()
