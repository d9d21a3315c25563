# SPDX-License-Identifier: MIT
"""The WebSocket server, by Debian's python3-websockets, in a container: `lib_websocket.py PORT`.

What it does is asked for by the path: /echo, /count (messages, and the SHA-256 of all, when asked
by the message `end`), /refuse (403), /push (a hundred messages, and the close).
"""
import asyncio
import hashlib
import http
import os
import sys

import websockets


async def serve(connection, path):
    if path == "/echo":
        async for message in connection:
            await connection.send(message)
    elif path == "/count":
        digest, count = hashlib.sha256(), 0
        async for message in connection:
            if message == "end":
                await connection.send(f"{count} {digest.hexdigest()}")
            else:
                digest.update(message if isinstance(message, bytes) else message.encode())
                count += 1
    elif path == "/push":
        for number in range(100):
            await connection.send(f"message {number} of {os.environ['NAME']}")


async def refuse(path, _fields):
    if path == "/refuse":
        return http.HTTPStatus.FORBIDDEN, [("X-Container", os.environ["NAME"])], b"refused\n"


async def server():
    async with websockets.serve(serve, "0.0.0.0", int(sys.argv[1]), process_request=refuse,
                                max_size=None):
        await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(server())
