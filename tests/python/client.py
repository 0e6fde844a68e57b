"""A producer made of stock parts: grpcio stubs from our proto, pyarrow, pyarrow.flight."""

import importlib
import json
import random
import sys
import tempfile
from pathlib import Path

import grpc
import numpy as np
import pandas
import pyarrow
import pyarrow.flight
from google.protobuf import any_pb2, timestamp_pb2
from grpc_tools import protoc

PRODUCER = "stock-client"
PYTHON = {"float64": float, "float32": float, "int64": int, "string": str, "bool": bool}

# What a producer of many machines sends: records alone, and batches of any size.
MIXED = [1, 1, 2, 3, 5, 31, 64, 200, 500]


def stubs(proto_dir, rows_proto):
    out = tempfile.mkdtemp()
    wellknown = str(Path(protoc.__file__).parent / "_proto")
    Path(out, "rows.proto").write_text(Path(rows_proto).read_text())
    files = [str(path) for path in Path(proto_dir).rglob("*.proto")] + [str(Path(out, "rows.proto"))]
    status = protoc.main(["protoc", f"-I{proto_dir}", f"-I{out}", f"-I{wellknown}", f"--python_out={out}", f"--grpc_python_out={out}", *files])
    assert status == 0
    sys.path.insert(0, out)
    # google.rpc is a package of its own on many machines; ours is only a copy of status.proto.
    import google
    google.__path__.append(str(Path(out, "google")))
    return (importlib.import_module("bailiwick.v1.ingest_pb2"), importlib.import_module("bailiwick.v1.ingest_pb2_grpc"),
            importlib.import_module("rows_pb2"))


def shuffled(times, seconds):
    """The order in which records come, each up to so many seconds late."""
    rng = random.Random(7)
    come = [time + rng.uniform(0, seconds) for time in times.astype("datetime64[us, UTC]").astype("int64") / 1e6]
    return np.array(sorted(range(len(come)), key=come.__getitem__) if seconds else range(len(come)))


def sizes(batch, count):
    rng = random.Random(11)
    while count > 0:
        size = min(batch or rng.choice(MIXED), count)
        yield size
        count -= size


def arrow_payload(table):
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


class Client:
    """Sends an example's records, and checks every score of every accepted record against onnxruntime."""

    def __init__(self, example, proto_dir, rows_proto):
        self.example = example
        self.pb, self.pb_grpc, self.rows_pb2 = stubs(proto_dir, rows_proto)

    def prepare(self, kind, batch, shuffle, count):
        """The positions and the payload of each batch. `batch` 0 is batches of any size."""
        order = shuffled(self.example.times.iloc[:count], shuffle)
        data, start = self.example.data.iloc[order], 0
        self.kind, self.parts = kind, []
        for sequence, size in enumerate(sizes(batch, len(data))):
            part = data.iloc[start:start + size]
            self.parts.append((order[start:start + size], self.payload(kind, part, sequence)))
            start += size

    def payload(self, kind, part, sequence):
        if kind == "flight":
            return self.table(part)
        request = self.pb.PublishRequest(stream=self.example.stream_name, producer=PRODUCER, sequence=sequence, want_scores=True)
        if kind == "rows":
            request.rows = self.rows(part).SerializeToString()
        elif kind == "arrow":
            request.arrow_ipc = arrow_payload(self.table(part))
        else:
            is_json = kind.startswith("json")
            records = map(json.dumps, part.to_dict("records")) if is_json else self.rows(part).rows
            for position, record in enumerate(records):
                event = request.cloud_events.events.add(id=f"{sequence}-{position}", source="/test", spec_version="1.0", type="t")
                if kind == "json-text":
                    event.text_data = record
                elif kind == "json-binary":
                    event.binary_data = record.encode()
                elif kind == "protobuf-binary":
                    event.attributes["datacontenttype"].ce_string = "application/protobuf"
                    event.binary_data = record.SerializeToString()
                else:
                    assert kind == "protobuf-any", kind
                    event.proto_data.CopyFrom(any_pb2.Any(type_url="type.googleapis.com/Row", value=record.SerializeToString()))
        return request

    def rows(self, part):
        fields = self.example.stream["fields"]
        rows = self.rows_pb2.Rows()
        columns = {name: part[name].tolist() for name in fields}
        for index in range(len(part)):
            row = rows.rows.add()
            for name, spec in fields.items():
                value = columns[name][index]
                if spec["type"] == "timestamp":
                    stamp = pandas.Timestamp(value)
                    getattr(row, name).CopyFrom(timestamp_pb2.Timestamp(seconds=stamp.value // 10**9, nanos=stamp.value % 10**9))
                else:
                    setattr(row, name, PYTHON[spec["type"]](value))
        return rows

    def table(self, part):
        times = self.example.times.loc[part.index]
        return pyarrow.Table.from_pandas(part.assign(**{self.example.stream["event_time"]: times}), preserve_index=False)

    def send(self, address):
        """Sends what is prepared: how many were sent, accepted and refused."""
        with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 64 << 20)]) as channel:
            ingest = self.pb_grpc.IngestStub(channel)
            accepted, refused = self.flight(address) if self.kind == "flight" else self.publish(ingest)
            now = int(pandas.Timestamp.now("UTC").timestamp() * 1e6)
            ingest.PublishOnce(self.pb.PublishRequest(stream=self.example.stream_name, producer=PRODUCER, complete_through=now))
        return {"sent": sum(len(positions) for positions, _ in self.parts), "accepted": accepted, "refused": refused}

    def flight(self, address):
        accepted, refused = 0, 0
        descriptor = pyarrow.flight.FlightDescriptor.for_path(self.example.stream_name, PRODUCER)
        with pyarrow.flight.connect(f"grpc://{address}") as client:
            writer, reader = client.do_put(descriptor, self.parts[0][1].schema)
            for positions, table in self.parts:
                writer.write_table(table, max_chunksize=len(positions))
                answer = json.loads(reader.read().to_pybytes())
                accepted += answer["accepted"]
                refusals = sum(refusal["count"] for refusal in answer["refusals"])
                refused += refusals
                assert answer["accepted"] + refusals == len(positions)
            writer.done_writing()
            writer.close()
        return accepted, refused

    def publish(self, ingest):
        accepted, refused = 0, 0
        for sequence, response in enumerate(ingest.Publish(request for _, request in self.parts)):
            positions, _ = self.parts[sequence]
            assert not response.error.code, response.error.message
            assert response.sequence == sequence
            gone = [refusal.index + offset for refusal in response.refusals for offset in range(refusal.count)]
            assert response.accepted + len(gone) == len(positions)
            accepted += response.accepted
            refused += len(gone)
            scores = {output.field: (output.scores if output.HasField("scores") else output.labels).values for output in response.outputs}
            assert response.accepted == 0 or scores.keys() == self.example.scores.keys()
            kept = np.delete(positions, gone)
            for name, values in scores.items():
                self.check(name, np.asarray(values), self.example.scores[name][kept])
        return accepted, refused

    @staticmethod
    def check(name, values, expected):
        assert len(values) == len(expected), (name, len(values), len(expected))
        if expected.dtype.kind == "f":
            worst = np.max(np.abs(values - expected), initial=0.0)
            assert np.allclose(values, expected, rtol=1e-5, atol=1e-5), (name, worst)
        else:
            assert (values == expected).all(), name
