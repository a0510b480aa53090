"""Shows what a mailbox holds for one recipient.

    read_mail.py MAILBOX RECIPIENT

Prints, of each of the recipient's mails, From, To and Subject, and of each of its bodies the type and the first line
that a reader sees. Exits 1 when there is no mail for that recipient.
"""

import email
import email.policy
import re
import sys
from pathlib import Path


def first_line(part):
    """The first line of a body that says something; of HTML, without the tags."""
    text = part.get_content()
    if part.get_content_type() == "text/html":
        text = re.search("<body>(.*)</body>", text, re.DOTALL)[1]
    return next(line.strip() for line in text.splitlines() if line.strip())


mailbox, recipient = sys.argv[1:3]
found = False
for path in sorted(Path(mailbox, "new").iterdir()):
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    if recipient not in message["To"]:
        continue
    found = True
    for header in ("From", "To", "Subject"):
        print(f"{header}: {message[header]}")
    for part in message.walk():
        if part.get_content_maintype() == "text":
            print(f"{part.get_content_type()}: {first_line(part)}")
sys.exit(0 if found else 1)
