# SPDX-License-Identifier: MIT
"""A reader that stops or is slow slows its writer: one connection holds at most 8 MiB in the agent.

What is held is sampled every 50 ms: of the agent's sockets r + t + w + f + o of `ss -m`, the
capacity of each of its pipes that holds something, and 64 KiB for what it may have in buffers.
"""
import fcntl
import itertools
import json
import os
import re
import termios
import threading

import lib
from exact import Held, held_container
from lib import ENGINES, KiB, MiB, check, expect, pattern, pattern_sha256, wait_for

SIZE = (1 << 30) if lib.LONG else 256 * MiB
SECONDS = 10 if lib.LONG else 2.5
BOUND = 8 * MiB
BUFFERS = 64 * KiB
F_GETPIPE_SZ = 1032
MEMORY = re.compile(r"skmem:\(r(\d+),rb\d+,t(\d+),tb\d+,f(\d+),w(\d+),o(\d+),")


def sockets_held(lab):
    """Bytes in the sockets of the edge that are the agent's: to clients, and to containers."""
    done = lab.edge("ss", "-tmnOH", "( sport = :80 or dport = :8000 )")
    found = MEMORY.findall(done.stdout)
    # ss prints f, which the kernel may find below zero for a moment (sk_forward_alloc), unsigned
    return len(found), sum((int(part) + 2**31) % 2**32 - 2**31 for match in found for part in match)


def pipes_held(pid):
    pipes = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{fd}"
        try:
            where = os.readlink(path)
            if not where.startswith("pipe:"):
                continue
            pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            filled = int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), "little")
            pipes[where] = fcntl.fcntl(pipe, F_GETPIPE_SZ) if filled else 0
        finally:
            os.close(pipe)
    return sum(pipes.values())


class Sampler:
    """Samples while it lasts; afterwards `most` is the maximum, in bytes."""

    def __init__(self, lab, agent):
        self.lab, self.agent = lab, agent
        self.most, self.samples, self.most_sockets, self.parts = 0, 0, 0, ()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.loop, daemon=True)

    def loop(self):
        while not self.stop.wait(0.05):
            count, in_sockets = sockets_held(self.lab)
            in_pipes = pipes_held(self.agent.pid)
            held = in_sockets + in_pipes + BUFFERS
            self.samples += 1
            self.most_sockets = max(self.most_sockets, count)
            if held > self.most:
                self.most, self.parts = held, (in_sockets, in_pipes)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def judge(self, what):
        lib.comment(f"{what}: at most {self.most / MiB:.2f} MiB held ({self.parts[0] / MiB:.2f} in "
                    f"sockets, {self.parts[1] / MiB:.2f} in pipes), {self.samples} samples")
        check(self.samples > SECONDS * 5, f"only {self.samples} samples")
        check(self.most_sockets >= 2, "the sockets were seen")
        check(self.most <= BOUND, f"{self.most} bytes held")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stay_stuck(agent):
    """For a while, in which nothing can move and the agent has nothing to do."""
    before = cpu_seconds(agent.pid)
    threading.Event().wait(SECONDS)
    used = cpu_seconds(agent.pid) - before
    check(used < SECONDS / 5, f"the agent used {used} s of CPU time while nothing moved")


def start(lab, engine):
    container = held_container(lab)
    agent = lab.agent("--datapath", engine)
    agent.wait_route("python.test", "python")
    return container, agent


def writer(client, size):
    def write():
        for piece in pattern(size, 256 * KiB):
            client.send(piece)
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def still(lab, agent):
    """Waits until what the agent has carried stops rising: then it is stuck."""
    last = {"bytes": -1, "times": 0}

    def same():
        stats = agent.stats()
        total = stats.relay_up_bytes + stats.relay_down_bytes + stats.short_bytes
        last["times"] = last["times"] + 1 if total == last["bytes"] else 0
        last["bytes"] = total
        return last["times"] > 20
    wait_for(same, "it is stuck", 10)
    return last["bytes"]


def stop_or_dawdle(lab, agent, client, answer, how, size=SIZE):
    """The client of an answer that has begun reads nothing for a while, or little; then all."""
    if how == "stops":
        carried = still(lab, agent)
        stay_stuck(agent)
        check(carried < min(size // 4, 64 * MiB), f"{carried} bytes carried to one who reads none")
    else:
        pause = threading.Event()
        for _ in range(int(SECONDS * 20)):  # 1.3 MB/s
            client.take(answer, 64 * KiB)
            pause.wait(0.05)
    client.take(answer, size - answer.size)
    expect((answer.size, answer.sha256), (size, pattern_sha256(size)), "the answer")


@lib.each(*itertools.product(ENGINES, ("stops", "is slow")))
def test_client(lab, engine, how):
    """a client that stops reading a large answer, or is slow"""
    _, agent = start(lab, engine)
    client = lab.connect(timeout=60)
    with Sampler(lab, agent) as sampler:
        client.request(f"/down?n={SIZE}", "python.test")
        stop_or_dawdle(lab, agent, client, client.head(), how)
    client.close()
    sampler.judge(f"{engine}, client {how}")
    expect(agent.stats().short_bytes, 0, "bytes by the short way, which HTTP does not take")


@lib.each(*itertools.product(ENGINES, ("stops", "is slow"), (16384, 1000)))
def test_stream(lab, engine, how, write):
    """a client that stops reading an upgraded stream, or is slow; the size of the writes"""
    size = SIZE if write > 1000 else SIZE // 4
    container, agent = start(lab, engine)
    client = lab.connect(timeout=60)
    with Sampler(lab, agent) as sampler:
        held = Held(agent, container, client, (size, write))
        held.go_on()
        stop_or_dawdle(lab, agent, client, lib.Response(0, "", {}), how, size)
        client.ends()
    client.close()
    sampler.judge(f"{engine}, client of a stream {how}, writes of {write}")
    short = held.moved().short_bytes
    check(short > 0 if engine != "relay" else not short, f"{short} bytes took the short way")


@lib.each(*ENGINES)
def test_container(lab, engine):
    """a container that stops reading a large upload"""
    container, agent = start(lab, engine)
    client = lab.connect(timeout=60)
    with Sampler(lab, agent) as sampler:
        client.request("/up?hold=1", "python.test", method="POST",
                       fields=(f"Content-Length: {SIZE}",))
        thread = writer(client, SIZE)
        carried = still(lab, agent)
        stay_stuck(agent)
        check(carried < 64 * MiB, f"{carried} bytes were carried to one who reads none")
        container.release()
        answer = json.loads(client.response().body)
        thread.join()
    expect((answer["size"], answer["sha256"]), (SIZE, pattern_sha256(SIZE)), "the upload")
    client.close()
    sampler.judge(f"{engine}, container stops")


@lib.each(*ENGINES)
def test_both(lab, engine):
    """both directions of a connection stuck at once"""
    container, agent = start(lab, engine)
    client = lab.connect(timeout=60)
    with Sampler(lab, agent) as sampler:
        client.request(f"/stuck?n={SIZE}", "python.test", method="POST",
                       fields=(f"Content-Length: {SIZE}",))
        thread = writer(client, SIZE)
        answer = client.head()
        still(lab, agent)
        stay_stuck(agent)
        container.release()
        client.take(answer, SIZE)
        thread.join()
        wait_for(lambda: container.log("body"), "the container has it all", 20)
    expect((answer.size, answer.sha256), (SIZE, pattern_sha256(SIZE)), "the answer")
    expect(container.log("body")[-1]["sha256"], pattern_sha256(SIZE), "the upload")
    client.close()
    sampler.judge(f"{engine}, both ways stuck")


@lib.each(*ENGINES)
def test_both_in_a_stream(lab, engine):
    """both directions of an upgraded stream stuck at once, the one after the other"""
    container, agent = start(lab, engine)
    client = lab.connect(timeout=60)
    with Sampler(lab, agent) as sampler:
        held = Held(agent, container, client, (SIZE, 16384), then="stay")
        held.go_on()
        still(lab, agent)
        short = held.moved().short_bytes
        check(short > 0 if engine != "relay" else not short, f"{short} bytes took the short way")
        thread = writer(client, SIZE)
        still(lab, agent)
        stay_stuck(agent)
        answer = lib.Response(0, "", {})
        client.take(answer, SIZE)   # and then the container reads what came
        thread.join()
        client.half_close()
        client.ends()
    expect((answer.size, answer.sha256), (SIZE, pattern_sha256(SIZE)), "the stream")
    expect(container.log("body")[-1]["sha256"], pattern_sha256(SIZE), "what the client sent")
    client.close()
    sampler.judge(f"{engine}, both ways of a stream stuck")


if __name__ == "__main__":
    lib.main("e2ememor")
