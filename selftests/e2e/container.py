# SPDX-License-Identifier: MIT
"""The agent in a container, as README's compose file runs it."""
import json
import lib
import lib_backend
from lib import ROOT, check, expect, must, wait_for


def test_in_a_container(lab):
    """in a container with three capabilities: serves, by the short way; `docker stop` drains it"""
    must(ROOT / "scripts/image", "kakuremichi/agent:latest", ROOT / "scripts/lab", "docker",
         env=lab.environ)
    backend = lab.container("app", "app.example.com")
    # /sys/fs/cgroup is the host's, so that the lab's part of it is named; the lab's daemon runs
    # with --privileged refused here, since this machine has no CAP_SYS_RESOURCE to give
    agent = lab.docker(
        "run", "-d", "--name", "kakuremichi-agent", "--network", "host", "--cgroupns", "host",
        "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "NET_BIND_SERVICE",
        "--cap-add", "SYS_ADMIN", "-v", f"{lab.docker_socket}:/var/run/docker.sock:ro",
        "-v", f"{lab.dir}/bpf:/sys/fs/bpf", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:ro",
        "-e", f"KAKUREMICHI_CGROUP={lab.cgroup}", "-e", "KAKUREMICHI_DATAPATH=sockmap",
        "-e", "DOCKER_ENABLED=true", "kakuremichi/agent:latest")
    try:
        def answer():
            with lab.connect() as client:
                return client.get("/name", "app.example.com")
        wait_for(lambda: lab.client("curl", "-sf", "-H", "Host: app.example.com",
                                    f"http://{lab.edge_addr}/name").returncode == 0,
                 "the agent in the container serves")
        expect(answer().container, backend.name, "container that answers")
        with lab.connect() as client:
            client.request("/switch?messages=20", "app.example.com",
                           fields=("Connection: Upgrade", "Upgrade: opaque"))
            answer_101 = client.response()
            expect(answer_101.status, 101, "status of an upgrade")
            expect(client.file.read(12), b"right behind", "what comes right behind it")
            wait_for(lambda: any(c["bytes_down"] == answer_101.wire + 12 for c in json.loads(
                lab.docker("exec", agent, "/usr/sbin/kakuremichi-agent", "connections", "--json"))
                ["connections"]), "the 101 is counted")
            backend.release()
            messages = b"".join(map(lib_backend.message, range(20)))
            expect(client.file.read(len(messages)), messages, "the messages of the stream")
        stats = lab.docker("exec", agent, "/usr/sbin/kakuremichi-agent", "stats")
        short = next(line.split()[1] for line in stats.splitlines()
                     if line.startswith("short_bytes"))
        check(int(short) > 0, f"bytes went by the short way: {short}")
        routes = lab.docker("exec", agent, "/usr/sbin/kakuremichi-agent", "routes")
        check("app.example.com" in routes, f"the route is listed: {routes}")
        lab.docker("stop", "-t", "20", agent)
        expect(lab.docker("inspect", "-f", "{{.State.ExitCode}}", agent), "0", "exit status")
    finally:
        lab.docker("rm", "-f", "-v", agent)


def test_without_bpf(lab):
    """in a container without BPF: says so, and serves by the relay"""
    must(ROOT / "scripts/image", "kakuremichi/agent:latest", ROOT / "scripts/lab", "docker",
         env=lab.environ)
    lab.container("app", "app.example.com")
    agent = lab.docker(
        "run", "-d", "--name", "kakuremichi-agent", "--network", "host", "--cap-drop", "ALL",
        "--cap-add", "NET_BIND_SERVICE",
        "-v", f"{lab.docker_socket}:/var/run/docker.sock:ro", "kakuremichi/agent:latest")
    try:
        wait_for(lambda: lab.client("curl", "-sf", "-H", "Host: app.example.com",
                                    f"http://{lab.edge_addr}/name").returncode == 0,
                 "the agent in the container serves")
        check("No BPF maps" in lab.docker("logs", agent), "it says that it has no maps")
        done = lib.run("docker", "-H", f"unix://{lab.docker_socket}", "exec", agent,
                       "/usr/sbin/kakuremichi-agent", "routes")
        expect(done.returncode, 1, "exit status of `routes`")
        check("runs without BPF maps" in done.stderr, f"it says why: {done.stderr}")
    finally:
        lab.docker("rm", "-f", "-v", agent)


lib.main("e2econt")
