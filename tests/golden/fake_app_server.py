"""A stand-in for `codex app-server` that misbehaves as its one argument says. It knows no model and no tool."""

from __future__ import annotations

import json
import sys
import time

BEHAVIOUR = sys.argv[1]


def tell(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    if BEHAVIOUR == "exits":
        sys.stderr.write("error: no such thing as a sandbox\n")
        sys.exit(3)
    refusals = {"busy_twice": 2, "busy": 99}.get(BEHAVIOUR, 0)
    for line in sys.stdin:
        asked = json.loads(line)
        match asked.get("method"):
            case "initialize":
                if BEHAVIOUR == "silent":
                    time.sleep(60)
                version = "0.99.0" if BEHAVIOUR == "old" else "0.169.0"
                tell(id=asked["id"], result={"userAgent": f"agentkeel/{version} (Test)"})
            case "config/read":
                tell(id=asked["id"], result={"config": {}})
            case "account/read":
                tell(id=asked["id"], result={"account": None, "requiresOpenaiAuth": False})
            case "thread/start":
                if refusals:
                    refusals -= 1
                    tell(id=asked["id"], error={"code": -32001, "message": "Server overloaded; retry later."})
                else:
                    tell(id=asked["id"], result={"thread": {"id": "t", "path": None}, "model": "m"})
            case "turn/start":
                turn(asked["id"])


def turn(request_id: int) -> None:
    tell(id=request_id, result={"turn": {"id": "u"}})
    if BEHAVIOUR == "floods":
        for number in range(50):
            sys.stdout.write(f"banner {number}\n")
        sys.stdout.flush()
        time.sleep(60)
    if BEHAVIOUR == "dies":
        tell(method="item/agentMessage/delta", params={"threadId": "t", "turnId": "u", "itemId": "i", "delta": "Half"})
        sys.stderr.write("thread 'main' panicked\n")
        sys.exit(101)
    if BEHAVIOUR == "babbles":
        sys.stdout.buffer.write(b"\xff\xfe banner\n" + b"[1, 2]\n")
        sys.stdout.flush()
    if BEHAVIOUR == "withdraws":
        params = {"threadId": "t", "turnId": "u", "itemId": "i", "command": "/bin/bash -lc ls", "cwd": "/"}
        tell(method="item/commandExecution/requestApproval", id=7, params=params)
        tell(method="serverRequest/resolved", params={"threadId": "t", "requestId": 7})
    tell(method="turn/completed", params={"threadId": "t", "turn": {"id": "u", "status": "completed", "items": []}})


main()
