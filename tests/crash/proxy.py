"""A TCP proxy of the harness's own: loses what the gateway answers, and cuts connections."""

import asyncio

from deployment import free_port

CHUNK = 1 << 16


class Proxy:
    """Between the producers and the gateway."""

    def __init__(self):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.target = None
        self.dropping = False
        self.server = None
        self.writers = set()

    async def open(self, target):
        """Listens, and forwards to a port on loopback."""
        self.target = target
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def close(self):
        """Cuts everything and stops listening."""
        self.cut()
        if self.server:
            self.server.close()

    def drop_answers(self):
        """From now on the producers hear nothing; the gateway still hears them."""
        self.dropping = True

    def cut(self):
        """Ends all connections at once; new ones are whole again."""
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()
        self.dropping = False

    async def _serve(self, client_reader, client_writer):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            client_writer.transport.abort()
            return
        self.writers |= {client_writer, writer}
        await asyncio.gather(self._forward(client_reader, writer, answers=False), self._forward(reader, client_writer, answers=True))
        # While answers are dropped the producer's end stays open, until the cut.
        if not self.dropping:
            self.writers -= {client_writer, writer}

    async def _forward(self, reader, writer, *, answers):
        try:
            while data := await reader.read(CHUNK):
                if not (answers and self.dropping):
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        # While answers are dropped the producer does not even see that the gateway went away.
        if not (answers and self.dropping):
            writer.transport.abort()
