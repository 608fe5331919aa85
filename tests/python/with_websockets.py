"""Python `websockets` against wootz: ARGV is the URL, the pipe of everybody and, for wss, the authority. The application gives messages back."""

import asyncio
import ssl
import sys

from websockets.asyncio.client import connect


async def main(url, pipe, authority=None):
    trust = ssl.create_default_context(cafile=authority) if authority else None
    async with connect(url, ssl=trust, ping_interval=0.1, ping_timeout=10, max_size=None) as socket:
        for message in ["/hello", "two words", "gr\u00fc\u00df dich \U0001f600", b"\x00\xff", "x" * 100_000]:
            await socket.send(message)
            assert await socket.recv() == message, message
        # A message in fragments.
        await socket.send(["one ", "two ", "three"])
        assert await socket.recv() == "one two three"
        # Its own keepalive measures the way there and back: some pings have been answered when it knows.
        for _ in range(20):
            await asyncio.wait_for(await socket.ping(), 10)
        while socket.latency == 0:
            await asyncio.wait_for(await socket.ping(), 10)
        with open(pipe, "wb", buffering=0) as global_pipe:
            global_pipe.write(b"pushed\n")
        assert await asyncio.wait_for(socket.recv(), 10) == "pushed"
        await socket.close(1000, "done")
        assert socket.close_code == 1000, socket.close_code
    print("all right")


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 25))
