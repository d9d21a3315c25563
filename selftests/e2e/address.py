# SPDX-License-Identifier: MIT
"""At which address a container is reached, and where it is not routed at all.

Requests run all the while (lib_load.py)."""
import contextlib
import http.client
import json
import os
import socket
import threading
import time

import lib
from lib import check, expect, wait_for
from lib_load import Load, backend, owners, start, when


@contextlib.contextmanager
def networks(lab, **made):
    """name=("options of docker network create",)"""
    for name, options in made.items():
        lab.docker("network", "create", *options, name)
    try:
        yield
    finally:
        for container in list(lab.containers):
            container.remove()
        lab.docker("network", "rm", *made)


def address_on(lab, container, network, field="IPAddress"):
    return lab.docker("inspect", "-f",
                      f'{{{{(index .NetworkSettings.Networks "{network}").{field}}}}}', container.id)


def routed(agent, domain):
    """Address, port and via of its only backend."""
    found = [b for r in agent.document("routes")["routes"] if r["domain"] == domain
             for b in r["backends"]]
    return (found[0]["address"], found[0]["port"], found[0].get("via")) if len(found) == 1 else None


def goes_to(agent, domain, address, port, via=None):
    """It is routed there, and `routes` says by which network."""
    wait_for(lambda: (routed(agent, domain) or ())[:2] == (address, port),
             f"{domain} is routed to {address}:{port}")
    text = routed(agent, domain)[2]
    check(text, f"{domain}: no word of why this address")
    if via:
        check(via in text, f"{domain}: {text!r} does not name {via}")


def rejected(agent, name, *words, label=None):
    """It is listed as rejected, with a reason that has all these words; and no longer routed."""
    wait_for(lambda: name in agent.refused(), f"{name} is rejected", 25)
    entry = agent.refused()[name]
    for word in words:
        check(word in entry["reason"], f"the reason of {name}: {entry['reason']!r} without {word!r}")
    if label:
        expect(entry["label"], label, f"the label that rejects {name}")
    check(not any(name in names for names in agent.routes().values()), f"{name} is not routed")
    check(agent.logs("WARN", container=name), f"a WARN names {name}")


# Several networks

def test_several(lab):
    """of several networks the label's, else the first by name; a change loses no request"""
    agent = start(lab)
    with networks(lab, alpha=(), beta=()):
        free = backend(lab, "free", "free.test", options=("--network", "beta"))
        bound = backend(lab, "bound", "bound.test", options=("--network", "beta"),
                        labels={"kakuremichi.network": "beta"})
        goes_to(agent, "free.test", address_on(lab, free, "beta"), 8000, "beta")
        with Load(lab, owners(free="free", bound="bound")) as load:
            load.wait("free.test", "free")
            for container in (free, bound):
                load.event("network connect alpha")
                lab.docker("network", "connect", "alpha", container.id)
            goes_to(agent, "free.test", address_on(lab, free, "alpha"), 8000, "alpha")
            goes_to(agent, "bound.test", address_on(lab, bound, "beta"), 8000, "beta")
            for name in ("free", "bound"):
                load.wait(f"{name}.test", name, 20)


def test_unreachable(lab):
    """a network that this host cannot reach comes last: a macvlan, a bridge without an address"""
    agent = start(lab)
    macvlan = ("-d", "macvlan", "--subnet", "198.18.8.0/24", "-o", "parent=edge0")
    bridge = ("--subnet", "198.18.9.0/24", "-o", "com.docker.network.bridge.name=kkmbare")
    with networks(lab, aamac=macvlan, abbare=bridge, zz=()):
        lib.must("ip", "-n", lab.edge_ns, "addr", "flush", "dev", "kkmbare")
        far = backend(lab, "far", "far.test", options=("--network", "zz"))
        goes_to(agent, "far.test", far.address, 8000, "zz")
        with Load(lab, owners(far="far")) as load:
            for network in ("aamac", "abbare"):
                load.event(f"network connect {network}")
                lab.docker("network", "connect", network, far.id)
                load.wait("far.test", "far", 20)
                goes_to(agent, "far.test", address_on(lab, far, "zz"), 8000, "zz")


def test_label_of_another_network(lab):
    """kakuremichi.network names one that it is not on: rejected, and routed once it is connected"""
    agent = start(lab, "--drain-timeout", "1s")
    with networks(lab, here=(), there=()):
        guest = backend(lab, "visitor", "visitor.test", options=("--network", "here"),
                        labels={"kakuremichi.network": "there"})
        with Load(lab, owners(visitor="visitor"), extra=["visitor.test"]) as load:
            for _ in range(2):
                rejected(agent, "visitor", "network", label="kakuremichi.network")
                with load.only("visitor.test", 404):
                    load.add("visitor.test")
                    load.wait("visitor.test", 404, 10)
                    load.event("network connect")
                    lab.docker("network", "connect", "there", guest.id)
                    load.wait("visitor.test", "visitor")
                goes_to(agent, "visitor.test", address_on(lab, guest, "there"), 8000, "there")
                load.wait("visitor.test", "visitor", 10)
                load.only("visitor.test", 404, 503)
                load.event("network disconnect")
                lab.docker("network", "disconnect", "there", guest.id)
                load.lost("visitor", time.monotonic())
                load.wait("visitor.test", (404, 503), 10)


def test_no_network_yet(lab):
    """one that runs without a network is rejected, and routed as soon as it has one"""
    agent = start(lab)
    with networks(lab, late=()):
        bare = backend(lab, "bare", "bare.test", options=("--network", "none"), wait=False)
        rejected(agent, "bare", "address")
        load = Load(lab, owners(bare="bare"))
        early = load.only("bare.test", 404)
        with load:
            load.wait("bare.test", 404)
            lab.docker("network", "disconnect", "none", bare.id)
            load.event("network connect")
            lab.docker("network", "connect", "late", bare.id)
            load.wait("bare.test", "bare")
            early.end()
            load.wait("bare.test", "bare", 20)
        goes_to(agent, "bare.test", address_on(lab, bare, "late"), 8000, "late")
        expect(agent.refused(), {}, "rejected")


# The host's network, another container's

def test_host(lab):
    """network_mode host: 127.0.0.1; container:X of such a one too"""
    agent = start(lab)
    backend(lab, "host", "host.test", network="host", port=8123, control=9123)
    backend(lab, "beside", "beside.test", network="container:host", port=8124, control=9124)
    goes_to(agent, "host.test", "127.0.0.1", 8123, "host")
    goes_to(agent, "beside.test", "127.0.0.1", 8124, "host")
    load = Load(lab, owners(host="host", beside="beside"))
    early = load.only("beside.test", 502)   # lib.Container waits only for those with an address
    with load:
        load.wait("beside.test", "beside")
        early.end()
        for name in ("host", "beside"):
            load.wait(f"{name}.test", name, 20)


@lib.each("80", "443")
def test_own_listener(lab, port):
    """a route that would lead to the agent's own listener is rejected; on other ports it is none"""
    agent = start(lab)
    labels = {"kakuremichi.port": port}
    lab.container("mirror", "mirror.test", image="busybox", network="host", labels=labels,
                  command=("sleep", "600"), wait=False)
    lab.container("behind", "behind.test", image="busybox", network="container:mirror",
                  labels=labels, command=("sleep", "600"), wait=False)
    for name in ("mirror", "behind"):
        rejected(agent, name, label="kakuremichi.port")
    load = Load(lab, owners(mirror=[], behind=[]))
    for domain in ("mirror.test", "behind.test"):
        load.only(domain, 404)
    with load:
        for name in ("mirror", "behind"):
            load.wait(f"{name}.test", 404, 10)
    expect(agent.stop(), 0, "exit status")
    other = lab.agent("--listen-http", "0.0.0.0:81", "--listen-tls", "off")
    for name in ("mirror", "behind"):
        goes_to(other, f"{name}.test", "127.0.0.1", int(port))


def guest_of(lab, agent):
    """Of a carrier without labels, on network one."""
    carrier = lab.container("carrier", options=("--network", "one"))
    guest = backend(lab, "guest", "guest.test", network="container:carrier", port=8124, control=9124)
    guest.address = carrier.address
    goes_to(agent, "guest.test", carrier.address, 8124, carrier.id[:12])
    wait_for(guest.listens, "the guest listens")
    return carrier, guest


def test_carrier_moves(lab):
    """network_mode container:X: X's address, also when X goes to another network"""
    agent = start(lab, "--drain-timeout", "1s")
    with networks(lab, one=(), two=()):
        carrier, guest = guest_of(lab, agent)
        with Load(lab, owners(guest="guest")) as load:
            load.wait("guest.test", "guest")
            lab.docker("network", "connect", "two", carrier.id)
            load.wait("guest.test", "guest", 20)
            with load.only("guest.test", 404, 503):
                load.event("network disconnect")
                lab.docker("network", "disconnect", "one", carrier.id)
                load.lost("guest", time.monotonic())
                load.wait("guest.test", "guest")
            goes_to(agent, "guest.test", address_on(lab, carrier, "two"), 8124, carrier.id[:12])
            load.wait("guest.test", "guest", 20)


def test_carrier_network(lab):
    """kakuremichi.network of a container:X is a network of X"""
    agent = start(lab)
    with networks(lab, one=(), two=()):
        carrier = lab.container("carrier", options=("--network", "one"))
        guest = backend(lab, "guest", "guest.test", network="container:carrier", port=8124,
                        control=9124, labels={"kakuremichi.network": "two"})
        rejected(agent, "guest", label="kakuremichi.network")
        lab.docker("network", "connect", "two", carrier.id)
        guest.address = address_on(lab, carrier, "two")
        goes_to(agent, "guest.test", guest.address, 8124, "two")
        with Load(lab, owners(guest="guest")) as load:
            load.wait("guest.test", "guest", 20)


def test_carrier_restarts(lab):
    """X stops: its guest is not routed; X and the guest restarted, at another address: it is"""
    agent = start(lab, "--drain-timeout", "1s")
    with networks(lab, one=("--subnet", "198.18.8.0/24")):
        carrier, guest = guest_of(lab, agent)
        with Load(lab, owners(guest="guest")) as load:
            load.wait("guest.test", "guest")
            # The guest's process lives on in a namespace that has lost its network.
            away = load.only("guest.test", 404, 503)
            load.event("X stops")
            lab.docker("stop", carrier.id)
            load.lost("guest", when(lab, carrier, "die"))
            load.wait("guest.test", (404, 503), 20)
            lab.docker("network", "disconnect", "one", carrier.id)
            lab.docker("network", "connect", "--ip", "198.18.8.77", "one", carrier.id)
            begun = load.event("X starts")
            carrier.start()
            mute = load.only("guest.test", 502, since=begun)   # X is there, the guest not yet
            lab.docker("restart", "-t", "0", guest.id)
            guest.address = "198.18.8.77"
            load.wait("guest.test", "guest")
            away.end()
            mute.end()
            goes_to(agent, "guest.test", "198.18.8.77", 8124, carrier.id[:12])
            load.wait("guest.test", "guest", 20)


# What Docker 20.10 does not have: containers without an IPv4 address of their own

class Retold:
    """The daemon's socket once more, with what `change` makes of each container in a list."""

    def __init__(self, lab, change):
        self.lab, self.change, self.path = lab, change, f"{lab.dir}/retold.sock"

    def __enter__(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.serve, daemon=True).start()
        return self.path

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        os.unlink(self.path)

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.one, args=(self.listener.accept()[0],),
                                 daemon=True).start()

    def one(self, client):
        with client, contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as daemon:
            daemon.connect(self.lab.docker_socket)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1) or b"\r\n\r\n"
            daemon.sendall(head[:-2] + b"Connection: close\r\n\r\n")
            if b"/containers/json" in head:
                answer = http.client.HTTPResponse(daemon)
                answer.begin()
                body = json.dumps([self.change(c) for c in json.load(answer)]).encode()
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                               b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                return
            while piece := daemon.recv(65536):
                client.sendall(piece)


def without_address(container):
    for network in container["NetworkSettings"]["Networks"].values():
        network["IPAddress"] = ""
    return container


def test_published(lab):
    """no address of its own, but a published port: that, and where it is published on all, 127.0.0.1"""
    everywhere = backend(lab, "wide", "wide.test", options=("-p", "8098:8000"))
    some = backend(lab, "narrow", "narrow.test", options=("-p", f"{lab.edge_addr}:8099:8000"))
    other = backend(lab, "closed", "closed.test", options=("-p", "8097:9000"))
    with Retold(lab, without_address) as path:
        agent = lab.agent("--docker-socket", path)
        goes_to(agent, "wide.test", "127.0.0.1", 8098)
        goes_to(agent, "narrow.test", lab.edge_addr, 8099)
        load = Load(lab, {"wide.test": ["wide"], "narrow.test": ["narrow"], "closed.test": []})
        load.only("closed.test", 404, 503)  # its address may still come
        with load:
            load.wait("wide.test", "wide", 20)
            load.wait("narrow.test", "narrow", 20)
            load.only("wide.test", 404, 503)
            load.event("the end of one")
            everywhere.remove()
            load.lost("wide", when(lab, everywhere, "die"))
            load.wait("wide.test", 404, 20)
            load.wait("narrow.test", "narrow", 20)
        expect(agent.stop(), 0, "exit status")
    for container in (some, other):
        container.remove()


def test_published_elsewhere(lab):
    """an agent that reaches none of its networks, but the published port: that"""
    with networks(lab, away=("--subnet", "198.18.8.0/24")):
        backend(lab, "away", "away.test",
                options=("--network", "away", "-p", f"{lab.edge_addr}:8096:8000"))
        agent = lab.agent(ns="client")
        goes_to(agent, "away.test", lab.edge_addr, 8096)
        with Load(lab, {"away.test": ["away"]}, address=lab.client_addr) as load:
            load.wait("away.test", "away", 20)
        expect(agent.stop(), 0, "exit status")


def test_ipv6_only(lab):
    """no IPv4 address: the IPv6 one"""
    with networks(lab, six=("--ipv6", "--subnet", "fd6b:6b6d:6::/64")), \
            Retold(lab, without_address) as path:
        six = backend(lab, "six", "six.test", options=("--network", "six"), environ={"FAMILY": 6})
        agent = lab.agent("--docker-socket", path)
        goes_to(agent, "six.test", address_on(lab, six, "six", "GlobalIPv6Address"), 8000, "six")
        with Load(lab, {"six.test": ["six"]}) as load:
            load.wait("six.test", "six", 20)
        expect(agent.stop(), 0, "exit status")


if __name__ == "__main__":
    lib.main("e2eaddr")
