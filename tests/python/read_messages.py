"""Releases in Kafka hold the same cells in every format of messages, for pyarrow and protobuf, and take fewer bytes.

usage: read_messages.py BROKERS PROTO_DIR MESSAGES TOPIC...    one topic for each of jsonl, jsonl-zstd, arrow, protobuf
"""

import datetime
import importlib
import json
import sys
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.ipc
from confluent_kafka import Consumer, TopicPartition
from grpc_tools import protoc

brokers, proto_dir, count, topics = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
stubs = tempfile.mkdtemp()
assert protoc.main(["protoc", f"-I{proto_dir}", f"--python_out={stubs}", "bailiwick/release/v1/release.proto"]) == 0
sys.path.insert(0, stubs)
release_pb2 = importlib.import_module("bailiwick.release.v1.release_pb2")
SAME = ["release", "gateway", "dataset", "policy", "window_start", "window_end"]


def decompressed(value):
    return pyarrow.CompressedInputStream(pyarrow.BufferReader(value), "zstd").read()


def of_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def of_arrow(value):
    table = pyarrow.ipc.open_stream(pyarrow.CompressedInputStream(pyarrow.BufferReader(value), "zstd")).read_all()
    same = {name: table.schema.metadata[name.encode()].decode() for name in SAME}
    assert table.schema.metadata[b"bailiwick.cells"] == b"3"
    return [{**same, **cell} for cell in table.to_pylist()]


def with_nulls(values, without):
    values = list(values)
    for position in without:
        values.insert(position, None)
    return values


def of_protobuf(value):
    release = release_pb2.Release.FromString(value)
    same = {name: getattr(release, name) for name in SAME[:4]}
    for name in SAME[4:]:
        time = datetime.datetime.fromtimestamp(getattr(release, name) / 1e6, datetime.timezone.utc)
        same[name] = time.strftime("%Y-%m-%dT%H:%M:%SZ")
    columns = {}
    for column in release.columns:
        values = getattr(column, column.WhichOneof("values"))
        match column.WhichOneof("values"):
            case "labels":
                found = [values.labels[position] for position in values.of_cells]
            case "histograms":
                counts = with_nulls(values.counts, values.without)
                found = [counts[at : at + values.ranges] for at in range(0, len(counts), values.ranges or 1)]
            case _:
                found = list(values.values)
        columns[column.name] = with_nulls(found, column.without)
    return [{**same, **{name: values[cell] for name, values in columns.items()}} for cell in range(release.cells)]


def read(topic):
    """The messages of a topic, in the order of their windows."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "test", "auto.offset.reset": "earliest",
                         "enable.auto.commit": False, "isolation.level": "read_committed"})
    partitions = consumer.list_topics(topic, timeout=120).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found = []
    while len(found) < count:
        message = consumer.poll(120)
        assert message is not None and not message.error(), f"{len(found)} of {count} messages of {topic}"
        found.append(({key: value.decode() for key, value in message.headers()}, message.value()))
    consumer.close()
    return sorted(found, key=lambda message: message[0]["ce_time"])


FORMATS = {
    "jsonl": (of_lines, "application/x-ndjson", None, "urn:bailiwick:cells:jsonl:1"),
    "jsonl-zstd": (lambda value: of_lines(decompressed(value)), "application/x-ndjson", "zstd", "urn:bailiwick:cells:jsonl:1"),
    "arrow": (of_arrow, "application/vnd.apache.arrow.stream", "zstd", "urn:bailiwick:cells:arrow:3"),
    "protobuf": (of_protobuf, "application/protobuf", None, "urn:bailiwick:cells:protobuf:1"),
}
expected, sizes = None, {}
for topic, (name, (decode, media_type, encoding, schema)) in zip(topics, FORMATS.items(), strict=True):
    messages = read(topic)
    for headers, value in messages:
        said = (headers["content-type"], headers.get("content-encoding"), headers["ce_dataschema"])
        assert said == (media_type, encoding, schema), (name, said)
        assert {cell["release"] for cell in decode(value)} == {headers["ce_id"]}, name
    cells = [cell for _, value in messages for cell in decode(value)]
    expected = expected or cells
    assert len(cells) > 50 and cells == expected, name
    assert [list(cell) for cell in cells] == [list(cell) for cell in expected], name
    sizes[name] = sum(len(value) for _, value in messages)
print(f"{len(expected)} cells in {count} messages: {sizes} bytes")
assert all(size * 4 < sizes["jsonl"] for name, size in sizes.items() if name != "jsonl"), sizes
