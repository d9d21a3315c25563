# SPDX-License-Identifier: MIT
"""A container's life while it runs: created, started, sick, paused, renamed, moved, told to stop.

Requests run all the while (lib_load.py)."""
import time

import lib
from lib import check, expect, wait_for
from lib_load import KNOWN, REACTS, Load, backend, listening, owners, start, steady, when


# Before the first list

def test_first_list(lab):
    """before Docker has been read every domain answers 503, and from then on the unknown one 404"""
    steady(lab)
    link = f"{lab.dir}/late.sock"
    agent = lab.agent("--docker-socket", link, ready=False)
    wait_for(lambda: agent.status().get("running"), "the agent runs")
    load = Load(lab, owners(unknown=[]))
    before = [load.only(domain, 503) for domain in ("steady.test", "unknown.test")]
    try:
        with load:
            for window in before:
                load.wait(window.domain, 503)
            lib.must("ln", "-s", lab.docker_socket, link)
            load.only("unknown.test", 404)
            for window, who in zip(before, ("steady", 404)):
                load.wait(window.domain, who)
                window.end()
                load.wait(window.domain, who, 20)
    finally:
        lib.must("rm", "-f", link)


# Started, sick, paused

def test_start(lab):
    """a container that was only created is unknown; it is served as soon as it has been started"""
    agent = start(lab)
    born = backend(lab, "born", "born.test", run=False)
    load = Load(lab, owners(born="born"))
    early = load.only("born.test", 404)
    with load:
        load.wait("born.test", 404, 20)
        expect(agent.routes().get("born.test"), None, "routes of one that was never started")
        load.event("start")
        born.start()
        listening(load, lab, born, "born.test")
        early.end()
        load.wait("born.test", "born", 20)


def test_health(lab):
    """starting, healthy, unhealthy, healthy: 503 unless it is healthy, and never 404"""
    agent = start(lab)
    frail = backend(lab, "frail", "frail.test", options=(
        "--health-cmd", "test -e /tmp/well", "--health-interval", "200ms", "--health-retries", "1",
        "--health-start-period", "60s"))
    wait_for(lambda: agent.states("frail.test") == {"frail": "starting"}, "it is starting")
    load = Load(lab, owners(frail="frail"))
    down = load.only("frail.test", 503)
    with load:
        load.wait("frail.test", 503, 20)
        healthy_again(lab, load, frail, down)
        down = load.only("frail.test", 503)
        load.event("unhealthy")
        lab.docker("exec", frail.id, "rm", "/tmp/well")
        wait_for(lambda: agent.states("frail.test") == {"frail": "unhealthy"}, "it is unhealthy")
        load.wait("frail.test", 503, 20, time.monotonic() + REACTS)
        healthy_again(lab, load, frail, down)


def healthy_again(lab, load, frail, down):
    """It has not got any request for a while."""
    load.silent("frail", load.wait("frail.test", 503), load.event("healthy"))
    lab.docker("exec", frail.id, "touch", "/tmp/well")
    load.wait("frail.test", "frail")
    down.end()
    load.wait("frail.test", "frail", 20)


def test_health_of_a_replica(lab):
    """one replica turns unhealthy and healthy again, and no request fails"""
    agent = start(lab)
    sides = [backend(lab, f"side{i}", "sides.test", options=(
        "--health-cmd", "test ! -e /tmp/sick", "--health-interval", "200ms",
        "--health-retries", "1")) for i in range(2)]
    agent.wait_route("sides.test", "side0", "side1")
    both = {"side0": "active", "side1": "active"}
    wait_for(lambda: agent.states("sides.test") == both, "both are healthy")
    with Load(lab, owners(sides=["side0", "side1"])) as load:
        for name in ("side0", "side1"):
            load.wait("sides.test", name)
        load.event("unhealthy")
        lab.docker("exec", sides[0].id, "touch", "/tmp/sick")
        wait_for(lambda: agent.states("sides.test") == {**both, "side0": "unhealthy"}, "unhealthy")
        since = time.monotonic() + REACTS
        load.wait("sides.test", "side1", 40)
        load.silent("side0", since, load.event("healthy"))
        lab.docker("exec", sides[0].id, "rm", "/tmp/sick")
        load.wait("sides.test", "side0")


def test_pause(lab):
    """paused: 503, what was under way is answered when it goes on; a paused replica is not missed"""
    agent = start(lab)
    frozen = [backend(lab, name, domain) for name, domain in (
        ("alone", "alone.test"), ("iced", "pair.test"), ("warm", "pair.test"))]
    agent.wait_route("alone.test", "alone")
    agent.wait_route("pair.test", "iced", "warm")
    with Load(lab, owners(alone="alone", pair=["iced", "warm"])) as load:
        for name in ("iced", "warm"):
            load.wait("pair.test", name)
        with load.only("alone.test", 503):
            load.event("pause")
            lab.docker("pause", frozen[0].id, frozen[1].id)
            load.wait("alone.test", 503, 20)
            load.wait("pair.test", "warm", 20)
            load.event("unpause")
            lab.docker("unpause", frozen[0].id, frozen[1].id)
            load.wait("alone.test", "alone")
        load.wait("pair.test", "iced", 10)


# Renamed and moved

def test_rename(lab):
    """a container that is renamed: `routes` shows the new name, and no request fails"""
    agent = start(lab)
    lab.container("rival", "steady.test", image="busybox", wait=False)
    wait_for(lambda: "steady" in agent.refused().get("rival", {}).get("reason", ""), "a conflict")
    with Load(lab, owners()) as load:       # who goes on to say its first name
        for name in ("married", "steady"):
            load.event("rename")
            lab.docker("rename", steady(lab).id, name)
            agent.wait_route("steady.test", name)
            wait_for(lambda: name in agent.refused()["rival"]["reason"], "the conflict says so too")
            load.wait("steady.test", "steady", 20)


def test_networks(lab):
    """networks are connected and disconnected: the route follows, and without any it says why"""
    agent = start(lab, "--drain-timeout", "1s")
    for name in ("near", "far"):
        lab.docker("network", "create", name)
    mover = backend(lab, "mover", "mover.test", options=("--network", "near"))
    try:
        agent.wait_route("mover.test", "mover")
        with Load(lab, owners(mover="mover")) as load:
            load.wait("mover.test", "mover")
            lab.docker("network", "connect", "far", mover.id)
            load.wait("mover.test", "mover", 20)
            with load.only("mover.test", 503, 404):     # between two addresses
                load.lost("mover", move(lab, load, agent, "near", mover))
                load.wait("mover.test", "mover")
            load.wait("mover.test", "mover", 20)
            with load.only("mover.test", 503, 404):
                load.lost("mover", move(lab, load, agent, "far", mover))
                load.wait("mover.test", (503, 404), 20)
                wait_for(lambda: "mover" in agent.refused(), "it is listed as rejected")
                check(agent.refused()["mover"]["reason"], "with a reason")
                lab.docker("network", "connect", "near", mover.id)
                load.wait("mover.test", "mover")
            load.wait("mover.test", "mover", 20)
            expect(agent.refused(), {}, "rejected when all is well again")
    finally:
        mover.remove()
        lab.docker("network", "rm", "near", "far")


def move(lab, load, agent, network, container):
    """Takes the network away. When the last request may have gone to its address there."""
    load.event(f"network disconnect {network}")
    lab.docker("network", "disconnect", network, container.id)
    return time.monotonic()


# Told to stop

def test_stop(lab):
    """docker stop: no further request, all under way are answered; 503, then 404; replicas take over"""
    agent = start(lab)
    # Each by its own stop signal; of the two for one domain the one.
    signals = {"term": "SIGTERM", "quit": "SIGQUIT", "usr1": "SIGUSR1", "left": "SIGQUIT"}
    stopped = [backend(lab, name, f"{'duo' if name == 'left' else name}.test",
                       environ={"GRACE": stop_signal}, options=("--stop-signal", stop_signal))
               for name, stop_signal in signals.items()]
    solos = stopped[:3]
    backend(lab, "right", "duo.test")
    agent.wait_route("duo.test", "left", "right")
    with Load(lab, owners(duo=["left", "right"], **{c.name: c.name for c in solos})) as load:
        for container in solos:
            load.wait(f"{container.name}.test", container.name)
        for name in ("left", "right"):
            load.wait("duo.test", name)
        drained = [load.only(f"{c.name}.test", 503) for c in solos]
        told = load.event("docker stop")
        lab.docker("stop", *(c.id for c in stopped))
        for container in stopped:
            ended = when(lab, container, "die")
            check(ended - told < 5, f"{container.name} ends by itself, after {ended - told:.1f} s")
            load.silent(container.name, when(lab, container, "kill") + REACTS)
        for container, window in zip(solos, drained):
            ended = when(lab, container, "die")
            load.only(window.domain, 404, since=ended - 0.01)
            load.wait(window.domain, 404, 1)
            window.end(ended + KNOWN + 0.5)
            load.wait(window.domain, 404, 10)
            agent.wait_route(window.domain)
        load.wait("duo.test", "right", 10)
        agent.wait_route("duo.test", "right")


def test_other_signals(lab):
    """other signals than the stop signal change nothing, nor does SIGTERM where that is not it"""
    agent = start(lab)
    tough = backend(lab, "tough", "tough.test", environ={"IGNORE_TERM": 1},
                    options=("--stop-signal", "SIGUSR1"))
    agent.wait_route("tough.test", "tough")
    with Load(lab, owners(tough="tough")) as load:
        for name in ("HUP", "WINCH", "TERM", "QUIT"):
            load.event(name)
            tough.kill(name)
            load.wait("tough.test", "tough", 10)
            expect(agent.states("tough.test"), {"tough": "active"}, f"states after {name}")


def test_stubborn(lab):
    """one that ignores its stop signal and still runs 10 s after its stop timeout is active again"""
    agent = start(lab, "--drain-timeout", "12s")
    stubborn = backend(lab, "stubborn", "stubborn.test", environ={"IGNORE_TERM": 1},
                       options=("--stop-timeout", "1"))
    agent.wait_route("stubborn.test", "stubborn")
    with Load(lab, owners(stubborn="stubborn")) as load:
        stream = lab.connect()
        stream.upgrade("echo", "stubborn.test")
        with load.only("stubborn.test", 503):
            told = load.event("the stop signal")
            stubborn.kill("TERM")
            wait_for(lambda: agent.states("stubborn.test") == {"stubborn": "draining"}, "draining")
            again = load.wait("stubborn.test", "stubborn", 1, time.monotonic() + REACTS, 20)
        load.silent("stubborn", when(lab, stubborn, "kill") + REACTS, told + 10.5)
        check(10.5 < again - told < 14, f"it was active again after {again - told:.1f} s")
        expect(agent.states("stubborn.test"), {"stubborn": "active"}, "states")
        load.wait("stubborn.test", "stubborn", 1, told + 13)    # past the time for draining
        stream.send(b"hello")
        expect(stream.file.read(5), b"hello", "what comes back on a stream from before")
        stream.close()
        with load.only("stubborn.test", 503):   # and a second time
            stubborn.kill("TERM")
            load.wait("stubborn.test", 503)


def test_drain_timeout(lab):
    """what is still open to a draining container is cut after --drain-timeout, streams too"""
    agent = start(lab, "--drain-timeout", "1500ms")
    clinger = backend(lab, "clinger", "clinger.test", environ={"IGNORE_TERM": 1})
    agent.wait_route("clinger.test", "clinger")
    steady(lab).ask("arm")
    with Load(lab, owners(clinger="clinger")) as load:
        load.wait("clinger.test", "clinger")
        stream, other, request = lab.connect(), lab.connect(), lab.connect()
        stream.upgrade("echo", "clinger.test")
        other.upgrade("echo", "steady.test")
        request.request("/hint", "clinger.test")
        expect(request.head().status, 103, "what comes before the answer")
        with load.only("clinger.test", 503):
            told = load.event("the stop signal")
            clinger.kill("TERM")
            load.wait("clinger.test", 503, 40)  # the slow ones have had their answers by then
            stream.send(b"hello")
            expect(stream.file.read(5), b"hello", "what comes back while it drains")
            for client, what in ((stream, "the stream"), (request, "the request")):
                ended = end_of(client)
                check(1.4 < ended - told < 4, f"{what} was cut after {ended - told:.1f} s")
            other.send(b"hello")
            expect(other.file.read(5), b"hello", "what comes back from another container")
            load.wait("clinger.test", 503)
        for client in (stream, other, request):
            client.close()
        load.only("clinger.test", 503)


def end_of(client):
    """When the connection has ended, or was reset."""
    try:
        client.sock.settimeout(10)
        expect(client.file.read(1), b"", "what comes before the end")
    except ConnectionError:
        pass
    return time.monotonic()


if __name__ == "__main__":
    lib.main("e2elife")
