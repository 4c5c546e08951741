#!/usr/bin/env python3
"""Verifies the chain of closed months, corrections and changes of the key: verify_ledger.py COPY_OF_A_LEDGER

It needs nothing of trafctl. docs/ledger-hashes.md describes what it computes. Prints one line per entry, and
the last hash. Exit status 1 if an entry does not match, is missing, or a month, correction or change
of the key of statements is in no entry.
"""
import hashlib
import sqlite3
import struct
import sys

PERIOD = "SELECT name, start, end, closed FROM period WHERE id = ?"
CLOSED_ROW = (
    "SELECT node, container, number, class, family, class_table, in_packets, in_bytes, out_packets, out_bytes "
    "FROM closed_row WHERE period = ? ORDER BY node, container, number, class, family, class_table"
)
CLOSED_RATE = (
    "SELECT number, class, basis, in_bits, out_bits, total_bits, buckets, spread_buckets "
    "FROM closed_rate WHERE period = ? ORDER BY number, class, basis"
)
FORMER_ADJUSTMENT = (
    "SELECT p.name, a.made, a.container, a.class, a.family, a.in_packets, a.in_bytes, a.out_packets, "
    "a.out_bytes, a.reason FROM adjustment a JOIN period p ON p.id = a.period WHERE a.id = ?"
)
KEY_CHANGE = "SELECT made, note FROM key_change WHERE id = ?"
ADJUSTMENT = FORMER_ADJUSTMENT.replace("a.reason", "a.reason, a.number")


def value_2(value):
    if value is None:
        return b"N"
    if isinstance(value, int):
        return b"I" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"R" + struct.pack(">d", value)
    kind, data = (b"T", value.encode()) if isinstance(value, str) else (b"B", value)
    return kind + struct.pack(">Q", len(data)) + data


def row_2(values):
    return struct.pack(">I", len(values)) + b"".join(value_2(value) for value in values)


def hash_2(db, seq, kind, subject, previous):
    sections = {
        "period": [("period", PERIOD), ("closed_row", CLOSED_ROW), ("closed_rate", CLOSED_RATE)],
        "adjustment": [("adjustment", ADJUSTMENT)],
        "key": [("key_change", KEY_CHANGE)],
    }[kind]
    data = row_2(["trafctl chain", 2, seq, previous, kind])
    for table, sql in sections:
        for row in db.execute(sql, [subject]):
            data += row_2([table, *row])
    return hashlib.sha256(data).hexdigest()


def value_1(value):
    """Rust's Debug notation, for text of printable characters."""
    if not isinstance(value, str):
        return str(value)
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}
    text = "".join(
        escapes.get(c) or (c if c.isprintable() else "\\u{%x}" % ord(c)) for c in value
    )
    return f'"{text}"'


def hash_1(db, kind, subject, previous, former):
    statements = [PERIOD, CLOSED_ROW] if kind == "period" else [FORMER_ADJUSTMENT if former else ADJUSTMENT]
    data = f"trafctl-ledger-1\t{previous or '-'}\t{kind}\n"
    for sql in statements:
        for row in db.execute(sql, [subject]):
            data += "\t".join(value_1(value) for value in row) + "\n"
    return hashlib.sha256(data.encode()).hexdigest()


def version(db, seq, kind, subject, previous, stored):
    if hash_2(db, seq, kind, subject, previous) == stored:
        return 2
    if kind != "key" and stored in [hash_1(db, kind, subject, previous, former) for former in (False, True)]:
        return 1
    return None


def main(path):
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    problems, previous, latest, expected = 0, None, 1, 1
    tables = {"period": "period", "adjustment": "adjustment", "key": "key_change"}
    chained = {kind: [] for kind in tables}
    for seq, kind, subject, stored in db.execute("SELECT seq, kind, subject, hash FROM chain ORDER BY seq"):
        found = version(db, seq, kind, subject, previous, stored)
        right = found is not None and found >= latest and seq == expected
        print(f"{seq} {kind} {subject}: {'version %s' % found if right else 'PROBLEM'}")
        problems += not right
        previous, latest, expected = stored, max(latest, found or 1), seq + 1
        chained[kind].append(subject)
    for kind, subjects in chained.items():
        table = tables[kind]
        ids = [row[0] for row in db.execute(f"SELECT id FROM {table} ORDER BY id")]
        if sorted(subjects) != ids:
            print(f"PROBLEM: {table} has {ids}, the chain {sorted(subjects)}")
            problems += 1
    print(f"last hash: {previous}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
