"""A real SMTP server for the demo: keeps every mail that it accepts as a file.

    smtp_server.py PORT_FILE MAILBOX HOLD_FILE

Listens on a free port of 127.0.0.1 and writes its number into PORT_FILE. A mail appears, whole, as MAILBOX/new/<n>.eml.
While HOLD_FILE exists no mail is accepted: its sender waits, as with a slow server.
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP


def write_whole(path, aside, content):
    """Write a file so that it is never seen half written."""
    aside.write_bytes(content)
    os.rename(aside, path)


class Mailbox:
    """Called by aiosmtpd for each mail."""

    def __init__(self, folder, hold):
        self.folder, self.hold, self.numbers = folder, hold, itertools.count(1)
        for name in ("tmp", "new", "cur"):
            (folder / name).mkdir(parents=True)

    async def handle_DATA(self, server, session, envelope):
        while self.hold.exists():
            await asyncio.sleep(0.02)
        name = f"{next(self.numbers)}.eml"
        write_whole(self.folder / "new" / name, self.folder / "tmp" / name, envelope.original_content)
        return "250 Message accepted for delivery"


async def serve(port_file, mailbox, hold):
    handler = Mailbox(mailbox, hold)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, enable_SMTPUTF8=True), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    write_whole(port_file, port_file.with_suffix(".new"), b"%d\n" % port)
    await server.serve_forever()


asyncio.run(serve(*map(Path, sys.argv[1:4])))
