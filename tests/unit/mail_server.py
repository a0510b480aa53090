"""mail_server.py: a real SMTP server for mail_test.c. Usage: mail_server.py DIR plain|auth|starttls|starttls-auth|tls

It listens on a port of its own choice, written to DIR/port, and ends when its standard input does. A message to ann@... is
kept as DIR/ann.eml, and as DIR/ann.txt in readable form. Some local parts are special:
  refused, busy, hang, drop   as recipients: 550, 451, no answer, the connection is closed
  reject, late, lost          after the whole message: 554, no answer, the connection is closed
  slow                        after the whole message: waits for 0.2 s, and keeps nothing
  gate...                     after the whole message: a line in DIR/here, then waits until DIR/open exists
Each end of a connection is a line in DIR/ended: quit, or lost when there was no QUIT before.
"""
import asyncio
import email
import email.header
import email.policy
import hashlib
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

folder, mode = sys.argv[1], sys.argv[2]


def note(name, text):
    with open(os.path.join(folder, name), "a") as f:
        f.write(text + "\n")


def readable(envelope):
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    lines = ["envelope: %s -> %s" % (envelope.mail_from, ", ".join(envelope.rcpt_tos))]
    for name, value in message.items():
        lines.append("%s: %s" % (name, value))
    # The parser above puts a space between the encoded words of a long name (RFC 2047 wants none); this one does not.
    raw = email.message_from_bytes(envelope.content)
    lines.append("long names: %s" % email.header.make_header(email.header.decode_header(raw["To"] or "")))
    lines.append("defects: %s" % [d for part in message.walk() for d in part.defects])
    lines.append("longest line: %d" % max(len(line) for line in envelope.content.split(b"\r\n")))
    for part in message.walk():
        if part.get_filename() is not None:
            content = part.get_payload(decode=True)
            lines.append("%s %s: %d %s" % (part["Content-Type"], part.get_filename(), len(content),
                                           hashlib.md5(content).hexdigest()))
        elif not part.is_multipart():
            lines.append("%s: %r" % (part.get_content_type(), part.get_content().replace("\r\n", "\n")))
    return "\n".join(lines) + "\n"


def keep(envelope, name):
    with open(os.path.join(folder, name + ".eml"), "wb") as f:
        f.write(envelope.content)
    with open(os.path.join(folder, name + ".part"), "w") as f:
        f.write(readable(envelope))
    os.rename(f.name, os.path.join(folder, name + ".txt"))


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split("@")[0]
        if name == "refused":
            return "550 5.1.1 no such mailbox"
        if name == "busy":
            return "451 4.3.0 come back later"
        if name == "hang":
            note("hanging", name)
            await asyncio.Event().wait()
        if name == "drop":
            server.transport.abort()
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        name = envelope.rcpt_tos[0].split("@")[0]
        if name == "reject":
            return "554 5.7.1 not wanted here"
        if name == "late":
            note("hanging", name)
            await asyncio.Event().wait()
        if name == "lost":
            server.transport.abort()
            return "250 OK"
        if name == "slow":
            await asyncio.sleep(0.2)
            return "250 OK"
        if name.startswith("gate"):
            note("here", name)
            while not os.path.exists(os.path.join(folder, "open")):
                await asyncio.sleep(0.01)
        keep(envelope, name)
        return "250 OK"


class Server(SMTP):
    left = False

    async def smtp_QUIT(self, arg):
        self.left = True
        await super().smtp_QUIT(arg)

    def connection_lost(self, error):
        note("ended", "quit" if self.left else "lost")
        super().connection_lost(error)


def authenticate(server, session, envelope, mechanism, data):
    good = getattr(data, "login", b"") == b"ann" and getattr(data, "password", b"") == "s\u00e9cret".encode()
    return AuthResult(success=good, handled=False)


def certificate():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
    return context


def make():
    options = {"hostname": "test.example"}
    if mode == "auth":
        options.update(authenticator=authenticate, auth_required=True, auth_require_tls=False)
    if mode == "starttls-auth":
        options.update(authenticator=authenticate, auth_required=True)
    if mode.startswith("starttls"):
        options.update(tls_context=certificate(), require_starttls=True)
    return Server(Handler(), **options)


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(make, "127.0.0.1", 0, ssl=certificate() if mode == "tls" else None, backlog=500)
    with open(os.path.join(folder, "port.part"), "w") as f:
        f.write(str(server.sockets[0].getsockname()[1]))
    os.rename(f.name, os.path.join(folder, "port"))
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


asyncio.run(main())
