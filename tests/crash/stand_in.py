#!/usr/bin/env python3
"""A stand-in for the gateway, as small as it can be: it lets the harness be tested by itself (selftest.py).

It keeps the protocol's promises in the plainest way (append, fdatasync, answer; fold everything again at start) and
can be told, by BAILIWICK_PLANT, to break one of them. It is no reference: it knows nothing of policies.

usage: stand_in.py run -c DIR/gateway.toml | proto -c DIR/gateway.toml --stream events
"""

import asyncio
import json
import os
import struct
import sys
import time
import tomllib
import zlib
from datetime import UTC, datetime
from pathlib import Path

RECOVERING = False
PLANT = os.environ.get("BAILIWICK_PLANT", "")
ROWS_PROTO = """syntax = "proto3";
package stand_in;
import "google/protobuf/timestamp.proto";
message Rows { repeated Row rows = 1; }
message Row {
  optional google.protobuf.Timestamp at = 1;
  optional string contributor = 2;
  optional string country = 3;
  optional string group = 4;
  optional int64 slot = 5;
  optional double value = 6;
}
"""
HEAD = struct.Struct("<II")


class Log:
    """Segments `log.N`: length, CRC and bytes of each entry. A new one at every start and after every error."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.number = max((int(path.suffix[1:]) for path in directory.glob("log.*")), default=0)
        self.file = None

    def entries(self):
        """What is whole, in order."""
        for number in range(1, self.number + 1):
            path = self.directory / f"log.{number}"
            # After a kill the page cache shows what the disk may not have.
            if PLANT != "trust-page-cache":
                sync(path)
            content, at = path.read_bytes(), 0
            while at + HEAD.size <= len(content):
                length, crc = HEAD.unpack_from(content, at)
                entry = content[at + HEAD.size : at + HEAD.size + length]
                if len(entry) < length or zlib.crc32(entry) != crc:
                    break
                yield entry
                at += HEAD.size + length

    def append(self, entry):
        """Durable when it returns; OSError when it is not."""
        try:
            if self.file is None:
                self._next_segment()
            frame = HEAD.pack(len(entry), zlib.crc32(entry)) + entry
            if os.write(self.file, frame) < len(frame):
                raise OSError("a short write")
            if PLANT != "ack-before-fsync":
                os.fdatasync(self.file)
        except OSError:
            self.file = None
            if PLANT != "lose-queue-on-fsync-error":
                raise

    def _next_segment(self):
        self.number += 1
        path = self.directory / f"log.{self.number}"
        self.file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        sync(self.directory)


def sync(path):
    """Makes a file's bytes, or the names in a directory, durable."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


class State:
    """The fold over the log: series of producers, open windows, what is released."""

    def __init__(self, directory, rows_pb2):
        self.directory, self.rows_pb2 = directory, rows_pb2
        self.series, self.newest, self.windows, self.open = {}, {}, {}, None
        directory.mkdir(parents=True, exist_ok=True)

    def fold(self, request):
        """Counts a request, closes windows."""
        from workload import GROUPS, SLOTS, WINDOW_MICROS

        self.series[request.producer] = (request.epoch, request.sequence)
        newest = request.complete_through
        for at, group, slot, value in self._records(request):
            newest = max(newest, at)
            window = at // WINDOW_MICROS
            window = window if self.open is None else max(window, self.open)
            cell = self.windows.setdefault(window, {}).setdefault(group, [0.0, [0] * SLOTS])
            cell[0] += value
            cell[1][slot] += 1
        self.newest[request.producer] = max(newest, self.newest.get(request.producer, 0))
        reached = min(self.newest.values()) // WINDOW_MICROS - 1
        for window in sorted(window for window in self.windows if window < reached):
            self._release(window, self.windows.pop(window), GROUPS)
        self.open = max(reached, self.open or reached)

    def _records(self, request):
        import pyarrow

        if request.HasField("arrow_ipc"):
            table = pyarrow.ipc.open_stream(request.arrow_ipc).read_all()
            at = table["at"].cast(pyarrow.int64()).to_pylist()
            yield from zip(at, *(table[name].to_pylist() for name in ("group", "slot", "value")), strict=True)
        elif request.HasField("rows"):
            for row in self.rows_pb2.Rows.FromString(request.rows).rows:
                yield row.at.ToMicroseconds(), row.group, row.slot, row.value

    def _release(self, window, cells, groups):
        start = datetime.fromtimestamp(window, UTC).isoformat().replace("+00:00", "Z")
        path = self.directory / f"{start}{'-again' * (PLANT == 'outbox-after-send' and RECOVERING)}.jsonl"
        if path.exists():
            return
        lines = []
        for group in groups:
            if group in cells:
                total, slots = cells[group]
                count = sum(slots)
                lines.append(json.dumps({"window_start": start, "group": group, "records": count, "value_sum": total,
                                         "value_mean": total / count, "slots": slots}) + "\n")
        temporary = path.with_name(f".{path.name}")
        while True:
            try:
                with temporary.open("w") as file:
                    file.writelines(lines)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(path)
                sync(self.directory)
                return
            except OSError:
                time.sleep(0.01)


class Service:
    """Publish, with the promises of ingest.proto."""

    def __init__(self, pb, log, state):
        self.pb, self.log, self.state = pb, log, state

    async def publish(self, requests, context):
        stream, producer, epoch = "", "", 0
        async for request in requests:
            stream, producer, epoch = request.stream or stream, request.producer or producer, request.epoch or epoch
            request.stream, request.producer, request.epoch = stream, producer, epoch or self.state.series.get(producer, (1, 0))[0]
            yield self.answer(request)

    def answer(self, request):
        known, through = self.state.series.get(request.producer, (0, 0))
        if request.epoch > known:
            known, through = request.epoch, 0
            self.state.series[request.producer] = (known, through)
        answer = self.pb.PublishResponse(sequence=request.sequence, epoch=known, durable_through=through)
        if not request.sequence and not request.complete_through:
            return answer
        answer.accepted = self.rows(request)
        if request.sequence and request.sequence <= through and PLANT != "no-dedup":
            answer.duplicate = True
            return answer
        if request.sequence > through + 1:
            return self.refused(request, "SEQUENCE_GAP")
        if not request.sequence:
            request.sequence = through
        try:
            self.log.append(request.SerializeToString())
        except OSError as error:
            print(f"the journal cannot be written: {error}", file=sys.stderr, flush=True)
            return self.refused(request, "JOURNAL_FAILING")
        self.state.fold(request)
        answer.durable_through = request.sequence
        return answer

    def rows(self, request):
        return sum(1 for _ in self.state._records(request))

    def refused(self, request, reason):
        answer = self.pb.PublishResponse(sequence=request.sequence)
        answer.error.code = 14
        name = reason.encode()
        answer.error.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=bytes([10, len(name)]) + name)
        return answer


async def serve(config):
    """Recovers, then serves until it is ended."""
    import grpc

    import protocol

    global RECOVERING
    root = Path(config).parent
    settings = tomllib.loads(Path(config).read_text())
    pb, rows_pb2 = protocol.load([sys.executable, __file__], config)
    log, state = Log(root / "disk" / "journal"), State(root / "disk" / "released" / "events_by_group", rows_pb2)
    RECOVERING = True
    for entry in log.entries():
        request = pb.PublishRequest.FromString(entry)
        known = state.series.get(request.producer, (0, -1))
        if (request.epoch, request.sequence) > known or not request.WhichOneof("payload") or PLANT == "no-dedup":
            state.fold(request)
            if PLANT == "replay-twice":
                state.fold(request)
    if PLANT == "forget-open-windows":
        state.windows.clear()
    RECOVERING = False
    service = Service(pb, log, state)
    handler = grpc.stream_stream_rpc_method_handler(service.publish, pb.PublishRequest.FromString, pb.PublishResponse.SerializeToString)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bailiwick.v1.Ingest", {"Publish": handler})])
    server.add_insecure_port(settings["listen"]["grpc"])
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(15, stop.set)
    print(f"INFO serving address={settings['listen']['grpc']}", file=sys.stderr, flush=True)
    await stop.wait()
    await server.stop(0)


if __name__ == "__main__":
    if sys.argv[1] == "proto":
        print(ROWS_PROTO)
    else:
        asyncio.run(serve(sys.argv[3]))
