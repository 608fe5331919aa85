"""Sends to browsers from any Python program: one request on wootz's control socket each.

    from wootz import push

    push.all("Closing in five minutes")
    push.user(42, "Your parcel has left")
    push.request(42, "/cart")               # runs /cart as user 42, in each of their connections' sessions
    push.channel("news", text).queued

Text is sent as text, bytes as a binary message. Every function gives a Receipt or raises PushError; nobody being there to be
reached is no error. `wait=True` waits until everything was written out.
"""

import base64
import http.client
import json
import os
import socket as sockets
from typing import NamedTuple, Optional
from urllib.parse import quote

__all__ = ["PushError", "Receipt", "all", "channel", "connection", "join", "leave", "request", "session", "user"]

socket = None
"""Where the server listens. None: the variable WOOTZ_CONTROL, else wootz.sock in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR or here."""

seconds = 5.0
"""How long the server may take to answer."""


class PushError(Exception):
    """A push that was not taken: the text says why; `status` is the HTTP status where the server answered, else 0."""

    def __init__(self, message, status=0):
        super().__init__(message)
        self.status = status


class Receipt(NamedTuple):
    """What became of a push. `reached` is the sum of `queued`, `dropped` and `joined`."""

    reached: int
    """Connections that were meant."""
    queued: int
    """Of those, the ones that took it."""
    dropped: int
    """Of those, the ones that were too slow, closing, or had no room."""
    joined: int = 0
    """Of those, the ones whose request shares a call with an equal one."""
    written: Optional[int] = None
    """With wait=True: connections that it was written out to."""


def all(message, wait=False):
    """To every connection."""
    return _message({"all": True}, message, wait)


def user(user, message, wait=False):
    """To all connections of a user, by the exact id."""
    return _message({"user": str(user)}, message, wait)


def session(session, message, wait=False):
    """To all connections of a session, by its exact id."""
    return _message({"session": session}, message, wait)


def connection(id, message, wait=False):
    """To one connection."""
    return _message({"connection": id}, message, wait)


def channel(name, message, wait=False):
    """To the connections in a channel, by its exact name."""
    return _message({"channel": name}, message, wait)


def request(to, uri, once=False, wait=False):
    """Runs a request as its user in each of their connections, and sends there what it prints.

    `to` is a user, or a target as the API names it: {"all": True}, {"channel": "news"}. With `once` it runs once for each user, and
    all their connections get what it prints.
    """
    push = {"to": to if isinstance(to, dict) else {"user": str(to)}, "request": uri}
    return _send({**push, "once": True} if once else push, wait)


def join(channel, connection=None):
    """Puts a connection into a channel; without an id the one that this call runs for (of the variable WOOTZ_CONNECTION)."""
    _change("PUT", channel, connection)


def leave(channel, connection=None):
    """Takes a connection out of a channel; without an id the one that this call runs for."""
    _change("DELETE", channel, connection)


def _message(to, message, wait):
    if isinstance(message, str):
        return _send({"to": to, "text": message}, wait)
    return _send({"to": to, "binary": base64.b64encode(message).decode()}, wait)


def _send(push, wait):
    patience = seconds
    if wait:
        push = {**push, "wait": True, "deadline": min(60, seconds)}
        patience += 1  # the server's answer to its own deadline
    return Receipt(**json.loads(_ask("POST", "/v1/push", patience, body=json.dumps(push).encode())))


def _change(method, channel, connection):
    """`connection` may be a wootz.Connection, whose call then shows its own token."""
    env = getattr(connection, "env", os.environ)
    id = getattr(connection, "id", connection) or env.get("WOOTZ_CONNECTION")
    if not id:
        raise PushError("this is no call of a connection: name the connection")
    # A call shows its token: then it may change its own connection as any user.
    token = env.get("WOOTZ_TOKEN") if id == env.get("WOOTZ_CONNECTION") else None
    fields = {"Authorization": f"Bearer {token}"} if token else {}
    _ask(method, f"/v1/connections/{quote(id, '')}/channels/{quote(channel, '')}", seconds, fields, path=env.get("WOOTZ_CONTROL"))


class _Client(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("wootz", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = sockets.socket(sockets.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _path():
    if os.environ.get("WOOTZ_CONTROL"):
        return os.environ["WOOTZ_CONTROL"]
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        directory = os.environ.get(name, "").split(":")[0]
        if directory and os.path.isdir(directory):
            return os.path.join(directory, "wootz.sock")
    return "wootz.sock"


def _ask(method, target, patience, fields=None, body=None, path=None):
    path = socket or path or _path()
    client = _Client(path, patience)
    try:
        client.request(method, target, body, {"Content-Type": "application/json", **(fields or {})})
        answer = client.getresponse()
        text = answer.read()
    except TimeoutError as error:
        raise PushError(f"wootz has not answered within {patience} s") from error
    except OSError as error:
        raise PushError(f"no wootz answers at {path}: {error.strerror or error} (name its socket in push.socket or WOOTZ_CONTROL)") from error
    except http.client.HTTPException as error:
        raise PushError(f"what listens at {path} does not answer as wootz does") from error
    finally:
        client.close()
    if 200 <= answer.status < 300:
        return text
    try:
        message = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"wootz answered {answer.status}"
    raise PushError(message, answer.status)
