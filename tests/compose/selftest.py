"""The capture finds what it must: a record in a packed batch, over segments that come out of order, twice, and past number 2^32."""

import gzip
import struct

import wire
from engine import Failed

RECORD = b'{"card": "card-000123"}'


def check():
    """Raises Failed when a record that went over a network is not found."""
    said = b"before" + gzip.compress(RECORD * 50) + b"after"
    numbers = [(2**32 - 10 + at) % 2**32 for at in range(0, len(said), 20)]
    order = [0, 2, 1, *range(3, len(numbers)), 1]
    capture = bytes(24) + b"".join(packet(numbers[at], said[at * 20 : (at + 1) * 20]) for at in order)
    if wire.streams(capture) != [said]:
        raise Failed("the capture does not put a connection together as it was")
    if not any(RECORD in text for text in wire.unpacked(said)):
        raise Failed("the capture does not unpack what Kafka packs")


def packet(number, payload):
    """A segment of TCP over IPv4, as tcpdump writes it."""
    tcp = struct.pack(">HHIIBBHHH", 40_000, 9_092, number, 0, 5 << 4, 0x18, 100, 0, 0) + payload
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2") + tcp
    frame = bytes(12) + b"\x08\x00" + ip
    return struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame
