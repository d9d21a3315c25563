# SPDX-License-Identifier: MIT
"""From numbers to ratios, Markdown and a figure."""
import os
import statistics
import subprocess
import time

import loads
from targets import BASE, NAMES, OURS, THREADS, Failure, versions

TITLES = {"haproxy-tcp": "HAProxy tcp", "haproxy-splice": "HAProxy tcp, splice",
          "haproxy-http": "HAProxy http", "nginx": "nginx",
          "caddy": "Caddy", "relay": "ours: relay", "responses": "ours: responses",
          "both": "ours: both", "direct": "direct"}
WORDS = {"rate": "per second", "bytes": "bytes/s", "p50": "latency, median",
         "p99": "latency, 99 %", "p99.9": "latency, 99.9 %",
         "proxy CPU": "CPU of the proxy / 100,000", "machine CPU": "CPU of the machine / 100,000"}
MORE_IS_BETTER = ("rate", "bytes")
VOID = (1.5, 2.5)
QUIET = 0.05

# load, metric, target, what the ratio to HAProxy tcp must be at least (or at most)
GOALS = (
    ("small-32", "rate", "both", 1.35), ("small-32", "rate", "responses", 1.15),
    *(("small-1", "p99", name, 1.0) for name in OURS),
    *((load, "bytes", "relay", 1.5) for load in ("down-1", "up-1", "down-4", "up-4")),
    *(("new", "rate", name, 1.0) for name in OURS),
)
IDLE_GOAL = 2048
ROUTES_GOAL = 0.97

BEGIN, END = "<!-- a run begins -->", "<!-- a run ends -->"


class Results:
    def __init__(self):
        self.rounds = []    # of each {load: {target: {metric: value}}}
        self.others = []    # of each, what others have used of the machine
        self.idle = {}      # target -> bytes a connection, "own" and "kernel"
        self.routes = []    # of each round {number of routes: requests a second}
        self.events = []    # of each container (start, kill), in milliseconds


def spread(values):
    """Median, lowest and highest."""
    return statistics.median(values), min(values), max(values)


def ratios(rounds, load, metric, name, base=BASE):
    """One for each round in which both were measured, and the base was not nothing."""
    return [r[load][name][metric] / r[load][base][metric] for r in rounds
            if name in r.get(load, {}) and base in r[load] and r[load][base][metric]]


def show(values):
    middle, low, high = spread(values)
    return f"{middle:.2f} ({low:.2f}–{high:.2f})" if len(values) > 1 else f"{middle:.2f}"


def absolute(metric, value):
    if metric == "bytes":
        return f"{value / 1e9:.2f} GB/s"
    if metric == "rate":
        return f"{value / 1000:.1f} k/s"
    return f"{value:.2f} s" if metric.endswith("CPU") else f"{value:.0f} µs"


def line(load, cells):
    """One round's cells, for eyes that cannot wait."""
    metric = loads.ALTERNATING[load][1][0]
    base = cells[BASE][metric]
    return absolute(metric, base) + "".join(
        f"  {name} {cell[metric] / base:.2f}" for name, cell in cells.items() if name != BASE)


def table(header, rows):
    return ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|",
            *("| " + " | ".join(row) + " |" for row in rows), ""]


def ratio_table(rounds):
    measured = [name for name in NAMES
                if any(name in cells for r in rounds for cells in r.values())]
    others = [name for name in measured if name != BASE]
    rows = []
    for load, (title, metrics, _) in loads.ALTERNATING.items():
        for metric in metrics if any(load in r for r in rounds) else ():
            base = [r[load][BASE][metric] for r in rounds]
            row = [f"{title}: {WORDS[metric]}", absolute(metric, statistics.median(base))]
            for name in others:
                values = ratios(rounds, load, metric, name)
                row.append(show(values) if values and any(values) else "")
            rows.append(row)
    return table(["", f"{TITLES[BASE]} (= 1)", *(TITLES[n] for n in others)], rows) if rows else []


def short_table(rounds):
    """What was measured at all: a short way that nothing takes is the relay under another name."""
    names = [name for name in OURS if name != "relay" and
             any(name in cells for r in rounds for cells in r.values())]
    rows = []
    for load in loads.ALTERNATING if names else ():
        shares = [[r[load][name]["short"] for r in rounds] for name in names if load in rounds[0]]
        if shares:
            rows.append([loads.ALTERNATING[load][0], *(
                " / ".join(f"{statistics.median(way):.0%}" for way in zip(*share))
                for share in shares)])
    return table(["bytes by the short way, down / up", *(TITLES[n] for n in names)],
                 rows) if rows else []


def idle_table(idle):
    rows = [[TITLES[name], f"{cell['own'] / 1024:.2f}" if name != "direct" else "",
             f"{cell['kernel'] / 1024:.1f}"] for name, cell in idle.items()]
    return table([f"KiB a connection, {loads.IDLE_CONNECTIONS:,} that are idle", "of the process",
                  "of the kernel, all ends"], rows) if rows else []


def routes_table(routes):
    if not routes:
        return []
    return table(["routes (relay)", "small requests, 32 connections: ratio to one route"],
                 [[f"{count:,}", show([r[count] / r[1] for r in routes])]
                  for count in loads.ROUTES[1:]])


def events_table(cycles):
    if not cycles:
        return []
    return table(["how soon routes follow Docker", "median (lowest–highest)"],
                 [[what, f"{show(values)} ms"] for what, values in zip(
                     ("from its `start` event to the first request that is routed",
                      "from its `kill` event to the last one"), zip(*cycles))])


def goals_table(results):
    rows, routes = [], results.routes

    def goal(what, wanted, value, more, unit=""):
        missed = wanted - value if more else value - wanted
        verdict = "reached" if missed <= 0 else f"short by {missed / wanted:.1%}" if more else \
            f"over by {missed / wanted:.1%}"
        rows.append([what, f"{'≥' if more else '≤'} {wanted:g}{unit}", f"{value:.2f}{unit}",
                     verdict])

    for load, metric, name, wanted in GOALS:
        if values := ratios(results.rounds, load, metric, name):
            goal(f"{TITLES[name]}, {loads.ALTERNATING[load][0]}: {WORDS[metric]}", wanted,
                 statistics.median(values), metric in MORE_IS_BETTER)
    for name in OURS:
        if name in results.idle:
            goal(f"{TITLES[name]}, an idle connection", IDLE_GOAL / 1024,
                 results.idle[name]["own"] / 1024, False, " KiB")
    if routes:
        goal(f"{loads.ROUTES[-1]:,} routes to one", ROUTES_GOAL,
             statistics.median(r[loads.ROUTES[-1]] / r[1] for r in routes), True)
    return table(["goal, ratio to HAProxy tcp", "wanted", "median", ""], rows) if rows else []


def void(results):
    """Why the run says nothing; '' where it does."""
    values = ratios(results.rounds, "small-32", "rate", "direct")
    if not values or VOID[0] <= (middle := statistics.median(values)) <= VOID[1]:
        return ""
    return (f"void: the direct route is {middle:.2f} of HAProxy tcp for small requests, not "
            f"{VOID[0]} to {VOID[1]}, so something else than the proxies was measured")


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line.partition(":")[2].strip() for line in file
                     if line.startswith("model name")), os.uname().machine)


def made_how(rounds, seconds):
    found = versions()
    return [f"{time.strftime('%Y-%m-%d')}: {rounds} rounds of {seconds} s; {os.cpu_count()} "
            f"processors ({processor()}), Linux {found['kernel']}; kakuremichi-agent "
            f"{found['agent']}, HAProxy {found['haproxy']}, nginx {found['nginx']}, Caddy "
            f"{found['caddy']}, wrk {found['wrk']}; {THREADS} threads each.", ""]


def disturbed(results):
    if max(results.others, default=0) <= QUIET:
        return ""
    return (f"disturbed: others have used up to {max(results.others):.0%} of the machine in a "
            "round, so ratios are off by more than their spread")


def markdown(results, seconds):
    lines = made_how(len(results.rounds) or len(results.routes), seconds)
    for reason in (void(results), disturbed(results)):
        lines += [f"**{reason}**", ""] if reason else []
    for part in (ratio_table(results.rounds), short_table(results.rounds), idle_table(results.idle),
                 routes_table(results.routes), events_table(results.events), goals_table(results)):
        lines += part
    return "\n".join(lines).rstrip() + "\n"


def write(path, text):
    """A file of its own, or the place for a run in a document that has one."""
    try:
        with open(path, encoding="utf-8") as file:
            old = file.read()
    except FileNotFoundError:
        old = ""
    if BEGIN in old and END in old:
        text = f"{old.partition(BEGIN)[0]}{BEGIN}\n\n{text}\n{END}{old.partition(END)[2]}"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


COLOURS = {"haproxy-splice": "#d08a4f", "haproxy-http": "#8c8c8c", "nginx": "#5b8f5b",
           "caddy": "#b59a3c", "relay": "#1f5fbf", "responses": "#8a3fbf", "both": "#d02f2f",
           "direct": "#000000"}


def plot(path, rounds):
    """Each load a row, each target a mark at its median with a line from lowest to highest."""
    rows = [(load, metric) for load, (_, metrics, _) in loads.ALTERNATING.items()
            for metric in metrics if metric in MORE_IS_BETTER and any(load in r for r in rounds)]
    blocks, plots = [], []
    for name in [n for n in COLOURS if n in NAMES]:
        lines = []
        for row, (load, metric) in enumerate(rows):
            if values := ratios(rounds, load, metric, name):
                height = len(rows) - row + (3.5 - list(COLOURS).index(name)) * 0.1
                lines.append("{:.4f} {:.3f} {:.4f} {:.4f}".format(
                    spread(values)[0], height, *spread(values)[1:]))
        if lines:
            block = "$" + name.replace("-", "_")
            blocks.append(f"{block} << EOD\n" + "\n".join(lines) + "\nEOD")
            plots.append(f"{block} using 1:2:3:4 with xerrorbars pt 7 ps 1.3 lw 1.5 "
                         f"lc rgb '{COLOURS[name]}' title '{TITLES[name]}'")
    if not plots:
        raise Failure("nothing to plot: no load was measured against HAProxy tcp")
    tics = ", ".join(f"'{loads.ALTERNATING[load][0]}' {len(rows) - row}"
                     for row, (load, _) in enumerate(rows))
    script = "\n".join([
        *blocks, f"set terminal png size 900,{90 + 62 * len(rows)} font 'DejaVuSans,10' ",
        f"set output '{path}'", f"set ytics ({tics}) scale 0",
        f"set yrange [0.4:{len(rows) + 0.6}]", "set logscale x 2",
        "set xtics (0.25, 0.35, 0.5, 0.7, 1, 1.4, 2, 2.8, 4)", "set bars 0",
        f"set xlabel 'per second, ratio to HAProxy tcp in the same round "
        f"(median, lowest to highest of {len(rounds)})'",
        "set grid xtics lc rgb '#dddddd'", "set key outside right center vertical Left reverse",
        *(f"set arrow from graph 0, first {n + 0.5} to graph 1, first {n + 0.5} nohead "
          "lc rgb '#dddddd'" for n in range(1, len(rows))),
        "set arrow from 1, graph 0 to 1, graph 1 nohead lw 2 lc rgb '#555555'",
        "plot " + ", ".join(plots), ""])
    done = subprocess.run(["gnuplot"], input=script, text=True, capture_output=True, check=False)
    if done.returncode:
        raise Failure(f"gnuplot: {done.stderr.strip()[:400]}")
