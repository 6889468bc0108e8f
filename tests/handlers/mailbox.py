"""An SMTP server (aiosmtpd). Prints its port, then one JSON line per mail that it stored. Its argument says how it behaves:
take, later (451 at the recipient), never (550), drop (stores the mail, then breaks the connection before its 250)
"""
import asyncio
import json
import sys

from aiosmtpd.smtp import SMTP

HABIT = sys.argv[1]


class Box:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if HABIT == "later":
            return "451 4.3.0 come back later"
        if HABIT == "never":
            return "550 5.1.1 nobody of that name here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        content = envelope.content.decode("utf8", "replace")
        print(json.dumps({"from": envelope.mail_from, "to": envelope.rcpt_tos, "content": content}), flush=True)
        if HABIT == "drop":
            server.transport.abort()
        return "250 OK: stored"


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Box(), enable_SMTPUTF8=True), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
