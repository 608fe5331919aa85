"""An HTTP application of Python's own, as the tests need one: it tells of each request what it saw."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    # It answers in HTTP/1.0 and closes each connection.

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path.startswith("/status/"):
            status = int(self.path.removeprefix("/status/"))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            if status not in (204, 304):
                self.wfile.write(f"body of {status}".encode())
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = {"method": self.command, "url": self.path, "headers": headers, "body": body}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    do_POST = do_GET

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
