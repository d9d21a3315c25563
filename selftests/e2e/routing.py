# SPDX-License-Identifier: MIT
"""Who is routed where, and what the agent answers itself."""
import itertools
import socket
import threading

import lib
import lib_backend
from lib import KiB, MiB, check, expect, wait_for


def two(lab):
    """Containers one and two, for one.test and two.test. They stay for all tests."""
    return (lab.container("one", "one.test", keep=True),
            lab.container("two", "two.test", keep=True))


def ready_agent(lab, *flags):
    two(lab)
    agent = lab.agent(*flags)
    agent.wait_route("one.test", "one")
    agent.wait_route("two.test", "two")
    return agent


def who(lab, host, **options):
    """The container that answers for this host, or the status."""
    with lab.connect(**options) as client:
        answer = client.get("/name", host)
        if answer.status == 200:
            expect(answer.body, answer.container.encode() + b"\n", "body and header agree")
            return answer.container
        return answer.status


def accepts(container):
    return len(container.log("accept"))


# Containers that come and go

@lib.each(*lib.ENGINES)
def test_curl(lab, engine):
    """by curl, each domain reaches its own container"""
    ready_agent(lab, "--datapath", engine)
    for host in ("one", "two"):
        for _ in range(20):
            done = lab.client("curl", "-sS", "--max-time", "5", "-H", f"Host: {host}.test",
                              f"http://{lab.edge_addr}/name")
            expect((done.stdout, done.stderr), (host + "\n", ""), f"curl of {host}.test")


@lib.each(*lib.ENGINES)
def test_wrk(lab, engine):
    """by wrk, 16 connections for each domain at once, every answer names its own container"""
    agent = ready_agent(lab, "--datapath", engine)
    results = {}

    def load(name):
        results[name] = lab.client(
            "wrk", "-t1", "-c16", "-d1s", "-s", lib.HERE / "lib_wrk.lua",
            f"http://{lab.edge_addr}/name", "--", f"{name}.test", f"{name}\n", timeout=20)
    threads = [threading.Thread(target=load, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, done in results.items():
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
        check(lines, f"wrk ended: {done.stdout} {done.stderr}")
        _, requests, wrong, errors = map(str, lines[0].split())
        check(int(requests) > 100, f"{name}: only {requests} requests")
        expect((wrong, errors), ("0", "0"), f"{name}: wrong answers and errors of {requests}")
    expect(agent.stats().short_answers > 0, engine != "relay", "answers by the short way")


@lib.each(*lib.ENGINES)
def test_many_streams(lab, engine):
    """16 upgraded streams for each domain at once, each with messages of its own container"""
    agent = ready_agent(lab, "--datapath", engine)
    streams = [(lab.connect(), container, 100 + 10 * i + 5 * (container.name == "two"))
               for i in range(16) for container in two(lab)]
    threads = [threading.Thread(target=switch, args=stream) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for container in two(lab):
        container.release()
    for client, container, count in streams:
        messages = b"".join(map(lib_backend.message, range(count)))
        check(client.file.read(len(messages)) == messages, f"{count} messages of {container.name}")
        client.half_close()     # or the echo's end would not come, nor more than these messages
        client.ends("the stream")
    short, total = agent.stats().short_messages, sum(count for *_, count in streams)
    check(short >= total * 0.9 if engine != "relay" else not short,
          f"{short} of {total} messages took the short way")


def switch(client, container, messages):
    """An upgraded stream of this container, which waits for its `release`."""
    container.ask("arm")
    client.request(f"/switch?messages={messages}", f"{container.name}.test",
                   fields=("Connection: Upgrade", "Upgrade: opaque"))
    answer = client.response()
    expect((answer.status, answer.container), (101, container.name), "answer to an upgrade")
    expect(client.file.read(12), b"right behind", "what comes right behind it")
    lib.counted(container.lab, f"{container.name}.test", answer.wire + 12)


def test_start_while_running(lab):
    """a container that is started while the agent runs is routed"""
    agent = lab.agent()
    expect(who(lab, "late.test"), 404, "status before")
    lab.container("late", "late.test")
    agent.wait_route("late.test", "late")
    expect(who(lab, "late.test"), "late", "who answers")


@lib.each("docker kill", "docker rm -f", "docker stop")
def test_gone(lab, how):
    """a container that ends is gone from `routes` and gets no further connection"""
    container = lab.container("gone", "gone.test")
    agent = lab.agent()
    agent.wait_route("gone.test", "gone")
    expect(who(lab, "gone.test"), "gone", "who answers")
    connects = agent.stats().upstream_connects
    {"docker kill": container.kill, "docker rm -f": container.remove,
     "docker stop": lambda: lab.docker("stop", container.id)}[how]()
    agent.wait_route("gone.test")
    for _ in range(20):
        expect(who(lab, "gone.test"), 404, "status afterwards")
    expect(agent.stats().upstream_connects, connects, "connections opened to containers")


def test_draining(lab):
    """from the stop signal on, a container that lives on gets no new request, and answers 503"""
    container = lab.container("stubborn", "stubborn.test", environ={"IGNORE_TERM": 1})
    agent = lab.agent()
    agent.wait_route("stubborn.test", "stubborn")
    with lab.connect() as old, lab.connect() as busy, lab.connect() as stream:
        expect(old.get("/name", "stubborn.test").container, "stubborn", "who answers")
        busy.request("/hint", "stubborn.test")
        expect(busy.head().status, 103, "status of a request under way")
        stream.upgrade("echo", "stubborn.test")
        before = accepts(container)
        container.kill("TERM")
        wait_for(lambda: agent.states("stubborn.test") == {"stubborn": "draining"}, "draining")
        for _ in range(5):
            with lab.connect() as client:
                answer = client.get("/name", "stubborn.test")
                expect((answer.status, answer.fields.get("retry-after")), (503, "5"), "answer")
        expect(accepts(container), before, "connections that the container accepted")
        expect(old.get("/name", "stubborn.test").status, 503, "status on the old connection")
        old.ends()
        requests = len(container.log("request"))
        stream.send(b"hello")
        expect(stream.file.read(5), b"hello", "what comes back on an upgraded stream")
        container.release()
        expect(busy.response().body, b"hinted\n", "the answer to the request under way")
        expect(busy.get("/name", "stubborn.test").status, 503, "status of the next one there")
        expect(len(container.log("request")), requests, "requests that the container got since")
    container.kill()
    agent.wait_route("stubborn.test")
    expect(who(lab, "stubborn.test"), 404, "status when it is gone")


def test_other_signal(lab):
    """another signal than the stop signal drains nothing"""
    container = lab.container("tough", "tough.test", environ={"IGNORE_TERM": 1},
                              options=("--stop-signal", "SIGUSR1", "--init"))
    agent = lab.agent()
    agent.wait_route("tough.test", "tough")
    container.kill("WINCH")
    wait_for(lambda: agent.logs(msg="Docker event", event="kill"), "the agent heard of it")
    expect(agent.states("tough.test"), {"tough": "active"}, "states")
    expect(who(lab, "tough.test"), "tough", "who answers")


def test_stop_signal_of_its_own(lab):
    """the stop signal is the container's own (--stop-signal)"""
    container = lab.container("quit", "quit.test", options=("--stop-signal", "SIGURG"))
    agent = lab.agent()
    agent.wait_route("quit.test", "quit")
    container.kill("URG")   # which Python ignores
    wait_for(lambda: agent.states("quit.test") == {"quit": "draining"}, "draining")
    expect(who(lab, "quit.test"), 503, "status")


def test_replicas(lab):
    """containers of one image and label set are one pool, and all get connections"""
    containers = [lab.container(f"replica{i}", "pool.test") for i in range(3)]
    agent = lab.agent()
    agent.wait_route("pool.test", *(c.name for c in containers))
    clients = [lab.connect() for _ in range(9)]
    found = [client.get("/name", "pool.test").container for client in clients]
    expect(sorted(found), sorted([c.name for c in containers] * 3), "who answers, of 9 at once")
    for client in clients:
        client.close()
    containers[0].kill()
    agent.wait_route("pool.test", "replica1", "replica2")
    expect({who(lab, "pool.test") for _ in range(10)} - {"replica1", "replica2"}, set(), "others")


def test_conflict(lab):
    """the older of two owners keeps the domain, the newer is listed and takes over"""
    names = [f"owner{i}" for i in range(4)]    # most of them made in the same second
    owners = [lab.container(name, "both.test", image="busybox", wait=False,
                            labels={"kakuremichi.description": name}) for name in names]
    agent = lab.agent()
    for number, owner in enumerate(owners):
        agent.wait_route("both.test", owner.name)
        expect(sorted(agent.refused()), names[number + 1:], "who is in conflict")
        for name, entry in agent.refused().items():
            expect(entry["domain"], "both.test", "the domain in conflict")
            check(owner.name in entry["reason"], "the reason names the owner")
            check(agent.logs("WARN", container=name), f"a WARN names {name}")
        owner.remove()
    agent.wait_route("both.test")


def test_bad_labels(lab):
    """bad labels reject that container, with WARN and listed with the reason; others go on"""
    two(lab)
    good = {"kakuremichi.enabled": "true", "kakuremichi.domain": "x.test", "kakuremichi.port": "80"}
    bad = {
        "port-word": ("kakuremichi.port", "http"),
        "port-zero": ("kakuremichi.port", "0"),
        "port-large": ("kakuremichi.port", "65536"),
        "port-sign": ("kakuremichi.port", "+80"),
        "port-more": ("kakuremichi.port", "80x"),
        "port-none": ("kakuremichi.port", ""),
        "domain-none": ("kakuremichi.domain", ""),
        "domain-blank": ("kakuremichi.domain", "a b.test"),
        "domain-dots": ("kakuremichi.domain", "a..test"),
        "domain-url": ("kakuremichi.domain", "http://x.test/"),
        "domain-long": ("kakuremichi.domain", "a" * 64 + ".test"),
        "key": ("kakuremichi.prot", "80"),
    }
    names = []
    for name, (label, value) in bad.items():
        names.append(name)
        arguments = []
        for item in {**good, label: value}.items():
            arguments += ["-l", "=".join(item)]
        lab.docker("create", "--name", name, *arguments, "busybox")
    lab.docker("create", "--name", "no-port", "-l", "kakuremichi.enabled=true",
               "-l", "kakuremichi.domain=x.test", "busybox")
    lab.docker("create", "--name", "off", "-l", "kakuremichi.enabled=false",
               "-l", "kakuremichi.domain=x.test", "-l", "kakuremichi.port=none", "busybox")
    names += ["no-port", "off"]
    try:
        agent = ready_agent(lab)
        lab.docker("start", *names)
        wait_for(lambda: len(agent.refused()) >= len(bad) + 1, "all are listed", 10)
        refused = agent.refused()
        expect(sorted(refused), sorted([*bad, "no-port"]), "who is rejected")
        for name in [*bad, "no-port"]:
            label = bad.get(name, ("kakuremichi.port",))[0]
            expect(refused[name]["label"], label, f"the label of {name}")
            check(refused[name]["reason"], f"{name} has a reason")
            warned = agent.logs("WARN", container=name, label=label)
            check(warned, f"a WARN names {name} and {label}")
            expect(warned[0].get("reason") or warned[0].get("error"), refused[name]["reason"],
                   f"the reason of {name} in the log")
        expect(sorted(agent.routes()), ["one.test", "two.test"], "routes")
        expect(who(lab, "one.test"), "one", "who answers")
    finally:
        lab.docker("rm", "-f", *names)
    wait_for(lambda: not agent.refused(), "those that are gone are listed no longer")


def test_host_network(lab):
    """network_mode host: 127.0.0.1, and container:X: X's address"""
    lab.container("host", "host.test", network="host", port=8123, control=9123,
                  labels={"kakuremichi.port": "8123"})
    carrier = lab.container("carrier")
    lab.container("guest", "guest.test", network="container:carrier", port=8124, control=9124,
                  labels={"kakuremichi.port": "8124"})
    agent = lab.agent()
    agent.wait_route("host.test", "host")
    agent.wait_route("guest.test", "guest")
    addresses = {r["domain"]: (b["address"], b["port"]) for r in agent.document("routes")["routes"]
                 for b in r["backends"] if r["domain"] in ("host.test", "guest.test")}
    expect(addresses, {"host.test": ("127.0.0.1", 8123), "guest.test": (carrier.address, 8124)},
           "addresses")
    expect(who(lab, "host.test"), "host", "who answers")
    expect(wait_for(lambda: who(lab, "guest.test") == "guest", "guest answers"), True, "guest")


def test_paused(lab):
    """a paused container answers 503, on a kept connection too, and again when it goes on"""
    container = lab.container("sleeper", "sleeper.test")
    agent = lab.agent()
    agent.wait_route("sleeper.test", "sleeper")
    kept = lab.connect()
    expect(kept.get("/name", "sleeper.test").container, "sleeper", "who answers before")
    lab.docker("pause", container.id)
    wait_for(lambda: agent.states("sleeper.test") == {"sleeper": "paused"}, "paused")
    expect(kept.get("/name", "sleeper.test").status, 503, "status on a kept connection")
    kept.ends()
    own_answer(lab, head(host=b"Host: sleeper.test"), 503, "Service Unavailable", retry_after="5")
    lab.docker("unpause", container.id)
    wait_for(lambda: agent.states("sleeper.test") == {"sleeper": "active"}, "active")
    expect(who(lab, "sleeper.test"), "sleeper", "who answers")


def test_unhealthy(lab):
    """a container is routed when its health check passes, and answers 503 until then"""
    container = lab.container("sick", "sick.test", options=(
        "--health-cmd", "test -e /tmp/well", "--health-interval", "200ms", "--health-retries", "1"))
    agent = lab.agent()
    wait_for(lambda: agent.states("sick.test") == {"sick": "unhealthy"}, "unhealthy")
    expect(who(lab, "sick.test"), 503, "status")
    lab.docker("exec", container.id, "touch", "/tmp/well")
    wait_for(lambda: agent.states("sick.test") == {"sick": "active"}, "active")
    expect(who(lab, "sick.test"), "sick", "who answers")
    with lab.connect() as kept:
        expect(kept.get("/name", "sick.test").container, "sick", "who answers")
        lab.docker("exec", container.id, "rm", "/tmp/well")
        wait_for(lambda: agent.states("sick.test") == {"sick": "unhealthy"}, "unhealthy again")
        expect(kept.get("/name", "sick.test").status, 503, "status on a kept connection")
        kept.ends()


def test_names(lab):
    """several names, wildcards and `*`: the exact name wins, then the longer wildcard"""
    for name, domain in (("exact", "a.names.test, b.names.test"), ("wild", "*.names.test"),
                         ("longer", "*.x.names.test"), ("any", "*")):
        lab.container(name, domain)
    agent = lab.agent()
    agent.wait_route("*", "any")
    for host, name in (("a.names.test", "exact"), ("b.names.test", "exact"), ("c.names.test", "wild"),
                       ("A.NAMES.test.", "exact"), ("d.c.names.test", "wild"),
                       ("x.names.test", "wild"), ("y.x.names.test", "longer"),
                       ("names.test", "any"), ("else.example", "any"), ("198.19.0.1", "any")):
        expect(who(lab, host), name, f"who answers for {host}")


def test_network(lab):
    """kakuremichi.network chooses among several networks"""
    lab.docker("network", "create", "chosen")
    try:
        container = lab.container("plural", "plural.test", options=("--network", "bridge"),
                                  labels={"kakuremichi.network": "chosen"})
        lab.docker("network", "connect", "chosen", container.id)
        address = lab.docker("inspect", "-f", "{{.NetworkSettings.Networks.chosen.IPAddress}}",
                             container.id)
        agent = lab.agent()
        agent.wait_route("plural.test", "plural")
        backend = [r for r in agent.document("routes")["routes"]
                   if r["domain"] == "plural.test"][0]["backends"][0]
        expect(backend["address"], address, "address")
        expect(who(lab, "plural.test"), "plural", "who answers")
        container.remove()
    finally:
        lab.docker("network", "rm", "chosen")


def test_sockmap_off(lab):
    """kakuremichi.sockmap=off keeps a container's sockets off the short way"""
    shy = lab.container("shy", "shy.test", labels={"kakuremichi.sockmap": "off"})
    agent = ready_agent(lab, "--datapath", "sockmap")
    agent.wait_route("shy.test", "shy")
    messages = b"".join(map(lib_backend.message, range(20)))
    for container, takes_it in ((shy, False), (two(lab)[0], True)):
        with lab.connect() as client:
            switch(client, container, 20)
            container.release()
            expect(client.file.read(len(messages)), messages, f"the stream of {container.name}")
        stats = agent.stats()
        expect((stats.sockmap_enrolled, stats.short_bytes > 0), (int(takes_it), takes_it),
               "enrolled, and whether anything took the short way")


# Docker that is not there

def test_docker_absent(lab):
    """without Docker the agent runs and says so once; it serves as soon as Docker is there"""
    two(lab)
    link = f"{lab.dir}/late.sock"
    agent = lab.agent("--docker-socket", link, ready=False)
    wait_for(lambda: agent.logs("WARN") or agent.logs("ERROR"), "it says so")
    wait_for(lambda: agent.status().get("running"), "it runs")
    expect(agent.health("/healthz")[0], 200, "healthz")
    expect(agent.health("/readyz")[0], 503, "readyz before the first list")
    expect(who(lab, "one.test"), 503, "status before the first list")
    expect(agent.status()["docker"]["connected"], False, "docker.connected")
    lib.must("ln", "-s", lab.docker_socket, link)
    try:
        agent.wait_route("one.test", "one")
        expect(who(lab, "one.test"), "one", "who answers")
        expect(who(lab, "none.test"), 404, "status after the first list")
        expect(agent.health("/readyz")[0], 200, "readyz after the first list")
        complaints = [e for e in agent.logs() if e["level"] in ("WARN", "ERROR")
                      and "ocker" in e["msg"]]
        expect(len(complaints), 1, f"complaints about Docker: {complaints}")
    finally:
        lib.must("rm", link)


def test_docker_killed(lab):
    """dockerd killed: routes stay and are served; back again, what is true then is applied"""
    keeper = lab.container("keeper", "keeper.test", options=("--restart", "always"))
    lab.container("mortal", "mortal.test")
    agent = lab.agent()
    agent.wait_route("keeper.test", "keeper")
    agent.wait_route("mortal.test", "mortal")
    routes = agent.routes()
    lab.kept.clear()
    lib.must("kill", "-KILL", (lib.Path(lab.dir) / "docker.pid").read_text().strip())
    try:
        wait_for(lambda: not agent.status()["docker"]["connected"], "the agent has noticed")
        for _ in range(20):     # the shims and their containers live on
            expect((who(lab, "keeper.test"), who(lab, "mortal.test")), ("keeper", "mortal"), "who")
        expect(agent.routes(), routes, "routes without Docker")
        expect(agent.health("/readyz")[0], 200, "readyz without Docker")
        check("ocker" in agent.health("/readyz")[1], "readyz says that Docker is lost")
    finally:
        lab.restart_docker("-9")
    # It has killed the containers that it found, and restarted the one.
    wait_for(lambda: agent.status()["docker"]["connected"], "connected again", 30)
    wait_for(lambda: agent.routes() == {"keeper.test": ["keeper"]}, "keeper alone is routed", 20)
    wait_for(lambda: who(lab, "keeper.test") == "keeper", "keeper is served", 20)
    expect(who(lab, "mortal.test"), 404, "status of mortal")
    lab.container("after", "after.test")
    agent.wait_route("after.test", "after")
    expect(who(lab, "after.test"), "after", "who answers for one that was started since")


# Requests on one connection

@lib.each(*lib.ENGINES)
def test_other_container(lab, engine):
    """each request of a connection goes to its own container, one by one or pipelined"""
    one, two_ = two(lab)
    agent = ready_agent(lab, "--datapath", engine)
    before = len(one.log("request")), len(two_.log("request"))
    names = ("one", "two", "two", "one", "two")
    with lab.connect() as client:
        for name in names:
            answer = client.get("/name", f"{name}.test")
            expect((answer.container, answer.body), (name, name.encode() + b"\n"), "who answers")
    expect(agent.stats().other_container, 3, "other_container")
    with lab.connect() as client:
        client.send(b"".join(b"GET /name HTTP/1.1\r\nHost: %s.test\r\n\r\n" % name.encode()
                             for name in names))
        expect([client.response().container for _ in names], list(names), "who answers, pipelined")
    for container, count in zip((one, two_), before):
        hosts = [e["host"] for e in container.log("request")[count:]]
        expect(hosts, [f"{container.name}.test"] * 2 * names.count(container.name), "its requests")
    stats = agent.stats()
    expect((stats.other_container, stats.upstream_connects), (6, 4), "other_container, connects")


@lib.each(*lib.ENGINES)
def test_order(lab, engine):
    """a slow answer comes before the quick one of another container that was asked for behind it"""
    one, two_ = two(lab)
    ready_agent(lab, "--datapath", engine)
    before = len(two_.log("request"))
    with lab.connect() as client:
        client.send(b"GET /slow HTTP/1.1\r\nHost: one.test\r\n\r\n"
                    b"GET /name HTTP/1.1\r\nHost: two.test\r\n\r\n")
        expect(client.response().body, b"late\n", "the first answer")
        expect(client.response().body, b"two\n", "the second answer")
    expect(len(two_.log("request")) - before, 1, "requests at two")


@lib.each("one by one", "pipelined")
def test_unknown_after_good(lab, how):
    """a request for an unknown domain behind answered ones: 404, and the connection closes"""
    agent = ready_agent(lab)
    requests = [b"GET /name HTTP/1.1\r\nHost: %s.test\r\n\r\n" % name
                for name in (b"one", b"two", b"none", b"one")]
    with lab.connect() as client:
        if how == "pipelined":
            client.send(b"".join(requests))
        for request, status in zip(requests, (200, 200, 404)):
            if how == "one by one":
                client.send(request)
            answer = client.response()
            expect(answer.status, status, f"answer to {request}")
        check("x-container" not in answer.fields, "the last one is the agent's own")
        client.ends()
    expect(agent.stats().requests, 2, "requests that were forwarded")


BRIEF = r"""
import socket
listener = socket.create_server(("", 8000))
while True:
    with listener.accept()[0] as sock:
        if sock.recv(9999):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbye")
"""


def test_idle_container_connection(lab):
    """a container that closes its idle connection: the client's stays, the next gets a fresh one"""
    agent = ready_agent(lab)
    lab.container("brief", "brief.test", command=("python3", "-c", BRIEF), control=8000)
    agent.wait_route("brief.test", "brief")

    def kept():
        return sorted(c["domain"] for c in agent.connections())
    with lab.connect() as client:
        expect(client.get("/name", "one.test").container, "one", "who answers")
        for number in range(5):
            before = agent.stats().upstream_connects
            answer = client.get("/", "brief.test", method=("GET", "POST")[number % 2])
            expect((answer.status, answer.body), (200, b"bye"), f"answer {number}")
            expect(agent.stats().upstream_connects - before, 1, "connections opened for it")
            wait_for(lambda: kept() == ["one.test"], "that one is gone, the other is kept")
        expect(client.get("/name", "one.test").container, "one", "who answers")
    expect(agent.stats().requests_repeated, 0, "requests that were sent twice")


@lib.each(*lib.ENGINES)
def test_keep_alive(lab, engine):
    """a second request for the same container passes, spelled differently and with a body too"""
    one, _ = two(lab)
    agent = ready_agent(lab, "--datapath", engine)
    before = accepts(one)
    with lab.connect() as client:
        for host in ("one.test", "ONE.test", "one.test.", "one.test:8080", "oNe.Test.:80"):
            expect(client.get("/name", host).container, "one", f"who answers for {host}")
        for size in (0, 5, 300_000):
            answer = client.get("/up", "one.test", method="POST", body=bytes(size))
            expect(f'"size": {size}}}' in answer.body.decode(), True, f"{answer.body} of {size}")
        expect(client.get("/name", "one.test", method="HEAD").size, 0, "body of HEAD")
        expect(client.get("/name", "one.test").container, "one", "who answers at last")
    expect(agent.stats().requests, 10, "requests")
    check(accepts(one) - before <= 4, "connections to one are kept (POST may take new ones)")


@lib.each(*lib.ENGINES)
def test_pipelining(lab, engine):
    """pipelined requests to one container are answered in order"""
    ready_agent(lab, "--datapath", engine)
    sizes = [1, 70_000, 0, 500, 300_000, 2, 1000] * 10
    with lab.connect() as client:
        client.send(b"".join(b"GET /down?n=%d HTTP/1.1\r\nHost: one.test\r\n\r\n" % size
                             for size in sizes))
        for size in sizes:
            answer = client.response()
            expect((answer.size, answer.sha256), (size, lib.pattern_sha256(size)), "answer")


def test_bytes_pass(lab):
    """heads pass byte for byte, in one piece or in many"""
    ready_agent(lab)
    heads = [
        b"GET /raw HTTP/1.1\r\nhost:ONE.test\r\nx-Odd:   blanks  \r\nX-Odd: twice\r\nempty:\r\n\r\n",
        b"GET http://one.test/raw?a=%20b HTTP/1.1\r\nHost: one.test\r\nVia: 1.1 x\r\n\r\n",
        b"GET /raw HTTP/1.0\r\nHost: one.test\r\nConnection: close\r\n\r\n",
        b"PROPFIND /raw HTTP/1.1\r\nHost: one.test\r\nX-Latin: \xe9\xff\r\n\r\n",
        b"GET /raw HTTP/1.1\r\nHost: one.test\r\nCookie: " + b"c" * 32000 + b"\r\n\r\n",
    ]
    for head in heads:
        for step in (len(head), 1 if len(head) < 1000 else 700):
            with lab.connect() as client:
                client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for at in range(0, len(head), step):
                    client.send(head[at:at + step])
                expect(client.response().body, head, f"the head that arrived (steps of {step})")


@lib.each(*lib.ENGINES)
def test_upgrade(lab, engine):
    """after a 101 the connection is opaque, both ways"""
    one, _ = two(lab)
    ready_agent(lab, "--datapath", engine)
    with lab.connect() as client:
        expect(client.get("/name", "one.test").container, "one", "an ordinary request first")
    with lab.connect() as client:
        expect(client.upgrade("echo", "one.test").container, "one", "who answers")
        for message in (b"\x81\x00", b"GET / HTTP/1.1\r\nHost: two.test\r\n\r\n", bytes(100_000)):
            client.send(message)
            got = client.file.read(len(message))
            check(got == message, f"the echo of {message[:40]}: {got[:40]}")
        client.half_close()
        client.ends("the echo")
    with lab.connect() as client:   # bytes behind the request, before the 101
        client.send(b"GET /upgrade?then=echo HTTP/1.1\r\nHost: one.test\r\nConnection: upgrade\r\n"
                    b"Upgrade: opaque\r\n\r\n")
        expect(client.response().status, 101, "status")
        client.half_close()
        client.ends("the echo")
    with lab.connect() as client:   # refused: HTTP goes on, and a later one may be granted
        client.request("/name", "one.test", fields=("Connection: Upgrade", "Upgrade: opaque"))
        expect(client.response().status, 200, "status of a refused upgrade")
        expect(client.get("/name", "two.test").container, "two", "who answers the next request")
        expect(client.get("/name", "one.test").container, "one", "and the one behind it")
        expect(client.upgrade("echo", "two.test").container, "two", "who answers the upgrade")
        client.send(b"GET /name HTTP/1.1\r\nHost: one.test\r\n\r\n")
        check(client.file.read(3) == b"GET", "it is opaque")
    expect([e for e in one.log("request") if e["host"] == "two.test"], [], "two.test at one")
    with lab.connect() as client:   # a 101 to one who did not ask for it
        client.request("/upgrade?then=echo", "one.test")
        expect(client.response().status, 502, "status")
        client.ends()


# Answers of the agent's own

def own_answer(lab, request, status, reason, *, half_close=False, method="GET", **fields):
    with lab.connect() as client:
        client.send(request)
        if half_close:
            client.half_close()
        answer = client.response(method)
        expect((answer.status, answer.reason), (status, reason), f"answer to {request[:60]}")
        expect(answer.fields.get("content-type"), "text/plain; charset=utf-8", "type")
        check("x-container" not in answer.fields, "it is the agent's own")
        for name, value in fields.items():
            expect(answer.fields.get(name.replace("_", "-")), value, name)
        client.ends()
        return answer


def head(*lines, host=b"Host: one.test"):
    return b"\r\n".join((b"GET /name HTTP/1.1", *((host,) if host else ()), *lines, b"", b""))


def test_404(lab):
    """an unknown domain: 404, its text, no body on HEAD"""
    ready_agent(lab)
    text = b"No tunnel configured for this domain"
    for host in (b"none.test", b"198.19.0.1", b"x.one.test", b"test"):
        answer = own_answer(lab, head(host=b"Host: " + host), 404, "Not Found")
        check(answer.body.strip() == text, f"the body: {answer.body}")
    own_answer(lab, b"GET / HTTP/1.0\r\n\r\n", 404, "Not Found")
    own_answer(lab, b"HEAD / HTTP/1.1\r\nHost: none.test\r\n\r\n", 404, "Not Found", method="HEAD")
    own_answer(lab, b"GET / HTTP/1.1\r\nHost: none.test\r\n\r\n", 404, "Not Found", half_close=True)


def test_400(lab):
    """what is not acceptable: 400, and nothing of it reaches a container"""
    one, _ = two(lab)
    agent = ready_agent(lab)
    before = len(one.log("request"))
    bad = {
        "no Host": head(host=None),
        "two Hosts": head(b"Host: one.test"),
        "two different Hosts": head(b"Host: two.test"),
        "empty Host": head(host=b"Host:"),
        "Host with a blank": head(host=b"Host: one.test two.test"),
        "Host with a path": head(host=b"Host: one.test/x"),
        "Host with a bad port": head(host=b"Host: one.test:8o"),
        "Host with a user": head(host=b"Host: x@one.test"),
        "obs-fold": head(b"X: a", b" b"),
        "bare LF": head().replace(b"\r\n", b"\n"),
        "bare LF in the middle": head(b"X: a\nY: b"),
        "bare CR": head(b"X: a\rY: b"),
        "NUL": head(b"X: a\0b"),
        "blank before the colon": head(b"X : a"),
        "no colon": head(b"X"),
        "empty field name": head(b": x"),
        "length and coding": head(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        "two lengths": head(b"Content-Length: 5", b"Content-Length: 6"),
        "two equal lengths": head(b"Content-Length: 5", b"Content-Length: 5"),
        "list of lengths": head(b"Content-Length: 5, 5"),
        "negative length": head(b"Content-Length: -1"),
        "signed length": head(b"Content-Length: +1"),
        "hexadecimal length": head(b"Content-Length: 0x10"),
        "huge length": head(b"Content-Length: 99999999999999999999"),
        "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        "version": head().replace(b"HTTP/1.1", b"HTTP/2.0"),
        "version in small": head().replace(b"HTTP/1.1", b"http/1.1"),
        "two blanks": head().replace(b"GET ", b"GET  "),
        "absolute, other host": head().replace(b"/name", b"http://two.test/name"),
    }
    for what, request in bad.items():
        try:
            own_answer(lab, request, 400, "Bad Request")
        except (AssertionError, OSError) as error:
            raise AssertionError(f"{what}: {error}") from error
    expect(agent.stats().answers_400, len(bad), "answers_400")
    expect(len(one.log("request")), before, "requests at the container")


def test_chunk_blanks(lab):
    """blanks around a chunk size: never passed on as a body"""
    one, _ = two(lab)
    ready_agent(lab)
    for size in (b" 5", b"5 ", b"\t5"):
        before = len(one.log("body"))
        with lab.connect() as client:
            client.send(b"POST /up HTTP/1.1\r\nHost: one.test\r\nTransfer-Encoding: chunked\r\n\r\n" +
                        size + b"\r\nhello\r\n0\r\n\r\n")
            expect(client.response().status, 400, f"status for a chunk size of {size}")
            client.ends()
        expect(len(one.log("body")), before, "bodies that the container took")


def test_other_answers(lab):
    """405 with Allow, 501, 431"""
    ready_agent(lab)
    answer = own_answer(lab, b"CONNECT one.test:80 HTTP/1.1\r\nHost: one.test:80\r\n\r\n",
                        405, "Method Not Allowed")
    check(answer.fields.get("allow"), "Allow")
    for coding in (b"gzip", b"gzip, chunked", b"chunked, chunked", b"identity", b"xchunked"):
        own_answer(lab, head(b"Transfer-Encoding: " + coding), 501, "Not Implemented")
    large = "Request Header Fields Too Large"
    own_answer(lab, head(b"X: " + b"x" * 70 * KiB), 431, large)
    own_answer(lab, head(*(b"X%d: x" % i for i in range(5000))), 431, large)
    own_answer(lab, b"GET /" + b"x" * 70 * KiB + b" HTTP/1.1\r\nHost: one.test\r\n\r\n", 431, large)


def test_408(lab):
    """a head that does not come in time: 408; not a byte of it: the end in silence"""
    agent = ready_agent(lab, "--head-timeout", "300ms")
    with lab.connect() as silent, lab.connect() as slow:
        slow.send(b"GET / HTTP/1.1\r\nHost: one")
        answer = slow.response()
        expect((answer.status, answer.reason), (408, "Request Timeout"), "answer")
        slow.ends()
        silent.ends()
    with lab.connect() as trickle:  # each byte in time, the whole not
        timer = threading.Event()
        trickle.sock.settimeout(0.05)
        for byte in head():
            try:
                trickle.sock.sendall(bytes([byte]))
                if trickle.sock.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                timer.wait(0.02)
        trickle.sock.settimeout(5)
        trickle.file = trickle.sock.makefile("rb")
        lab.sockets.append(trickle.file)
        expect(trickle.response().status, 408, "answer to a trickle")
    expect(agent.stats().answers_408, 2, "answers_408")
    with lab.connect() as client:   # used, and then idle: at most closed in silence
        expect(client.get("/name", "one.test").status, 200, "status")
        client.sock.settimeout(0.6)
        try:
            expect(client.sock.recv(1), b"", "what comes on an idle connection")
        except TimeoutError:
            pass


def either(lab, path, host=b"one.test"):
    """The answer to GET, to POST and to HEAD is a 502."""
    target = head(host=b"Host: " + host).replace(b"/name", path)
    own_answer(lab, target, 502, "Bad Gateway")
    own_answer(lab, target.replace(b"GET", b"HEAD"), 502, "Bad Gateway", method="HEAD")
    own_answer(lab, target.replace(b"GET", b"POST")[:-2] + b"Content-Length: 3\r\n\r\nabc",
               502, "Bad Gateway")


def test_502(lab):
    """a container that refuses, or ends or resets before any byte of an answer: 502"""
    two(lab)
    lab.container("closed", "closed.test", labels={"kakuremichi.port": "8999"})
    agent = ready_agent(lab)
    agent.wait_route("closed.test", "closed")
    either(lab, b"/name", b"closed.test")
    either(lab, b"/close")
    either(lab, b"/reset")
    expect(agent.stats().answers_502, 9, "answers_502")


@lib.each(*itertools.product(lib.ENGINES, ("garbage", "twice")))
def test_nonsense(lab, engine, answer):
    """a container whose answer is not HTTP, or framed twice: 502, and nothing of it is passed on"""
    ready_agent(lab, "--datapath", engine)
    either(lab, f"/{answer}".encode())
    with lab.connect() as client:   # nor behind a good one
        expect(client.get("/name", "one.test").status, 200, "status before")
        expect(client.get(f"/{answer}", "one.test").status, 502, "status")
        client.ends()


def test_unreachable(lab):
    """a container that does not answer the connect: 504; one that is unreachable: 502"""
    one, _ = two(lab)
    agent = ready_agent(lab, "--connect-timeout", "400ms")
    for target, status, reason in ((("DROP",), 504, "Gateway Timeout"),
                                   (("REJECT", "--reject-with", "icmp-host-unreachable"),
                                    502, "Bad Gateway")):
        rule = ("OUTPUT", "-p", "tcp", "-d", one.address, "--dport", "8000", "-j", *target)
        lab.iptables("-I", *rule)
        try:
            own_answer(lab, head(), status, reason)
            expect(who(lab, "two.test"), "two", "who answers for another domain")
        finally:
            lab.iptables("-D", *rule)
    expect(agent.stats().answers_504, 1, "answers_504")
    expect(who(lab, "one.test"), "one", "who answers afterwards")


def test_answer_arrives(lab):
    """an answer of the agent's own arrives though the client is uploading"""
    agent = ready_agent(lab)
    request = b"POST /x HTTP/1.1\r\nHost: none.test\r\nContent-Length: %d\r\n\r\n"
    with lab.connect() as client:   # writes it all before it reads
        client.send(request % (256 * KiB) + bytes(256 * KiB))
        expect(client.response().status, 404, "status for one who writes 256 KiB first")
        client.ends()
    with lab.connect() as client:   # reads while it writes
        thread = threading.Thread(target=upload, args=(client, request % (64 * MiB), 64 * MiB),
                                  daemon=True)
        thread.start()
        expect(client.response().status, 404, "status for one who reads while it writes 64 MiB")
        thread.join(20)
        check(not thread.is_alive(), "the writer comes to an end")
    with open(f"{lab.dir}/upload", "wb") as file:
        file.truncate(64 * MiB)
    for expectation in ("Expect: 100-continue", "Expect:"):
        done = lab.client("curl", "-sS", "--max-time", "10", "-o", "/dev/null", "-w",
                          "%{http_code}", "-H", "Host: none.test", "-H", expectation,
                          "--data-binary", f"@{lab.dir}/upload", f"http://{lab.edge_addr}/x")
        expect(done.stdout, "404", f"status that curl reports with {expectation!r} ({done.stderr})")
    expect(agent.stats().answers_404, 4, "answers_404")


def upload(client, request, size):
    try:
        client.send(request)
        for piece in lib.pattern(size, 64 * KiB):
            client.send(piece)
    except OSError:
        pass    # the agent may close before the end


# Listeners and wrong use

def test_ipv6(lab):
    """a client reaches the [::] listener by IPv6"""
    ready_agent(lab)
    expect(who(lab, "one.test", address=lab.edge_addr6), "one", "who answers by IPv6")


def exits(lab, status, what, *flags, word=None):
    """One more agent, which ends at once."""
    agent = lab.agent(*flags, ready=False)
    try:
        actual = agent.process.wait(5)
    except lib.subprocess.TimeoutExpired:
        agent.kill()
        raise AssertionError(f"{what}: it runs; {agent.text()}") from None
    expect(actual, status, f"exit status, {what}: {agent.text()}")
    check(agent.text().strip(), f"{what}: it says why")
    check(word is None or word in agent.text(), f"{what}: it names {word}: {agent.text()}")


def takes(lab, address, port):
    with lab.socket(family=socket.AF_INET6) as sock:
        return sock.connect_ex((address, port)) == 0


def test_taken_address(lab):
    """a listener that cannot be bound: a WARN for a default one, exit 1 for one asked for"""
    two(lab)
    for protocol, port in (("http", 80), ("tls", 443)):
        address, option = f"0.0.0.0:{port}", f"--listen-{protocol}"
        with lab.socket(lab.edge_ns) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("0.0.0.0", port))
            sock.listen()
            agent = ready_agent(lab)
            warned = agent.logs("WARN", address=address, option=option)
            expect(len(warned), 1, f"WARNs about {address}")
            check(warned[0]["error"], "with the reason")
            listening = agent.logs("INFO", msg="Listening", protocol=protocol)
            expect([e["address"] for e in listening], [f"[::]:{port}"], "where it listens")
            check(takes(lab, lab.edge_addr6, port), "the other takes connections")
            expect(who(lab, "one.test", address=lab.edge_addr6), "one", "who answers by IPv6")
            expect(agent.stop(), 0, "exit status")
            exits(lab, 1, "asked-for address taken", option, address, word=address)
    with lab.socket(lab.edge_ns) as sock:
        sock.bind(("127.0.0.1", 9180))
        sock.listen()
        exits(lab, 1, "asked-for admin address taken", "--admin", "127.0.0.1:9180", word="9180")


def test_second_agent(lab):
    """a second agent on the same pins, or on the same port, is refused with exit 1"""
    agent = ready_agent(lab)
    pid = agent.status()["pid"]
    other = ("--run-dir", f"{lab.dir}/run2", "--admin", "off")
    exits(lab, 1, "same pins", *other, "--listen-http", "0.0.0.0:81")
    bpf2 = ("--bpf-dir", f"{lab.dir}/bpf/second")
    exits(lab, 1, "same port", *other, *bpf2, "--listen-http", "0.0.0.0:80")
    exits(lab, 1, "same port and one more", *other, *bpf2, "--listen-http", "0.0.0.0:81,0.0.0.0:80")
    expect(agent.status()["pid"], pid, "the first one's pid")
    for _ in range(20):
        expect(who(lab, "one.test"), "one", "who answers")
    second = lab.agent(*other, *bpf2, "--listen-http", "0.0.0.0:81")
    second.wait_route("one.test", "one")
    expect(who(lab, "one.test", port=81), "one", "a second agent on another port serves")
    third = lab.agent(*bpf2[:1], f"{lab.dir}/bpf/third", "--admin", "off",
                      "--listen-http", "0.0.0.0:82", ready=False)
    wait_for(lambda: third.routes().get("one.test"), "one with the same run dir runs")
    expect(third.stop(), 0, "its exit status")
    expect(agent.status()["pid"], pid, "pid at the admin socket, which the third has left alone")


def test_wrong_usage(lab):
    """an unknown flag, or a value that does not parse: exit 2 before anything is touched"""
    for flags in (("--no-such-flag", "1"), ("--workers", "many"), ("--workers", "0"),
                  ("--datapath", "fast"), ("--listen-http", "nonsense"), ("--head-timeout", "soon"),
                  ("--log-level", "loud"), ("--admin", "127.0.0.1:99999"),
                  ("--docker-enabled", "perhaps"), ("--max-routes", "-1")):
        exits(lab, 2, " ".join(flags), *flags, word=flags[0] if flags[0] != "--max-routes" else None)
    check(not lib.Path(lab.bpf_dir).exists(), "nothing is pinned")
    expect(lib.run(lib.BINARY, "no-such-command").returncode, 2, "exit status of no command")
    for noun in ("routes", "stats", "connections", "status"):
        done = lib.run(lib.BINARY, noun, "--bpf-dir", lab.bpf_dir, "--run-dir", lab.run_dir)
        expect(done.returncode, 1, f"exit status of {noun} without an agent")
        check("not running" in done.stderr and done.stderr.count("\n") == 1, f"{noun}: {done.stderr}")


def test_commands(lab):
    """check, version, status, routes, connections and stats, with --json and without"""
    agent = ready_agent(lab)
    for noun in ("version", "status", "routes", "connections", "stats"):
        expect(agent.document(noun).get("schema"), 1, f"schema of {noun}")
        done = agent.command(noun)
        expect((done.returncode, done.stderr), (0, ""), f"exit status and stderr of {noun}")
        check(done.stdout.strip(), f"{noun} says something")
    check({"version", "commit", "libbpf", "libcurl", "cjson"} <= set(agent.document("version")),
          "what version tells")
    check({"running", "engine", "since", "docker", "control", "counts"} <= set(agent.status()),
          "what status tells")
    check("one.test" in agent.command("routes").stdout, "routes shows the domain")
    check("client connections accepted" in agent.command("stats").stdout, "stats tells the meaning")
    flags = [word for pair in lib.default_flags(lab).items() for word in pair]
    for status, more in ((0, ()), (2, ("--workers", "none"))):
        done = lab.edge(lib.BINARY, "check", *flags, *more)
        expect(done.returncode, status, f"exit status of check {more}: {done.stdout}{done.stderr}")
    done = lab.edge(lib.BINARY, "check", *flags, "--json")
    expect(lib.json.loads(done.stdout)["schema"], 1, "schema of check")
    expect(agent.stop(), 0, "exit status")     # or check leaves the addresses to it
    done = lab.edge(lib.BINARY, "check", *flags, "--listen-http", "203.0.113.1:80")
    expect(done.returncode, 1, f"exit status of check where run would not work: {done.stdout}")


def test_log(lab):
    """the log is JSON lines, with no line for a request at info, and what peers sent escaped"""
    agent = ready_agent(lab)
    before = len(agent.text().splitlines())
    for _ in range(20):
        who(lab, "one.test")
        who(lab, "none.test")
        who(lab, "bad host")
    expect(len(agent.text().splitlines()), before, "lines after 60 requests")
    for entry in agent.logs():
        check(lib.re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", entry["time"]), f"time: {entry}")
        check(entry["level"] in ("DEBUG", "INFO", "WARN", "ERROR") and entry["msg"], f"{entry}")
    expect(agent.stop(), 0, "exit status")
    debug = ready_agent(lab, "--log-level", "debug")
    with lab.connect() as client:
        client.send(b'GET /\x1b[31m"\xff HTTP/1.1\r\nHost: \x1b]0;"x\r\n\r\n')
        expect(client.response().status, 400, "status")
    check("\x1b" not in debug.text(), "escapes are escaped")
    check(all(entry["level"] for entry in debug.logs()), "every line is JSON")
    expect(debug.stop(), 0, "exit status")
    text = ready_agent(lab, "--log-format", "text")
    check(not text.text().startswith("{"), f"text: {text.text()[:100]}")


def test_control(lab):
    """CONTROL_URL and API_KEY are accepted, answered by one WARN; the key is never logged"""
    key_file = lib.Path(lab.dir) / "key"
    key_file.write_text("agt_secret-of-the-file\n")
    for flags, environ in (((), {"CONTROL_URL": "ws://127.0.0.1:9/x", "API_KEY": "agt_secret-of-the-variable"}),
                           (("--control-url", "wss://127.0.0.1:9", "--api-key-file", key_file,
                             "--log-level", "debug"), {})):
        agent = lab.agent(*flags, environ=environ)
        warned = [e for e in agent.logs("WARN") if "ontrol" in e["msg"] or "CONTROL" in str(e)]
        expect(len(warned), 1, f"WARNs about Control: {warned}")
        check("agt_secret" not in agent.text(), "the key is not in the log")
        check("agt_secret" not in str(agent.status()), "the key is not in status")
        expect(agent.stop(), 0, "exit status")


def test_environment(lab):
    """a flag wins over its variable, an empty variable counts as unset, a bad one is exit 2"""
    two(lab)
    agent = lab.agent("--listen-http", "0.0.0.0:82", environ={
        "KAKUREMICHI_LISTEN_HTTP": "0.0.0.0:83", "KAKUREMICHI_WORKERS": "1",
        "KAKUREMICHI_LOG_LEVEL": ""})
    agent.wait_route("one.test", "one")
    expect(who(lab, "one.test", port=82), "one", "who answers on the flag's port")
    expect(agent.status()["workers"], 1, "workers")
    agent.stop()
    bad = lab.agent(environ={"KAKUREMICHI_WORKERS": "many"}, ready=False)
    expect(bad.process.wait(5), 2, "exit status")
    check("KAKUREMICHI_WORKERS" in bad.text(), f"it names the variable: {bad.text()}")


if __name__ == "__main__":
    lib.main("e2erout")
