# SPDX-License-Identifier: MIT
"""Routes from a file: alone and beside Docker's, changed in every way while requests run."""
import json
import os
import shutil
import threading

import lib
from lib import check, expect, wait_for

NO_DOCKER = ("--docker-enabled", "false")


def who(lab, host):
    with lab.connect() as client:
        answer = client.get("/name", host)
        return answer.container or answer.status


def plain(lab, name):
    """A container without a label, and where it is reached."""
    container = lab.container(name, keep=True)
    return f"{container.address}:{container.port}"


class RoutesFile:
    """In a directory of its own, empty at first."""

    def __init__(self, lab):
        self.dir = f"{lab.dir}/routes"
        shutil.rmtree(self.dir, ignore_errors=True)
        os.mkdir(self.dir)
        self.path = f"{self.dir}/routes.json"

    def write(self, routes, path=None):
        """In place. routes: a dictionary, or the text."""
        with open(path or self.path, "w") as file:
            file.write(routes if isinstance(routes, str) else json.dumps(routes, indent=2))

    def rename(self, routes):
        """As editors do."""
        self.write(routes, f"{self.path}.new")
        os.rename(f"{self.path}.new", self.path)

    def swap(self, routes):
        """As Kubernetes does with a ConfigMap: a directory for each version, a link to it."""
        version = f"{self.dir}/..{len(os.listdir(self.dir))}"
        os.mkdir(version)
        self.write(routes, f"{version}/routes.json")
        os.symlink(os.path.basename(version), f"{self.dir}/..data.new")
        os.rename(f"{self.dir}/..data.new", f"{self.dir}/..data")
        if not os.path.islink(self.path):
            os.symlink("..data/routes.json", f"{self.path}.new")
            os.rename(f"{self.path}.new", self.path)


class Load:
    """Requests without a pause, on new and on kept connections, GET and POST; every answer's."""

    def __init__(self, lab, host):
        self.lab, self.host = lab, host
        self.answers, self.failures, self.ending = [], [], False
        self.threads = [threading.Thread(target=self.run, args=(kept,), daemon=True)
                        for kept in (True, False, True, False)]
        for thread in self.threads:
            thread.start()

    def run(self, kept):
        client = None
        while not self.ending:
            try:
                client = client or self.lab.connect()
                target, options = ("/up", {"method": "POST", "body": b"x" * 3000}) \
                    if len(self.answers) % 5 == 0 else ("/name", {})
                answer = client.get(target, self.host, **options)
                self.answers.append(answer.container or answer.status)
            except (OSError, ValueError) as error:
                self.failures.append(repr(error))
                client, kept = None, False
            if not kept and client:
                client.close()
                client = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ending = True
        for thread in self.threads:
            thread.join(20)

    def more(self, count=100):
        """What the next answers are, each once."""
        start = len(self.answers)
        wait_for(lambda: len(self.answers) >= start + count or self.failures, "requests run", 20)
        return set(self.answers[start:])

    def turns_to(self, *names):
        wait_for(lambda: self.more() == set(names), f"requests go to {names}", 20)


def test_alone(lab):
    """without Docker: address of a container, of a server on the host, IPv6, several, a wildcard"""
    one, two = plain(lab, "one"), plain(lab, "two")
    lab.container("host", network="host", keep=True)
    lab.container("host6", network="host", port=8006, control=9006, wait=False, keep=True,
                  environ={"FAMILY": "6"})
    file = RoutesFile(lab)
    file.write({"One.test.": one, "two.test": [two], "both.test": [one, two],
                "host.test": "127.0.0.1:8000", "*.host.test": "[::1]:8006"})
    agent = lab.agent(*NO_DOCKER, "--routes-file", file.path)
    expect(agent.routes(), {"one.test": [f"file:{one}"], "two.test": [f"file:{two}"],
                            "both.test": [f"file:{one}", f"file:{two}"],
                            "host.test": ["file:127.0.0.1:8000"],
                            "*.host.test": ["file:[::1]:8006"]}, "routes")
    expect({r["owner"] for r in agent.document("routes")["routes"]}, {"file"}, "owners")
    wait_for(lambda: who(lab, "x.host.test") == "host6", "the server on IPv6 answers")
    expect([who(lab, f"{name}.test") for name in ("one", "two", "host", "none")],
           ["one", "two", "host", 404], "who answers")
    expect({who(lab, "both.test") for _ in range(10)}, {"one", "two"}, "who answers for both")
    expect(agent.health(), (200, "ready\n"), "readyz")
    status = agent.status()["routes_file"]
    expect((status["path"], status["routes"], status["error"]), (file.path, 5, None), "status")
    check(agent.logs("INFO", msg="Adding tunnel", domain="one.test", target=one, owner="file"),
          "a log line tells of the route")
    expect(agent.logs("WARN"), [], "warnings")


def test_changes(lab):
    """written in place, renamed over, links swapped, removed, bad, good again: no request fails"""
    one, two = plain(lab, "one"), plain(lab, "two")
    file = RoutesFile(lab)
    file.write({"a.test": one})
    agent = lab.agent("--routes-file", file.path)
    bad = '{\n  "a.test": "%s",\n  "b.test": "localhost:80"\n}\n' % one
    with Load(lab, "a.test") as load:
        load.turns_to("one")
        for change in (file.write, file.rename, file.swap, file.swap):
            for name, target in (("two", two), ("one", one)):
                change({"a.test": target})
                load.turns_to(name)
        for step, (spoil, error) in enumerate((
                (lambda: file.rename(bad), "b.test: target 'localhost:80' is no address with a port: "
                                           "names are not looked up, give address:port"),
                (lambda: os.unlink(file.path), "No such file or directory"))):
            told = len(agent.logs("WARN"))
            spoil()
            wait_for(lambda: agent.status()["routes_file"]["error"], "the error is in the status")
            expect(load.more(), {"one"}, "who answers by the last good routes")
            line = 3 if step == 0 else None
            expect(agent.status()["routes_file"]["error"],
                   f"line {line}: {error}" if line else error, "the error")
            warnings = agent.logs("WARN")[told:]
            expect([(w["file"], w.get("line"), w["error"]) for w in warnings],
                   [(file.path, line, error)], "the one warning")
            expect(agent.routes(), {"a.test": [f"file:{one}"]}, "routes")
            expect(agent.health(), (200, "ready; the routes file is not taken as it is\n"), "readyz")
            check(error in agent.command("status").stdout, "the command shows it")
            told = len(agent.logs("INFO", msg="Routes file read"))
            file.rename({"a.test": one})
            wait_for(lambda: not agent.status()["routes_file"]["error"], "the file is good again")
            expect(len(agent.logs("INFO", msg="Routes file read")) - told, 1, "lines that say so")
        expect(load.more(), {"one"}, "who answers at the end")
    expect(load.failures, [], "requests without an answer")
    expect(set(load.answers), {"one", "two"}, "what answers there were")
    lib.comment(f"{len(load.answers)} requests")
    file.rename({})
    agent.wait_route("a.test")
    expect(who(lab, "a.test"), 404, "status once the file is empty")


def test_appears(lab):
    """not there at the start, nor is its directory: one warning; served when it appears"""
    one = plain(lab, "one")
    file = RoutesFile(lab)
    os.rmdir(file.dir)
    agent = lab.agent("--routes-file", file.path)
    expect([(w["file"], w["error"]) for w in agent.logs("WARN")],
           [(file.path, "No such file or directory")], "warnings")
    expect(who(lab, "a.test"), 404, "status before")
    os.mkdir(file.dir)
    file.write({"a.test": one})
    agent.wait_route("a.test", f"file:{one}")
    expect(who(lab, "a.test"), "one", "who answers")
    expect(len(agent.logs("WARN")), 1, "warnings")


def test_before_docker(lab):
    """served while Docker has not been read; an unknown domain is 503 until it was, then 404"""
    one = plain(lab, "one")
    file = RoutesFile(lab)
    file.write({"a.test": one})
    away = f"{lab.dir}/away.sock"
    if os.path.lexists(away):
        os.unlink(away)
    agent = lab.agent("--routes-file", file.path, "--docker-socket", away, ready=False)
    wait_for(lambda: agent.status().get("running"), "it runs")
    expect((who(lab, "a.test"), who(lab, "b.test")), ("one", 503), "before")
    file.rename({"b.test": one})
    agent.wait_route("a.test")
    expect((who(lab, "b.test"), who(lab, "a.test")), ("one", 503), "of a file that has changed")
    os.symlink(lab.docker_socket, away)
    agent.wait_ready()
    expect((who(lab, "b.test"), who(lab, "a.test")), ("one", 404), "after")


def test_beside_docker(lab):
    """a container goes first for its domain, and the file takes over when it goes; neither wipes"""
    one, two = plain(lab, "one"), plain(lab, "two")
    file = RoutesFile(lab)
    file.write({"a.test": one, "file.test": two})
    agent = lab.agent("--routes-file", file.path)
    expect(who(lab, "a.test"), "one", "who answers")
    with Load(lab, "file.test") as load:
        beside_docker(lab, agent, file, one, two)
        load.more()
    expect((load.failures, set(load.answers)), ([], {"two"}), "requests to another domain of it")


def beside_docker(lab, agent, file, one, two):
    docker = lab.container("docker", "a.test,docker.test")
    wait_for(lambda: who(lab, "a.test") == "docker", "the container has the domain")
    conflict = agent.refused()[f"file:{one}"]
    expect((conflict["domain"], conflict["reason"]), ("a.test", "the domain belongs to container "
           "docker of Docker, which goes first"), "the conflict")
    expect(len(agent.logs("WARN", msg="Domain not routed to this target", domain="a.test",
                          owner="file")), 1, "warnings of it")
    expect(agent.routes(), {"a.test": ["docker"], "docker.test": ["docker"],
                            "file.test": [f"file:{two}"]}, "routes")
    file.rename({"a.test": two, "docker.test": one, "file.test": two})
    agent.wait_route("file.test", f"file:{two}")
    wait_for(lambda: len(agent.refused()) == 2, "both of them conflict")
    expect((who(lab, "a.test"), who(lab, "docker.test")), ("docker", "docker"), "who answers")
    file.rename("{")
    wait_for(lambda: agent.status()["routes_file"]["error"], "the file is bad")
    docker.remove()
    agent.wait_route("a.test", f"file:{two}")
    expect((who(lab, "a.test"), who(lab, "docker.test")), ("two", "one"), "who takes over")
    expect(agent.refused(), {}, "conflicts")
    check(agent.logs("INFO", msg="Changing tunnel", domain="a.test", target=two, owner="file"),
          "a log line tells of it")
    lab.container("again", "docker.test")
    agent.wait_route("docker.test", "again")
    file.rename({"file.test": two})
    agent.wait_route("a.test")
    expect(agent.routes(), {"docker.test": ["again"], "file.test": [f"file:{two}"]}, "routes")


def test_own_listener(lab):
    """a target that is the agent's own listener is not routed, and named; the others are"""
    one = plain(lab, "one")
    file = RoutesFile(lab)
    file.write({"a.test": f"{lab.edge_addr}:80", "b.test": one})
    agent = lab.agent("--routes-file", file.path)
    refused = agent.refused()[f"file:{lab.edge_addr}:80"]
    expect((refused["domain"], refused["label"]), ("a.test", ""), "who is refused")
    check("the agent's own listener" in refused["reason"], refused["reason"])
    expect((who(lab, "a.test"), who(lab, "b.test")), (404, "one"), "who answers")


def test_check(lab):
    """`check` says whether the file is good, and line and reason where not"""
    file = RoutesFile(lab)
    expected = (("{}", True, "0 routes"),
                ({"a.test": "127.0.0.1:1", "b.test": "[::1]:1"}, True, "2 routes"),
                ('{\n"a.test": "127.0.0.1:1",\n"A.test": "127.0.0.1:2"\n}', False,
                 "line 3: a.test is there twice: in line 2 too"))
    for routes, good, detail in expected:
        file.write(routes)
        done = lab.edge(lib.BINARY, "check", "--json", "--routes-file", file.path,
                        "--docker-socket", lab.docker_socket, "--bpf-dir", lab.bpf_dir,
                        "--cgroup", lab.cgroup, env=lab.environ)
        found = [c for c in json.loads(done.stdout)["checks"] if c["name"] == "routes file"]
        expect([(c["ok"], c["detail"]) for c in found], [(good, detail)], "the check")
        expect(done.returncode, 0 if good else 1, "exit status")


lib.main("e2erfile")
