# SPDX-License-Identifier: MIT
"""Replicas share a domain, others conflict, and one container may offer several services.

Requests run all the while (lib_load.py)."""
import collections

import lib
from lib import check, expect, wait_for
from lib_load import REACTS, Load, backend, listening, owners, start, when

COMPOSE = ("com.docker.compose.project", "com.docker.compose.service")
SWARM = ("com.docker.swarm.service.id", "com.docker.swarm.service.name")


def service(kind, name):
    return {kind[0]: "shop" if kind is COMPOSE else f"id-of-{name}", kind[1]: name}


# Replicas

def test_pool(lab):
    """who is a replica: one pool, all of it is used; others of the same domain are in conflict"""
    agent = start(lab)
    pools = {}
    for how, kind in (("compose", COMPOSE), ("swarm", SWARM), ("alike", None)):
        # Compose and Swarm write more labels, which differ from one replica to the next.
        pools[how] = [backend(lab, f"{how}{i}", f"{how}.test", labels={
            **service(kind, "web"), "number": i} if kind else {}).name for i in range(3)]
        backend(lab, f"{how}-other", f"{how}.test",
                labels=service(kind, "other") if kind else {"another": "label"})
    for how, names in pools.items():
        agent.wait_route(f"{how}.test", *names)
    with Load(lab, owners(**pools)) as load:
        for how, names in pools.items():
            for name in names:
                load.wait(f"{how}.test", name, 5)
        expect(sorted(agent.refused()), sorted(f"{how}-other" for how in pools), "in conflict")
        for how, names in pools.items():
            check(names[0] in agent.refused()[f"{how}-other"]["reason"], "with the oldest")


def test_least_connections(lab):
    """the replica with the fewest connections is next, ties by turns"""
    replicas = {c.name: c for c in (backend(lab, f"even{i}", "even.test") for i in range(3))}
    agent = lab.agent("--workers", "1")
    agent.wait_route("even.test", *replicas)
    streams = [lab.connect() for _ in range(9)]
    held = collections.defaultdict(list)
    for stream in streams:
        held[stream.upgrade("echo", "even.test").container].append(stream)
    expect({name: len(held[name]) for name in replicas}, dict.fromkeys(replicas, 3), "connections")
    for stream in held["even0"]:
        stream.close()
    wait_for(lambda: len(agent.connections()) == 6, "they are closed")
    found = [lab.connect().upgrade("echo", "even.test").container for _ in range(3)]
    expect(found, ["even0"] * 3, "who gets the next three")
    turns = []
    for _ in range(9):
        with lab.connect() as client:
            turns.append(client.upgrade("echo", "even.test").container)
        wait_for(lambda: len(agent.connections()) == 9, "it is closed")
    expect(collections.Counter(turns), dict.fromkeys(replicas, 3), "ties, by turns")
    for at in range(7):
        expect(len(set(turns[at:at + 3])), 3, f"different ones of three in a row: {turns}")


@lib.each(*(lib.ENGINES if lib.LONG else ("both",)))
def test_come_and_go(lab, engine):
    """replicas are added, stopped and started: not one request fails"""
    agent = start(lab, "--datapath", engine)
    options = {"environ": {"GRACE": "SIGTERM"}, "labels": service(COMPOSE, "herd"),
               "options": ("--health-cmd", "busybox wget -q -O /dev/null http://127.0.0.1:8000/name",
                           "--health-interval", "400ms")}
    names = [f"herd{i}" for i in range(4)]

    def another(name):
        made = backend(lab, name, "herd.test", **options)
        wait_for(lambda: agent.states("herd.test").get(name) == "active", f"{name} is healthy")
        return made
    herd = {name: another(name) for name in names[:2]}
    with Load(lab, owners(herd=names)) as load:
        for name in names[:2]:
            load.wait("herd.test", name)
        for name in names[2:]:
            load.event(f"{name} is added")
            herd[name] = another(name)
            load.wait("herd.test", name)
        load.event("two of four stop")
        lab.docker("stop", *(herd[name].id for name in names[:2]))
        stopped = [when(lab, herd[name], "kill") + REACTS for name in names[:2]]
        for name in names[2:]:
            load.wait("herd.test", name, 20)
        again = load.event("one of them is back")
        for name, since in zip(names[:2], stopped):
            load.silent(name, since, again)
        herd["herd0"].start()
        load.wait("herd.test", "herd0")
        load.event("docker rm -f of a stopped one")
        herd["herd1"].remove()
        load.event("another one stops")
        lab.docker("stop", herd["herd2"].id)
        for name in ("herd0", "herd3"):
            load.wait("herd.test", name, 20)


# Conflicts

def test_conflict(lab):
    """of others the oldest keeps the domain; the next takes over when it goes, and nobody else"""
    agent = start(lab)
    heirs = [backend(lab, f"heir{i}", "throne.test", labels={"number": i}) for i in range(3)]
    agent.wait_route("throne.test", "heir0")
    with Load(lab, owners(throne=[c.name for c in heirs])) as load:
        for number, heir in enumerate(heirs):
            since = load.wait("throne.test", heir.name, 20)
            younger = [c.name for c in heirs[number + 1:]]
            wait_for(lambda: sorted(agent.refused()) == younger, f"in conflict: {younger}")
            for name in younger:
                entry = agent.refused()[name]
                expect(entry["domain"], "throne.test", "the domain in conflict")
                check(heir.name in entry["reason"], f"the reason names {heir.name}: {entry}")
                check(any(heir.name in str(e) for e in agent.logs("WARN", container=name)),
                      f"a WARN for {name} names {heir.name}")
                load.silent(name, 0, since)     # it had not got any until now
            if not younger:
                break
            load.only("throne.test", 503).end(since + 30)
            load.event(f"{heir.name} goes")
            heir.remove()
            at = when(lab, heir, "die")
            load.lost(heir.name, at, heir=True)
            load.silent(heir.name, at)
            back = load.wait("throne.test", heirs[number + 1].name)
            check(back - at < 3, f"the next one took over after {back - at:.1f} s")


def test_conflict_stopped(lab):
    """the older one stops and starts again: it has its domain again, and the younger none"""
    agent = start(lab)
    elder, younger = (backend(lab, name, "seat.test", labels={"who": name},
                              environ={"GRACE": "SIGTERM"}) for name in ("elder", "younger"))
    agent.wait_route("seat.test", "elder")
    with Load(lab, owners(seat=["elder", "younger"])) as load:
        load.wait("seat.test", "elder")
        with load.only("seat.test", 503):
            load.event("the older stops")
            lab.docker("stop", elder.id)
            load.silent("elder", when(lab, elder, "kill") + REACTS, load.wait("seat.test", "younger"))
            load.wait("seat.test", "younger", 20)
            expect(agent.refused(), {}, "in conflict")
            load.event("the older starts")
            elder.start()
            listening(load, lab, elder, "seat.test")
        since = load.wait("seat.test", "elder", 20)
        wait_for(lambda: list(agent.refused()) == ["younger"], "the younger is in conflict")
        load.wait("seat.test", "elder", 20)
        load.silent("younger", since)


# Several services of one container

def services(**made):
    """web=8000: labels of web.NAME.test, and so on; `plain` is the one without a name."""
    labels = {"kakuremichi.enabled": "true"}
    for name, port in made.items():
        prefix = "kakuremichi." if name == "plain" else f"kakuremichi.{name}."
        labels.update({f"{prefix}domain": f"{name}.test", f"{prefix}port": port})
    return labels


def of_services(agent):
    """(domain, container) -> name of the service, or ''"""
    return {(r["domain"], b["container"]): b.get("service") or ""
            for r in agent.document("routes")["routes"] for b in r["backends"]}


TWO_PORTS = "python3 /e2e/lib_backend.py 8000 & CONTROL=9001 exec python3 /e2e/lib_backend.py 8001"


def test_services(lab):
    """each named service is a route of its own, and so are the labels without a name"""
    agent = start(lab)
    pair = [backend(lab, name, labels=services(web=8000, api=8001, plain=8001),
                    command=("sh", "-c", TWO_PORTS), options=("--stop-timeout", "1"))
            for name in ("multi0", "multi1")]
    names = [c.name for c in pair]
    domains = ("web.test", "api.test", "plain.test")
    for container in pair:
        wait_for(lambda: container.takes(8001), "it listens on its second port")
    for domain in domains:
        agent.wait_route(domain, *names)
    expect({key: value for key, value in of_services(agent).items() if key[0] in domains},
           {(f"{service or 'plain'}.test", name): service for service in ("web", "api", "")
            for name in names}, "domains, containers, services")
    ports = {r["domain"]: {b["port"] for b in r["backends"]} for r in agent.document("routes")["routes"]}
    expect([ports[d] for d in domains], [{8000}, {8001}, {8001}], "ports")
    with Load(lab, owners(web=names, api=names, plain=names)) as load:
        for domain in domains:
            for name in names:
                load.wait(domain, name)
        load.event("one of them ends")
        pair[0].kill()
        at = when(lab, pair[0], "die")
        load.lost("multi0", at)
        load.silent("multi0", at)
        for domain in domains:
            load.wait(domain, "multi1", 20)
    for domain in domains:
        agent.wait_route(domain, "multi1")


def test_service_conflict(lab):
    """services of two containers claim a domain: the older has it; the younger's others are routed"""
    agent = start(lab)
    first = backend(lab, "first", labels=services(web=8000))
    backend(lab, "second", labels=services(web=8000, api=8000))
    agent.wait_route("web.test", "first")
    agent.wait_route("api.test", "second")
    with Load(lab, owners(web=["first", "second"], api="second")) as load:
        load.wait("web.test", "first", 20)
        wait_for(lambda: "second" in agent.refused(), "the younger is in conflict")
        entry = agent.refused()["second"]
        expect(entry["domain"], "web.test", "the domain in conflict")
        check("first" in entry["reason"], f"the reason names the older: {entry}")
        with load.only("web.test", 503):
            load.event("the older goes")
            first.remove()
            load.lost("first", when(lab, first, "die"), heir=True)
            load.wait("web.test", "second")
        load.wait("api.test", "second", 20)
        wait_for(lambda: not agent.refused(), "no conflict is left")
    expect(of_services(agent)["web.test", "second"], "web", "the service")


def test_services_collide(lab):
    """two services of one container claim the same domain: it is said which label"""
    agent = start(lab)
    lab.container("twice", labels={
        "kakuremichi.enabled": "true", "kakuremichi.a.domain": "same.test",
        "kakuremichi.a.port": 80, "kakuremichi.b.domain": "same.test, b.test",
        "kakuremichi.b.port": 81}, image="busybox", command=("sleep", "600"), wait=False)
    wait_for(lambda: "twice" in agent.refused(), "it is rejected or in conflict")
    check("same.test" in str(agent.refused()["twice"]), "the domain is named")


BAD = {
    "score": {"kakuremichi.a_b.domain": "x.test", "kakuremichi.a_b.port": "80"},
    "dash": {"kakuremichi.-a.domain": "x.test", "kakuremichi.-a.port": "80"},
    "long": {f"kakuremichi.{'n' * 64}.domain": "x.test", f"kakuremichi.{'n' * 64}.port": "80"},
    "keyword": {"kakuremichi.port.domain": "x.test", "kakuremichi.port.port": "80"},
    "no-port": {"kakuremichi.web.domain": "x.test"},
    "no-domain": {"kakuremichi.web.port": "80"},
    "unknown": {"kakuremichi.web.domain": "x.test", "kakuremichi.web.port": "80",
                "kakuremichi.web.prot": "80"},
    "deep": {"kakuremichi.web.domain": "x.test", "kakuremichi.web.port": "80",
             "kakuremichi.web.x.port": "80"},
    "value": {"kakuremichi.web.domain": "x.test", "kakuremichi.web.port": "66000"},
    "plain-half": {"kakuremichi.web.domain": "x.test", "kakuremichi.web.port": "80",
                   "kakuremichi.domain": "y.test"},
}
# Whose label the reason is about, where it is not the first with the odd name.
LABEL = {"no-port": "kakuremichi.web.port", "no-domain": "kakuremichi.web.domain",
         "unknown": "kakuremichi.web.prot", "deep": "kakuremichi.web.x.port",
         "value": "kakuremichi.web.port", "plain-half": "kakuremichi.port"}


def test_bad_services(lab):
    """a wrong name, a missing port, an unknown key: the whole container is rejected, with the label"""
    agent = start(lab)
    names = [f"bad-{name}" for name in BAD]
    for name, labels in zip(names, BAD.values()):
        arguments = [word for key, value in labels.items() for word in ("-l", f"{key}={value}")]
        lab.docker("create", "--name", name, "-l", "kakuremichi.enabled=true", *arguments,
                   "busybox", "sleep", "600")
    good = backend(lab, "good", labels=services(web=8000))
    try:
        agent.wait_route("web.test", "good")
        with Load(lab, owners(web="good")) as load:
            lab.docker("start", *names)
            wait_for(lambda: set(agent.refused()) >= set(names), "all are listed", 10)
            for (short, labels), name in zip(BAD.items(), names):
                entry = agent.refused()[name]
                wanted = {LABEL[short]} if short in LABEL else set(labels)
                check(entry["label"] in wanted, f"{name}: label {entry['label']}, not of {wanted}")
                check(entry["reason"], f"{name} has a reason")
                check(agent.logs("WARN", container=name, label=entry["label"]), f"a WARN for {name}")
            expect(sorted(agent.routes()), ["steady.test", "web.test"], "routes")
            load.wait("web.test", "good", 20)
    finally:
        lab.docker("rm", "-f", *names)
    wait_for(lambda: not agent.refused(), "those that are gone are listed no longer")
    good.remove()


if __name__ == "__main__":
    lib.main("e2erepl")
