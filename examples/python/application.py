#!/usr/bin/env python3
"""An application for wootz: the request comes in variables and on standard input, what is printed is the reply."""

import hashlib
import json
import os
import sys
import time
from urllib.parse import parse_qs


def hello(query):
    print(f"Hello, {query.get('name', ['stranger'])[0]}!")


def whoami(query):
    print(f"{os.environ.get('REMOTE_USER', 'guest')} on connection {os.environ.get('WOOTZ_CONNECTION', '?')}, process {os.getpid()}")


def countdown(query):
    for left in (3, 2, 1):
        print(left, flush=True)  # with --set application.reply=lines each line arrives at once
        time.sleep(0.5)
    print("lift-off")


ROUTES = {"/hello": hello, "/whoami": whoami, "/countdown": countdown}

message = sys.stdin.buffer.read()
if os.environ.get("REQUEST_METHOD") == "POST":  # no URI, but a text or bytes
    json.dump({"bytes": len(message), "words": len(message.split()), "sha256": hashlib.sha256(message).hexdigest()}, sys.stdout)
elif (route := ROUTES.get(os.environ.get("PATH_INFO"))) is not None:
    route(parse_qs(os.environ.get("QUERY_STRING", "")))
else:
    print("Try", *ROUTES, "or any text.")
