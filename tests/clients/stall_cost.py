"""What stalled readers cost those who write: p50 and p99 of POST /api/v1/operations, in interleaved pairs.

usage: stall_cost.py PHOTON [pairs [seconds]]     PHOTON is the program, best built with --release
Each pair measures once without and once with 100 streams (half WebSockets, half server-sent events) whose
clients never read. One client reads all the time, since without any stream the server encodes no events at all.
By hand, on a machine that does nothing else; needs Python and curl.
"""

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

READERS, WRITERS = 100, 8
BODY = json.dumps({"name": "x", "workflow": [{"step": 1, "platform": "worker", "action": "a"}]}).encode()
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def stall(port, number):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    one.connect(("127.0.0.1", port))
    path, more = ("/api/v1/events", UPGRADE) if number % 2 else ("/api/v1/events/stream", "")
    one.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{more}\r\n".encode())
    assert one.recv(12).split()[1] in (b"101", b"200")
    return one


async def write(port, until, times):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /api/v1/operations HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    while time.perf_counter() < until:
        begun = time.perf_counter()
        writer.write(request)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert answer.startswith(b"http/1.1 201"), answer
        await reader.readexactly(int(answer.split(b"content-length:")[1].split(b"\r\n")[0]))
        times.append(time.perf_counter() - begun)
    writer.close()


async def measure(port, seconds):
    times, until = [], time.perf_counter() + seconds
    await asyncio.gather(*(write(port, until, times) for _ in range(WRITERS)))
    times.sort()
    return len(times), times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3


def main(photon, pairs=8, seconds=4):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tempfile.mkdtemp()
    # The readers stay stalled for as long as this takes.
    open(f"{folder}/config.toml", "w").write("[limits]\nstall_timeout_ms = 3600000\n")
    settings = {"PHOTON_PORT": str(port), "PHOTON_DATA_DIR": f"{folder}/data", "PHOTON_LOG_LEVEL": "error"}
    server = subprocess.Popen(
        [photon, "serve"], env=os.environ | settings | {"PHOTON_CONFIG": f"{folder}/config.toml"}
    )
    try:
        for _ in range(500):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready")
                break
            except OSError:
                time.sleep(0.02)
        reader = subprocess.Popen(
            ["curl", "-sN", f"http://127.0.0.1:{port}/api/v1/events/stream"], stdout=subprocess.DEVNULL
        )
        asyncio.run(measure(port, seconds))
        found = {0: [], READERS: []}
        for pair in range(pairs):
            for readers in (0, READERS) if pair % 2 == 0 else (READERS, 0):
                stalled = [stall(port, number) for number in range(readers)]
                # Full before it counts.
                asyncio.run(measure(port, seconds / 2))
                count, p50, p99 = asyncio.run(measure(port, seconds))
                found[readers].append((count / seconds, p50, p99))
                print(f"{readers:3} readers: {count / seconds:6.0f}/s  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms", flush=True)
                for one in stalled:
                    one.close()
        for readers, rows in found.items():
            rate, p50, p99 = (statistics.median(column) for column in zip(*rows))
            print(f"median, {readers:3} readers: {rate:6.0f}/s  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms")
        ratios = [after[2] / before[2] for before, after in zip(found[0], found[READERS])]
        print(f"p99 with / without, median over pairs: {statistics.median(ratios):.2f}")
    finally:
        reader.kill()
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
