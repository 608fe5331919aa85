"""WebSocket over HTTP/2 by Python's `h2` and `wsproto`: ARGV is a scenario, the port, the authority, and what the scenario wants more.

The application gives messages back, where a scenario says nothing else. What is asserted here is what a client sees; the test asks the server for the rest.
"""

import socket
import ssl
import struct
import sys
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import hyperframe.frame as frames
from wsproto.connection import Connection as WebSocketFrames
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

DEADLINE = 30
HOST = "localhost"
ErrorCodes = h2.errors.ErrorCodes


class Gone(Exception):
    """The server closed the connection."""


class Connection:
    """One HTTP/2 connection, and all that has come on it."""

    def __init__(self, port, authority, window=None):
        trust = ssl.create_default_context(cafile=authority)
        trust.set_alpn_protocols(["h2", "http/1.1"])
        tcp = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = trust.wrap_socket(tcp, server_hostname=HOST)
        assert self.socket.selected_alpn_protocol() == "h2"
        self.port = port
        # What is wrong must reach the server, so nothing is checked here.
        config = h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.streams = {}
        self.settings = {}
        self.pongs = 0
        self.goaway = None
        self.flush()
        self.until(lambda: self.settings)

    def local_port(self):
        return self.socket.getsockname()[1]

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def raw(self, *some):
        """Sends frames that the library would not."""
        self.flush()
        self.socket.sendall(b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in some))

    def read(self):
        """Reads once."""
        self.take(self.socket.recv(65536))

    def take(self, received):
        if not received:
            raise Gone
        for event in self.h2.receive_data(received):
            self.on(event)
        self.flush()

    def glance(self):
        """Reads what is there, if anything."""
        self.socket.settimeout(0.001)
        try:
            received = self.socket.recv(65536)
        except TimeoutError:
            return
        finally:
            self.socket.settimeout(DEADLINE)
        self.take(received)

    def on(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.settings.update({code: change.new_value for code, change in event.changed_settings.items()})
        elif isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event.error_code
        elif stream is None:
            pass
        elif isinstance(event, h2.events.ResponseReceived):
            stream.answer = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            stream.on_data(event)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = event.error_code

    def until(self, wanted):
        """Reads until something is so."""
        deadline = time.monotonic() + DEADLINE
        while not (result := wanted()):
            assert time.monotonic() < deadline, "nothing that was wanted has come"
            self.read()
        return result

    def until_gone(self):
        """Reads to the end of the connection; gives the code of GOAWAY."""
        try:
            self.until(lambda: False)
        except (Gone, ConnectionError, ssl.SSLError):
            return self.goaway

    def request(self, fields, end=True):
        stream = Stream(self, self.h2.get_next_available_stream_id())
        self.h2.send_headers(stream.id, fields, end_stream=end)
        self.streams[stream.id] = stream
        self.flush()
        return stream

    def get(self, path, method="GET", **fields):
        fields = [(name.replace("_", "-"), value) for name, value in fields.items()]
        return self.request(
            [(":method", method), (":scheme", "https"), (":authority", f"{HOST}:{self.port}"), (":path", path), *fields]
        )

    def connect(self, path="/", fields=(), protocol="websocket", version="13"):
        """An extended CONNECT; `fields` are pairs."""
        pseudo = [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "https"),
            (":path", path),
            (":authority", f"{HOST}:{self.port}"),
        ]
        return self.request([*pseudo, ("sec-websocket-version", version), *fields], end=False)

    def open(self, path="/", fields=()):
        stream = self.connect(path, fields)
        assert stream.status() == 200, stream.answer
        return stream


class Stream:
    """One request and, if it was accepted, one WebSocket."""

    def __init__(self, connection, number):
        self.connection = connection
        self.id = number
        self.answer = None
        self.body = b""
        self.ended = False
        self.reset = None
        self.frames = WebSocketFrames(ConnectionType.CLIENT)
        self.events = []
        self.acknowledges = True

    def on_data(self, event):
        if self.acknowledges:
            self.connection.h2.acknowledge_received_data(event.flow_controlled_length, self.id)
        elif event.flow_controlled_length:
            # The connection's window is everybody's.
            self.connection.h2.increment_flow_control_window(event.flow_controlled_length)
        if self.answer.get(":status") != "200" or "content-type" in self.answer:
            self.body += event.data
            return
        # At the end of a stream comes an empty one.
        if event.data:
            self.frames.receive_data(event.data)
        self.events.extend(self.frames.events())

    def status(self):
        self.connection.until(lambda: self.answer or self.reset is not None)
        return int(self.answer[":status"]) if self.answer else None

    def text(self):
        """The whole body."""
        self.connection.until(lambda: self.ended)
        return self.body.decode()

    def send_raw(self, data):
        """As fast as the windows let it."""
        h2_connection = self.connection.h2
        while data:
            room = min(h2_connection.local_flow_control_window(self.id), h2_connection.max_outbound_frame_size, len(data))
            if room == 0:
                self.connection.read()
                continue
            h2_connection.send_data(self.id, data[:room])
            data = data[room:]
            self.connection.flush()

    def send(self, message):
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        self.send_raw(self.frames.send(event))

    def event(self):
        """The next whole event."""
        self.connection.until(lambda: self.events)
        return self.events.pop(0)

    def receive(self):
        """The next whole message."""
        parts = []
        while True:
            event = self.event()
            if isinstance(event, Ping):
                self.send_raw(self.frames.send(event.response()))
                continue
            assert isinstance(event, (TextMessage, BytesMessage)), event
            parts.append(event.data)
            if event.message_finished:
                return type(parts[0])().join(parts)

    def ask(self, message):
        self.send(message)
        answer = self.receive()
        assert answer == message, (len(answer), len(message))

    def close_code(self):
        """The next event has to be a Close, and behind it the stream's end."""
        event = self.event()
        while isinstance(event, (Ping, Pong, TextMessage, BytesMessage)):
            event = self.event()
        assert isinstance(event, CloseConnection), event
        return event.code

    def close(self, code=1000):
        self.send_raw(self.frames.send(CloseConnection(code)))
        assert self.close_code() == code
        self.connection.until(lambda: self.ended)

    def end(self):
        self.connection.h2.end_stream(self.id)
        self.connection.flush()

    def vanish(self, code=ErrorCodes.CANCEL):
        self.connection.h2.reset_stream(self.id, code)
        self.connection.flush()


def talk(connection, pipe):
    """Messages of all sizes on several streams, pings, closes; what is pushed reaches all."""
    assert connection.settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1
    streams = [connection.open() for _ in range(3)]
    for stream in streams:
        for message in ["/hello", "two words", "gr\u00fc\u00df dich \U0001f600", b"\x00\xff", "x" * 100_000, b"\xff" * 1_000_000]:
            stream.ask(message)
    for stream in streams:
        # One byte in each DATA frame.
        for byte in stream.frames.send(TextMessage("byte by byte")):
            stream.send_raw(bytes([byte]))
        assert stream.receive() == "byte by byte"
        stream.send_raw(stream.frames.send(Ping(b"are you there?")))
        assert stream.event().payload == b"are you there?"
    with open(pipe, "wb", buffering=0) as global_pipe:
        global_pipe.write(b"pushed\n")
    for stream in streams:
        assert stream.receive() == "pushed"
    streams[0].close(1000)
    streams[1].close(4000)
    streams[2].send_raw(b"\x81\x03abc")
    assert streams[2].close_code() == 1002, "a frame without a mask"
    # The connection goes on.
    connection.open().ask("and another")


def environment(connection, *more):
    """The application prints its environment; `more` are further fields, NAME=VALUE."""
    fields = [
        ("origin", f"https://{HOST}:{connection.port}"),
        ("cookie", "first=1"),
        ("user-agent", "a test"),
        ("cookie", "second=2"),
        ("x-several", "a"),
        ("x-several", "b"),
        *(tuple(field.split("=", 1)) for field in more),
    ]
    stream = connection.open("/room?x=1", fields)
    stream.send("two words")
    print(stream.receive())


def chosen(connection):
    """A subprotocol is chosen as ever."""
    stream = connection.open("/", [("sec-websocket-protocol", "v9, v2"), ("sec-websocket-protocol", "v1")])
    assert stream.answer["sec-websocket-protocol"] == "v2", stream.answer
    assert "sec-websocket-accept" not in stream.answer
    assert "sec-websocket-protocol" not in connection.open().answer


def refusals(connection):
    """Each request that opens no WebSocket, and its answer. The connection survives all of them."""
    authority = (":authority", f"{HOST}:{connection.port}")
    version = ("sec-websocket-version", "13")
    path = (":path", "/ws")

    def head(*fields):
        return connection.request([(":method", "CONNECT"), *fields], end=False)

    scheme = (":scheme", "https")
    protocol = (":protocol", "websocket")
    asked = [
        ("elsewhere", connection.connect("/elsewhere"), 404),
        ("another version", connection.connect("/ws", version="8"), 426),
        ("no version", head(protocol, scheme, path, authority), 400),
        ("another protocol", connection.connect("/ws", protocol="connect-udp"), 501),
        ("without :protocol", head(authority), 400),
        ("without :authority", head(protocol, scheme, path, version), 400),
        ("another host", head(protocol, scheme, path, authority, version, ("host", "other.example")), 400),
        ("a body", connection.connect("/ws", [("content-length", "5")]), 400),
        ("a foreign origin", connection.connect("/ws", [("origin", "https://evil.example")]), 403),
        ("a subprotocol that is none", connection.connect("/ws", [("sec-websocket-protocol", "a b")]), 400),
        ("a target that is none", connection.connect("*"), 400),
        ("a huge head", connection.connect("/ws", [("x-large", "x" * 40_000)]), 431),
        ("GET", connection.get("/ws"), 400),
        ("POST", connection.get("/ws", method="POST"), 405),
        ("HEAD", connection.get("/elsewhere", method="HEAD"), 404),
    ]
    for what, stream, status in asked:
        assert stream.status() == status, (what, stream.answer, stream.reset)
        assert "upgrade" not in stream.answer and "connection" not in stream.answer, stream.answer
    assert asked[1][1].answer["sec-websocket-version"] == "13"
    assert asked[0][1].text() == "no WebSocket here"
    assert asked[13][1].answer["allow"] == "CONNECT"
    assert "CONNECT" in asked[12][1].text()
    # What HTTP/2 itself forbids is a reset, and no answer.
    forbidden = [
        head(protocol, path, authority, version),
        head(protocol, scheme, authority, version),
        head(protocol, scheme, path, authority, version, ("connection", "upgrade")),
        head(protocol, scheme, path, authority, version, ("upgrade", "websocket")),
        head(scheme, path, authority, version),
        connection.request([(":method", "GET"), protocol, scheme, path, authority, version]),
    ]
    for stream in forbidden:
        assert stream.status() is None and stream.reset == ErrorCodes.PROTOCOL_ERROR, (stream.answer, stream.reset)
    connection.open("/ws/room").ask("still served")


def status(connection, *fields):
    """Prints the status, the fields of interest and the body of one handshake; `fields` are NAME=VALUE."""
    stream = connection.connect("/", [tuple(field.split("=", 1)) for field in fields])
    code = stream.status()
    body = stream.text() if code != 200 else ""
    print(code, stream.answer.get("retry-after", "-"), stream.answer.get("www-authenticate", "-"), body)


def many(connection):
    """A thousand streams at once: as many as are allowed are served, and the others are told that they may try again."""
    allowed = connection.settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS]
    # The library would hold back what is not allowed.
    connection.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 10_000
    connection.h2.remote_settings.acknowledge()
    streams = [connection.connect() for _ in range(1_000)]
    statuses = [stream.status() for stream in streams]
    served = [stream for stream in streams if stream.status() == 200]
    assert len(served) == allowed, (len(served), allowed)
    refused = [stream for stream in streams if stream.status() is None]
    assert len(refused) == 1_000 - allowed and all(stream.reset == ErrorCodes.REFUSED_STREAM for stream in refused), statuses
    for stream in served:
        stream.send("at the same time")
    for stream in served:
        assert stream.receive() == "at the same time"
    served[0].close()
    again = connection.open()
    again.ask("in the place of another")
    print(allowed)


def rapid_reset(connection):
    """Requests that are reset as soon as they were made (CVE-2023-44487), however many of them the server sees at once."""
    try:
        # Whoever reads nothing meanwhile misses why it is told to go.
        while connection.goaway is None:
            for _ in range(10):
                connection.connect().vanish()
            connection.glance()
    except (Gone, ConnectionError, ssl.SSLError, h2.exceptions.ProtocolError):
        pass
    assert connection.until_gone() == ErrorCodes.ENHANCE_YOUR_CALM, connection.goaway


def rapid_reset_in_one_record(connection):
    """The same at once."""
    for _ in range(50):
        number = connection.h2.get_next_available_stream_id()
        connection.h2.send_headers(
            number,
            [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", "/"), (":authority", HOST)],
        )
        connection.h2.reset_stream(number)
    connection.flush()
    assert connection.until_gone() == ErrorCodes.ENHANCE_YOUR_CALM, connection.goaway


def slow_reset(connection):
    """The same, but each is answered before it is reset: no message, no close."""
    for _ in range(50):
        connection.open().vanish()
    connection.open().ask("a page that is closed often")


def refused_for_ever(connection):
    """Requests that are refused, one after another."""
    try:
        while True:
            connection.connect("/", [("origin", "https://evil.example")]).status()
    except (Gone, ConnectionError, ssl.SSLError, h2.exceptions.ProtocolError):
        pass
    assert connection.until_gone() == ErrorCodes.ENHANCE_YOUR_CALM, connection.goaway


def flood(connection, kind):
    """Frames that carry nothing, until the server has had enough; a message is answered before."""
    stream = connection.open()
    stream.ask("before the flood")
    one = {
        "ping": lambda: frames.PingFrame(0, b"12345678").serialize(),
        "settings": lambda: frames.SettingsFrame(0, {4: 65_535}).serialize(),
        "priority": lambda: frames.PriorityFrame(stream.id, 0, 1).serialize(),
        "window": lambda: frames.WindowUpdateFrame(0, 1).serialize(),
        "empty": lambda: frames.DataFrame(stream.id, b"").serialize(),
        "unknown": lambda: struct.pack(">I", 8)[1:] + b"\xee\x00" + struct.pack(">I", 0) + b"12345678",
    }[kind]()
    # What it answers is read by hand: the library is slower than a flood.
    deadline = time.monotonic() + DEADLINE
    received = b""
    code = None
    ended = False
    while code is None and not ended:
        assert time.monotonic() < deadline, "the flood is never stemmed"
        connection.socket.settimeout(DEADLINE)
        try:
            connection.socket.sendall(one * 2_000)
        except (ConnectionError, ssl.SSLError):
            # The GOAWAY may still lie there.
            pass
        connection.socket.settimeout(0.01)
        try:
            more = connection.socket.recv(1 << 20)
            ended = not more
            received += more
        except TimeoutError:
            pass
        except (ConnectionError, ssl.SSLError):
            ended = True
        code, received = find_goaway(received)
    assert code == ErrorCodes.ENHANCE_YOUR_CALM, code


def find_goaway(received):
    """The code of a GOAWAY among whole frames, and what follows them."""
    while len(received) >= 9:
        length = int.from_bytes(received[:3], "big")
        if len(received) < 9 + length:
            break
        if received[3] == frames.GoAwayFrame.type:
            return int.from_bytes(received[13:17], "big"), b""
        received = received[9 + length :]
    return None, received


def continuation(connection):
    """A head that never ends."""
    head = frames.HeadersFrame(1, connection.h2.encoder.encode([(":method", "CONNECT")]))
    connection.raw(head)
    try:
        while True:
            connection.raw(*[frames.ContinuationFrame(1, b"\x00\x01a\x01b") for _ in range(100)])
    except (ConnectionError, ssl.SSLError):
        pass
    connection.until_gone()
    assert connection.goaway in (ErrorCodes.ENHANCE_YOUR_CALM, None), connection.goaway


def slow(connection, pipe):
    """One stream is not read, its sibling is: pushes of more than an outbox close the first with 1013, and the other misses nothing."""
    victim, sibling = connection.open(), connection.open()
    victim.acknowledges = False
    sibling.ask("both are open")
    payload = b"p" * 50_000
    count = 60
    with open(pipe, "wb", buffering=0) as global_pipe:
        for _ in range(count):
            global_pipe.write(payload + b"\n")
            assert sibling.receive() == payload.decode()
    sibling.ask("still served")
    connection.h2.increment_flow_control_window(10_000_000, victim.id)
    connection.flush()
    assert victim.close_code() == 1013
    sibling.ask("and after")


def paused(connection):
    """A stream whose application is slow is sent more than its window; its sibling is served meanwhile."""
    slow, quick = connection.open("/slow"), connection.open("/quick")
    sent = 0
    message = slow.frames.send(TextMessage("m" * 10_000))
    while connection.h2.local_flow_control_window(slow.id) >= len(message) or sent < 1_000_000:
        window = connection.h2.local_flow_control_window(slow.id)
        if window < len(message):
            break
        slow.send_raw(message)
        sent += len(message)
        message = slow.frames.send(TextMessage("m" * 10_000))
        quick.send("meanwhile")
        assert quick.receive() == "meanwhile"
    for _ in range(20):
        quick.ask("and on")
    print(sent)


def vanish(connection, how, messages):
    """The browser goes while its call runs and so many messages wait."""
    stream = connection.open()
    for _ in range(int(messages)):
        stream.send("a call that waits")
    print("sent", flush=True)
    sys.stdin.readline()
    if how == "reset":
        stream.vanish()
    elif how == "end":
        stream.end()
    else:
        connection.socket.close()
    print("gone", flush=True)
    sys.stdin.readline()


def drain(connection):
    """The server ends: each WebSocket is closed with 1001, then the connection with GOAWAY and close_notify."""
    streams = [connection.open() for _ in range(3)]
    streams[0].ask("all are open")
    print("open", flush=True)
    for stream in streams:
        assert stream.close_code() == 1001
        stream.send_raw(stream.frames.send(CloseConnection(1001)))
        connection.until(lambda stream=stream: stream.ended)
    # `recv` gives nothing at close_notify, and fails without.
    assert connection.until_gone() == ErrorCodes.NO_ERROR, connection.goaway


def silent(connection):
    """Nothing is asked for, or no more: the connection is let go in good order."""
    assert connection.until_gone() == ErrorCodes.NO_ERROR, connection.goaway


def used_and_silent(connection):
    stream = connection.open()
    stream.ask("once")
    stream.close()
    silent(connection)


def hold(connection, count):
    """So many WebSockets stay open until somebody says something."""
    streams = [connection.open() for _ in range(int(count))]
    streams[-1].ask("all are open")
    print(connection.local_port(), flush=True)
    sys.stdin.readline()
    for stream in streams:
        stream.ask("still open")
    print("all right", flush=True)


def hold_silently(connection, count):
    """The same, and nothing is sent."""
    streams = [connection.open() for _ in range(int(count))]
    print(connection.local_port(), flush=True)
    sys.stdin.readline()
    assert streams


def main(scenario, port, authority, *more):
    window = {"slow": 65_535}.get(scenario)
    connection = Connection(int(port), authority, window)
    globals()[scenario](connection, *more)
    print("all right")


main(*sys.argv[1:])
