"""Answers WebSocket messages from a Python worker that wootz keeps.

The worker waits for calls on the listening socket that is its standard input (FastCGI), and answers one at a time:

    import wootz

    def application(uri, connection):
        return f"Hello, {connection.user or 'guest'}! You asked for {uri}."

    wootz.run(application)

What the application prints, then what it returns (text, bytes, None, or an iterable of those, each sent at once), is the reply.
A WSGI application fits as well: wootz.run(wootz.wsgi(app)).
"""

import contextlib
import io
import json
import os
import select
import signal
import socket
import struct
import sys
import traceback
from urllib.parse import unquote

__all__ = ["Connection", "run", "wsgi"]

BEGIN_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT, STDERR = 1, 3, 4, 5, 6, 7
RESPONDER = 1
MAX_CONTENT_BYTES = 65528  # more than a record can say; a multiple of 8, so that none needs padding
BYTES = (bytes, bytearray, memoryview)
RECEIVE_TIMEOUT_SECONDS = 10  # wootz sends a whole request at once: a peer that pauses so long is broken
PRINTED_BYTES = 32768  # printed bytes are collected up to this many, then sent; print(flush=True) sends at once


class Connection:
    """Who sent a message, and the message: what a call is told (CGI's variables, by name)."""

    def __init__(self, env, message):
        self.env = env
        """Every variable of the call."""
        self.message = message
        """The message, byte for byte as the browser sent it."""
        self.id = env.get("WOOTZ_CONNECTION", "")
        """Unguessable, and the same in all calls of one browser's connection."""
        self.user = env.get("REMOTE_USER")
        """The user's id; None is a guest."""
        self.event = env.get("WOOTZ_EVENT", "message")
        """Why there is this call: message, push, validate, connect or disconnect."""
        self.uri = env.get("REQUEST_URI", "/")
        """The message where it is a URI, verbatim ("echo/abc"), else the URI of the handshake."""
        self.ip = env.get("REMOTE_ADDR", "")
        self.port = int(env.get("REMOTE_PORT") or 0)
        self.headers = {name[5:].replace("_", "-").lower(): value for name, value in env.items() if name.startswith("HTTP_")}
        """The handshake's header fields; names in lower case."""
        self.cookies = {}
        """The handshake's cookies; the first of equal names counts."""
        for pair in self.headers.get("cookie", "").split(";"):
            name, equals, value = pair.strip().partition("=")
            if equals:
                self.cookies.setdefault(name, unquote(value))
        self.status = 200
        """The application may set the HTTP status of its reply: 500 and above is a failed call, of which nothing is sent."""

    @property
    def text(self):
        """The message as text; raises UnicodeDecodeError where it is none."""
        return self.message.decode()


def run(application, validate=None, isolate=False):
    """Answers calls until wootz ends the worker (TERM: a running call is finished).

    application(uri, connection) gives the reply. An exception is a failed call: nothing more is sent, the log has it.

    validate(ip, port, connection) says who connects: it returns the user's id, or {"user": id, "expires": seconds}, or None, "" or
    0 for a guest, or False for nobody who may connect. What it prints goes to the log.

    isolate=True forks per call: it sees what the worker had loaded, and whatever it changes ends with it. No atexit function of the
    worker's runs there. Start no thread before run() then.
    """
    _Worker(application, validate, isolate).serve(_take_listener())


def wsgi(app):
    """Makes an application of a WSGI application (PEP 3333): Flask, Django, Pyramid, Bottle."""

    def application(uri, connection):
        environ = {name: value.encode("utf-8", "surrogateescape").decode("latin-1") for name, value in connection.env.items()}
        environ.update({
            "wsgi.version": (1, 0), "wsgi.url_scheme": "https" if environ.get("HTTPS") in ("on", "1") else "http",
            "wsgi.input": io.BytesIO(connection.message), "wsgi.errors": sys.stderr,
            "wsgi.multithread": False, "wsgi.multiprocess": True, "wsgi.run_once": False,
        })
        for name, value in (("SCRIPT_NAME", ""), ("PATH_INFO", "/"), ("SERVER_NAME", "localhost"), ("SERVER_PORT", "80"), ("SERVER_PROTOCOL", "HTTP/1.1")):
            environ.setdefault(name, value)
        written = []

        def start_response(status, headers, exc_info=None):
            connection.status = int(status.split(None, 1)[0])
            return written.append

        parts = app(environ, start_response)
        try:
            iterator = iter(parts)
            first = next(iterator, b"")  # the status is known from here on, if it was not before
            yield from written
            yield first
            yield from iterator
        finally:
            if hasattr(parts, "close"):
                parts.close()

    return application


class _Violation(Exception):
    """What came is no request, or not a whole one."""


class _Exchange:
    """One FastCGI request and its answer, on a connection of its own. Nothing is taken for a request that did not arrive whole."""

    def __init__(self, stream):
        stream.settimeout(RECEIVE_TIMEOUT_SECONDS)
        self.stream = stream
        with stream.makefile("rb") as self.reader:
            self._read_request()
        stream.settimeout(None)
        self.has_begun = False
        """Whether the browser may have got a part of the reply already, so that a status would come too late."""

    def _read_request(self):
        type_, self.request, content = self._read_record()
        if type_ != BEGIN_REQUEST or len(content) != 8:
            raise _Violation(f"a request begins with BEGIN_REQUEST, not with a record of type {type_}")
        role = struct.unpack_from(">H", content)[0]
        if role != RESPONDER:
            raise _Violation(f"this worker is a responder; role {role} was asked for")
        env = _parse_variables(self._read_stream(PARAMS))
        message = self._read_stream(STDIN)
        if env.get("CONTENT_LENGTH", "") not in ("", str(len(message))):
            raise _Violation(f"{env['CONTENT_LENGTH']} bytes were announced, {len(message)} came")
        self.connection = Connection(env, message)

    def output(self, data):
        """Sends a part of the reply."""
        if data:  # as a record, nothing would be the end of the output
            header = b"" if self.has_begun else self._header()
            self.has_begun = True
            self._send(STDOUT, header + data)

    def error(self, text):
        """Sends what is meant for the log."""
        if text:
            self._send(STDERR, text.encode("utf-8", "backslashreplace"))

    def end(self, status):
        """Ends the answer. The status is an exit status: with anything but 0, wootz sends nothing (more) of the reply."""
        with contextlib.suppress(OSError):  # a peer that is gone gets nothing more
            if not self.has_begun:
                self._send(STDOUT, self._header())
            self.stream.sendall(struct.pack(">BBHHxxIB3x", 1, END_REQUEST, self.request, 8, status, 0))
            # A program that the call has started may hold the connection too: it ends for all of them.
            self.stream.shutdown(socket.SHUT_RDWR)

    def _header(self):
        status = self.connection.status
        return (f"Status: {status}\r\n" if status != 200 else "").encode() + b"Content-Type: text/plain; charset=utf-8\r\n\r\n"

    def _send(self, type_, data):
        for start in range(0, len(data), MAX_CONTENT_BYTES):
            content = data[start:start + MAX_CONTENT_BYTES]
            self.stream.sendall(struct.pack(">BBHHxx", 1, type_, self.request, len(content)) + content)

    def _read_stream(self, expected):
        parts = []
        while True:
            type_, request, content = self._read_record()
            if (type_, request) != (expected, self.request):
                raise _Violation(f"record of type {type_} for request {request} instead of {expected} for {self.request}")
            if not content:
                return b"".join(parts)
            parts.append(content)

    def _read_record(self):
        version, type_, request, length, padding = struct.unpack(">BBHHBx", self._read(8))
        if version != 1:
            raise _Violation(f"FastCGI version {version} is unknown")
        return type_, request, self._read(length + padding)[:length]

    def _read(self, length):
        try:
            data = self.reader.read(length)
        except OSError as error:
            raise _Violation(f"the request was cut off: {error}") from error
        if len(data) != length:
            raise _Violation("the request was cut off")
        return data


def _parse_variables(data):
    env, at = {}, 0
    try:
        while at < len(data):
            lengths = []
            for _ in range(2):  # a length below 128 is one byte, a longer one is four with the highest bit set
                long = data[at] >= 128
                lengths.append(struct.unpack_from(">I", data, at)[0] & 0x7FFFFFFF if long else data[at])
                at += 4 if long else 1
            name, value = data[at:at + lengths[0]], data[at + lengths[0]:at + sum(lengths)]
            at += sum(lengths)
            env[name.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
    except (IndexError, struct.error):
        at = len(data) + 1
    if at != len(data):
        raise _Violation("a variable was cut off")
    return env


class _Printed(io.RawIOBase):
    """Where standard output goes while a call runs."""

    def __init__(self, send):
        self.send = send

    def writable(self):
        return True

    def write(self, data):
        self.send(bytes(data))
        return len(data)


def _take_listener():
    """Takes the listening socket off descriptor 0, where neither calls nor programs that they start should find it."""
    try:
        listener = socket.socket(fileno=os.dup(0))
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        listening = False
    if not listening:
        raise RuntimeError('standard input is no listening socket: let wootz start this worker (runner = "fastcgi" with a command)')
    os.set_inheritable(listener.fileno(), False)
    with open(os.devnull, "rb") as null:
        os.dup2(null.fileno(), 0)
    os.environ.pop("WOOTZ_LISTEN", None)
    return listener


class _Worker:
    def __init__(self, application, validate, isolate):
        self.application, self.validate, self.isolate = application, validate, isolate
        self.ending = False
        # A signal writes a byte here, so that select() cannot sleep through one that comes right before it.
        self.woken, waker = socket.socketpair()
        for end in (self.woken, waker):
            end.setblocking(False)
        self.waker = waker

    def serve(self, listener):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # ignored, it would not wake
        signal.set_wakeup_fd(self.waker.fileno())
        listener.setblocking(False)
        while not self.ending:
            if listener in self._wait(listener):
                try:
                    stream, _ = listener.accept()
                except OSError:  # the peer is gone already
                    continue
                with stream:
                    self._answer(stream, listener)

    def _end(self, number, frame):
        self.ending = True

    def _wait(self, *readable):
        ready = select.select([*readable, self.woken], [], [])[0]
        if self.woken in ready:
            self.woken.recv(4096)
        return ready

    def _answer(self, stream, listener):
        try:
            exchange = _Exchange(stream)
        except _Violation as violation:
            print("wootz: no FastCGI request:", violation, file=sys.stderr, flush=True)
            return
        if not self.isolate:
            self._perform(exchange)
            return
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child:
            self._watch(child, stream)
            return
        try:
            # TERM and INT keep their handlers: sent to the whole group, they must not tear the running call.
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (listener, self.woken, self.waker):
                inherited.close()
            self._perform(exchange)
        finally:
            os._exit(0)  # nothing of the worker's is ended with a call: no atexit function, no connection to a database

    def _watch(self, child, stream):
        """Waits for the end of an isolated call. The connection is readable when the call has answered, and when the browser is gone:
        either way nobody waits for the process any more."""
        while True:
            with contextlib.suppress(ChildProcessError):
                ended, status = os.waitpid(child, os.WNOHANG)
                if not ended:
                    if stream not in self._wait(stream):
                        continue
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                elif os.WIFSIGNALED(status) or os.WEXITSTATUS(status):
                    print("wootz: a call ended without an answer, wait status", status, file=sys.stderr, flush=True)
            return

    def _perform(self, exchange):
        """Runs the call in this process and answers."""
        connection = exchange.connection
        validates = connection.event == "validate"
        sink = _Printed((lambda data: exchange.error(data.decode("utf-8", "replace"))) if validates else exchange.output)
        printed = io.TextIOWrapper(io.BufferedWriter(sink, PRINTED_BYTES), encoding="utf-8", errors="surrogateescape", newline="")
        status = 1
        try:
            with contextlib.redirect_stdout(printed):
                try:
                    if validates:
                        self._validate(exchange)
                    else:
                        self._reply(exchange, printed)
                    status = 0
                except SystemExit as ended:
                    status = _exit_status(ended, exchange)
                if status == 0:
                    printed.flush()
        except BrokenPipeError:
            status = 1  # the browser is gone, which is no fault of the application's
        except BaseException:
            status = int(exchange.has_begun)  # a status says more than an exit status, unless it is too late
            connection.status = 500
            with contextlib.suppress(OSError):
                exchange.error(traceback.format_exc())
        sys.stderr.flush()  # an isolated call does not live on after its end
        sink.send = lambda data: None  # what is left belongs to a failed call, or was printed after the end
        exchange.end(status)

    def _reply(self, exchange, printed):
        reply = self.application(exchange.connection.uri, exchange.connection)
        pieces = reply if hasattr(reply, "__iter__") and not isinstance(reply, (str, *BYTES)) else (reply,)
        for piece in pieces:
            if isinstance(piece, BYTES):
                printed.flush()
                exchange.output(bytes(piece))
            elif piece is not None:
                printed.write(_text(piece))
            if pieces is reply:
                printed.flush()

    def _validate(self, exchange):
        if self.validate is None:
            raise RuntimeError('wootz asks who connects (identity.provider = "application"), but run() was given no validate')
        connection = exchange.connection
        user = self.validate(connection.ip, connection.port, connection)
        if user is False:
            connection.status = 403
        elif user:
            exchange.output((json.dumps(user) if isinstance(user, dict) else _text(user)).encode())


def _text(piece):
    if isinstance(piece, (str, int, float)) and not isinstance(piece, bool):
        return str(piece)
    raise TypeError(f"a reply is text or bytes, not {type(piece).__name__}")


def _exit_status(ended, exchange):
    """sys.exit() in a call ends the call, not the worker. Before validate has said who connects, it refuses."""
    if exchange.connection.event == "validate":
        exchange.connection.status = 403
    if ended.code is None or isinstance(ended.code, int):
        return ended.code or 0
    exchange.error(f"{ended.code}\n")
    return 1


def __getattr__(name):
    """wootz.push, which a worker that only answers need not have."""
    if name == "push":
        import wootz_push

        return wootz_push
    raise AttributeError(f"module 'wootz' has no attribute {name!r}")
