# SPDX-License-Identifier: MIT
"""A Docker daemon that lists as many containers as are asked for, all at one address."""
import http.server
import json
import os
import socketserver
import threading
import time
import urllib.parse


def container(number, address):
    return {
        "Id": f"{number:064x}", "Names": [f"/many-{number}"], "Image": "many",
        "Created": 1700000000 + number, "State": "running", "Status": "Up 2 hours",
        "HostConfig": {"NetworkMode": "bridge"},
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": address}}},
        "Labels": {"kakuremichi.enabled": "true", "kakuremichi.domain": domain(number),
                   "kakuremichi.port": "80"}}


def domain(number):
    return f"app-{number}.many.example.com"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked = time.monotonic()
        path, _, query = self.path.partition("?")
        if path.endswith("/version"):
            self.answer({"Version": "24.0.0", "ApiVersion": "1.43", "MinAPIVersion": "1.24"})
        elif path.endswith("/containers/json"):
            filters = json.loads(dict(urllib.parse.parse_qsl(query)).get("filters", "{}"))
            ids = filters.get("id")
            self.answer([c for c in self.server.containers if not ids or c["Id"] in ids])
        elif path.endswith("/events"):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.server.closed.wait()
            self.close_connection = True
        else:   # one container in detail
            self.answer({"Config": {"StopSignal": "SIGTERM"}})

    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Daemon(socketserver.ThreadingUnixStreamServer):
    """In a thread of its own, which sleeps while anything is measured."""
    daemon_threads = True
    block_on_close = False

    def __init__(self, path, count, address):
        self.path = path
        self.containers = [container(number, address) for number in range(count)]
        self.closed = threading.Event()
        self.asked = time.monotonic()
        super().__init__(path, Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def quiet(self):
        """The agent has asked for all that it wants to know: for each container's stop signal."""
        return time.monotonic() - self.asked > 0.5

    def handle_error(self, *_):
        pass    # an agent that stops hangs up

    def stop(self):
        self.closed.set()
        self.shutdown()
        self.server_close()
        os.unlink(self.path)
