"""Verifies a ledger from its specifications alone (RFC 6962, RFC 8032, C2SP): nothing of this is the gateway's code.

    ledger.py ledger DIR KEY             every entry and tile of an exported ledger, against its checkpoint; prints the entries
    ledger.py proof FILE KEY             a tlog-proof; prints the entry that it proves
    ledger.py growth FILE KEY OLD        a proof that the ledger only grew since the checkpoint OLD
    ledger.py cosigned FILE KEY WITNESS  a checkpoint that a witness cosigned; prints when it did, in UTC
    ledger.py opens SALT COMMITMENT FILE whether a commitment is to the lines of FILE
"""

import base64
import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def add(p, q):
    """Two points of the curve, in extended coordinates."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(s, p):
    """A point so many times."""
    q = (0, 1, 1, 0)
    while s:
        q, p, s = (add(q, p) if s & 1 else q), add(p, p), s >> 1
    return q


def point(raw):
    """The point that 32 bytes stand for."""
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    x = x if (x * x - x2) % P == 0 else x * pow(2, (P - 1) // 4, P) % P
    assert y < P and (x * x - x2) % P == 0 and not (x == 0 and sign), "no point of the curve"
    x = x if x & 1 == sign else P - x
    return x, y, 1, x * y % P


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def signed(key, text, signature):
    """Whether a signature of RFC 8032 holds."""
    s, k = int.from_bytes(signature[32:], "little"), hashlib.sha512(signature[:32] + key + text).digest()
    left, right = times(s, BASE), add(point(signature[:32]), times(int.from_bytes(k, "little") % L, point(key)))
    return s < L and all((left[i] * right[2] - right[i] * left[2]) % P == 0 for i in (0, 1))


def checkpoint(note, key):
    """The size and the root that a note says, which the key must have signed."""
    name, ident, raw = key.strip().split("+", 2)
    public = base64.b64decode(raw)
    assert public[0] == 1 and hashlib.sha256(f"{name}\n".encode() + public).digest()[:4].hex() == ident, "the key"
    text, signatures = note.split("\n\n", 1)
    lines = [line.split(" ") for line in signatures.splitlines() if line.startswith(f"\u2014 {name} ")]
    found = [base64.b64decode(line[2]) for line in lines]
    text = f"{text}\n".encode()
    assert any(s[:4].hex() == ident and signed(public[1:], text, s[4:]) for s in found), "the signature"
    origin, size, root = text.decode().splitlines()[:3]
    assert origin == name, "another ledger"
    return int(size), base64.b64decode(root)


def cosigned(note, key, witness):
    """When a witness cosigned a checkpoint, in seconds (C2SP tlog-cosignature)."""
    checkpoint(note, key)
    name, ident, raw = witness.strip().split("+", 2)
    public = base64.b64decode(raw)
    assert public[0] == 4 and hashlib.sha256(f"{name}\n".encode() + public).digest()[:4].hex() == ident, "the key"
    text, signatures = note.split("\n\n", 1)
    for line in signatures.splitlines():
        if line.startswith(f"\u2014 {name} "):
            found = base64.b64decode(line.split(" ")[2])
            time = int.from_bytes(found[4:12], "big")
            if found[:4].hex() == ident and signed(public[1:], f"cosignature/v1\ntime {time}\n{text}\n".encode(), found[12:]):
                return time
    raise AssertionError("the cosignature")


def leaf(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def split(count):
    return 1 << (count - 1).bit_length() - 1


def tree(leaves):
    """The root, by the words of RFC 6962."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256().digest()
    return node(tree(leaves[: split(len(leaves))]), tree(leaves[split(len(leaves)) :]))


def tile(directory, kind, number, width):
    """A file of tlog-tiles."""
    groups = [f"{number % 1000:03}"]
    while number := number // 1000:
        groups.insert(0, f"x{number % 1000:03}")
    path = directory / "tile" / str(kind) / "/".join(groups)
    return (path if width == 256 else Path(f"{path}.p") / str(width)).read_bytes()


# What an entry of each kind says after `v`, `time` and `kind`, in this order; what ends with `?` may be missing.
KINDS = {
    "start": "gateway program dry_run models",
    "stop": "gateway",
    "policy": "policy reload",
    "intent": "release destination dataset window_start window_end policy cells commitment outbox degraded?",
    "sent": "destination releases bytes",
    "unsettled": "release destination intent known",
    "withheld": "dataset window_start at_least outbox?",
    "override": "id dataset destination window_start outbox?",
    "damage": "of places",
    "missed": "entries",
    "refused": "stream closed_before? reason rules to? records outbox",
    "quarantine": "held released discarded",
    "model": "model before? now?",
    "reload": "of outcome",
    "privacy": "dataset window_start outcome rho_billionths outbox",
    "denied": "release destination dataset window_start window_end cells outbox",
    "shed": "release destination dataset window_start window_end cells outbox widened?",
    "work": "since? until? cpu_seconds? cpu_milliseconds? records bytes_in? bytes_accepted?",
}


def is_of_a_day(since, until):
    """Whether a span of time does not reach over a midnight (UTC)."""
    since, until = datetime.fromisoformat(since), datetime.fromisoformat(until)
    midnight = since.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return since <= until <= midnight


def spelled(entry):
    """Checks that an entry says what its kind says, in its one spelling."""
    said = json.loads(entry)
    version, _, kind, *keys = said
    assert [version, kind] == ["v", "kind"] and 1 <= said["v"] <= 10, "the version"
    assert said["v"] >= 3 or said["kind"] not in ("refused", "quarantine", "model", "reload"), "the kind came later"
    assert said["v"] >= 4 or said["kind"] != "shed", "the kind came later"
    assert said["v"] >= 5 or said["kind"] != "privacy", "the kind came later"
    assert said["v"] >= 6 or said["kind"] != "work", "the kind came later"
    assert said["v"] >= 8 or "widened" not in said, "the key came later"
    assert said["v"] >= 8 or said["kind"] != "denied", "the kind came later"
    assert said["v"] >= 9 or "bytes_in" not in said, "the key came later"
    if said["kind"] == "work":
        later = [key in said for key in ("since", "until", "cpu_milliseconds")]
        assert later == [said["v"] >= 10] * 3 and ("cpu_seconds" in said) == (said["v"] < 10), "the keys came later"
        assert said["v"] >= 10 or "bytes_accepted" not in said, "the key came later"
        assert said["v"] < 10 or is_of_a_day(said["since"], said["until"]), "it is not a part of one day"
    if "degraded" in said:
        whole = said["degraded"]
        assert said["v"] >= 7 and [*whole] == ["steps", "whole", "cells"] and whole["steps"], "what it was made of"
        assert whole["whole"] != said["release"] and whole["cells"] >= said["cells"], "what it was made of"
    expected = [key.rstrip("?") for key in KINDS[said["kind"]].split() if key[-1] != "?" or key[:-1] in said]
    assert keys == expected, f"{said['kind']}: {keys}"
    assert json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode() == entry, "the spelling"


def ledger(directory, key):
    """The entries of an exported ledger."""
    size, root = checkpoint((directory / "checkpoint").read_text(), key)
    entries = []
    for first in range(0, size, 256):
        bundle = tile(directory, "entries", first // 256, min(256, size - first))
        while bundle:
            length = 2 + int.from_bytes(bundle[:2], "big")
            entries, bundle = [*entries, bundle[2:length]], bundle[length:]
    hashes = [leaf(entry) for entry in entries]
    assert len(entries) == size and tree(hashes) == root, "the entries are not those that were signed"
    for entry in entries:
        spelled(entry)
    level = 0
    while hashes:
        for first in range(0, len(hashes), 256):
            part = hashes[first : first + 256]
            assert tile(directory, level, first // 256, len(part)) == b"".join(part), f"tile {level}/{first // 256}"
        whole = len(hashes) // 256 * 256
        hashes, level = [tree(hashes[first : first + 256]) for first in range(0, whole, 256)], level + 1
    return entries


def path(index, size, hashes):
    """The root that a proof of inclusion leads to, and the hashes that it leaves over."""
    if size == 1:
        return hashes.pop(0), hashes
    middle = split(size)
    sibling = hashes.pop()
    below, rest = path(index, middle, hashes) if index < middle else path(index - middle, size - middle, hashes)
    return (node(below, sibling) if index < middle else node(sibling, below)), rest


def proof(text, key):
    """The entry that a tlog-proof proves."""
    head, note = text.split("\n\n", 1)
    magic, extra, index, *hashes = head.splitlines()
    assert magic == "c2sp.org/tlog-proof@v1" and extra.startswith("extra ") and index.startswith("index ")
    entry, index = base64.b64decode(extra[6:]), int(index[6:])
    size, root = checkpoint(note, key)
    found, rest = path(index, size, [leaf(entry), *map(base64.b64decode, hashes)])
    assert index < size and found == root and not rest, "the proof"
    return entry


def growth(text, key, old):
    """Checks a proof of consistency, as RFC 6962 builds it."""
    head, note = text.split("\n\n", 1)
    first, *hashes = head.splitlines()
    (before, old_root), (size, root) = checkpoint(old, key), checkpoint(note, key)
    hashes = [base64.b64decode(line) for line in hashes]

    def roots(known, count, is_old):
        """Of the old part and of all of `count` entries, of which `known` are old."""
        if known == count:
            here = old_root if is_old else hashes.pop(0)
            return here, here
        middle, sibling = split(count), hashes.pop()
        if known <= middle:
            was, now = roots(known, middle, is_old)
            return was, node(now, sibling)
        was, now = roots(known - middle, count - middle, False)
        return node(sibling, was), node(sibling, now)

    assert first == f"old {before}" and 0 < before <= size
    assert roots(before, size, True) == (old_root, root) and not hashes, "the ledger did not only grow"
    return size


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "ledger":
        sys.stdout.buffer.writelines(entry + b"\n" for entry in ledger(Path(rest[0]), rest[1]))
    elif what == "proof":
        print(proof(Path(rest[0]).read_text(), rest[1]).decode())
    elif what == "cosigned":
        print(datetime.fromtimestamp(cosigned(Path(rest[0]).read_text(), rest[1], rest[2]), UTC))
    elif what == "growth":
        print(growth(Path(rest[0]).read_text(), rest[1], Path(rest[2]).read_text()))
    else:
        salt, commitment, lines = rest
        assert hashlib.sha256(bytes.fromhex(salt) + Path(lines).read_bytes()).hexdigest() == commitment, "it does not open"
