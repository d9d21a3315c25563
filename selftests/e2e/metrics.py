# SPDX-License-Identifier: MIT
"""/metrics at the admin address: Prometheus reads it, and it says what `stats` says."""
import json
import math
import re
import shutil
import threading

import lib
from lib import ENGINES, ROOT, check, expect, wait_for

PROMTOOL = shutil.which("promtool") or "/var/cache/kkm-tools/promtool"
SAMPLE = re.compile(r"([a-z_]+)((?:\{[^}]*\})?) (\S+)$")
DASHBOARD = ROOT / "docs/grafana-dashboard.json"
REQUEST = "GET %s HTTP/1.1\r\nHost: one.test\r\n\r\n"
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")


def ask(lab, method="GET", path="/metrics"):
    with lib.Client(lab, ns=lab.edge_ns, address="127.0.0.1", port=9180) as client:
        return client.get(path, "localhost", method=method)


def parse(text):
    """Series -> value."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = SAMPLE.match(line).groups()
            check(name + labels not in found, f"{name + labels} is there once")
            found[name + labels] = float(value)
    return found


def scrape(lab):
    answer = ask(lab)
    expect(answer.status, 200, "status of /metrics")
    return parse(answer.body.decode())


def promtool(*arguments, text=""):
    done = lib.subprocess.run([PROMTOOL, *arguments], input=text, text=True, capture_output=True,
                              timeout=60)
    return f"exit {done.returncode}: {done.stdout}{done.stderr}"


def documented():
    """Counter of `stats` -> its series, by docs/METRICS.md."""
    series, metric = {}, ""
    for line in (ROOT / "docs/METRICS.md").read_text().splitlines():
        cells = [cell.strip(" `") for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and cells[1] in ("gauge", "counter"):
            metric = cells[0]
        if len(cells) == 4 and cells[2] and cells[2] not in ("in `stats`", "---"):
            series[cells[2]] = cells[0] if cells[0] == metric else metric + cells[0]
    series.pop("in `stats", None)
    return series


def errors(found):
    return {series.split('"')[1]: int(value) for series, value in found.items()
            if series.startswith("kakuremichi_errors_total") and value}


def responses(found):
    return tuple(int(found[f'kakuremichi_responses_total{{class="{c}"}}']) for c in CLASSES)


def carried(found, direction):
    return sum(found[f'kakuremichi_bytes_total{{engine="{engine}",direction="{direction}"}}']
               for engine in ("relay", "sockmap"))


def exchange(client, target, status, request=REQUEST):
    """Bytes of the answer."""
    client.send((request % target).encode())
    answer = client.response()
    expect(answer.status, status, target)
    return answer.wire


def chunks(client):
    """A body in chunks, as it is on the wire."""
    data = line = client.file.readline()
    while size := int(line.split(b";")[0], 16):
        data += client.file.read(size + 2)
        data += (line := client.file.readline())
    while line != b"\r\n":
        data += (line := client.file.readline())
    return data


def test_http(lab):
    """/metrics by GET and HEAD, with the right type; what is not there is 404"""
    lab.agent()
    answer, head = ask(lab), ask(lab, "HEAD")
    for one in (answer, head):
        expect((one.status, one.fields["content-type"]),
               (200, "text/plain; version=0.0.4; charset=utf-8"), "status and type")
    check(len(answer.body) > 4000 and not head.body, "a body, but not with HEAD")
    check(int(head.fields["content-length"]) > 4000, "HEAD tells the length")
    expect(ask(lab, "POST").status, 405, "POST")
    for path in ("/metric", "/metrics/", "/"):
        expect(ask(lab, path=path).status, 404, path)
    expect(ask(lab, path="/metrics?x=y").status, 200, "with a query")


def test_promtool(lab):
    """promtool finds nothing to say, whatever containers call themselves; no series is theirs"""
    agent = lab.agent()
    empty = ask(lab).body.decode()
    expect(promtool("check", "metrics", text=empty), "exit 0: ", "promtool check metrics")
    check(math.isnan(parse(empty)["kakuremichi_docker_last_event_age_seconds"]), "no event yet")
    hostile = {"kakuremichi.description": 'a"b\\c\n# TYPE x counter\nx{y="z"} 1'}
    lab.container("one", "a.test", labels=hostile)
    lab.container("two_2.-", "a.test", labels={"kakuremichi.description": "another"}, wait=False)
    lab.container("three", 'c"}\n.test', labels=hostile, wait=False)
    lab.container("four", "d.test", labels={"kakuremichi.port": '1"\\\n'}, wait=False)
    lab.container("five", "xn--nxasmq6b.test,*.test,*", wait=False)
    wait_for(lambda: len(agent.refused()) == 3 and len(agent.routes()) == 4, "all have been read")
    text = ask(lab).body.decode()
    expect(promtool("check", "metrics", text=text), "exit 0: ", "promtool check metrics")
    found = parse(text)
    expect(set(found) ^ set(parse(empty)), set(), "series that there are not always")
    expect([found[f"kakuremichi_{name}"] for name in
            ("rejected", "conflicts", 'routes{state="active"}', 'backends{state="active"}',
             "docker_containers")], [2, 1, 4, 4, 5], "counts of the table")
    check(found["kakuremichi_docker_last_event_age_seconds"] < 60, "the last event's age")
    check(found["kakuremichi_docker_events_total"] >= 5, "events of five containers")


@lib.each(*ENGINES)
def test_agrees(lab, engine):
    """known requests are counted, once each, as `stats` and the client count them"""
    lab.container("one", "one.test", keep=True)
    agent = lab.agent("--datapath", engine)
    agent.wait_route("one.test", "one")
    sent = received = 0
    with lab.connect() as client:
        for number, (status, count) in enumerate(
                {"200": 5, "204": 1, "301": 2, "404": 3, "503": 1, "600": 1}.items()):
            for _ in range(count):
                target = f"/mix?seed={number}&n=700&status={status}&framing=length&hints=0"
                received += exchange(client, target, int(status))
                sent += len(REQUEST % target)
        # an interim answer, and a body in chunks that belongs to the relay
        target = "/mix?seed=1&n=9&status=200&framing=chunked&hints=1"
        client.send((REQUEST % target).encode())
        for status in (103, 200):
            expect(client.head().status, status, "an interim answer, and what follows it")
            received += client._wire
        received += len(chunks(client))
        sent += len(REQUEST % target)
        # two that go by the short way as a whole, if there is one
        for _ in range(2):
            received += exchange(client, "/name", 200)
            sent += len(REQUEST % "/name")
    with lab.connect() as client:
        request = REQUEST.replace("\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        received += exchange(client, "/upgrade?then=echo", 101, request)
        client.send(b"x" * 1000)
        expect(client.file.read(1000), b"x" * 1000, "the echo")
        received += 1000
        sent += 1000 + len(request % "/upgrade?then=echo")
    wait_for(lambda: not agent.connections(), "the connections are gone")
    found = wait_for(lambda: (new := scrape(lab))["kakuremichi_connections"] == 0 and new, "closed")
    expect(responses(found), (2, 9, 2, 3, 2), "answers by class")
    expect((carried(found, "up"), carried(found, "down")), (sent, received), "bytes up and down")
    expect(errors(found), {}, "errors")
    short = found['kakuremichi_bytes_total{engine="sockmap",direction="up"}']
    check((short > 0) == (engine == "both"), f"{short} bytes up by the short way")
    expect(found["kakuremichi_short_answers_total"] > 0, engine == "both", "answers by it")
    agree(agent, found)


def agree(agent, found):
    stats = agent.stats()
    series = documented()
    expect(set(series), set(stats), "counters in docs/METRICS.md, and in `stats`")
    stats["relay_up_bytes"] -= stats["short_up_bytes"]
    expect({name: found[series[name]] for name in stats}, dict(stats), "/metrics, and `stats`")


def test_errors(lab):
    """each answer of the agent's own is an error, by its reason"""
    lab.container("one", "one.test", keep=True)
    lab.container("still", "still.test")
    agent = lab.agent("--datapath", "relay", "--head-timeout", "300ms")
    agent.wait_route("one.test", "one")
    lab.docker("pause", "still")
    wait_for(lambda: agent.states("still.test") == {"still": "paused"}, "paused")
    found = scrape(lab)
    expect([found[f'kakuremichi_{name}{{state="{state}"}}'] for name in ("routes", "backends")
            for state in ("active", "paused")], [1, 1, 1, 1], "active and paused")
    for count, status, data in (
            (2, 404, "GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n"),
            (3, 400, "GET / HTTP/1.1\r\n\r\n"),
            (1, 405, "CONNECT one.test:80 HTTP/1.1\r\nHost: one.test:80\r\n\r\n"),
            (1, 408, "GET / HT"),
            (1, 431, "GET / HTTP/1.1\r\nHost: one.test\r\nA: " + "a" * 70000 + "\r\n\r\n"),
            (1, 501, "GET / HTTP/1.1\r\nHost: one.test\r\nTransfer-Encoding: gzip\r\n\r\n"),
            (2, 502, REQUEST % "/garbage"),
            (1, 503, "GET / HTTP/1.1\r\nHost: still.test\r\n\r\n")):
        for _ in range(count):
            with lab.connect() as client:
                client.send(data.encode())
                expect(client.response().status, status, data[:40])
    with lab.connect() as client:   # half of what its head says, then its end
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
        client.request(f"/say?hex={head.hex()}&then=close", "one.test")
        client.head()
        expect(client.file.read(), b"half", "an answer that is cut")
    found = scrape(lab)
    expect(errors(found), {"no_route": 2, "bad_request": 3, "method_not_allowed": 1,
                           "head_timeout": 1, "head_too_large": 1, "transfer_coding": 1,
                           "container_failed": 2, "container_down": 1, "answer_cut": 1}, "errors")
    expect(responses(found), (0, 1, 0, 0, 0), "answers of containers")


@lib.each(*ENGINES)
def test_monotonic(lab, engine):
    """counters never go back while there is traffic, and open connections are counted back to none"""
    lab.container("one", "one.test", keep=True)
    agent = lab.agent("--datapath", engine)
    agent.wait_route("one.test", "one")
    ending, done, failures = threading.Event(), [0] * 3, []

    def traffic(number):
        try:
            while not ending.is_set():
                with lab.connect() as client:
                    for _ in range(20):
                        client.request("/up", "one.test", method="POST", body=b"x" * 3000 * number)
                        expect(client.response().status, 200, "status")
                        done[number] += 1
        except Exception as error:  # told at the end
            failures.append(error)

    def grown(before, now):
        for series, value in before.items():
            if "_total" in series and now[series] < value:
                raise AssertionError(f"{series} went back from {value} to {now[series]}")
        return now

    threads = [threading.Thread(target=traffic, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    found, polls, most = scrape(lab), 0, 0
    try:
        while (polls < 100 or sum(done) < 300) and not failures:
            found = grown(found, scrape(lab))
            most = max(most, found["kakuremichi_connections"])
            polls += 1
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    check(not failures, f"the traffic: {failures[:1]}")
    check(1 <= most <= 6, f"{most} connections open at once, of three clients")
    lib.comment(f"{engine}: {polls} polls, {sum(done)} requests")
    found = wait_for(lambda: (new := grown(found, scrape(lab)))["kakuremichi_connections"] == 0
                     and new["kakuremichi_upstream_connections"] == 0 and new, "no connections")
    expect(responses(found), (0, sum(done), 0, 0, 0), "answers")
    agree(agent, found)


def test_draining(lab):
    """/metrics answers while the agent drains, and says so"""
    lab.container("one", "one.test", keep=True)
    agent = lab.agent("--datapath", "relay")
    agent.wait_route("one.test", "one")
    expect(scrape(lab)["kakuremichi_ready"], 1, "ready")
    with lab.connect() as client:
        client.upgrade("echo", "one.test")
        agent.process.terminate()
        wait_for(lambda: agent.health()[0] == 503, "it drains")
        found = scrape(lab)
        expect([found[f"kakuremichi_{name}"] for name in ("ready", "connections")], [0, 1],
               "ready, and open connections")
    expect(agent.process.wait(15), 0, "exit status")


def test_no_docker_no_maps(lab):
    """without Docker, and without maps: the states say so, and requests are counted"""
    agent = lab.agent("--docker-enabled", "false")
    found = scrape(lab)
    expect([found[f"kakuremichi_docker_{name}"] for name in ("enabled", "connected")], [0, 0],
           "Docker disabled")
    agent.stop()
    agent = lab.agent("--docker-socket", f"{lab.dir}/nobody.sock", ready=False)
    wait_for(lambda: agent.status(), "it is up")
    found = scrape(lab)
    expect([found[f"kakuremichi_{name}"] for name in
            ("docker_enabled", "docker_connected", "ready", "control_enabled",
             "control_connected")], [1, 0, 0, 0, 0], "Docker not there")
    agent.stop()
    agent = lab.agent("--bpf-dir", f"{lab.dir}/no-bpffs")
    check("No BPF maps" in agent.text(), "it has no maps")
    with lab.connect() as client:
        expect(client.get("/", "nobody.test").status, 404, "status")
    found = wait_for(lambda: (new := scrape(lab))["kakuremichi_connections"] == 0 and new, "closed")
    expect((errors(found), found["kakuremichi_connections_accepted_total"]), ({"no_route": 1}, 1),
           "counted without maps")


def expressions(node):
    """Every expression of the dashboard, with Grafana's variables filled in."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "expr":
                yield value.replace("$__rate_interval", "5m").replace("$instance", ".*")
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def test_dashboard(lab):
    """each metric of the dashboard, and each value of a label that it asks for, is in /metrics"""
    lab.agent()
    found = scrape(lab)
    names = {series.split("{")[0] for series in found}
    dashboard = json.loads(DASHBOARD.read_text())
    wanted = list(expressions(dashboard))
    check(len(wanted) > 20, f"{len(wanted)} expressions")
    for expression in wanted:
        metrics = set(re.findall(r"\b(?:kakuremichi|process)_\w+", expression))
        check(metrics and metrics <= names, f"{metrics - names or 'a metric'} in {expression}")
        for label in re.findall(r'(\w+="[^"]*")', expression):
            check(any(label in series for series in found), f"{label} in {expression}")
    rules = {"groups": [{"name": "g", "rules": [
        {"record": f"r{n}", "expr": expression} for n, expression in enumerate(wanted)]}]}
    path = f"{lab.dir}/rules.yml"
    with open(path, "w") as file:
        json.dump(rules, file)
    told = promtool("check", "rules", path)
    check(told.startswith("exit 0"), f"promtool check rules: {told}")
    for panel in dashboard["panels"]:
        expect([t["datasource"]["uid"] for t in panel["targets"]],
               ["${datasource}"] * len(panel["targets"]), f"data source of {panel['title']}")


lib.main("e2emetr")
