"""What a webhook points at: a server of this machine that keeps what it is sent, or refuses it."""

import http.server
import json
import threading
from contextlib import contextmanager


@contextmanager
def receiver(taken=lambda path, headers, body: True):
    """Its address, and the (path, body) it took; what `taken` says no to is answered 400."""
    received = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            well = taken(self.path, self.headers, body)
            if well:
                received.append((self.path, body))
            self.send_response(200 if well else 400)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()
