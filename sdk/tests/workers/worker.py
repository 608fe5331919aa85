"""The worker of the tests. usage: python3 worker.py isolated|shared"""

import atexit
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
from urllib.parse import parse_qs

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "python"))
import wootz


def leave(name):
    """Says in a file that something of the worker's has run."""
    with open(os.path.join(os.environ["TEST_HOME"], name), "a", encoding="utf-8") as file:
        print(os.getpid(), file=file)


atexit.register(leave, "shutdown")  # the worker's: a call must not run it
counter = 0
print("the worker prints while it starts")


def application(uri, connection):
    global counter
    path, _, query = uri.partition("?")
    values = {name: found[0] for name, found in parse_qs(query).items()}
    if path == "/echo":
        return connection.message
    if path == "/print":
        print("printed, ", end="")
        return "returned"
    if path == "/nothing":
        return None
    if path == "/number":
        return 42
    if path == "/parts":
        return iter(["one ", b"two ", 3])
    if path == "/wrong":
        return object()
    if path == "/stream":
        print("first", flush=True)
        pathlib.Path(values["fifo"]).read_bytes()
        print("second")
        return None
    if path == "/hold":
        print(os.getpid(), flush=True)
        pathlib.Path(values["fifo"]).read_bytes()
        return "released"
    if path == "/connection":
        seen = {name: getattr(connection, name) for name in ("id", "user", "event", "uri", "ip", "port", "headers", "cookies")}
        return json.dumps({**seen, "message": connection.text})
    if path == "/env":
        return json.dumps(connection.env)
    if path == "/counter":
        counter += 1
        return counter
    if path == "/big":
        return b"0123456789abcdef" * 65536
    if path == "/chunks":
        for _ in range(65536):
            sys.stdout.write("0123456789abcdef")
        return None
    if path == "/status":
        connection.status = int(values["is"])
        return "with a status"
    if path == "/throw":
        print("half a reply")
        raise RuntimeError("thrown on purpose")
    if path == "/late-throw":
        print("half a reply", flush=True)
        raise RuntimeError("thrown on purpose")
    if path == "/exit":
        print("until here", end="")
        sys.exit(int(values.get("status", 0)))
    if path == "/die":
        sys.exit("last words")
    if path == "/crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path == "/inherited":
        links = [link(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        return json.dumps({"sockets": sum(to.startswith("socket:") for to in links), "listen": os.environ.get("WOOTZ_LISTEN", False), "input": link("/proc/self/fd/0")})
    if path == "/random":
        return str(random.random())
    if path == "/background":
        return str(subprocess.Popen(["sleep", "1000"], close_fds=False).pid)
    if path == "/pid":
        return os.getpid()
    return "no such route"


def link(path):
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def validate(ip, port, connection):
    print(f"asked about {ip}:{port}")
    who = connection.cookies.get("who")
    if who == "exit":
        sys.exit()
    if who == "throw":
        raise RuntimeError("no database")
    return {"alice": "alice", "number": 7, "zero": 0, "array": {"user": "bob", "expires": 60}, "refused": False, "true": True}.get(who)


def flask_like(environ, start_response):
    """A WSGI application."""
    if environ["PATH_INFO"] == "/broken":
        start_response("500 Internal Server Error", [])
        return [b"sorry"]
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [environ["REQUEST_METHOD"].encode(), b" ", body]


if sys.argv[1] == "wsgi":
    wootz.run(wootz.wsgi(flask_like))
else:
    wootz.run(application, None if sys.argv[2:] == ["without-validate"] else validate, isolate=sys.argv[1] == "isolated")
leave("ended")
