"""Leaves a transaction open of which the coordinator does not know, as a crash of a broker can.

usage: hang.py BROKER TOPIC TRANSACTIONAL_ID    one partition; prints how far a reader of committed messages comes, and the end
The broker must not verify transactions: `transaction.partition.verification.enable=false`. The client gets an epoch and writes a
message in a transaction that it never adds the partition to. Clients do not do that, so it speaks the protocol itself.
"""

import socket
import struct
import sys

from confluent_kafka import Consumer, Producer, TopicPartition

PRODUCE, INIT_PRODUCER_ID = 0, 22
TRANSACTIONAL = 1 << 4


def text(value):
    """A string of the protocol; `None` is null."""
    return struct.pack(">h", -1) if value is None else struct.pack(">h", len(value)) + value.encode()


def asked(broker, api, version, body):
    """The answer to one request, without its head."""
    host, port = broker.rsplit(":", 1)
    request = struct.pack(">hhi", api, version, 1) + text("hang") + body
    with socket.create_connection((host, int(port)), 60) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.makefile("rb")
        return answer.read(struct.unpack(">i", answer.read(4))[0])[4:]


def crc32c(data):
    """CRC-32C, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def varint(value):
    """A small number that is not negative."""
    return bytes([value << 1])


def batch(producer, epoch):
    """One message with the key and the value `hang`, in a batch of version 2."""
    record = bytes([0]) + varint(0) + varint(0) + 2 * (varint(4) + b"hang") + varint(0)
    record = varint(len(record)) + record
    body = struct.pack(">hiqqqhii", TRANSACTIONAL, 0, 1, 1, producer, epoch, 0, 1) + record
    head = struct.pack(">ibI", -1, 2, crc32c(body))
    return struct.pack(">qi", 0, len(head) + len(body)) + head + body


broker, topic, name = sys.argv[1:]
# With this the broker has the coordinator's topic.
Producer({"bootstrap.servers": broker, "transactional.id": name}).init_transactions(60)
answer = asked(broker, INIT_PRODUCER_ID, 0, text(name) + struct.pack(">i", 60_000))
_, error, producer, epoch = struct.unpack(">ihqh", answer)
assert error == 0, f"no epoch: {error}"
records = batch(producer, epoch)
body = text(name) + struct.pack(">hi", -1, 30_000) + struct.pack(">i", 1) + text(topic)
body += struct.pack(">iii", 1, 0, len(records)) + records
answer = asked(broker, PRODUCE, 3, body)
error = struct.unpack_from(">h", answer, 4 + 2 + len(topic) + 4 + 4)[0]
assert error == 0, f"the message was not taken: {error}"
ends = []
for level in ["read_committed", "read_uncommitted"]:
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "hang", "isolation.level": level})
    ends.append(consumer.get_watermark_offsets(TopicPartition(topic, 0), 60)[1])
    consumer.close()
print(*ends)
