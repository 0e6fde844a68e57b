"""The formats of releases: dealt to destinations, read back as JSON lines, and unpacked for the search for canaries."""

import io
import json
import random
from collections import Counter

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

# What `format` may be, and how the files are named.
OF_FILES = {"jsonl": ".jsonl", "jsonl-zstd": ".jsonl.zst", "arrow": ".arrow", "parquet": ".parquet"}
OF_MESSAGES = ("jsonl", "jsonl-zstd", "arrow", "protobuf")
TIMES = ("window_start", "window_end")
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# By the two bits of a frame's descriptor that say it: how many bytes name a dictionary, and the length.
DICTIONARY_BYTES, LENGTH_BYTES = (0, 1, 2, 4), (0, 2, 4, 8)
# How often a file of cells was read, by its format.
READ = Counter()


class Unreadable(Exception):
    """What was released is not in the format that it has by its name."""


class Deck:
    """Deals formats: each as often as the others, in an order that the seed says."""

    def __init__(self, seed):
        self.rng = random.Random(f"{seed}/formats")
        self.left = []
        self.dealt = 0

    def deal(self):
        """The next format of files."""
        if not self.left:
            self.left = self.rng.sample(list(OF_FILES), len(OF_FILES))
        self.dealt += 1
        return self.left.pop()

    def missing(self):
        """The formats of which no file was read, although each was dealt."""
        return [name for name in OF_FILES if not READ[name]] if self.dealt >= len(OF_FILES) else []


def lines_of_file(name, content):
    """A file's cells as JSON lines. Raises Unreadable."""
    kind = next(found for found, ending in OF_FILES.items() if name.endswith(ending))
    READ[kind] += 1
    try:
        match kind:
            case "jsonl":
                return content
            case "jsonl-zstd":
                return decompressed(content)
        return as_lines(table(kind, content))
    except (pyarrow.ArrowException, OSError) as error:
        raise Unreadable(f"{name}: {error}") from error


def table(kind, content):
    """The cells of a file of columns."""
    source = pyarrow.BufferReader(content)
    return pyarrow.parquet.read_table(source) if kind == "parquet" else pyarrow.ipc.open_file(source).read_all()


def lines_of_message(kind, value, release_pb2):
    """A message's cells as JSON lines. Raises Unreadable."""
    try:
        match kind:
            case "jsonl":
                return value
            case "jsonl-zstd":
                return decompressed(value)
            case "arrow":
                cells = pyarrow.ipc.open_stream(decompressed(value)).read_all()
                same = {name.decode(): text.decode() for name, text in cells.schema.metadata.items()}
                return as_lines(cells, {name: text for name, text in same.items() if not name.startswith("bailiwick.")})
            case "protobuf":
                return protobuf_lines(release_pb2.Release.FromString(value))
    except (pyarrow.ArrowException, OSError) as error:
        raise Unreadable(f"a message: {error}") from error


def as_lines(cells, same=None):
    """The rows of a table as JSON lines, with what is the same in all."""
    lines = [json.dumps({**(same or {}), **row}, default=rfc3339) for row in cells.to_pylist()]
    return "".join(f"{line}\n" for line in lines).encode()


def rfc3339(time):
    """A time as JSON lines have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".") + "Z"


def protobuf_lines(release):
    """A `Release` as JSON lines."""
    same = {name: getattr(release, name) for name in ("release", "gateway", "dataset", "policy")}
    for name in TIMES:
        same[name] = rfc3339(pyarrow.scalar(getattr(release, name), pyarrow.timestamp("us")).as_py())
    columns = {column.name: of_column(column, release.cells) for column in release.columns}
    return as_lines(pyarrow.table(columns), same)


def of_column(column, cells):
    """The values of a column, one for each cell."""
    match column.WhichOneof("values"):
        case "labels":
            values = iter([column.labels.labels[at] for at in column.labels.of_cells])
        case "histograms":
            histograms = column.histograms
            counts, without = iter(histograms.counts), set(histograms.without)
            of_all = [None if at in without else next(counts) for at in range(histograms.ranges * (cells - len(column.without)))]
            values = (of_all[start : start + histograms.ranges] for start in range(0, len(of_all), histograms.ranges or 1))
        case kind:
            values = iter(getattr(column, kind).values)
    absent = set(column.without)
    return [None if cell in absent else next(values) for cell in range(cells)]


def decompressed(content):
    """What zstd compressed."""
    return pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd").read()


def unpacked(name, content):
    """All that is in bytes beside the bytes as they are: every zstd frame, wherever it stands, such as in a message, a buffer of
    Arrow or a page of Parquet, and the decoded columns of a file of cells. With how many frames there are."""
    pieces, frames, at = [], 0, content.find(ZSTD_MAGIC)
    while at >= 0:
        if end := frame_end(content, at):
            try:
                pieces.append(decompressed(content[at:end]))
                frames += 1
            except OSError:
                end = None  # it only looks like one
        at = content.find(ZSTD_MAGIC, end or at + 1)
    for kind in ("arrow", "parquet"):
        if name.endswith(OF_FILES[kind]):
            try:
                pieces += columns(table(kind, content))
            except pyarrow.ArrowException as error:
                raise Unreadable(f"{name}: {error}") from error
    return pieces, frames


def columns(cells):
    """Columns as Arrow has them without compression, and as lines: no encoding hides a value."""
    plain = io.BytesIO()
    with pyarrow.ipc.new_stream(plain, cells.schema) as writer:
        writer.write_table(cells)
    return [plain.getvalue(), as_lines(cells)]


def frame_end(content, at):
    """Where a zstd frame ends that begins with its magic number, if one does (RFC 8878, 3.1.1)."""
    at += len(ZSTD_MAGIC)
    if at >= len(content):
        return None
    descriptor = content[at]
    is_single, has_checksum = descriptor & 32, descriptor & 4
    lengths = LENGTH_BYTES[descriptor >> 6] or (1 if is_single else 0)
    at += 1 + (0 if is_single else 1) + DICTIONARY_BYTES[descriptor & 3] + lengths
    while at + 3 <= len(content):
        block = int.from_bytes(content[at : at + 3], "little")
        is_last, kind, size = block & 1, block >> 1 & 3, block >> 3
        # A block of kind 1 is one byte, so many times.
        at += 3 + (1 if kind == 1 else size)
        if kind == 3 or at > len(content):
            return None
        if is_last:
            end = at + (4 if has_checksum else 0)
            return end if end <= len(content) else None
    return None


def packed(values, is_time):
    """A column in each way that hides its values from a search of the bytes, as pairs of a file's name and its bytes."""
    column = pyarrow.array(values, pyarrow.timestamp("us", tz="UTC") if is_time else None)
    for one in (column, column.dictionary_encode()):
        cells = pyarrow.table({"column": one})
        yield "cells.jsonl.zst", compressed(as_lines(cells))
        in_file, in_message = io.BytesIO(), io.BytesIO()
        with pyarrow.ipc.new_file(in_file, cells.schema, options=pyarrow.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(cells)
        with pyarrow.ipc.new_stream(in_message, cells.schema) as writer:
            writer.write_table(cells)
        yield "cells.arrow", in_file.getvalue()
        yield "a message", compressed(in_message.getvalue())
    of_numbers = ["BYTE_STREAM_SPLIT"] if column.type == pyarrow.float64() else ["BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"]
    for encoding in [None, *(["DELTA_BYTE_ARRAY"] if column.type == pyarrow.string() else of_numbers)]:
        in_file = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"column": column}), in_file, compression="zstd", use_dictionary=encoding is None,
                                    column_encoding={"column": encoding} if encoding else None)
        yield "cells.parquet", in_file.getvalue()


def compressed(content):
    """Bytes as zstd compresses them."""
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()
