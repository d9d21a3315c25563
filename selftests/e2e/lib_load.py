# SPDX-License-Identifier: MIT
"""Requests all the while, and what may become of them.

A process in the client's namespace sends RATE requests a second to several domains by turns, GET
and POST, on new connections and on kept ones (some of one domain, some for all domains mixed); every
SLOW-th takes its time, so that some are under way whenever something happens. It keeps to its rate
whatever becomes of earlier ones. Nothing is ever sent twice: each request has a number, and its
container writes that down (JOURNAL in lib_backend.py) before it does anything else.

    with Load(lab, {"a.test": ["a0", "a1"], "b.test": ["b"]}) as load:
        with load.only("b.test", 503):      # nobody is up meanwhile
            ...
        load.lost("a0", died_at)            # what it had taken went with it
        load.silent("a1", since)            # it gets nothing from then on

At the end every request is judged, by what README.md and docs/HTTP.md promise:

- Who answers, or has a request in its journal, is one of the domain's. Always.
- Every request is answered by a container, in full, and the answer tells of the very request; but
  a request that overlaps a time of `only` may have one of these statuses (503 with Retry-After: 5),
  if no container got it;
  and one that was sent before a container died may fail (502, 504, or cut; 503 for a GET that was
  tried again) if that container's journal has it, or nobody's: then it died with it.
- No request stands in two journals, or twice in one: but GET twice, if it had no answer of the first.
"""
import asyncio
import collections
import hashlib
import json
import os
import random
import sys
import time

RATE, SLOW, SLOW_MS = 210, 12, 600
REACTS = 0.25       # how long the agent may take to hear of an event, on a busy machine
KNOWN = 2           # how long the domain of a container that was stopped is known
PATIENCE = 8        # seconds until an answer that does not come is a failure
SLACK = 0.1         # from what `routes` shows to what each worker knows, on a busy machine
BODIES = [random.Random(i).randbytes(10_000 + 97 * i) for i in range(8)]

Record = collections.namedtuple(
    "Record", "number sent done domain method kept wait outcome status container")


# The process

class Connection:
    def __init__(self, reader, writer):
        self.reader, self.writer, self.used = reader, writer, False


class Generator:
    def __init__(self, address, domains, path):
        self.address, self.domains = address, domains
        self.file = open(path, "w", buffering=1)
        self.idle = collections.defaultdict(collections.deque)
        self.digests = [hashlib.sha256(body).hexdigest() for body in BODIES]

    async def run(self):
        """Until stdin ends, or a line of it is `end`; other lines are further domains."""
        loop = asyncio.get_running_loop()
        lines = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        reading = asyncio.create_task(self.listen(lines))
        under_way = set()
        number, at = 0, time.monotonic()
        while not reading.done():
            if time.monotonic() < at:
                await asyncio.sleep(at - time.monotonic())
            task = asyncio.create_task(self.request(number))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            number, at = number + 1, at + 1 / RATE
        await asyncio.gather(*under_way)

    async def listen(self, lines):
        while (line := (await lines.readline()).decode().strip()) not in ("", "end"):
            self.domains.append(line)

    async def request(self, number):
        # Each domain has all kinds of requests, however many domains there are.
        turn, domain = divmod(number, len(self.domains))
        domain = self.domains[domain]
        method = "POST" if turn % 2 else "GET"
        pool = (None, domain, "all")[turn // 2 % 3]
        wait = SLOW_MS if turn % SLOW in (3, 8) else 0
        sent = time.monotonic()
        connection, kept = None, False
        try:
            connection, kept = await self.take(pool)
            outcome, status, container = await asyncio.wait_for(
                self.exchange(connection, number, domain, method, wait), PATIENCE)
        except asyncio.TimeoutError:
            outcome, status, container = "timeout", 0, None
        except (OSError, EOFError, ValueError) as error:
            outcome, status, container = f"cut: {error!r}", 0, None
        record = Record(number, sent, time.monotonic(), domain, method, kept, wait, outcome,
                        status, container)
        self.file.write(json.dumps(record) + "\n")
        if connection:
            if pool and outcome == "ok":
                self.idle[pool].append(connection)
            else:
                connection.writer.close()

    async def take(self, pool):
        """A connection, and whether it has been used: the one that was for the longest time not."""
        if pool and len(self.idle[pool]) >= 3:
            return self.idle[pool].popleft(), True
        return Connection(*await asyncio.open_connection(self.address, 80)), False

    async def exchange(self, connection, number, domain, method, wait):
        body = BODIES[number % len(BODIES)] if method == "POST" else b""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        connection.writer.write(f"{method} /load?id={number}&wait={wait} HTTP/1.1\r\n"
                                f"Host: {domain}\r\n{length}\r\n".encode() + body)
        head = (await connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in
                  (line.partition(":") for line in head[1:])}
        answer = await connection.reader.readexactly(int(fields["content-length"]))
        status, container = int(head[0].split()[1]), fields.get("x-container")
        if status != 200 or container is None:
            outcome = "status"
            if status == 503 and fields.get("retry-after") != "5":
                outcome = f"503 with Retry-After {fields.get('retry-after')}"
            return outcome, status, container
        wanted = {"id": str(number), "host": domain, "size": len(body), "sha256": self.digests[
            number % len(BODIES)] if body else hashlib.sha256().hexdigest()}
        if json.loads(answer) != wanted:
            return f"another answer: {answer[:200]}", status, container
        return "ok", status, container


# What the tests have of it

class Load:
    count = 0

    def __init__(self, lab, owners, extra=(), address=None):
        """owners: domain -> names of the containers that may ever answer for it. extra: domains of
        them that get no requests before `add`. address: the agent's, if not the edge's."""
        import lib      # here, since the process has no use for it
        self.lib, self.lab, self.owners = lib, lab, {d: set(n) for d, n in owners.items()}
        self.windows, self.deaths, self.silences, self.events = [], [], [], []
        Load.count += 1
        self.path = f"{lab.dir}/load-{Load.count}"
        self.domains = set(owners) - set(extra)
        self.journals = f"{lab.dir}/journal"
        for name in os.listdir(self.journals):     # of an earlier load, with the same numbers
            os.truncate(f"{self.journals}/{name}", 0)
        self.command = ["nsenter", f"--net=/run/netns/{lab.client_ns}", "--", sys.executable,
                        __file__, address or lab.edge_addr, self.path, *sorted(self.domains)]
        self.offset, self.records = 0, []

    def __enter__(self):
        popen = self.lib.subprocess.Popen
        self.process = popen(self.command, stdin=self.lib.subprocess.PIPE, text=True)
        self.lib.wait_for(lambda: os.path.exists(self.path), "the load has begun", 10)
        # One of the slow ones to each domain has ended: from now on there are always some.
        self.lib.wait_for(lambda: self.domains <= {r.domain for r in self.read() if r.wait},
                          "requests of all kinds are under way", 10)
        return self

    def __exit__(self, kind, *_):
        try:
            self.say("end")
            self.process.wait(PATIENCE + 5)
        finally:
            if self.process.poll() is None:
                self.process.kill()
        faults = list(self.faults())
        self.report()
        if kind is None:
            self.judge(faults)

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def add(self, domain):
        self.say(domain)

    # While it runs

    def read(self):
        """Those that have ended so far."""
        with open(self.path) as file:
            file.seek(self.offset)
            text = file.read()
        text = text[:text.rfind("\n") + 1]
        self.offset += len(text)
        self.records += [Record(*json.loads(line)) for line in text.splitlines()]
        return self.records

    def wait(self, domain, who, count=5, since=None, timeout=10):
        """Until so many requests to the domain, sent from now on, were answered by this container,
        or one of these, or with this status; whatever others were. The time of that."""
        since = time.monotonic() if since is None else since
        wanted = {who} if isinstance(who, (str, int)) else set(who)

        def enough():
            found = [r for r in self.read() if r.domain == domain and r.sent >= since and
                     (r.container or r.status) in wanted]
            return len(found) >= count
        try:
            self.lib.wait_for(enough, f"{count} answers of {domain} by {who}", timeout)
        except AssertionError as error:
            seen = collections.Counter(str(r.container or r.status or r.outcome)
                                       for r in self.records
                                       if r.domain == domain and r.sent >= since)
            raise AssertionError(f"{error}; there were {dict(seen)}") from None
        return time.monotonic()

    def event(self, what):
        """The time, which is noted: how many requests were under way is told at the end."""
        self.events.append((what, time.monotonic()))
        return self.events[-1][1]

    def only(self, domain, *statuses, since=None):
        """While it lasts, requests may have these statuses."""
        self.windows.append(Window(domain, statuses, since))
        return self.windows[-1]

    def lost(self, name, died, heir=False):
        """This container died at that time (`when`), and requests with it. Of a domain that has no
        other, those too that were sent before the agent heard of it. heir: what else the domain has
        is no replica and has to wait for that."""
        self.deaths.append((name, died, heir))

    def silent(self, name, since, until=float("inf")):
        """In this time the container got no request."""
        self.silences.append((name, since, until))

    # Afterwards

    def journal(self):
        """number -> [(time, container, method, host)]"""
        found = collections.defaultdict(list)
        for name in os.listdir(self.journals):
            with open(f"{self.journals}/{name}") as file:
                for line in file:
                    at, number, method, host = line.split()
                    found[int(number)].append((float(at), name, method, host))
        return found

    def excuse(self, record, entries):
        """Why it may have failed, or None."""
        for window in self.windows:
            if record.domain == window.domain and record.status in window.statuses and \
                    record.outcome == "status" and not entries and \
                    record.sent < window.until + SLACK and record.done > window.since:
                return str(record.status)
        again = 503 if record.method == "GET" else 502
        if record.outcome == "timeout" or record.status not in (0, 502, 504, again):
            return None
        died = {name for name, at, heir in self.deaths if self.died_with(record, name, at, heir)}
        return "lost with its container" if died and self.holders(entries) <= died else None

    def died_with(self, record, name, died, heir):
        alone = heir or self.owners[record.domain] == {name}
        # Docker tells of a death when it gets round to it.
        return name in self.owners[record.domain] and \
            record.sent < died + (REACTS if alone else 0.01) and record.done > died - 2

    @staticmethod
    def holders(entries):
        return {name for _, name, _, _ in entries}

    def faults(self):
        journal = self.journal()
        excused = self.excused = collections.Counter()
        for record in self.read():
            entries = journal[record.number]
            if record.container is not None and record.container not in self.owners[record.domain]:
                yield "WRONG CONTAINER", record, entries
            elif record.outcome != "ok" or record.status != 200:
                why = self.excuse(record, entries)
                if why is None:
                    yield "failed", record, entries
                excused[why] += 1
            elif record.container not in self.holders(entries):
                yield "is not in the journal", record, entries
            if len(entries) > (1 if record.method == "POST" else 2):
                yield "sent too often", record, entries
        for entries in journal.values():
            for at, name, method, host in entries:
                if name not in self.owners.get(host, ()):
                    yield "WRONG CONTAINER got it", None, [(at, name, method, host)]
                for silent, since, until in self.silences:
                    if name == silent and since < at < until:
                        yield f"{silent} got one {at - since:.3f} s after the time", None, entries

    def judge(self, faults):
        shown = "".join(f"\n  {what}: {record}; journal: {entries}"
                        for what, record, entries in faults[:4])
        self.lib.check(not faults, f"{len(faults)} faults:{shown}")
        self.lib.check(self.records, "there were requests")

    def report(self):
        records = self.records
        seconds = max(r.sent for r in records) - min(r.sent for r in records)
        kinds = collections.Counter((r.method, "kept" if r.kept else "new") for r in records)
        self.lib.comment(f"{len(records)} requests in {seconds:.1f} s, {len(records) / seconds:.0f}/s:",
                         ", ".join(f"{n} {m} {k}" for (m, k), n in sorted(kinds.items())) +
                         f"; {sum(r.outcome == 'ok' for r in records)} answered",
                         "".join(f", {n} {why}" for why, n in self.excused.items() if why))
        for what, at in self.events:
            flying = [r for r in records if r.sent < at < r.done]
            self.lib.comment(f"at {what}: {len(flying)} under way,",
                             f"{sum(r.wait > 0 for r in flying)} of them slow")


class Window:
    """From now until `end`, or the load's."""

    def __init__(self, domain, statuses, since=None):
        self.domain, self.statuses = domain, statuses
        self.since, self.until = since or time.monotonic(), float("inf")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self, at=None):
        self.until = at or time.monotonic()


def steady(lab):
    """Whatever happens to others: it is served."""
    return backend(lab, "steady", "steady.test", keep=True)


def start(lab, *flags):
    """An agent that serves `steady`."""
    steady(lab)
    agent = lab.agent(*flags)
    agent.wait_route("steady.test", "steady")
    return agent


def owners(**more):
    """x=["a", "b"]: of x.test"""
    return {"steady.test": ["steady"],
            **{f"{name}.test": [names] if isinstance(names, str) else names
               for name, names in more.items()}}


def backend(lab, name, domain=None, **options):
    """A container that keeps a journal."""
    os.makedirs(f"{lab.dir}/journal", exist_ok=True)
    options["environ"] = {"JOURNAL": f"/journal/{name}", **options.get("environ", {})}
    options["options"] = ("-v", f"{lab.dir}/journal:/journal", *options.get("options", ()))
    return lab.container(name, domain, **options)


def when(lab, container, action, since=0):
    """The last time of this event, as Docker has it, by this process's clock; waits for one that
    comes after that time."""
    import lib

    def last():
        now, wall = time.monotonic(), time.time()
        lines = lab.docker("events", "--since", f"{int(wall) - 120}", "--until", f"{wall:.9f}",
                           "--filter", f"container={container.id}", "--filter",
                           f"event={action}", "--format", "{{.TimeNano}}").splitlines()
        at = now - wall + int(lines[-1]) / 1e9 if lines else 0
        return at > since and at
    return lib.wait_for(last, f"{action} of {container.name}", 20)


def listening(load, lab, container, domain):
    """A container that has just started and does not listen yet answers 502, if it has no health
    check; from the start to the first answer."""
    begun = when(lab, container, "start") - 0.05
    up = load.wait(domain, container.name, 1, begun)
    load.only(domain, 502, since=begun).end(up)


if __name__ == "__main__":
    asyncio.run(Generator(sys.argv[1], sys.argv[3:], sys.argv[2]).run())
