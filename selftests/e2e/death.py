# SPDX-License-Identifier: MIT
"""A container's ends: it exits, is killed, runs out of memory, restarts, goes, and comes elsewhere.

Requests run all the while (lib_load.py)."""
import lib
from lib import check, expect, wait_for
from lib_load import KNOWN, REACTS, Load, backend, listening, owners, start, when


# Exits

def exits(lab, load, container, how):
    """When it died."""
    told = load.event(f"the end of {container.name}")
    if how == "SIGKILL":
        container.kill()
    elif how == "oom":
        container.ask("eat")
    else:
        container.ask(f"exit {how}")
    at = when(lab, container, "die", told)
    load.lost(container.name, at)
    load.silent(container.name, at)
    return at


def test_exit(lab):
    """it ends: its requests go with it, no others; 503, then 404; a replica is not missed"""
    agent = start(lab)
    ends = {"zero": "0", "one": "1", "high": "137", "killed": "SIGKILL"}
    if lab.docker("info", "-f", "{{.MemoryLimit}}") == "true":
        ends["hungry"] = "oom"
    else:
        lib.comment("no case of oom: there is no memory cgroup")
    memory = ("-m", "48m", "--memory-swap", "48m")
    solos = {name: backend(lab, name, f"{name}.test", options=memory if how == "oom" else ())
             for name, how in ends.items()}
    pool = {f"pool{i}": backend(lab, f"pool{i}", "pool.test", options=memory)
            for i in range(len(ends) + 1)}
    agent.wait_route("pool.test", *pool)
    with Load(lab, owners(pool=list(pool), **{name: name for name in solos})) as load:
        for name in pool:
            load.wait("pool.test", name, 1)
        for (name, how), member in zip(ends.items(), pool.values()):
            load.wait(f"{name}.test", name)
            exits(lab, load, member, how)
            died = exits(lab, load, solos[name], how)
            load.only(f"{name}.test", 503, since=died - REACTS).end(died + KNOWN + 0.5)
            load.only(f"{name}.test", 404, since=died - 0.01)
        for name in solos:
            load.wait(f"{name}.test", 404, 10)
        load.wait("pool.test", list(pool)[-1], 20)
        agent.wait_route("pool.test", list(pool)[-1])
        if "hungry" in solos:   # Docker 20.10 says that it is no oom where cgroups are hybrid
            expect(lab.docker("inspect", "-f", "{{.State.ExitCode}}", "hungry"), "137", "exit code")


# Restarts

@lib.each("SIGTERM", "none")
def test_restart(lab, grace):
    """docker restart: 503 and never 404 in between; a replica is not missed"""
    agent = start(lab)
    environ = {"GRACE": grace} if grace != "none" else {}
    solo, left, _ = (backend(lab, name, domain, environ=environ) for name, domain in (
        ("solo", "solo.test"), ("left", "duo.test"), ("right", "duo.test")))
    agent.wait_route("solo.test", "solo")
    agent.wait_route("duo.test", "left", "right")
    with Load(lab, owners(solo="solo", duo=["left", "right"])) as load:
        for domain, name in (("solo.test", "solo"), ("duo.test", "left"), ("duo.test", "right")):
            load.wait(domain, name)
        with load.only("solo.test", 503):
            load.event("docker restart")
            lab.docker("restart", solo.id, left.id)
            listening(load, lab, solo, "solo.test")
        if grace == "none":
            for container in (solo, left):
                load.lost(container.name, when(lab, container, "die"))
        load.wait("solo.test", "solo", 20)
        load.wait("duo.test", "left")
        load.wait("duo.test", "right")


def test_crash_loop(lab):
    """restarted by its policy, again and again: 503 while Docker has it as restarting, never 404"""
    agent = start(lab)
    loop = backend(lab, "loop", "loop.test", options=("--restart", "always"))
    agent.wait_route("loop.test", "loop")

    def state():
        return lab.docker("inspect", "-f", "{{.State.Status}}", loop.id)
    with Load(lab, owners(loop="loop")) as load:
        longest = 0
        for number in range(6):     # Docker waits twice as long each time
            load.wait("loop.test", "loop")
            with load.only("loop.test", 503):
                told = load.event(f"crash {number}")
                loop.ask("exit 1")
                died = when(lab, loop, "die", told)
                load.lost("loop", died)
                if number > 4:
                    expect(state(), "restarting", "the container's state")
                    load.wait("loop.test", 503, 20)
                begun = when(lab, loop, "start", told)
                longest = max(longest, begun - died)
                listening(load, lab, loop, "loop.test")
            load.wait("loop.test", "loop", 10)
        lib.comment(f"it was away for up to {longest:.1f} s")
        check(longest > KNOWN + 0.5, "it was away for longer than a stopped container is known")


# Gone, and come again

def test_destroyed(lab):
    """docker rm -f: 404 at once"""
    agent = start(lab)
    doomed = backend(lab, "doomed", "doomed.test")
    agent.wait_route("doomed.test", "doomed")
    with Load(lab, owners(doomed="doomed")) as load:
        load.wait("doomed.test", "doomed")
        waiting = load.only("doomed.test", 503)
        load.event("docker rm -f")
        doomed.remove()
        died, gone = (when(lab, doomed, action) for action in ("die", "destroy"))
        load.lost("doomed", died)
        load.only("doomed.test", 404, since=died - 0.01)
        waiting.end(gone + REACTS)
        load.silent("doomed", died)
        load.wait("doomed.test", 404, 40)


def test_recreated(lab):
    """removed and made again under its name, with another address: the new one is served"""
    agent = start(lab)
    old = backend(lab, "phoenix", "phoenix.test")
    agent.wait_route("phoenix.test", "phoenix")
    with Load(lab, owners(phoenix="phoenix")) as load:
        load.wait("phoenix.test", "phoenix")
        with load.only("phoenix.test", 503, 404):
            load.event("docker rm -f")
            old.remove()
            load.lost("phoenix", when(lab, old, "die"))
            filler = lab.container("filler", image="busybox")
            new = backend(lab, "phoenix", "phoenix.test")
            check(new.address != old.address, "it has another address")
            listening(load, lab, new, "phoenix.test")
        load.wait("phoenix.test", "phoenix", 20)
        filler.remove()


class Subnet:
    """A network in which containers have the addresses that one gives them."""

    def __init__(self, lab):
        self.lab = lab

    def __enter__(self):
        self.lab.docker("network", "create", "--subnet", "198.18.7.0/24", "fixed")
        return self

    def at(self, number):
        return ("--network", "fixed", "--ip", f"198.18.7.{number}")

    def move(self, containers, numbers):
        """Of stopped containers."""
        for container in containers:
            self.lab.docker("network", "disconnect", "fixed", container.id)
        for container, number in zip(containers, numbers):
            self.lab.docker("network", "connect", *self.at(number)[2:], "fixed", container.id)

    def __exit__(self, *_):
        for container in list(self.lab.containers):
            container.remove()
        self.lab.docker("network", "rm", "fixed")


@lib.each(*lib.ENGINES)
def test_address_taken(lab, engine):
    """a new container gets the address of one that is gone: its requests only, on kept connections"""
    agent = start(lab, "--datapath", engine)
    with Subnet(lab) as subnet:
        old = backend(lab, "old", "old.test", options=subnet.at(9))
        agent.wait_route("old.test", "old")
        with Load(lab, owners(old="old", new="new"), extra=["new.test"]) as load:
            load.wait("old.test", "old", 30)
            load.only("old.test", 503, 404)
            load.event("docker rm -f")
            old.remove()
            load.lost("old", when(lab, old, "die"))
            load.silent("old", when(lab, old, "die"))
            with load.only("new.test", 404):
                load.add("new.test")
                new = backend(lab, "new", "new.test", options=subnet.at(9))
                expect(new.address, old.address, "its address")
                listening(load, lab, new, "new.test")
            load.wait("new.test", "new", 40)
            load.wait("old.test", 404, 40)


def test_addresses_swapped(lab):
    """two containers stop and start with each other's address: each answers for its own domain"""
    agent = start(lab)
    with Subnet(lab) as subnet:
        pair = [backend(lab, name, f"{name}.test", options=subnet.at(number))
                for name, number in (("ada", 11), ("bob", 12))]
        for container in pair:
            agent.wait_route(f"{container.name}.test", container.name)
        with Load(lab, owners(ada="ada", bob="bob")) as load:
            for container in pair:
                load.wait(f"{container.name}.test", container.name)
            windows = [load.only(f"{c.name}.test", 503, 404) for c in pair]
            load.event("both stop")
            lab.docker("stop", *(c.id for c in pair))
            for container in pair:
                load.lost(container.name, when(lab, container, "die"))
            subnet.move(pair, (12, 11))
            addresses = [c.address for c in pair]
            for container in pair:
                container.start()
                listening(load, lab, container, f"{container.name}.test")
            expect([c.address for c in pair], addresses[::-1], "addresses")
            for window in windows:
                window.end()
            for container in pair:
                load.wait(f"{container.name}.test", container.name, 30)


if __name__ == "__main__":
    lib.main("e2edeath")
