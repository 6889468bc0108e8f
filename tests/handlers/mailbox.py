"""An SMTP server (aiosmtpd). Prints its port, then one JSON line per mail that it stored. Its argument says how it behaves:
take, later (451 at the recipient), once (451 the first time), never (550), drop (stores the mail, then breaks the
connection before its 250), hold (stores it, and answers when its input says `go`), login (wants one, prints it and
refuses it), busy (greets with 554), mute (never says a word), tls (offers STARTTLS; its certificate is its second
argument, without one no handshake ends well). A recipient `nobody@` is always refused, and a mail to `filter@` when it
is there. The end of its input ends it.
"""
import asyncio
import base64
import json
import os
import ssl
import sys
import threading

from aiosmtpd.smtp import SMTP, AuthResult

HABIT = sys.argv[1]
go = asyncio.Event()
refused = set()


def say(line):
    print(json.dumps(line), flush=True)


class Box:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 5.1.1 nobody of that name here"
        if HABIT == "once" and address not in refused:
            refused.add(address)
            return "451 4.3.0 come back later"
        if HABIT == "later":
            return "451 4.3.0 come back later"
        if HABIT == "never":
            return "550 5.1.1 nobody of that name here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if any(address.startswith("filter@") for address in envelope.rcpt_tos):
            return "554 5.7.1 the filter dislikes it"
        content = envelope.content.decode("utf8", "replace")
        raw = base64.b64encode(envelope.original_content).decode()
        peer = session.peer[1]
        say({"from": envelope.mail_from, "to": envelope.rcpt_tos, "content": content, "raw": raw, "peer": peer})
        if HABIT == "drop":
            server.transport.abort()
        if HABIT == "hold":
            await go.wait()
        return "250 OK: stored"


def login(server, session, envelope, mechanism, data):
    say({"login": data.login.decode(), "password": data.password.decode()})
    return AuthResult(success=False, handled=False)


class Unhelpful(asyncio.Protocol):
    def connection_made(self, transport):
        if HABIT == "busy":
            transport.write(b"554 5.3.2 no service here\r\n")


def serve():
    if HABIT in ("busy", "mute"):
        return Unhelpful()
    wants = {}
    if HABIT == "login":
        wants = {"auth_require_tls": False, "auth_required": True, "authenticator": login}
    if HABIT == "tls":
        wants = {"tls_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "require_starttls": False}
        if len(sys.argv) > 2:
            wants["tls_context"].load_cert_chain(sys.argv[2])
    return SMTP(Box(), enable_SMTPUTF8=True, **wants)


def obey(loop):
    for line in sys.stdin:
        if line.strip() == "go":
            loop.call_soon_threadsafe(go.set)
    os._exit(0)


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    threading.Thread(target=obey, args=(loop,), daemon=True).start()
    await server.serve_forever()


asyncio.run(main())
