# SPDX-License-Identifier: MIT
"""Docker seen through a proxy that allows only GET, holds answers back and cuts connections."""
import os
import socket
import subprocess
import threading
import time

import lib
from lib import ROOT, check, expect, wait_for


class Proxy:
    """Unix socket to Unix socket. `delay(line)` says for how long a request is held back, and
    `cut()` ends the event stream and whatever is held, at once."""

    def __init__(self, lab):
        self.path, self.upstream = f"{lab.dir}/proxy.sock", lab.docker_socket
        self.delay = lambda line: 0
        self.requests, self.open, self.lock = [], [], threading.Lock()
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(65536)
                if not piece:
                    return
                head += piece
            line = head.split(b"\r\n")[0].decode()
            self.requests.append(line)
            with self.lock:
                self.open.append(client)
            time.sleep(self.delay(line))
            with socket.socket(socket.AF_UNIX) as upstream:
                upstream.connect(self.upstream)
                upstream.sendall(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                while piece := upstream.recv(65536):
                    client.sendall(piece)
        except OSError:
            pass
        finally:
            with self.lock:
                if client in self.open:
                    self.open.remove(client)
            client.close()

    def waiting(self, part):
        return any(part in line for line in self.requests)

    def cut(self):
        with self.lock:
            for sock in self.open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        self.listener.close()
        self.cut()


def start(lab):
    proxy = Proxy(lab)
    agent = lab.agent("--docker-socket", proxy.path)
    return proxy, agent


def code(lab, domain):
    with lab.connect() as client:
        return client.get("/name", domain).status


def test_restart_while_away(lab):
    """a container restarted while the stream is lost: its domain never looks absent, and it is
    asked for nothing until Docker has said whose the address is now"""
    proxy, agent = start(lab)
    app = lab.container("app", "app.test")  # so that there is a last event to go on from
    agent.wait_route("app.test", "app")
    proxy.delay = lambda line: 30 if "/version" in line else 0
    proxy.cut()
    wait_for(lambda: not agent.status()["docker"]["connected"], "the stream is lost")
    lab.docker("restart", "-t", "0", app.id)
    wait_for(app.listens, "it listens again", 15)
    proxy.delay = lambda line: 1 if "/containers/json" in line else 0
    proxy.cut()
    seen = set()

    def connected():
        seen.add(code(lab, "app.test"))
        return agent.status()["docker"]["connected"]
    wait_for(connected, "the stream is back", 40)
    # what happened meanwhile is told now, and looked at
    for _ in range(50):
        seen.add(code(lab, "app.test"))
    check(seen <= {200, 503}, f"answers all the while: {seen}")
    wait_for(lambda: code(lab, "app.test") == 200, "it is asked again")
    check(not agent.logs(msg="Removing Docker tunnel"), "no route was removed")
    proxy.close()


def test_cut_and_cut_again(lab):
    """streams and lists cut at the same moment, again and again: nothing but GET, routes stay"""
    lab.container("app", "app.test")
    proxy, agent = start(lab)
    agent.wait_route("app.test", "app")
    proxy.delay = lambda line: 0.3 if "/containers/json" in line else 0
    for turn in range(6):
        before = len(proxy.requests)
        proxy.cut()
        wait_for(lambda: any("/containers/json" in r for r in proxy.requests[before:]),
                 "a list is asked for again", 15)
        expect(code(lab, "app.test"), 200, "status in the middle of it")
        proxy.cut()  # the stream and the list at once
    proxy.delay = lambda line: 0
    wait_for(lambda: agent.status()["docker"]["connected"], "connected again", 30)
    expect({line.split(" ")[0] for line in proxy.requests}, {"GET"}, "methods")
    expect(agent.routes(), {"app.test": ["app"]}, "routes")
    proxy.close()


def test_follower_of_the_dead(lab):
    """network_mode container:X, X dies: the follower is no longer routed, with the reason"""
    lab.script("image", "busybox")
    owner = lab.container("owner", image="busybox", wait=False)
    lab.container("follower", "follow.test", image="busybox", network="container:owner",
                  command=("sleep", "1000"), wait=False)
    agent = lab.agent()
    agent.wait_route("follow.test", "follower")
    owner.kill()
    agent.wait_route("follow.test")
    check("shares" in agent.refused()["follower"]["reason"], "the reason")


def test_why_not_available(lab):
    """Docker that cannot be reached: one line that names the socket and the reason"""
    agent = lab.agent("--docker-socket", "/nowhere/docker.sock", ready=False)
    wait_for(lambda: agent.logs("WARN", msg="Docker daemon not available"), "the line")
    for error in ("/nowhere/docker.sock", "No such file or directory"):
        check(error in agent.logs("WARN", msg="Docker daemon not available")[0]["error"], error)
    wait_for(lambda: agent.stop() == 0, "it stops")


def test_admin_outlives_idle_clients(lab):
    """more idle connections than the admin address takes, all timed out: it answers again"""
    agent = lab.agent()
    idle = []
    for _ in range(70):
        sock = lab.socket(lab.edge_ns)
        sock.connect(("127.0.0.1", 9180))
        idle.append(sock)
    idle[0].settimeout(20)
    expect(idle[0].recv(1), b"", "what comes after the time-out of an idle connection")
    for sock in idle:
        sock.close()
    expect(agent.health("/healthz")[0], 200, "status of /healthz")


def test_connections_once_each(lab):
    """`connections` lists each once while they come and go"""
    lab.container("app", "app.test", image="nginx")
    agent = lab.agent()
    agent.wait_route("app.test", "app")
    load = subprocess.Popen(
        [ROOT / "scripts/lab", "run", "client", "wrk", "-t1", "-c64", "-d3s", "-H",
         "Host: app.test", "-H", "Connection: close", f"http://{lab.edge_addr}/"],
        env=lab.environ, stdout=subprocess.DEVNULL)
    rows = 0
    while load.poll() is None:
        clients = [c["client"] for c in agent.connections()]
        expect(len(set(clients)), len(clients), "distinct ones")
        rows += len(clients)
    check(rows > 0, "some were seen")


lib.main("e2edaem")
