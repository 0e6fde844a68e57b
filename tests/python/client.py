"""A producer made of stock parts: grpcio stubs from our proto, pyarrow, pyarrow.flight.

usage: client.py HOST:PORT EXAMPLE_DIR PROTO_DIR ROWS_PROTO KIND BATCH SHUFFLE_SECONDS

Sends an example's data, and checks every score of every accepted record against onnxruntime.
KIND: rows | arrow | cloud-events | flight. Records are shuffled within SHUFFLE_SECONDS of event time.
"""

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
import tomllib
from google.protobuf import timestamp_pb2
from grpc_tools import protoc

from scores import score



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


def rows_payload(rows_pb2, part, fields):
    rows = rows_pb2.Rows()
    columns = {name: part[name].tolist() for name in fields}
    for index in range(len(part)):
        row = rows.rows.add()
        for name, spec in fields.items():
            value = columns[name][index]
            if spec["type"] == "timestamp":
                stamp = pandas.Timestamp(value)
                getattr(row, name).CopyFrom(timestamp_pb2.Timestamp(seconds=stamp.value // 10**9, nanos=stamp.value % 10**9))
            else:
                setattr(row, name, {"float64": float, "float32": float, "int64": int, "string": str, "bool": bool}[spec["type"]](value))
    return rows.SerializeToString()


def arrow_payload(table):
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def table_of(part, stream):
    part = part.assign(**{stream["event_time"]: pandas.to_datetime(part[stream["event_time"]], utc=True)})
    return pyarrow.Table.from_pandas(part, preserve_index=False)


def check(scores, part, refused, expected, offset_index):
    kept = [index for index in range(len(part)) if index not in refused]
    for name, values in scores.items():
        want = expected[name][offset_index[kept]]
        assert len(values) == len(kept), (name, len(values), len(kept))
        if want.dtype.kind == "f":
            worst = np.max(np.abs(np.asarray(values) - want), initial=0.0)
            assert np.allclose(values, want, rtol=1e-5, atol=1e-5), (name, worst)
        else:
            assert (np.asarray(values) == want).all(), name


def main():
    address, example, proto_dir, rows_proto, kind, batch, shuffle = sys.argv[1:]
    example, batch, shuffle = Path(example), int(batch), float(shuffle)
    pb, pb_grpc, rows_pb2 = stubs(proto_dir, rows_proto)
    policy = tomllib.loads((example / "policies" / "policy.toml").read_text())
    (stream_name, stream), = policy["streams"].items()
    fields = stream["fields"]
    data = pandas.read_csv(example / "data.csv.gz", dtype={name: str for name, spec in fields.items() if spec["type"] == "string"}, keep_default_na=False)
    for name, spec in fields.items():
        if spec["type"] == "float64":
            data[name] = data[name].astype(np.float64)
    if shuffle:
        rng = random.Random(7)
        times = pandas.to_datetime(data[stream["event_time"]], utc=True).astype("datetime64[us, UTC]").astype("int64") / 1e6
        order = sorted(range(len(data)), key=lambda row: times.iloc[row] + rng.uniform(0, shuffle))
        data = data.iloc[order].reset_index(drop=True)
    expected = score(data, policy, example / "model.onnx")
    parts = [data.iloc[start:start + batch] for start in range(0, len(data), batch)]
    accepted, refused = 0, 0
    if kind == "flight":
        client = pyarrow.flight.connect(f"grpc://{address}")
        descriptor = pyarrow.flight.FlightDescriptor.for_path(stream_name, "stock-client")
        writer, reader = client.do_put(descriptor, table_of(parts[0], stream).schema)
        for part in parts:
            writer.write_table(table_of(part, stream), max_chunksize=batch)
            answer = json.loads(reader.read().to_pybytes())
            accepted += answer["accepted"]
            refused += len(answer["refusals"])
            assert answer["accepted"] + len(answer["refusals"]) == len(part)
        writer.done_writing()
        writer.close()
        channel = grpc.insecure_channel(address)
    else:
        channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 64 << 20)])

        def requests():
            for sequence, part in enumerate(parts):
                request = pb.PublishRequest(stream=stream_name, producer="stock-client", sequence=sequence, want_scores=True)
                if kind == "rows":
                    request.rows = rows_payload(rows_pb2, part, fields)
                elif kind == "arrow":
                    request.arrow_ipc = arrow_payload(table_of(part, stream))
                else:
                    for position, record in enumerate(part.to_dict("records")):
                        event = request.cloud_events.events.add(id=f"{sequence}-{position}", source="/test", spec_version="1.0", type="t")
                        event.text_data = json.dumps(record)
                yield request

        for sequence, response in enumerate(pb_grpc.IngestStub(channel).Publish(requests())):
            part = parts[sequence]
            assert not response.error.code, response.error.message
            assert response.sequence == sequence
            assert response.accepted + len(response.refusals) == len(part)
            accepted += response.accepted
            refused += len(response.refusals)
            scores = {output.field: (output.scores if output.HasField("scores") else output.labels).values for output in response.outputs}
            assert response.accepted == 0 or scores.keys() == expected.keys()
            check(scores, part, {refusal.index for refusal in response.refusals}, expected, part.index.to_numpy())
    now = int(pandas.Timestamp.now("UTC").timestamp() * 1e6)
    done = pb.PublishRequest(stream=stream_name, producer="stock-client", complete_through=now)
    pb_grpc.IngestStub(channel).PublishOnce(done)
    print(json.dumps({"sent": len(data), "accepted": accepted, "refused": refused}))


main()
