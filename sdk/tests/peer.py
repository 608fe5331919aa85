"""Plays wootz: starts a worker with a listening socket on its standard input, and sends it one FastCGI request per connection."""

import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time

BEGIN_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT, STDERR = 1, 3, 4, 5, 6, 7
DEADLINE_SECONDS = 20


def eventually(condition, what):
    """Returns the first true result of the condition; fails when there is none in time."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"in {DEADLINE_SECONDS} s it never came that {what}")
        select.select([], [], [], 0.002)
    return result


def record(kind, content=b"", request=1, padding=0, version=1):
    return struct.pack(">BBHHBx", version, kind, request, len(content), padding) + content + bytes(padding)


def stream(kind, data, piece=65535, padding=0):
    pieces = [data[at:at + piece] for at in range(0, len(data), piece)]
    return b"".join(record(kind, each, padding=padding) for each in pieces) + record(kind)


def variables(values):
    def length(text):
        return bytes([len(text)]) if len(text) < 128 else struct.pack(">I", len(text) | 0x80000000)

    pairs = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in values.items()]
    return b"".join(length(name) + length(value) + name + value for name, value in pairs)


def begin(role=1, flags=0):
    return record(BEGIN_REQUEST, struct.pack(">HB5x", role, flags))


def environment(uri="/", message=None, event="message", user=None, cookie=None, **more):
    path, _, query = uri.partition("?")
    values = {
        "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SOFTWARE": "wootz/0.1.0", "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "localhost", "SERVER_PORT": "8888",
        "SCRIPT_NAME": "", "WOOTZ_EVENT": event, "WOOTZ_CONNECTION": "c0ffee", "REQUEST_METHOD": "GET" if message is None else "POST",
        "REQUEST_URI": uri, "PATH_INFO": path, "QUERY_STRING": query, "CONTENT_TYPE": "text/plain; charset=utf-8",
        "REMOTE_ADDR": "192.0.2.7", "REMOTE_PORT": "50123", "HTTP_USER_AGENT": "a browser", "HTTP_HOST": "localhost:8888",
    }
    if user is not None:
        values["REMOTE_USER"] = user
    if cookie is not None:
        values["HTTP_COOKIE"] = cookie
    values.update(more)
    return values


def request(uri="/", message=None, **more):
    body = uri.encode() if message is None else message
    values = environment(uri, message, **more)
    values.setdefault("CONTENT_LENGTH", str(len(body)))
    return begin() + stream(PARAMS, variables(values)) + stream(STDIN, body)


class Answer:
    """What a worker answered. `ended` is false when the connection closed before END_REQUEST."""

    def __init__(self):
        self.stdout, self.stderr, self.ended, self.status, self.protocol_status = b"", b"", False, None, None

    @property
    def header(self):
        return self.stdout.partition(b"\r\n\r\n")[0].decode()

    @property
    def body(self):
        return self.stdout.partition(b"\r\n\r\n")[2]

    @property
    def text(self):
        return self.body.decode()

    @property
    def http_status(self):
        lines = [line for line in self.header.split("\r\n") if line.startswith("Status: ")]
        return int(lines[0][8:]) if lines else 200


class Exchange:
    """A connection to a worker with one request on it."""

    def __init__(self, path, data):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_SECONDS)
        self.socket.connect(path)
        self.reader = self.socket.makefile("rb")
        self.answer = Answer()
        if data:
            self.socket.sendall(data)

    def read_record(self):
        """Reads one record into the answer; false at its end."""
        try:
            header = self.reader.read(8)
        except ConnectionResetError:
            return False
        if len(header) < 8:
            assert not header, f"the worker sent a part of a record: {header!r}"
            return False
        version, kind, of, length, padding = struct.unpack(">BBHHBx", header)
        content = self.reader.read(length + padding)[:length]
        assert (version, of) == (1, 1) and not self.answer.ended and len(content) == length, f"{header!r} {content!r}"
        if kind == STDOUT:
            assert content, "an empty record would be the end of the output"
            self.answer.stdout += content
        elif kind == STDERR:
            self.answer.stderr += content
        else:
            assert kind == END_REQUEST, kind
            self.answer.ended = True
            self.answer.status, self.answer.protocol_status = struct.unpack(">IB3x", content)
        return True

    def finish(self):
        """Reads on until the worker closes the connection."""
        while self.read_record():
            pass
        self.close()
        return self.answer

    def read_until(self, text):
        """Reads until the reply, streamed, ends so."""
        while not self.answer.body.endswith(text):
            assert self.read_record(), f"the answer ended with {self.answer.stdout!r} {self.answer.stderr!r}"
        return self.answer

    def close(self):
        self.reader.close()
        self.socket.close()


class Worker:
    """A worker process, with what it writes to its standard output and error in a file."""

    def __init__(self, command, env=None):
        self.directory = tempfile.TemporaryDirectory(prefix="wootz-sdk-")
        self.home = pathlib.Path(self.directory.name)
        self.path = str(self.home / "worker.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(128)
        self.log_path = self.home / "log"
        with open(self.log_path, "wb") as log:
            environ = {**os.environ, "WOOTZ_LISTEN": self.path, "TEST_HOME": str(self.home), **(env or {})}
            self.process = subprocess.Popen(command, stdin=listener, stdout=log, stderr=log, env=environ, cwd=self.home)
        listener.close()

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    @property
    def pid(self):
        return self.process.pid

    def start(self, uri="/", message=None, **more):
        return Exchange(self.path, request(uri, message, **more))

    def call(self, uri="/", message=None, **more):
        return self.start(uri, message, **more).finish()

    def raw(self, data):
        return Exchange(self.path, data)

    def fifo(self, name):
        path = self.home / name
        os.mkfifo(path)
        return path

    def children(self):
        return pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()

    def descriptors(self):
        return sorted(os.listdir(f"/proc/{self.pid}/fd"))

    def memory_kib(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        return self.process.wait(timeout=DEADLINE_SECONDS)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.directory.cleanup()


def release(fifo):
    """Lets the call go on that reads this pipe."""
    with open(fifo, "wb") as pipe:
        pipe.write(b"go")


def alive(pid):
    """Whether a process is there and no zombie."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
