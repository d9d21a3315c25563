# SPDX-License-Identifier: MIT
"""The corpus (selftests/corpus, whose README says how it is written) through the agent.

One after the other, so that every byte at a container belongs to a case; then many at once.
"""
import collections
import concurrent.futures
import json
import os
import random
import re
import socket

import lib
from lib import check, comment, expect, wait_for
from lib_raw import first_request

CORPUS = lib.Path(os.environ.get("CORPUS") or lib.ROOT / "selftests/corpus")
TERM = re.compile(r'(?:(\d+)\*)?(?:"((?:[^"\\]|\\.)*)"|([A-Z][A-Z0-9_]*))(?: |$)')
ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|.)")
ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "\\": "\\", '"': '"'}
OWN = {"400", "404", "405", "431", "501"}
NAMES = "abc"
GIVE_UP = 20    # after so many failed cases


# The text

class Case:
    def __init__(self, title):
        self.title = title
        self.input, self.passing = b"", b""
        self.wanted = dict.fromkeys(NAMES, b"")
        self.verdicts = set()
        self.owners = []        # (end in `passing`, container), one for each line
        self.method = ""        # of the request that the agent answers itself

    def add(self, who, data):
        if who in NAMES:
            self.wanted[who] += data
            self.passing += data
            self.owners.append((len(self.passing), who))
        elif data.strip():
            self.method = data.strip().split(b" ")[0].decode("latin-1")
        self.input += data

    def end(self, verdicts):
        """What is expected follows from the bytes: answers, and what belongs to requests that are
        complete."""
        self.verdicts = set(verdicts)
        check(self.verdicts <= OWN | {"ok", "close", "more"}, f"verdicts of {self.title}")
        self.answers, self.requests, at = [], [], 0
        while request := first_request(self.passing[at:]):
            who = next(owner for end, owner in self.owners if at < end)
            self.answers.append((who, request.method))
            self.requests.append((who, self.passing[at:at + request.size]))
            at += request.size
        self.complete = dict.fromkeys(NAMES, b"")
        for who, data in self.requests:
            self.complete[who] += data
        # of the one that is not
        self.rest = next(((w, self.passing[at:]) for e, w in self.owners if at < e), None)

    @property
    def own(self):
        return bool(self.verdicts & OWN)


def unescape(text):
    return ESCAPE.sub(lambda m: chr(int(m[1][1:], 16)) if m[1][0] == "x" else ESCAPES[m[1]], text)


def terms(text, names):
    at, data = 0, b""
    while at < len(text):
        term = TERM.match(text, at)
        check(term, f"a term: {text[at:]}")
        times, string, name = term.groups()
        data += int(times or 1) * (
            names[name] if name else unescape(string).encode("latin-1"))
        at = term.end()
    return data


def read_file(path):
    names, case = {}, None
    for line in path.read_text().splitlines():
        word, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        if word == "def":
            name, _, rest = rest.partition(" ")
            names[name] = terms(rest, names)
        elif word == "case":
            case = Case(f"{path.stem}: {rest}")
        elif word == "=":
            case.end(rest.split())
            yield case
        else:
            check(word in NAMES or word == "-", f"{path}: {line}")
            case.add(word, terms(rest, names))


def read_corpus():
    cases = [case for path in sorted(CORPUS.glob("*.txt")) for case in read_file(path)]
    check(cases, f"no case in {CORPUS}")
    return cases


# Containers

class Tap:
    """A container, and the connection on which it tells what it has got."""

    def __init__(self, lab, name):
        self.container = lab.container(f"raw-{name}", f"{name}.test", keep=True,
                                       environ={"NAME": name},
                                       command=["python3", "/e2e/lib_raw.py"])
        self.sock = lab.socket(lab.edge_ns)
        self.sock.connect((self.container.address, self.container.control_port))
        self.file = self.sock.makefile("rwb")
        lab.sockets.append(self.file)
        self.take()

    def ask(self, words):
        self.file.write(words.encode() + b"\n")
        self.file.flush()
        return json.loads(self.file.readline())

    def take(self):
        """connection -> bytes, in "all" of all in the order in which they came."""
        reply = self.ask("take")
        expect(reply["open"], 0, f"connections left open at {self.container.name}")
        taken = collections.defaultdict(bytes)
        for connection, text in reply["pieces"]:
            taken[connection] += text.encode("latin-1")
        taken["all"] = b"".join(text.encode("latin-1") for _, text in reply["pieces"])
        return taken

    def have(self, size):
        expect(self.ask(f"have {size}"), size, f"bytes at {self.container.name}")


def start(lab, engine):
    taps = {name: Tap(lab, name) for name in NAMES}
    agent = lab.agent("--datapath", engine)
    for name in NAMES:
        agent.wait_route(f"{name}.test", f"raw-{name}")
    return agent, taps


# A case

def unread(agent, sock):
    """Bytes of this client's that the agent has not read yet, -1 where it has closed."""
    port = f":{sock.getsockname()[1]:04X}"
    with open(f"/proc/{agent.pid}/net/tcp", encoding="ascii") as table:
        for line in table:
            fields = line.split()
            if fields[2].endswith(port):
                return int(fields[4].split(":")[1], 16)
    return -1


def send(client, data, agent=None, cuts=()):
    """In pieces; each is sent when the agent has read the one before."""
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for begin, end in zip((0, *cuts), (*cuts, len(data))):
        client.send(data[begin:end])
        if end < len(data):
            wait_for(lambda: unread(agent, client.sock) <= 0, "the agent has read a piece")


def read_answers(client, case):
    for number, (who, method) in enumerate(case.answers, 1):
        answer = client.response(method)
        expect((answer.status, answer.container), (200, who), f"answer {number}")
    if case.own:
        answer = client.response(case.method)
        check(str(answer.status) in case.verdicts,
              f"the agent's answer: {answer.status}, expected {case.verdicts}")
        expect(answer.fields.get("content-type"), "text/plain; charset=utf-8", "its type")
        expect(answer.container, None, "x-container of the agent's answer")


def end(client, case, half_closed):
    if case.verdicts == {"ok"} and not half_closed:
        client.half_close()
    if case.verdicts != {"more"}:
        client.ends()
        return
    # Whoever waits may say why it no longer does; RFC 9112, 8.
    if not half_closed:
        client.half_close()
    rest = client.file.read(1000)
    check(re.match(rb"HTTP/1.1 (400|408|502) |$", rest), f"behind the last answer: {rest}")


def exchange(lab, case, agent=None, cuts=(), half_close=False, taps=None):
    with lab.connect(timeout=5) as client:
        send(client, case.input, agent, cuts)
        if half_close:
            client.half_close()
        read_answers(client, case)
        for name, tap in taps.items() if taps and case.verdicts == {"more"} else ():
            tap.have(len(case.wanted[name]))
        end(client, case, half_close)


def compare(case, name, got):
    """What belongs to a body that is at fault may have been held back, or lost in the reset."""
    if case.own:
        check(got.startswith(case.complete[name]) and case.wanted[name].startswith(got),
              f"{name} got {got[-200:]}, at most {case.wanted[name][-200:]}")
    else:
        check(got == case.wanted[name],
              f"{name} got {got[-200:]}, expected {case.wanted[name][-200:]}")


def run_case(lab, taps, case, **options):
    """Why it failed, or ''."""
    failure = ""
    try:
        exchange(lab, case, taps=taps, **options)
    except (AssertionError, OSError, ValueError) as error:
        failure = f"{type(error).__name__}: {error}"
    for name, tap in taps.items():
        try:
            got = tap.take()
            if not failure:
                compare(case, name, got["all"])
        except AssertionError as error:
            failure = failure or str(error)
    return failure


def run_cases(lab, taps, ways):
    """ways: pairs of a case and how it is sent."""
    failures = 0
    for case, options in ways:
        if failure := run_case(lab, taps, case, **options):
            how = ", ".join(f"{k} {v}" for k, v in options.items() if k != "agent")
            comment(f"{case.title}{': ' if how else ''}{how}: {failure}")
            failures += 1
            check(failures < GIVE_UP, f"{failures} cases failed, the others are left out")
    expect(failures, 0, "cases that failed")


@lib.each(*lib.ENGINES)
def test_each(lab, engine):
    """each case alone: its verdict, who answers, and what reached whom"""
    _, taps = start(lab, engine)
    cases = read_corpus()
    run_cases(lab, taps, ((case, {}) for case in cases))
    comment(f"{len(cases)} cases")


# Many at once

def split(data):
    """Requests that are complete, and the rest."""
    requests = []
    while request := first_request(data):
        requests.append(data[:request.size])
        data = data[request.size:]
    return requests, data


def compare_all(cases, name, connections):
    wanted = collections.Counter(data for case in cases for who, data in case.requests
                                 if who == name)
    allowed = [case.rest[1] for case in cases if case.rest and case.rest[0] == name]
    got = collections.Counter()
    for data in connections:
        requests, rest = split(data)
        got.update(requests)
        check(not rest or any(a.startswith(rest) for a in allowed),
              f"{name} got a part that nobody sent: {rest[:200]}")
    check(got == wanted, f"{name}: not sent: {list((got - wanted).items())[:3]}, "
                         f"lost: {list((wanted - got).items())[:3]}")


@lib.each(*lib.ENGINES)
def test_at_once(lab, engine):
    """16 cases at a time: nothing gets into another connection"""
    _, taps = start(lab, engine)
    cases = read_corpus()
    random.Random(engine).shuffle(cases)
    failures = []

    def run(case):
        if len(failures) < GIVE_UP:
            try:
                exchange(lab, case)
            except (AssertionError, OSError, ValueError) as error:
                failures.append(f"{case.title}: {type(error).__name__}: {error}")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(run, cases))
    for failure in failures:
        comment(failure)
    expect(len(failures), 0, "cases that failed")
    for name, tap in taps.items():
        taken = tap.take()
        del taken["all"]
        compare_all(cases, name, taken.values())


# Other ways to send the same

def cuts_of(case, count):
    places = random.Random(case.title).sample(
        range(1, len(case.input)), min(count, len(case.input) - 1))
    return [(place,) for place in sorted(places)]


@lib.each(*lib.ENGINES)
def test_cut(lab, engine):
    """cut in two where it makes no difference: the agent reads the one before it gets the other"""
    agent, taps = start(lab, engine)
    cases = read_corpus()
    if not lib.LONG:
        cases = cases[::8]
    run_cases(lab, taps, ((case, {"agent": agent, "cuts": cuts})
                          for case in cases for cuts in cuts_of(case, 4 if lib.LONG else 1)))


@lib.each(*lib.ENGINES)
def test_half_closed(lab, engine):
    """the client ends its direction at once: the same verdicts, answers and bytes"""
    _, taps = start(lab, engine)
    cases = [case for case in read_corpus() if case.verdicts != {"more"}]
    run_cases(lab, taps, ((case, {"half_close": True})
                          for case in (cases if lib.LONG else cases[::8])))


if __name__ == "__main__":
    lib.main("corpus")
