"""What goes over a network: a capture of everything on its bridge, put together again and unpacked."""

import struct
import subprocess
import zlib
from collections import defaultdict

from engine import Failed, until

# What only released cells say: a capture without it saw nothing.
RELEASED = (b'"window_start"', b'"payments_by_country"', b'"wear_by_site"')
GZIP = b"\x1f\x8b\x08"
AS_GZIP = 31


class Capture:
    """Everything that goes over a network, as tcpdump sees it, in a file."""

    def __init__(self, tcpdump, file):
        self.file = file
        self.process = subprocess.Popen(
            [*tcpdump, "-w", str(file), "-U", "-B", "65536", "-s", "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        until(lambda: file.exists() and file.stat().st_size or self.process.poll() is not None, "tcpdump captures")

    def stop(self):
        """Ends the capture. Raises Failed when it missed anything."""
        self.process.terminate()
        said = self.process.communicate(timeout=30)[1]
        if "0 packets dropped by kernel" not in said:
            raise Failed(f"the capture is not whole: {said}")

    def texts(self):
        """All that was said: the bytes of each direction of each connection, other packets as they are, and what is packed in
        any of them."""
        said = streams(self.file.read_bytes())
        return said + [plain for stream in said for plain in unpacked(stream)]


def streams(capture):
    """The bytes of each direction of each TCP connection over IPv4, in order; of all else, each packet."""
    flows, others, at = defaultdict(dict), [], 24
    while at < len(capture):
        length = struct.unpack_from("<I", capture, at + 8)[0]
        packet = capture[at + 16 : at + 16 + length]
        at += 16 + length
        ip = packet[14:]
        if packet[12:14] != b"\x08\x00" or ip[9] != 6:
            others.append(packet)
            continue
        header = (ip[0] & 15) * 4
        tcp = ip[header : struct.unpack_from(">H", ip, 2)[0]]
        if payload := tcp[(tcp[12] >> 4) * 4 :]:
            flow = (ip[12:20], tcp[:4])
            number = struct.unpack_from(">I", tcp, 4)[0]
            # What was sent again may be longer than before.
            flows[flow][number] = max(payload, flows[flow].get(number, b""), key=len)
    return [joined(segments) for segments in flows.values()] + others


def joined(segments):
    """Segments by their numbers, as one text. What is there twice is left out; numbers start anew after 2^32, which no flow of a
    test reaches twice."""
    first = next(iter(segments))
    text, end = [], None
    for number in sorted(segments, key=lambda number: (number - first + (1 << 31)) % (1 << 32)):
        payload = segments[number]
        if end is not None and (known := (end - number) % (1 << 32)) < (1 << 31):
            payload = payload[known:]
        if payload:
            text.append(payload)
            end = (number + len(segments[number])) % (1 << 32)
    return b"".join(text)


def unpacked(stream):
    """What is packed with gzip in a text, as Kafka's batches are."""
    texts, at = [], stream.find(GZIP)
    while at >= 0:
        try:
            texts.append(zlib.decompressobj(AS_GZIP).decompress(stream[at:]))
        except zlib.error:
            pass  # three bytes that mean something else
        at = stream.find(GZIP, at + 1)
    return texts
