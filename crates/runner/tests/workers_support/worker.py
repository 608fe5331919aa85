"""A FastCGI worker for tests: it does what the URI of the call says, and answers with its process id."""
import os, signal, socket, struct, subprocess, sys, time

listener = socket.socket(fileno=os.dup(0))
held = []


def read(connection, length):
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            raise ConnectionError("the call is gone")
        data += more
    return data


def request(connection):
    parameters = b""
    while True:
        _, kind, _, length, padding, _ = struct.unpack("!BBHHBB", read(connection, 8))
        content = read(connection, length + padding)[:length]
        if kind == 4:
            parameters += content
        elif kind == 5 and not content:
            return parameters


def uri(parameters):
    lengths = lambda at: (parameters[at], at + 1) if parameters[at] < 128 else (
        struct.unpack("!I", parameters[at:at + 4])[0] & 0x7FFFFFFF, at + 4)
    at = 0
    while at < len(parameters):
        name_length, at = lengths(at)
        value_length, at = lengths(at)
        name, at = parameters[at:at + name_length], at + name_length
        value, at = parameters[at:at + value_length].decode(), at + value_length
        if name == b"REQUEST_URI":
            return value


while True:
    connection, _ = listener.accept()
    try:
        todo, _, detail = uri(request(connection)).partition("?")
        if todo == "die":
            print("dying as asked", file=sys.stderr, flush=True)
            os._exit(int(detail))
        elif todo == "wait":
            open(detail, "w").close()
            while os.path.exists(detail):
                time.sleep(0.002)
        elif todo == "print":
            print(detail, flush=True)
        elif todo == "leak":
            held.append(b"x" * int(detail))
        elif todo == "fork":
            held.append(subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL))
        reply = f"\r\n{held[-1].pid if todo == 'fork' else os.getpid()}".encode()
        connection.sendall(struct.pack("!BBHHBB", 1, 6, 1, len(reply), 0, 0) + reply + struct.pack("!BBHHBBQ", 1, 3, 1, 8, 0, 0, 0))
    except ConnectionError:
        pass
    connection.close()
