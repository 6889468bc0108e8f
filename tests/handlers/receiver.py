"""An HTTP receiver that verifies Standard Webhooks signatures with the project's own library, and has every bad habit.

Prints its port, then one JSON line per request that it verified or refused. The path says how it behaves:
/ok /gone /busy /down /error (repeats what it was sent) /redirect /endless /big /drip (its body never ends) /silent
/hang-up. The end of its input ends it.
"""
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

SECRET = sys.argv[1]


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, headers=(), body=b"{}"):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            Webhook(SECRET).verify(body, dict(self.headers))
            verified = True
        except WebhookVerificationError:
            verified = False
        line = {"path": self.path, "verified": verified, "id": self.headers["webhook-id"], "at": self.headers["webhook-timestamp"], "body": json.loads(body), "raw": body.decode()}
        print(json.dumps(line), flush=True)
        if self.path == "/gone":
            self.reply(410)
        elif self.path == "/busy":
            self.reply(429, [("retry-after", "120")])
        elif self.path == "/error":
            self.reply(500, [("x-echo", self.headers["webhook-signature"])], body + b"CANARY")
        elif self.path == "/down":
            self.reply(503, [("retry-after", "999999999")])
        elif self.path == "/big":
            self.reply(200, body=b"x" * 1_000_000)
        elif self.path == "/drip":
            self.send_response(200)
            self.send_header("content-length", "10")
            self.end_headers()
            time.sleep(3600)
        elif self.path == "/hang-up":
            self.close_connection = True
        elif self.path == "/redirect":
            self.reply(302, [("location", "http://169.254.169.254/latest/meta-data")])
        elif self.path == "/endless":
            self.send_response(200)
            self.send_header("content-length", str(1 << 40))
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                self.close_connection = True
        elif self.path == "/silent":
            time.sleep(3600)
        else:
            self.reply(204, body=b"")


class Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        pass  # a client that hangs up is part of the tests


def obey():
    sys.stdin.read()
    os._exit(0)


server = Server(("127.0.0.1", 0), Receiver)
server.daemon_threads = True
print(server.server_address[1], flush=True)
threading.Thread(target=obey, daemon=True).start()
server.serve_forever()
