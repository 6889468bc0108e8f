"""An SMTP server (aiosmtpd). Prints its port, then one JSON line per mail that it stored (and `{"connections": n}` with it).

Its argument says how it behaves:
take, later (451 at the recipient), once (only at the first), never (550), refuse (550 after the content), drop (stores the mail, then breaks the
connection before its 250), vanish (breaks it at the recipient), hangup (closes instead of greeting), closed (greets with
554), auth (knows no password, and prints the ones it
is told), slow (stores the first mail, says 250 when somebody else
connects, and refuses all later ones),
tls (offers STARTTLS with a certificate that nobody trusts: cert.pem and key.pem are public, and only for this)
"""
import asyncio
import json
import logging
import ssl
import sys
import warnings
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult

# A password without TLS is what one of the tests is about.
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
HABIT = sys.argv[1]
HERE = Path(__file__).parent
seen = {"mails": 0, "connections": 0, "refused": False}
another = asyncio.Event()


class Box:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if HABIT == "once" and not seen["refused"]:
            seen["refused"] = True
            return "451 4.3.0 come back later"
        if HABIT == "later":
            return "451 4.3.0 come back later"
        if HABIT == "never":
            return "550 5.1.1 nobody of that name here"
        if HABIT == "vanish":
            server.transport.abort()
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        seen["mails"] += 1
        if HABIT == "refuse" or (HABIT == "slow" and seen["mails"] > 1):
            return "550 5.7.1 not this content"
        content = envelope.content.decode("utf8", "replace")
        mail = {"from": envelope.mail_from, "to": envelope.rcpt_tos, "content": content}
        mail["bytes"] = list(envelope.original_content[-400:])
        print(json.dumps({**mail, "connections": seen["connections"]}), flush=True)
        if HABIT == "drop":
            server.transport.abort()
        if HABIT == "slow":
            try:
                await asyncio.wait_for(another.wait(), 10)
            except asyncio.TimeoutError:
                pass
        return "250 OK: stored"


class Rude(asyncio.Protocol):
    def connection_made(self, transport):
        if HABIT == "closed":
            transport.write(b"554 5.3.2 no service here today\r\n")
        transport.close()


def protocol():
    seen["connections"] += 1
    if seen["connections"] > 1:
        another.set()
    if HABIT in ("hangup", "closed"):
        return Rude()
    if HABIT == "auth":
        def nobody(_server, _session, _envelope, _mechanism, data):
            print(json.dumps({"login": data.login.decode(), "password": data.password.decode()}), flush=True)
            return AuthResult(success=False, handled=False)
        return SMTP(Box(), authenticator=nobody, auth_required=True, auth_require_tls=False)
    if HABIT == "tls":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(HERE / "cert.pem", HERE / "key.pem")
        return SMTP(Box(), tls_context=context)
    return SMTP(Box(), enable_SMTPUTF8=HABIT != "refuse")


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
