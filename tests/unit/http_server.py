"""http_server.py: a real HTTP server for http_test.c. Usage: http_server.py DIR plain|tls

It listens on a port of its own choice, written to DIR/port, and ends when its standard input does. Each request is a line
in DIR/requests, "METHOD TARGET", and each beginning and end of a connection is one in DIR/begun or DIR/ended. What it
answers by the target's path:
  /echo           the request's first line, headers (names in lower case, sorted) and body, as text
  /size/N         N bytes of "x", with a length; /chunked/N: in chunks, without one
  /status/N       a status with a short body
  /to/N/URL       status N with that location
  /loop           a redirect to itself
  /cookies        two cookies, and a header of two lines
  /hang           a line in DIR/hanging, then nothing until the client is gone
  /half           a length of 1000, ten bytes, and the end of the connection
  /stall          64 KiB and a line in DIR/hanging, then nothing
  /slow/MS        waits; the most requests that waited at one time are in DIR/most
  /gate           a line in DIR/here, then waits until DIR/open exists
  /reject         what is not HTTP
A target that is a whole URL (a request to a proxy) is answered "proxied: METHOD URL" and the header proxy-authorization.
"""
import asyncio
import os
import ssl
import sys

folder, mode = sys.argv[1], sys.argv[2]
waiting = most = 0


def note(name, text):
    with open(os.path.join(folder, name), "a") as f:
        f.write(text + "\n")


def answer(status, body, headers=()):
    head = "HTTP/1.1 %d Text\r\nContent-Length: %d\r\n" % (status, len(body))
    return (head + "".join("%s: %s\r\n" % pair for pair in headers) + "\r\n").encode("latin-1") + body


async def wait(ms):
    global waiting, most
    waiting += 1
    most = max(most, waiting)
    await asyncio.sleep(ms / 1000)
    with open(os.path.join(folder, "most"), "w") as f:
        f.write(str(most))
    waiting -= 1


async def chunked(writer, size):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while size > 0:
        n = min(size, 10000)
        writer.write(b"%x\r\n%s\r\n" % (n, b"x" * n))
        await writer.drain()
        size -= n
    writer.write(b"0\r\n\r\n")


async def respond(method, target, headers, body, reader, writer):
    parts = target.split("/", 3)
    what = parts[1]
    if not target.startswith("/"):
        text = "proxied: %s %s %s" % (method, target, headers.get("proxy-authorization", "-"))
        writer.write(answer(200, text.encode()))
    elif what == "echo":
        lines = [method + " " + target] + ["%s: %s" % pair for pair in sorted(headers.items())]
        reply = answer(200, "\n".join(lines).encode("latin-1") + b"\n\n" + body, [("X-Method", method)])
        writer.write(reply.split(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else reply)
    elif what == "size":
        writer.write(answer(200, b"x" * int(parts[2])))
    elif what == "chunked":
        await chunked(writer, int(parts[2]))
    elif what == "status":
        writer.write(answer(int(parts[2]), b"status " + parts[2].encode()))
    elif what == "to":
        writer.write(answer(int(parts[2]), b"elsewhere", [("Location", parts[3])]))
    elif what == "loop":
        writer.write(answer(302, b"", [("Location", "/loop")]))
    elif what == "cookies":
        lines = [("Set-Cookie", "a=1, b"), ("SET-COOKIE", "c=2"), ("X-Two", "one"), ("x-two", "  two \t"), ("X-Empty", "")]
        writer.write(answer(200, b"ok", lines))
    elif what == "hang":
        note("hanging", target)
        await reader.read()  # until the client is gone
        return False
    elif what == "half":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789")
        return False
    elif what == "stall":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 65536)
        await writer.drain()
        note("hanging", target)
        await reader.read()  # until the client is gone
        return False
    elif what == "slow":
        await wait(int(parts[2]))
        writer.write(answer(200, b"ok"))
    elif what == "gate":
        note("here", target)
        while not os.path.exists(os.path.join(folder, "open")):
            await asyncio.sleep(0.01)
        writer.write(answer(200, b"ok"))
    else:
        writer.write(b"good morning\r\n\r\n")
        return False
    return True


async def serve_one(reader, writer):
    first = (await reader.readline()).decode("latin-1").split()
    if len(first) < 3:
        return False
    headers = {}
    while True:
        line = (await reader.readline()).decode("latin-1").rstrip("\r\n")
        if not line:
            break
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    note("requests", "%s %s" % (first[0], first[1]))
    again = await respond(first[0], first[1], headers, body, reader, writer)
    await writer.drain()
    return again


async def serve(reader, writer):
    note("begun", "x")
    try:
        while await serve_one(reader, writer):
            pass
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        note("ended", "x")
        writer.close()


def certificate():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
    return context


async def main():
    tls = certificate() if mode == "tls" else None
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls, backlog=1000)
    with open(os.path.join(folder, "port.part"), "w") as f:
        f.write(str(server.sockets[0].getsockname()[1]))
    os.rename(f.name, os.path.join(folder, "port"))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    os._exit(0)


asyncio.run(main())
