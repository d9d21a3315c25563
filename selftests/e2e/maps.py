# SPDX-License-Identifier: MIT
"""The pinned maps: for people to read, and what the programs go by."""
import ctypes
import json
import os
import platform
import threading

import lib
import lib_backend
from lib import check, expect, wait_for

BPF_MAP_LOOKUP_ELEM, BPF_OBJ_GET = 1, 7
NR_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
DOMAIN_LEN = 256
_libc = ctypes.CDLL(None, use_errno=True)


class Route(ctypes.Structure):
    """struct kkm_route"""
    _fields_ = [("port", ctypes.c_uint32), ("address", ctypes.c_uint8 * 4),
                ("address6", ctypes.c_uint8 * 16), ("backend_count", ctypes.c_uint32),
                ("state", ctypes.c_uint32), ("owner", ctypes.c_uint32)]


class Attributes(ctypes.Structure):
    """union bpf_attr, of the two commands that are needed"""
    _fields_ = [("map_fd", ctypes.c_uint64), ("key", ctypes.c_uint64), ("value", ctypes.c_uint64),
                ("flags", ctypes.c_uint64)]


def bpf(command, attributes):
    return _libc.syscall(NR_BPF, command, ctypes.byref(attributes), ctypes.sizeof(attributes))


class Routes:
    """kkm_routes by the system call, many thousand times a second."""

    def __init__(self, lab):
        path = ctypes.create_string_buffer(f"{lab.bpf_dir}/kkm_routes".encode())
        self.fd = bpf(BPF_OBJ_GET, Attributes(map_fd=ctypes.addressof(path)))
        check(self.fd >= 0, "kkm_routes can be opened")

    def lookup(self, domain):
        key = ctypes.create_string_buffer(domain.encode(), DOMAIN_LEN)
        route = Route()
        missing = bpf(BPF_MAP_LOOKUP_ELEM, Attributes(
            map_fd=self.fd, key=ctypes.addressof(key), value=ctypes.addressof(route)))
        return None if missing else route

    def close(self):
        os.close(self.fd)


def bpftool(*arguments):
    return lib.must("bpftool", *arguments)


def dump(lab, name):
    """Key -> value, as bpftool formats them."""
    text = bpftool("map", "dump", "pinned", f"{lab.bpf_dir}/{name}")
    return {json.dumps(e["key"]): e["value"] for e in json.loads(text)}


def delete(lab, name, key):
    bpftool("map", "delete", "pinned", f"{lab.bpf_dir}/{name}", "key", "hex",
            *(f"{byte:02x}" for byte in key))


def domain_key(domain):
    return domain.encode().ljust(DOMAIN_LEN, b"\0")


def backend_key(domain, container):
    address = bytes(map(int, container.address.split(".")))
    return domain_key(domain) + address + bytes(16) + container.port.to_bytes(4, "little")


def test_readable(lab):
    """kkm_routes and kkm_backends are readable as bpftool dumps them"""
    a = lab.container("alpha", "alpha.test", labels={"kakuremichi.description": "The first"})
    agent = lab.agent("--datapath", "sockmap")
    agent.wait_route("alpha.test", "alpha")
    address = list(map(int, a.address.split(".")))
    routes = dump(lab, "kkm_routes")
    expect(list(routes), ['"alpha.test"'], "keys of kkm_routes")
    route = routes['"alpha.test"']
    expect({k: route[k] for k in ("port", "address", "backend_count", "state", "owner")},
           {"port": 8000, "address": address, "backend_count": 1, "state": "KKM_ACTIVE",
            "owner": "KKM_DOCKER"}, "the route")
    (key, backend), = dump(lab, "kkm_backends").items()
    key = json.loads(key)
    expect((key["domain"], key["address"], key["port"]), ("alpha.test", address, 8000), "its key")
    expect((backend["container"], backend["id"], backend["description"], backend["state"]),
           ("alpha", a.id, "The first", "KKM_ACTIVE"), "the backend")

    with lab.connect() as client:
        expect(client.get("/name", "alpha.test").status, 200, "status")
        (_, conn), = dump(lab, "kkm_conns").items()
        expect((conn["backend"]["domain"], conn["backend"]["port"], conn["client_port"]),
               ("alpha.test", 8000, client.sock.getsockname()[1]), "kkm_conns")
        expect((conn["up"], conn["down"]), ("KKM_RELAY", "KKM_SOCKMAP"), "the engines of HTTP")
        connection, = agent.connections()
        expect(connection["domain"], "alpha.test", f"connections --json: {connection}")
    wait_for(lambda: not dump(lab, "kkm_conns"), "the connection is gone from kkm_conns")
    with lab.connect() as client:
        client.upgrade("echo", "alpha.test")
        (_, conn), = dump(lab, "kkm_conns").items()
        expect((conn["backend"]["domain"], conn["backend"]["port"], conn["client_port"]),
               ("alpha.test", 8000, client.sock.getsockname()[1]), "kkm_conns")
        expect((conn["up"], conn["down"]), ("KKM_RELAY", "KKM_SOCKMAP"), "the engines of a stream")
        connection, = agent.connections()
        expect(connection["domain"], "alpha.test", f"connections --json: {connection}")
    wait_for(lambda: not dump(lab, "kkm_conns"), "the connection is gone from kkm_conns")
    check(dump(lab, "kkm_stats"), "kkm_stats")


@lib.each("relay", "responses", "both")
def test_bytes(lab, engine):
    """kkm_conns tells of each direction its engine and who carried how many bytes, soon enough"""
    lab.container("alpha", "alpha.test")
    agent = lab.agent("--datapath", engine)
    agent.wait_route("alpha.test", "alpha")
    down, up = engine != "relay", engine == "both"
    names = {False: "KKM_RELAY", True: "KKM_SOCKMAP"}
    with lab.connect() as client:
        small = client.get("/down?n=1000", "alpha.test")
        chunked = client.get("/down?n=20000&framing=chunked", "alpha.test")     # is passed

        def told():
            (_, conn), = dump(lab, "kkm_conns").items()
            return conn if sum(conn["bytes"].values()) > 21_000 else None
        conn = wait_for(told, "kkm_conns tells of all bytes")
        expect((conn["up"], conn["down"]), (names[up], names[down]), "the engines")
        tells = conn["bytes"]
        expect(tells["down_short"], small.wire if down else 0, "down_short: the small answer")
        expect(tells["down_passed"], chunked.wire + (0 if down else small.wire), "down_passed")
        check(up or not tells["up_short"], f"up_short: {tells}")
        connection, = agent.connections()
        expect((connection["engine_up"], connection["engine_down"]),
               ("sockmap" if up else "relay", "sockmap" if down else "relay"), "connections")
        expect((connection["bytes_down_short"], connection["bytes_down"]),
               (tells["down_short"], small.wire + chunked.wire), "its bytes down")
        expect((connection["bytes_up_short"], connection["bytes_up"]),
               (tells["up_short"], tells["up_short"] + tells["up_passed"]), "its bytes up")


def test_state(lab):
    """the state in kkm_routes is that of the container"""
    container = lab.container("tired", "tired.test", environ={"IGNORE_TERM": 1})
    agent = lab.agent()
    agent.wait_route("tired.test", "tired")
    container.kill("TERM")
    wait_for(lambda: dump(lab, "kkm_routes")['"tired.test"']["state"] == "KKM_DRAINING", "draining")
    expect(next(iter(dump(lab, "kkm_backends").values()))["state"], "KKM_DRAINING", "the backend's")


@lib.each("kkm_routes", "kkm_backends")
def test_delete(lab, name):
    """deleting the entry with bpftool stops the short way for the next connection"""
    containers = {n: lab.container(n, f"{n}.test") for n in ("short", "other")}
    agent = lab.agent("--datapath", "sockmap")
    agent.wait_route("short.test", "short")
    agent.wait_route("other.test", "other")

    expected = b"".join(map(lib_backend.message, range(10)))

    def carried(name):
        """What one upgraded stream of ten messages counts."""
        before = agent.stats()
        containers[name].ask("arm")
        with lab.connect() as client:
            client.request("/switch?messages=10", f"{name}.test",
                           fields=("Connection: Upgrade", "Upgrade: opaque"))
            answer = client.response()
            expect((answer.status, answer.container), (101, name), "the answer")
            expect(client.file.read(12), b"right behind", "what comes right behind it")
            lib.counted(lab, f"{name}.test", answer.wire + 12)
            containers[name].release()
            expect(client.file.read(len(expected)), expected, "the messages")
        wait_for(lambda: not agent.connections(), "it is closed")
        moved = agent.stats().since(before)
        expect(moved.short_bytes + moved.relay_down_bytes, answer.wire + 12 + len(expected),
               "short_bytes + relay_down_bytes, and what the client received")
        return moved

    moved = carried("short")
    check(moved.short_messages >= 9, f"{moved.short_messages} of 10 messages before")
    expect(moved.sockmap_refused, 0, "sockmap_refused")
    key = {"kkm_routes": domain_key("short.test"),
           "kkm_backends": backend_key("short.test", containers["short"])}[name]
    delete(lab, name, key)
    moved = carried("short")
    expect((moved.short_messages, moved.sockmap_refused), (0, 1),
           "messages by the short way of the next connection, and sockmap_refused")
    moved = carried("other")
    check(moved.short_messages >= 9, f"{moved.short_messages} of 10 messages for the other domain")
    expect(containers["other"].log("request")[-1]["host"], "other.test", "its last request")


def test_full(lab):
    """a route too many is listed as rejected and not half written; it comes in when there is room"""
    containers = {n: lab.container(n, f"{n}.test", image="busybox")
                  for n in ("first", "second", "third")}
    agent = lab.agent("--max-routes", "2")
    wait_for(lambda: len(agent.routes()) == 2 and agent.refused(), "two and a rejected one")
    routed = {names[0] for names in agent.routes().values()}
    rejected, = set(containers) - routed
    expect(list(agent.refused()), [rejected], "who is rejected")
    check(agent.refused()[rejected]["reason"], "with a reason")
    check(agent.logs("WARN", container=rejected), "a WARN names it")
    expect(sorted(dump(lab, "kkm_routes")), sorted(f'"{n}.test"' for n in routed), "kkm_routes")
    expect(sorted(b["container"] for b in dump(lab, "kkm_backends").values()), sorted(routed),
           "kkm_backends")
    with lab.connect() as client:
        expect(client.get("/", f"{rejected}.test").status, 404, "status of the rejected one")
    for name in routed:
        with lab.connect() as client:
            expect(client.get("/", f"{name}.test").status, 200, f"status of {name}")
    gone = min(routed)
    containers[gone].remove()
    agent.wait_route(f"{rejected}.test", rejected)
    expect(agent.refused(), {}, "rejected, when there is room")


def test_full_while_running(lab):
    """the same for containers and replicas that start while the agent runs"""
    agent = lab.agent("--max-routes", "2")
    for name in ("first", "second"):
        lab.container(name, f"{name}.test", image="busybox")
        agent.wait_route(f"{name}.test", name)
    lab.container("third", "third.test", image="busybox")
    wait_for(lambda: list(agent.refused()) == ["third"], "third is rejected")
    replica = lab.container("more", "first.test", image="busybox")  # kkm_backends is full as well
    wait_for(lambda: sorted(agent.refused()) == ["more", "third"], "the replica is rejected")
    expect(agent.routes(), {"first.test": ["first"], "second.test": ["second"]}, "routes")
    expect(dump(lab, "kkm_routes")['"first.test"']["backend_count"], 1, "backend_count")
    replica.remove()
    wait_for(lambda: sorted(agent.refused()) == ["third"], "the replica is forgotten")


def test_never_absent(lab):
    """a domain never looks absent, nor half written, while its containers change"""
    address = lab.container("steady", "steady.test").address
    agent = lab.agent()
    agent.wait_route("steady.test", "steady")
    routes = Routes(lab)
    seen = {"lookups": 0, "absent": 0, "wrong": 0, "counts": set()}
    stop = threading.Event()

    def watch():
        while not stop.is_set():
            for _ in range(100):
                route = routes.lookup("steady.test")
                seen["lookups"] += 1
                if route is None:
                    seen["absent"] += 1
                    continue
                seen["counts"].add(route.backend_count)
                seen["wrong"] += route.port != 8000 or route.backend_count not in (1, 2, 3) or \
                    route.address[0] != int(address.split(".")[0])
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        for _ in range(3):
            replicas = [lab.container(f"replica{i}", "steady.test") for i in range(2)]
            agent.wait_route("steady.test", "steady", "replica0", "replica1")
            for replica in replicas:
                replica.remove()
            agent.wait_route("steady.test", "steady")
        # The first of them goes, and others stay.
        lab.container("heir", "steady.test")
        agent.wait_route("steady.test", "steady", "heir")
        lab.containers[0].remove()
        agent.wait_route("steady.test", "heir")
    finally:
        stop.set()
        thread.join()
        routes.close()
    check(seen["lookups"] > 10000, f"only {seen['lookups']} look-ups")
    expect((seen["absent"], seen["wrong"]), (0, 0), f"absent and wrong of {seen['lookups']}")
    expect(seen["counts"], {1, 2, 3}, "the backend counts that were seen")
    lib.comment(f"{seen['lookups']} look-ups")


def test_after_stop(lab):
    """after an orderly stop nothing is pinned, and the nouns say `not running`, exit 1"""
    lab.container("some", "some.test", image="busybox")
    agent = lab.agent()
    agent.wait_route("some.test", "some")
    expect(agent.stop(), 0, "exit status")
    check(not os.path.exists(lab.bpf_dir) or not os.listdir(lab.bpf_dir), "nothing is pinned")
    for noun in ("routes", "connections", "stats", "status"):
        for json_flag in ((), ("--json",)):
            done = agent.command(noun, *json_flag)
            expect((done.returncode, done.stdout), (1, ""), f"exit status and output of {noun}")
            check("not running" in done.stderr, f"{noun} says so: {done.stderr}")


def test_after_crash(lab):
    """after SIGKILL `routes` and the others still answer, marked stale, with the last write"""
    lab.container("some", "some.test", image="busybox")
    lab.container("bad", "bad.test", image="busybox", labels={"kakuremichi.port": "none"})
    agent = lab.agent()
    agent.wait_route("some.test", "some")
    with lab.connect() as client:
        expect(client.get("/", "some.test").status, 200, "status")
        before = agent.document("routes")
        expect(before["stale"], False, "stale while it runs")
        requests = agent.stats().requests
        agent.kill()
    after = agent.document("routes")
    expect(after["stale"], True, "stale after the crash")
    check(after["written"] and after["written"].endswith("Z"), f"written: {after['written']}")
    expect((after["routes"], after["rejected"]), (before["routes"], before["rejected"]), "routes")
    stats = agent.document("stats")
    expect((stats["stale"], stats["stats"]["requests"]), (True, requests), "stats")
    expect(agent.document("connections")["stale"], True, "connections")
    check("stale" in agent.command("routes").stdout + agent.command("routes").stderr,
          "the table says it too")
    done = agent.command("status")
    expect(done.returncode, 1, "exit status of status")


if __name__ == "__main__":
    lib.main("e2emaps")
