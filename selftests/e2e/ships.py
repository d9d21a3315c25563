# SPDX-License-Identifier: MIT
"""What is installed: package, systemd unit, manual page, completion, source archive.

The unit is started by a systemd of the lab's own (lib_systemd.sh), which sees this machine's files
and installs the package over them for itself.
"""
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import lib
from lib import ROOT, Client, check, expect, must, run, wait_for

UNIT = "kakuremichi-agent.service"
DROPINS = f"/etc/systemd/system/{UNIT}.d"
CAPABILITIES = {"net_bind_service": 10, "net_admin": 12, "sys_admin": 21, "perfmon": 38, "bpf": 39}


def make(*arguments, directory=ROOT):
    """As somebody would call it, in build/; not as a part of `make check`."""
    environ = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS",
                                                                "O", "SOURCE_DATE_EPOCH")}
    return must("make", "-s", "--no-print-directory", "-C", directory, *arguments, timeout=200,
                env=environ).strip()


def scratch():
    return tempfile.TemporaryDirectory(prefix="kkm-ships-")


def deb():
    return ROOT / make("deb").splitlines()[-1]


# A systemd

class System:
    """Process 1 of a namespace, with the lab's edge network, its Docker's socket and BPF pins."""

    def __init__(self, lab, *files):
        self.log = f"{lab.dir}/systemd.log"
        name = Path(lab.cgroup).name
        hierarchies = [Path(lab.cgroup)]
        if os.path.isdir("/sys/fs/cgroup/systemd"):
            hierarchies.append(Path("/sys/fs/cgroup/systemd") / name)
        for hierarchy in hierarchies:
            (hierarchy / "systemd").mkdir(parents=True, exist_ok=True)
        enter = "".join(f"echo $$ >{h}/systemd/cgroup.procs; " for h in hierarchies)
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                ["bash", "-ec", f'{enter} exec nsenter --net=/run/netns/{lab.edge_ns} unshare '
                 '--pid --mount --ipc --uts --fork --kill-child "$@"', "bash",
                 str(lib.HERE / "lib_systemd.sh"), f"{lab.dir}/systemd", lab.docker_socket,
                 f"{lab.dir}/bpf", *map(str, files)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(lambda: self.process.poll() is not None or self.init() and self.run(
                "systemctl", "is-system-running").stdout == "running\n", "systemd is up", 20)
        finally:
            check(self.process.poll() is None, f"systemd runs: {Path(self.log).read_text()[-500:]}")

    def init(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return children.strip()

    def run(self, *command, **options):
        return run("nsenter", "-t", self.init(), "-m", "-p", "-u", "-i", "-n", *command, **options)

    def must(self, *command, **options):
        done = self.run(*command, **options)
        check(done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}: {done.stderr}")
        return done.stdout.strip()

    def write(self, path, text):
        self.must("sh", "-c", 'mkdir -p "$(dirname "$1")"; printf %s "$2" >"$1"', "sh", path, text)

    def show(self, name):
        return self.must("systemctl", "show", "-P", name, UNIT)

    def wait(self, **wanted):
        def seen():
            return {name: self.show(name) for name in wanted}
        wait_for(lambda: seen() == wanted, f"{wanted} of the unit", 15)

    def dropin(self, name, text):
        """What `systemctl edit` would make; the unit is not restarted."""
        self.write(f"{DROPINS}/{name}.conf", text)
        self.must("systemctl", "daemon-reload")

    def without(self, name):
        self.must("rm", f"{DROPINS}/{name}.conf")
        self.must("systemctl", "daemon-reload")

    def settings(self, *lines):
        self.write("/etc/default/kakuremichi-agent", "".join(f"{line}\n" for line in lines))

    def of_main(self, *command):
        """In the unit's own mounts."""
        return self.run("nsenter", "-t", self.show("MainPID"), "-m", *command)

    def proc_status(self):
        text = self.must("cat", f"/proc/{self.show('MainPID')}/status")
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)

    def agent(self, *arguments):
        return self.must("kakuremichi-agent", *arguments)

    def stop(self):
        self.process.kill()
        self.process.wait(10)


_system = []


def system(lab):
    """One for all tests, with the package in it."""
    if not _system:
        package = deb()
        _system.append(System(lab, package))
        _system[0].must("dpkg", "-i", f"/srv/{package.name}", timeout=60)
    return _system[0]


def name_of(lab, domain):
    with Client(lab) as client:
        return client.get("/name", domain).container


def bits(status, which):
    value = int(status[which], 16)
    return {name for name, bit in CAPABILITIES.items() if value >> bit & 1} | \
        ({"others"} if value & ~sum(1 << bit for bit in CAPABILITIES.values()) else set())


def test_package(lab):
    """dpkg -i: enabled, started, and ready when systemd hears so; requests are served"""
    app = lab.container("app", "app.example.com")
    machine = system(lab)
    machine.wait(ActiveState="active", SubState="running")
    expect(machine.show("Type"), "notify", "type of the unit")
    expect(machine.show("UnitFileState"), "enabled", "state of the unit's file")
    # that it is started proves that it said so
    check(machine.show("StatusText").startswith("ready; "), machine.show("StatusText"))
    wait_for(lambda: "app.example.com" in machine.agent("routes"), "the route is listed")
    wait_for(lambda: machine.show("StatusText").startswith("ready; 1 domains, engine "),
             "the route is in the unit's status")
    expect(name_of(lab, "app.example.com"), app.name, "container that answers")
    pins = set(os.listdir(lab.bpf_dir))
    check({"kkm_routes", "kkm_conns"} <= pins, f"maps are pinned, for all to see: {pins}")


def test_sandbox(lab):
    """the unit's sandbox is on: five capabilities, a filter, and little that can be written to"""
    machine = system(lab)
    machine.wait(ActiveState="active")
    status = machine.proc_status()
    for which in "CapEff", "CapPrm", "CapBnd":
        expect(bits(status, which), set(CAPABILITIES), which)
    expect(status["CapAmb"].strip("0"), "", "ambient capabilities")
    expect(status["NoNewPrivs"], "1", "NoNewPrivs")
    expect(status["Seccomp"], "2", "Seccomp: a filter")
    for path in "/usr/x", "/etc/x", "/sys/fs/cgroup/x", "/proc/sys/vm/swappiness":
        done = machine.of_main("sh", "-c", f"echo 60 >{path}")
        check("Read-only file system" in done.stderr, f"{path} cannot be written: {done.stderr}")
    expect(machine.of_main("ls", "-A", "/home", "/root").stdout, "/home:\n\n/root:\n", "homes")
    expect(machine.of_main("ls", "-A", "/tmp").stdout, "", "/tmp")
    machine.must("systemd-analyze", "verify", UNIT)
    exposure = json.loads(machine.must("systemd-analyze", "security", "--json=short", UNIT))
    loose = {e["json_field"] for e in exposure if not e["set"]}
    # the network is its business, root its user, and for the others see the unit
    allowed = {"UserOrDynamicUser", "PrivateNetwork", "PrivateUsers", "RootDirectoryOrRootImage",
               "IPAddressDeny", "DeviceAllow", "ProcSubset", "ProtectKernelTunables",
               "SupplementaryGroups", "RemoveIPC", "AmbientCapabilities"}
    unexpected = {f for f in loose - allowed if not re.match(
        "CapabilityBoundingSet_CAP_(NET_ADMIN|SYS_ADMIN|NET_BIND|BPF)|RestrictAddressFamilies_|"
        "RestrictNamespaces_(net|CLONE_NEWNET)|SystemCallFilter_", f)}
    check(not unexpected, f"what systemd-analyze security finds loose: {sorted(unexpected)}")


def test_settings(lab):
    """/etc/default is read, and the engine sockmap works inside of the sandbox"""
    app = lab.container("app", "app.example.com")
    machine = system(lab)
    machine.settings("KAKUREMICHI_DATAPATH=sockmap", f"KAKUREMICHI_CGROUP={lab.cgroup}")
    machine.must("systemctl", "restart", UNIT)
    check("engine sockmap" in machine.show("StatusText"), machine.show("StatusText"))
    wait_for(lambda: "app.example.com" in machine.agent("routes"), "the route is listed")
    with Client(lab) as client:
        for _ in range(3):
            expect(client.get("/name", "app.example.com").container, app.name, "who answers")
    stats = json.loads(machine.agent("stats", "--json"))["stats"]
    check(stats["short_bytes"] > 0, f"bytes went by the short way: {stats['short_bytes']}")


def test_stop(lab):
    """systemctl stop: the exchange that is open ends, and the result is success"""
    app = lab.container("app", "app.example.com")
    machine = system(lab)
    # less than the drain: the agent itself asks for the time that it needs
    machine.dropin("short", "[Service]\nTimeoutStopSec=300ms\n")
    machine.settings("KAKUREMICHI_DRAIN_TIMEOUT=20s")
    machine.must("systemctl", "restart", UNIT)
    wait_for(lambda: "app.example.com" in machine.agent("routes"), "the route is listed")
    with Client(lab) as client:
        client.request("/hint", "app.example.com")
        expect(client.head().status, 103, "what comes first")
        machine.must("systemctl", "stop", "--no-block", UNIT)
        wait_for(lambda: machine.show("StatusText").startswith("draining; "), "it drains")
        expect(machine.show("ActiveState"), "deactivating", "state of the unit")
        begun = int(machine.show("StateChangeTimestampMonotonic"))
        wait_for(lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 > begun + 600000,
                 "TimeoutStopSec has passed")
        expect(machine.show("ActiveState"), "deactivating", "state of the unit behind its time")
        app.release()
        expect(client.response().status, 200, "status of the answer")
    machine.wait(ActiveState="inactive", Result="success", ExecMainStatus="0")
    machine.without("short")
    machine.settings()
    machine.must("systemctl", "start", UNIT)


def test_watchdog(lab):
    """an agent that hangs is ended by systemd, and started again"""
    machine = system(lab)
    machine.dropin("watchdog", "[Service]\nWatchdogSec=2\nLimitCORE=0\n")
    machine.must("systemctl", "restart", UNIT)
    first = machine.show("MainPID")
    wait_for(lambda: int(machine.show("WatchdogTimestampMonotonic")) > 2200000 +
             int(machine.show("ExecMainStartTimestampMonotonic")), "it tells that it is alive", 10)
    expect(machine.show("NRestarts"), "0", "restarts while it runs")
    machine.must("kill", "-STOP", first)
    machine.wait(NRestarts="1", ActiveState="active")
    check(machine.show("MainPID") != first, "it is another process")
    machine.without("watchdog")


def test_without_docker(lab):
    """without Docker: starting, and says why; ready when Docker has come"""
    machine = system(lab)
    machine.settings("DOCKER_SOCKET=/run/late.sock")
    machine.must("systemctl", "restart", "--no-block", UNIT)
    wait_for(lambda: machine.show("StatusText").startswith("Docker has not been read yet"),
             "it says what it waits for")
    expect(machine.show("ActiveState"), "activating", "state of the unit")
    with Client(lab) as client:
        expect(client.get("/", "nobody.example.com").status, 503, "status of a request meanwhile")
    machine.must("ln", "-s", "/run/docker.sock", "/run/late.sock")
    machine.wait(ActiveState="active")
    machine.settings()


def test_unprivileged(lab):
    """with unprivileged.conf: a user of its own with one capability serves by the relay"""
    app = lab.container("app", "app.example.com")
    machine = system(lab)
    machine.must("cp", "/usr/share/doc/kakuremichi-agent/unprivileged.conf", DROPINS)
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "restart", UNIT)
    status = machine.proc_status()
    check("0" not in status["Uid"].split(), f"uids {status['Uid']}")
    for which in "CapEff", "CapPrm", "CapBnd":
        expect(bits(status, which), {"net_bind_service"}, which)
    check("engine relay" in machine.show("StatusText"), machine.show("StatusText"))
    wait_for(lambda: '"routes":\t1' in machine.agent("status", "--json"), "the route is there")
    expect(name_of(lab, "app.example.com"), app.name, "container that answers")
    machine.without("unprivileged")


def test_removal(lab):
    """dpkg -r keeps the settings, dpkg -P nothing; policy-rc.d is asked before it is started"""
    machine = system(lab)
    machine.must("systemctl", "restart", UNIT)
    machine.must("dpkg", "-r", "kakuremichi-agent", timeout=60)
    expect(machine.run("systemctl", "is-active", UNIT).stdout, "inactive\n", "state of the unit")
    check(not os.path.exists(lab.bpf_dir), "nothing is pinned any more")
    machine.must("test", "-e", "/etc/default/kakuremichi-agent")
    machine.must("dpkg", "-P", "kakuremichi-agent", timeout=60)
    left = machine.run("find", "/usr", "/etc", "/run", "/var/lib/systemd", "-xdev", "-name",
                       "*kakuremichi*").stdout.split()
    left = [path for path in left if path != DROPINS]
    expect(left, [], "what is left")
    machine.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")
    machine.must("chmod", "755", "/usr/sbin/policy-rc.d")
    package = machine.must("sh", "-c", "ls /srv/*.deb")
    machine.must("dpkg", "-i", package, timeout=60)
    expect(machine.run("systemctl", "is-active", UNIT).stdout, "inactive\n", "state of the unit")
    expect(machine.show("UnitFileState"), "enabled", "state of the unit's file")
    machine.stop()
    _system.clear()


# The package

def test_dependencies(_lab):
    """the package's Depends has the package of each library; dpkg refuses it where they lack"""
    package = deb()
    depends = must("dpkg-deb", "-f", package, "Depends")
    dynamic = must("readelf", "-d", ROOT / "build/kakuremichi-agent")
    libraries = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    paths = dict(re.findall(r"(\S+) => (\S+)", must("ldd", ROOT / "build/kakuremichi-agent")))
    check(len(libraries) > 4, f"libraries: {libraries}")
    for library in libraries:
        path = os.path.realpath(paths[library])
        owner = run("dpkg", "-S", path).stdout or must("dpkg", "-S", path.removeprefix("/usr"))
        check(re.search(rf"(^|, ){re.escape(owner.split(':')[0])} \(>= ", depends),
              f"{library}, {owner.strip()}, is in {depends}")
    with scratch() as root:
        for directory in "var/lib/dpkg/updates", "var/lib/dpkg/info":
            os.makedirs(f"{root}/{directory}")
        for name in "status", "available":
            Path(f"{root}/var/lib/dpkg/{name}").touch()
        done = run("dpkg", f"--root={root}", "--force-script-chrootless", "-i", package)
        check(done.returncode and "depends on libbpf" in done.stderr, done.stderr)
        must("dpkg", f"--root={root}", "--force-script-chrootless", "--force-depends",
             "--configure", "kakuremichi-agent", env={**os.environ, "DPKG_ROOT": root})
        expect(must(f"{root}/usr/sbin/kakuremichi-agent", "version").split()[:1],
               ["kakuremichi-agent"], "the binary runs")


def test_source(_lab):
    """make dist: builds without git, knows its commit, and makes the same package"""
    if run("git", "-C", ROOT, "rev-parse", "HEAD").returncode:
        lib.comment("not a clone: nothing to do")
        return
    commit = must("git", "-C", ROOT, "rev-parse", "HEAD")[:12]
    archive = ROOT / make("dist")
    with scratch() as directory:
        must("tar", "-C", directory, "-xf", archive)
        tree, = Path(directory).iterdir()
        expect(tree.name, archive.name.removesuffix(".tar.xz"), "folder in it")
        other = tree / make("-j2", "deb", directory=tree).splitlines()[-1]
        version = json.loads(must(tree / "build/kakuremichi-agent", "version", "--json"))
        expect(version["commit"], commit, "commit that it was made of")
        if not must("git", "-C", ROOT, "status", "--porcelain"):
            expect(lib.sha256([other.read_bytes()]), lib.sha256([deb().read_bytes()]),
                   "the package, made in another folder")


def test_install(_lab):
    """make install and uninstall: what is there, with the prefix in it, and nothing behind"""
    with scratch() as root:
        where = (f"DESTDIR={root}", "PREFIX=/opt/kkm")
        make("install", *where)
        files = {str(p.relative_to(root)) for p in Path(root).rglob("*") if p.is_file()}
        check({"opt/kkm/sbin/kakuremichi-agent", "opt/kkm/share/man/man8/kakuremichi-agent.8",
               f"opt/kkm/lib/systemd/system/{UNIT}", "etc/default/kakuremichi-agent",
               "opt/kkm/share/bash-completion/completions/kakuremichi-agent"} <= files, files)
        unit = Path(f"{root}/opt/kkm/lib/systemd/system/{UNIT}").read_text()
        check("\nExecStart=/opt/kkm/sbin/kakuremichi-agent run\n" in unit, unit)
        settings = Path(f"{root}/etc/default/kakuremichi-agent")
        with settings.open("a") as file:
            file.write("KAKUREMICHI_WORKERS=1\n")
        make("install", *where)
        check("\nKAKUREMICHI_WORKERS=1\n" in settings.read_text(), "settings stay")
        make("uninstall", *where)
        left = [str(p) for p in Path(root).rglob("*") if p.is_file()]
        expect(left, [str(settings)], "left: settings that were changed")
        settings.unlink()
        make("install", *where)
        make("uninstall", *where)
        expect([str(p) for p in Path(root).rglob("*") if p.is_file()], [], "what is left")


# The words

def documented():
    """Commands, options with their variables and those without, of the code's tables; --help has
    them all."""
    text = must(lib.BINARY, "--help")
    config, table = ((ROOT / "user" / name).read_text() for name in ("config.c", "main.c"))
    commands = re.findall(r'^\t\{ "([a-z]+)", ', table, re.M)
    options = [(flag, variable) for variable, flag in
               re.findall(r'^\t\{ "([A-Z0-9_]+)", "([a-z-]+)",', config, re.M)]
    others = re.findall(r'^\t\{ NULL, "([a-z-]+)",', config, re.M)
    check(len(commands) > 5 and len(options) > 20, f"{commands}, {options}")
    expect(re.findall(r"^  ([a-z]+) ", text, re.M), commands, "commands of --help")
    expect(re.findall(r"^  --([a-z-]+) .*\n +([A-Z][A-Z0-9_]*)$", text, re.M), options,
           "options of --help")
    check(set(others) <= set(re.findall(r"^  --([a-z-]+) ", text, re.M)), f"--help has {others}")
    return commands, options, others


def plain(page):
    return re.sub(".\b", "", must("mandoc", "-T", "ascii", page))


def test_manual(_lab):
    """the manual page has every command, option, variable and label, and no fault"""
    commands, options, others = documented()
    with scratch() as root:
        make("install", f"DESTDIR={root}", "PREFIX=/usr")
        page = f"{root}/usr/share/man/man8/kakuremichi-agent.8"
        settings = Path(f"{root}/etc/default/kakuremichi-agent").read_text()
        # that other pages are not in its database is no fault of the page
        faults = [line for line in run("mandoc", "-T", "lint", "-W", "warning", page).stdout
                  .splitlines() if "mandoc.db" not in line]
        expect(faults, [], "what mandoc finds")
        text = plain(page)
    for command in commands:
        check(re.search(rf"^     {command}\s", text, re.M), f"command {command} is in the page")
    for flag, variable in options:
        check(re.search(rf"^     --{flag} value$", text, re.M), f"--{flag} is in the page")
        check(re.search(rf"\b{variable}\b", text), f"{variable} is in the page")
        check(re.search(rf"^#{variable}=", settings, re.M), f"{variable} is in the settings")
    for flag in others:
        check(re.search(rf"^     --{flag}( value)?(  .*)?$", text, re.M), f"--{flag} is in the page")
    labels = re.findall(r'^\t\{ "([a-z.-]+)", parse_', (ROOT / "user/labels.c").read_text(), re.M)
    check({"domain", "port", "tls"} <= set(labels), f"labels: {labels}")
    for label in labels:
        for where in text, (ROOT / "README.md").read_text():
            check(re.search(rf"kakuremichi\.{re.escape(label)}(?![\w.-])", where),
                  f"label {label} is in the page and in README.md")


def complete(*words):
    """What TAB offers behind these words, the last of which is being written."""
    script = ('. "$1"; shift; PATH=$1:$PATH; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))\n'
              '_kakuremichi_agent kakuremichi-agent\nprintf "%s\\n" "${COMPREPLY[@]}"')
    return set(must("bash", "-c", script, "bash", ROOT / "dist/completion.bash",
                    Path(lib.BINARY).parent, "kakuremichi-agent", *words).split())


def test_completion(_lab):
    """completion has every command and option, and the values where they are words"""
    commands, options, others = documented()
    check(set(commands) <= complete(""), f"commands: {complete('')}")
    expect(complete("sta"), {c for c in commands if c.startswith("sta")}, "behind sta")
    offered = complete("run", "--")
    wanted = {f"--{flag}" for flag in [flag for flag, _ in options] + others} | {"--json", "--help"}
    expect(offered, wanted, "options")
    expect(complete("status", "--json", "--hel"), {"--help"}, "behind an option without a value")
    expect(complete("run", "--datapath", ""), {"auto", "relay", "sockmap", "handover"}, "engines")
    expect(complete("run", "--datapath", "=", "re"), {"relay"}, "behind --datapath=re")
    expect(complete("run", "--access-log", ""), {"on", "off"}, "behind --access-log")
    expect(complete("run", "--workers", ""), set(), "behind --workers")


lib.main("e2eships")
