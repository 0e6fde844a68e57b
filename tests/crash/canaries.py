"""Canaries: what only records say, every spelling of it, and the search for it in all that a gateway writes and tells.

Each record holds some: in the contributor, in its event time, in fields that no dataset asks for (texts that are kept, dropped and
pseudonymised, a whole number, a fraction), and in a column that the stream does not declare. Records that are refused hold them, too.
A second stream has records whose cells may not leave, or leave as `other`: canaries are their group keys and their numbers.
"""

import asyncio
import base64
import hashlib
import json
import re
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import grpc
import numpy as np

import formats
from deployment import free_port
from destinations import Files
from workload import ALL_SLOTS, BASE_MICROS, GROUPS, OFF_GRID_MICROS, SLOTS, STREAM, offset_micros, window_start

# In upper and lower case, so that a spelling in one case is another one.
CONTRIBUTOR, NOTE, GONE, DEVICE, STRAY = "kAnArIeNvOgEl", "StReNgGeHeImEsWoRt", "vErScHwUnDeNeS", "dEcKnAmEnLoS", "vErIrRtEsSeGeL"
GROUP = "gRuPpEnKeNnEr"
WORDS = {"contributor": CONTRIBUTOR, "note": NOTE, "gone": GONE, "device": DEVICE, "stray": STRAY, "group": GROUP}
OF_ALL = [name for name in WORDS if name != "group"]
CODE = 736_184_625_011_000
AMOUNT = 60_221.40757362
FIELDS = """
note   = { type = "string", class = "personal", bytes_max = 64 }
gone   = { type = "string", class = "personal", bytes_max = 64, treatment = "drop" }
device = { type = "string", class = "personal", bytes_max = 64, treatment = "pseudonymise", scope = "day" }
code   = { type = "int64", class = "personal" }
amount = { type = "float64", class = "personal" }
"""
# Of the second stream, `other` has enough contributors to leave, and the cell of one record has not.
FEW_STREAM, FEW, FEW_ENOUGH = "few", "few_by_group", 12
FEW_POLICY = f"""
[streams.{FEW_STREAM}]
event_time   = "at"
history_from = "2024-01-01T00:00:00Z"
contributor  = "contributor"
untested     = ["collection.place", "subject.citizenship", "controller.establishment", "source.system"]
late_max     = "PT8760H"
idle_after   = "PT1H"

[streams.{FEW_STREAM}.facts]
"subject.residence" = [{{ field = "country", strength = 90 }}]

[streams.{FEW_STREAM}.fields]
at          = {{ type = "timestamp", class = "personal" }}
contributor = {{ type = "string", class = "personal", bytes_max = 32 }}
country     = {{ type = "string", class = "personal", bytes_max = 6 }}
group       = {{ type = "string", class = "personal", bytes_max = 32 }}
code        = {{ type = "int64", class = "personal", range = [0, 1_000_000_000_000_000] }}
amount      = {{ type = "float64", class = "personal", range = [0, 100_000] }}

[datasets.{FEW}]
stream           = "{FEW_STREAM}"
window           = {{ size = "PT1S", grace = "PT0S" }}
min_contributors = 10
group_by         = [{{ field = "group", domain = {json.dumps(GROUPS)} }}]
metrics = [
  {{ name = "records", fn = "count" }},
  {{ name = "code_sum", fn = "sum", field = "code" }},
  {{ name = "amount_sum", fn = "sum", field = "amount" }},
]

[destinations.{FEW_STREAM}]
country = "IE"
accepts = ["{FEW}"]

[[shown]]
conditions = ["data.anonymity_assessed"]
for        = {{ dataset = "{FEW}" }}
by         = "nobody"
ref        = "a test"
"""
PUBLISH_ONCE = "/bailiwick.v1.Ingest/PublishOnce"
TEXTS = {name: np.array([f"{word}{slot:03d}" for slot in range(SLOTS)]) for name, word in WORDS.items()}
HASHES = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2b", "blake2s")
# A pattern is found by its first bytes, and then compared in full.
KEY_BYTES = 8
BUCKETS_BITS = 22
CHUNK_BYTES = 4 << 20
OVERLAP_BYTES = 256
NAMED_MAX = 5
# What holds records by right: what is sealed there is looked at now and then, because it is much.
SEALED = Path("disk/journal/log")
SEALED_EVERY = 10
# Event times are there in the clear, by design: how far producers have come must be known before there are keys.
WITH_EVENT_TIMES = (SEALED, Path("disk/journal/checkpoints"))
EVENT_OFFSETS = frozenset(offset_micros(ALL_SLOTS).tolist())
DAY_MICROS = 86_400_000_000
# Of the harness, not of the gateway.
OWN = ("stubs", "strace.out", ".img")


class Leaked(Exception):
    """A canary was found."""


def columns(batch_slots, groups):
    """The canaries of a batch's records, as columns by name; `stray` is not declared."""
    slot = np.repeat(batch_slots, groups)
    texts = {name: TEXTS[name][slot] for name in OF_ALL}
    return {**texts, "code": CODE + slot, "amount": np.full(len(slot), AMOUNT)}


def spellings():
    """Every spelling of every canary: its name, its bytes, and whether upper and lower case are the same."""
    found = []
    for word in WORDS.values():
        found += list(of_text(word))
        for slot in range(SLOTS):
            for text in (f"{word}{slot:03d}", f"{word}{slot:03d}".lower()):
                found += list(of_hashes(text.encode()))
    for code in range(CODE, CODE + SLOTS):
        found += [("a number, little end first", code.to_bytes(8, "little"), False), ("a number, big end first", code.to_bytes(8, "big"), False),
                  ("a number as a varint", varint(code), False), ("a number as a zigzag varint", varint(code * 2), False)]
    found += [("a number in digits", str(CODE)[:12].encode(), False), ("a number in hex", f"{CODE:x}"[:10].encode(), True)]
    amount = np.array([AMOUNT])
    found += [("a fraction, little end first", amount.astype("<f8").tobytes(), False),
              ("a fraction, big end first", amount.astype(">f8").tobytes(), False), ("a fraction in digits", str(AMOUNT)[:11].encode(), False),
              ("a fraction with an exponent", f"{AMOUNT:e}"[:KEY_BYTES].encode(), False)]
    return found


def of_text(word):
    """A text's spellings, by the part of it that all records share: of some also the first and the last eight letters."""
    plain = word.encode()
    yield "plain", plain, True
    yield "cut off behind", plain[:KEY_BYTES], True
    yield "cut off before", plain[-KEY_BYTES:], True
    yield "reversed", plain[::-1], True
    yield "percent", "".join(f"%{byte:02x}" for byte in plain).encode(), True
    for case in {plain, plain.lower(), plain.upper()}:
        yield "hex", case.hex().encode(), True
        for shift in range(3):
            # What stands before it in the same three bytes, and after it, is not known.
            encoded = base64.b64encode(b"\0" * shift + case)
            whole = encoded[-(-shift * 8 // 6) :][: (len(case) * 8 - (-shift * 8 % 6)) // 6]
            yield "base64", whole, False
            yield "base64 for URLs", whole.replace(b"+", b"-").replace(b"/", b"_"), False
    for name in ("utf-16-le", "utf-16-be"):
        yield name, word.encode(name), True


def of_hashes(plain):
    """The beginnings of a text's usual hashes, as bytes, in hex and in base64."""
    for name in HASHES:
        digest = hashlib.new(name, plain).digest()
        yield name, digest[:KEY_BYTES], False
        yield f"{name} in hex", digest.hex()[:16].encode(), True
        yield f"{name} in base64", base64.b64encode(digest)[:12], False


def of_event_time(micros):
    """An event time's spellings: these are found by what they mean, since there are too many."""
    for name, unit in (("microseconds", 1), ("nanoseconds", 1000)):
        for end in ("little", "big"):
            yield f"an event time in {name}, {end} end first", (micros * unit).to_bytes(8, end)
        yield f"an event time in {name}, in digits", str(micros * unit).encode()
    yield "an event time", f"2024-01-01T00:00:{micros // 1_000_000 % 60:02}.{micros % 1_000_000:06}".rstrip("0").encode() + b"Z"


def event_times(content):
    """The event times of records in bytes, as pairs of a name and a place."""
    found = []
    for offset in range(min(KEY_BYTES, max(len(content) - KEY_BYTES + 1, 0))):
        for kind, end in (("<i8", "little"), (">i8", "big")):
            numbers = np.frombuffer(content, dtype=kind, offset=offset, count=(len(content) - offset) // KEY_BYTES)
            for name, unit in (("microseconds", 1), ("nanoseconds", 1000)):
                is_near = (numbers >= BASE_MICROS * unit) & (numbers < (BASE_MICROS + DAY_MICROS) * unit)
                for at in np.flatnonzero(is_near):
                    micros, rest = divmod(int(numbers[at]), unit)
                    if not rest and is_event_time(micros):
                        found.append((f"an event time in {name}, {end} end first", int(at) * KEY_BYTES + offset))
    for match in EVENT_DIGITS.finditer(content):
        if is_event_time(int(match[1])):
            found.append((f"an event time in {'nanoseconds' if match[2] else 'microseconds'}, in digits", match.start()))
    texts = EVENT_TEXT.finditer(content)
    return found + [("an event time", match.start()) for match in texts if int(match[1].ljust(6, b"0")) in EVENT_OFFSETS]


# Of the first days after BASE_MICROS.
EVENT_DIGITS = re.compile(rb"(1704[01]\d{11})(000)?(?!\d)")
EVENT_TEXT = re.compile(rb"2024-01-01[T ]\d\d:\d\d:\d\d\.(\d{1,6})")


def is_event_time(micros):
    """Whether some record has this event time: none begins a window."""
    return micros % 1_000_000 in EVENT_OFFSETS


def varint(value):
    """A number as protobuf writes it."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


class Patterns:
    """Patterns, to be found in texts all at once."""

    def __init__(self, patterns):
        self.by_key = {}
        for name, pattern in patterns:
            assert len(pattern) >= KEY_BYTES, (name, pattern)
            self.by_key.setdefault(int.from_bytes(pattern[:KEY_BYTES], "little"), {})[pattern] = name
        self.may_be = np.zeros(1 << BUCKETS_BITS, dtype=bool)
        self.may_be[bucket(np.array(list(self.by_key), dtype=np.uint64))] = True

    def search(self, content):
        """What is found, as pairs of a name and a place."""
        if len(content) < KEY_BYTES:
            return []
        found = []
        for offset in range(KEY_BYTES):
            keys = np.frombuffer(content, dtype="<u8", offset=offset, count=(len(content) - offset) // KEY_BYTES)
            for at in np.flatnonzero(self.may_be[bucket(keys)]):
                place = int(at) * KEY_BYTES + offset
                for pattern, name in self.by_key.get(int(keys[at]), {}).items():
                    if content.startswith(pattern, place):
                        found.append((name, place))
        return found


def bucket(keys):
    """Where a key is in the table of those that may be patterns."""
    return (keys * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - BUCKETS_BITS)


class Search:
    """Finds canaries in bytes."""

    def __init__(self):
        every = spellings()
        self.exact = Patterns([(name, pattern) for name, pattern, folds in every if not folds])
        self.folded = Patterns([(name, pattern.lower()) for name, pattern, folds in every if folds])
        self.bytes = self.frames = 0
        self._finds_what_is_planted(every)
        self._finds_what_is_packed()

    def find(self, content, name="", with_event_times=True):
        """What is found in bytes, and in what they are when they are unpacked, as those of a file of this name."""
        pieces, frames = formats.unpacked(name, content)
        self.frames += frames
        found = self._in_bytes(content, with_event_times)
        for piece in pieces:
            found += [(f"{what}, unpacked", place) for what, place in self._in_bytes(piece, with_event_times)]
        return found

    def _in_bytes(self, content, with_event_times):
        self.bytes += len(content)
        found = []
        for start in range(0, len(content), CHUNK_BYTES):
            chunk = bytes(content[start : start + CHUNK_BYTES + OVERLAP_BYTES])
            times = event_times(chunk) if with_event_times else []
            found += [(name, start + place) for name, place in self.exact.search(chunk) + self.folded.search(chunk.lower()) + times]
        return found

    def _finds_what_is_planted(self, every):
        """A search that finds nothing says something only if it finds what is there: each spelling, wherever it stands."""
        noise, planted, places = np.random.default_rng(7).bytes(KEY_BYTES * 5 + 3), bytearray(), {}
        for name, pattern, folds in every:
            planted += noise[: len(planted) % len(noise)]
            places[len(planted)] = name
            planted += pattern.swapcase() if folds else pattern
        for micros in (BASE_MICROS + OFF_GRID_MICROS, window_start(59) + max(EVENT_OFFSETS)):
            for name, spelling in of_event_time(micros):
                planted += noise[: len(planted) % len(noise)] + b" "
                places[len(planted)] = name
                planted += spelling
        if missed := places.keys() - {place for _, place in self.find(planted)}:
            raise AssertionError(f"the search does not find what is planted: {sorted({places[place] for place in missed})}")
        if self.find(noise * 1024) or self.find(b"".join(spelling for _, spelling in of_event_time(window_start(7)))):
            raise AssertionError("the search finds what is not there")


    def _finds_what_is_packed(self):
        """The same of each kind of column, in files and messages that are compressed or have encodings of their own."""
        columns = {"texts": [*["x" * 40] * 60, f"{NOTE}000"], "whole numbers": [*range(60), CODE], "fractions": [*[0.5] * 60, AMOUNT],
                   "times": [*(window_start(window) for window in range(60)), window_start(7) + OFF_GRID_MICROS]}
        for what, values in columns.items():
            for name, content in formats.packed(values, is_time=what == "times"):
                if not self.find(content, name):
                    raise AssertionError(f"the search does not find what is planted among {what} in {name}")


class Canaries:
    """The search in one run: in every file of the deployment, in what the gateway says over HTTP and in its refusals, and in
    what a destination was sent beside files."""

    def __init__(self, root, deck):
        """`deck` deals the format of what leaves of the second stream."""
        self.search = Search()
        self.http = free_port()
        self.deck = deck
        self.of_few = Files(root, FEW_STREAM, FEW)
        self.seen = {}
        self.said = bytearray()
        self.scrapes = self.offences = self.looks = self.contents = self.few = self.few_left = 0

    @property
    def gateway_toml(self):
        """What the gateway's configuration says beside the usual."""
        return self.of_few.toml(FEW_STREAM, self.deck) + f'\n[http]\nlisten = "127.0.0.1:{self.http}"\n'

    async def listen(self):
        """Keeps what the gateway tells of itself now, if it is there to tell it."""
        try:
            for path in ("/metrics", "/status"):
                self.said += await asyncio.to_thread(fetch, f"http://127.0.0.1:{self.http}{path}")
            self.scrapes += 1
        except OSError:
            pass

    async def offend(self, run):
        """Sends records that are refused, with canaries in what is wrong with them, and keeps what the gateway answers."""
        at = window_start(run.slowest_window()) + OFF_GRID_MICROS
        good = {"at": at, "contributor": f"{CONTRIBUTOR}000", "country": "DE", "group": "g0", "slot": 0, "value": 1.0,
                "note": f"{NOTE}000", "gone": f"{GONE}000", "device": f"{DEVICE}000", "code": CODE, "amount": AMOUNT}
        wrong = [{**good, "country": CONTRIBUTOR[:6]}, {**good, "contributor": f"{CONTRIBUTOR}000" * 4}, {**good, "slot": f"{NOTE}000"},
                 {**good, "code": f"{STRAY}000"}, {**good, "at": f"{NOTE}000"}, {**good, "at": CODE}, {**good, "value": None}]
        texts = [json.dumps(record) for record in wrong] + [json.dumps(good)[:-1], f'{{"{STRAY}000": "{NOTE}000"']
        request = run.pb.PublishRequest(stream=STREAM, producer="producer-0")
        add_events(request, texts)
        junk = run.pb.PublishRequest(stream=STREAM, producer="producer-0", arrow_ipc=f"{CONTRIBUTOR}000{NOTE}000".encode() * 9)
        async with grpc.aio.insecure_channel(run.deployment.address) as channel:
            once = channel.unary_unary(PUBLISH_ONCE, request_serializer=None, response_deserializer=None)
            for one in (request, junk):
                try:
                    answer = await once(one.SerializeToString(), timeout=60)
                    self.said += answer
                    came = run.pb.PublishResponse.FromString(answer)
                    if came.accepted:
                        raise AssertionError(f"{came.accepted} records were to be refused, and were taken in")
                    self.offences += sum(max(refusal.count, 1) for refusal in came.refusals)
                except grpc.aio.AioRpcError as error:
                    self.said += f"{error.details()}{error.trailing_metadata()}".encode()
                    self.offences += 1

    async def add_few(self, run):
        """Sends records of the second stream: a cell of one, which may not leave, and some whose group keys are in no domain."""
        window = run.slowest_window()
        at = window_start(window) + OFF_GRID_MICROS
        groups = [GROUPS[0], *(f"{GROUP}{number:03d}" for number in range(FEW_ENOUGH))]
        records = [{"at": rfc3339(at), "contributor": f"{CONTRIBUTOR}{number:03d}", "country": "DE", "group": group, "code": CODE, "amount": AMOUNT}
                   for number, group in enumerate(groups)]
        # What is before is complete, so that its windows close.
        request = run.pb.PublishRequest(stream=FEW_STREAM, producer="few", complete_through=window_start(window))
        add_events(request, map(json.dumps, records))
        async with grpc.aio.insecure_channel(run.deployment.address) as channel:
            once = channel.unary_unary(PUBLISH_ONCE, request_serializer=None, response_deserializer=None)
            try:
                answer = await once(request.SerializeToString(), timeout=60)
            except grpc.aio.AioRpcError as error:
                self.said += f"{error.details()}{error.trailing_metadata()}".encode()
                return
        self.said += answer
        self.few += run.pb.PublishResponse.FromString(answer).accepted

    def look(self, root, destination, is_last=False):
        """Searches what is new or changed since the last look. Raises Leaked."""
        found = Counter(f"what it says: {name}" for name, _ in self.search.find(self.said))
        self.said.clear()
        found.update(f"what it sends: {name}" for name, _ in self.search.find(destination.told()))
        self.looks += 1
        for path in sorted(Path(root).rglob("*")):
            local = path.relative_to(root)
            if any(str(local).endswith(own) or local.parts[0] == own for own in OWN):
                continue
            if local.is_relative_to(SEALED) and self.looks % SEALED_EVERY and not is_last:
                continue
            found.update(f"the name {local}: {name}" for name, _ in self.search.find(str(local).encode()))
            with_event_times = not any(local.is_relative_to(place) for place in WITH_EVENT_TIMES)
            found.update(f"{local}: {name}" for name, _ in self._in_file(path, with_event_times))
        groups = Counter(json.loads(line)["group"] for read in self.of_few.pieces().values() for line in read().splitlines())
        self.few_left = groups["other"]
        if groups.keys() - {"other"}:
            raise Leaked(f"cells of one contributor left: {dict(groups)}")
        if found:
            most = "; ".join(f"{where} ({times} times)" for where, times in found.most_common(NAMED_MAX))
            raise Leaked(f"{found.total()} canaries were found: {most}")

    def _in_file(self, path, with_event_times):
        try:
            status = path.lstat()
            identity = (status.st_size, status.st_mtime_ns)
            if not path.is_file() or self.seen.get(path) == identity:
                return []
            content = path.read_bytes()
        except FileNotFoundError:
            return []  # it was replaced or deleted meanwhile
        self.seen[path] = identity
        self.contents += 1
        return self.search.find(content, path.name, with_event_times)

    def line(self):
        """What was searched."""
        return (f"0 canaries in {self.search.bytes:,} bytes with what {self.search.frames:,} frames of zstd held, the contents of {self.contents:,} files "
                f"at their time and {self.scrapes} scrapes of /metrics and /status, with {self.offences} refused records and requests, and {self.few} "
                f"records whose group keys and numbers may not leave, {self.few_left} cells of which left as `other`")


def add_events(request, texts):
    """Adds records as JSON in CloudEvents."""
    for number, text in enumerate(texts):
        request.cloud_events.events.add(id=str(number), source="/", spec_version="1.0", type="t", text_data=text)


def rfc3339(micros):
    """A time of the first day as a record has it."""
    return formats.rfc3339(datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000))


def fetch(url):
    """What is at an address."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()
