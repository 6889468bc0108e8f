"""An HTTP receiver that verifies Standard Webhooks signatures with the project's own library, and has every bad habit.

Prints its port, then one JSON line per request that it verified or refused. The path says how it behaves:
/ok /gone /busy /busy-until (a date) /busy-now /error /redirect /endless /stalls (mid-answer)
With ` tls` after the secret it speaks TLS, with a certificate that nobody trusts.
"""
import email.utils
import json
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

SECRET, *TLS = sys.argv[1].split(" ")
HERE = Path(__file__).parent


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
        line = {"path": self.path, "verified": verified, "id": self.headers["webhook-id"], "body": json.loads(body), "raw": body.decode()}
        print(json.dumps(line), flush=True)
        if self.path == "/gone":
            self.reply(410)
        elif self.path == "/busy":
            self.reply(429, [("retry-after", "120")])
        elif self.path == "/busy-until":
            self.reply(503, [("retry-after", email.utils.formatdate(time.time() + 600, usegmt=True))])
        elif self.path == "/busy-now":
            self.reply(429, [("retry-after", "0")])
        elif self.path == "/error":
            self.reply(500, [("x-echo", self.headers["webhook-signature"])], body + b"CANARY")
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
        elif self.path == "/stalls":
            self.send_response(200)
            self.send_header("content-length", "10")
            self.end_headers()
            time.sleep(3600)
        else:
            self.reply(204, body=b"")


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
server.daemon_threads = True
if TLS:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(HERE / "cert.pem", HERE / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
