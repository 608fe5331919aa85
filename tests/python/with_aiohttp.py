"""aiohttp against wootz: ARGV is the URL and the pipe of everybody. The application gives messages back."""

import asyncio
import sys

import aiohttp


async def main(url, pipe):
    async with aiohttp.ClientSession() as session:
        # With a heartbeat, aiohttp closes by itself when a pong does not come in half of it.
        async with session.ws_connect(url, heartbeat=0.4, max_msg_size=0, compress=15) as socket:
            assert socket.compress == 0, "no extension was negotiated"
            for message in ["/hello", "two words", "gr\u00fc\u00df dich", "x" * 100_000]:
                await socket.send_str(message)
                assert await socket.receive_str(timeout=10) == message
            await socket.send_bytes(b"\x00\xff")
            assert await socket.receive_bytes(timeout=10) == b"\x00\xff"
            # Nothing is said for some heartbeats, and the connection stays.
            pushed = asyncio.create_task(socket.receive_str())
            done, _ = await asyncio.wait({pushed}, timeout=1.5)
            assert not done, done
            with open(pipe, "wb", buffering=0) as global_pipe:
                global_pipe.write(b"pushed\n")
            assert await asyncio.wait_for(pushed, 10) == "pushed"
            assert await socket.close(code=1000)
            assert socket.close_code == 1000, socket.close_code
    print("all right")


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 25))
