"""Reads Photon's events with the `websockets` package, drops at random, resumes after the last sequence.

usage: reader.py HOST:PORT socket        each event as it came, one a line
       reader.py --check                 ends with 0 when the package is there
A line on standard input names the last sequence; once that was read it ends.
"""

import json
import random
import sys
import threading
import time

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.sync.client import connect

goal = None


def listen():
    global goal
    goal = int(sys.stdin.readline())


def read(address):
    last = 0
    while goal is None or last < goal:
        try:
            url = f"ws://{address}/api/v1/events?after={last}"
            with connect(url, subprotocols=["photon.v1"], open_timeout=5, close_timeout=0.1) as socket:
                assert socket.subprotocol == "photon.v1"
                for _ in range(random.randrange(1, 80)):
                    text = socket.recv(timeout=0.5)
                    message = json.loads(text)
                    if "specversion" in message:
                        print(text)
                    last = int(message["sequence"])
                    if goal is not None and last >= goal:
                        break
        except (ConnectionClosed, InvalidHandshake, InvalidMessage, OSError, EOFError):
            time.sleep(0.01)


if sys.argv[1] != "--check":
    threading.Thread(target=listen, daemon=True).start()
    read(sys.argv[1])
