#!/usr/bin/env python3
"""Many connections to one address of this machine, kept idle or slow on purpose.

crowd.py MODE ADDRESS COUNT SECONDS; MODE is idle (one request, then nothing), heads, bodies, reads or silent.
Prints a line "OPEN n" once all are there, and "RESULT opened closed seconds" at the end, which is when all have
been closed by the other side or the time is over.
"""
import asyncio
import sys
import time

FIRST = {
    "idle": b"GET / HTTP/1.1\r\nHost: crowd.test\r\n\r\n",
    "heads": b"GET / HTTP/1.1\r\nHost: crowd.test\r\nX-Slow: ",
    "bodies": b"POST / HTTP/1.1\r\nHost: crowd.test\r\nContent-Length: 1000000\r\n\r\n",
    "reads": b"GET /large HTTP/1.1\r\nHost: crowd.test\r\n\r\n",
    "silent": b"",
}


async def one(mode, host, port, until, opened, closed, started):
    try:
        reader, writer = await asyncio.open_connection(host, port, limit=4096)
    except OSError:
        opened.put_nowait(False)
        return
    opened.put_nowait(True)
    writer.write(FIRST[mode])
    if mode == "idle":
        await reader.readuntil(b"\r\n\r\n")
    await started.wait()
    try:
        while (left := until() - time.monotonic()) > 0:
            if mode in ("heads", "bodies"):
                writer.write(b"a")
                await asyncio.wait_for(writer.drain(), 1)
            if mode == "reads":
                # Takes a little now and then, and never catches up.
                await asyncio.sleep(min(1, left))
                if not await reader.read(1):
                    break
                continue
            try:
                if not await asyncio.wait_for(reader.read(4096), min(1, left)):
                    break
            except asyncio.TimeoutError:
                continue
        else:
            return
    except OSError:
        pass
    finally:
        writer.close()
    closed.append(1)


async def main():
    mode, address, count, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    host, port = address.rsplit(":", 1)
    if not host.startswith("127."):
        sys.exit("only to this machine")
    opened, closed, started = asyncio.Queue(), [], asyncio.Event()
    end = [time.monotonic() + 3600]
    crowd = []
    for number in range(count):
        crowd.append(asyncio.create_task(
            one(mode, host, int(port), lambda: end[0], opened, closed, started)))
        if number % 200 == 199:
            await asyncio.sleep(0.02)
    there = sum([await opened.get() for _ in range(count)])
    end[0] = time.monotonic() + seconds
    print("OPEN", there, flush=True)
    begun = time.monotonic()
    started.set()
    await asyncio.gather(*crowd, return_exceptions=True)
    print("RESULT", there, len(closed), round(time.monotonic() - begun, 1), flush=True)


asyncio.run(main())
