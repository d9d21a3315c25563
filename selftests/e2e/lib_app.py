# SPDX-License-Identifier: MIT
"""A Python server as many are: http.server, which sends head and body apart. `lib_app.py PORT`.

As in the other lib_app.*: GET /N answers with the file of that name in /files, POST /up with the
SHA-256 of the request's body.
"""
import hashlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with open("/files" + self.path, "rb") as file:
            self.answer(file.read())

    def do_POST(self):
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while piece := self.rfile.read(min(left, 1 << 16)):
            digest.update(piece)
            left -= len(piece)
        self.answer(digest.hexdigest().encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
