#!/usr/bin/env python3
"""Verifies a statement of trafctl: verify_statement.py FILE KEY

It needs nothing of trafctl: only Python's `cryptography` (Debian: python3-cryptography). docs/statement.md describes
what it computes. KEY is the issuer's public key as text. Exit status 1 with the reason if anything is wrong.
"""
import base64
import hashlib
import json
import re
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def refuse(why):
    sys.exit(f"not valid: {why}")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def from_base64(text):
    raw = base64.b64decode(text, validate=True)
    # One value has one text.
    if base64.b64encode(raw).decode() != text:
        refuse("a part is not base64")
    return raw


def amount(text):
    if not re.fullmatch(r"0|-?[1-9][0-9]{0,37}", text):
        refuse(f"{text!r} is no amount")
    return int(text)


def public_key(text):
    name, identifier, key = text.strip().split("+", 2)
    raw = from_base64(key)
    if raw[:1] != b"\x01" or len(raw) != 33:
        refuse("the key is not one of Ed25519")
    if sha256(name.encode(), b"\n", raw)[:4].hex() != identifier:
        refuse("the id of the key is not that of its name and bytes")
    return name, bytes.fromhex(identifier), Ed25519PublicKey.from_public_bytes(raw[1:])


def open_note(note, key):
    """The text of a signed note."""
    name, identifier, verifier = key
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        refuse("it is no signed note")
    dash, signer, signature = signatures.removesuffix("\n").split(" ")
    raw = from_base64(signature)
    if (dash, signer, raw[:4]) != ("\u2014", name, identifier):
        refuse("it has not exactly one signature, by the key")
    try:
        verifier.verify(raw[4:], (text + "\n").encode())
    except InvalidSignature:
        refuse("the signature is not that of the key")
    return text + "\n"


def canonical(value):
    """RFC 8785, for documents whose only numbers are small integers."""
    if isinstance(value, float) or isinstance(value, int) and abs(value) >= 1 << 53:
        refuse("a number is no small integer")
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be"))
        return "{" + ",".join(canonical(name) + ":" + canonical(member) for name, member in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def root_of_path(leaf, index, size, path):
    """RFC 9162, section 2.1.3.2."""
    if not 0 <= index < size:
        refuse("a place is outside its tree")
    last, node = size - 1, leaf
    for beside in path:
        if last == 0:
            refuse("a path is too long")
        if index & 1 or index == last:
            node = sha256(b"\x01", beside, node)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            node = sha256(b"\x01", node, beside)
        index, last = index >> 1, last >> 1
    if last:
        refuse("a path is too short")
    return node


def check(part, period, number, kinds, size, root):
    """That the log has a record."""
    record, entry, proof = part["record"], part["entry"], part["proof"]
    if (record["kind"], entry["kind"]) != kinds:
        refuse("a record is of another kind than its place")
    if (record["period"], entry["period"], record["number"]) != (period, period, number):
        refuse("a record is of another month or container")
    path = [bytes.fromhex(text) for text in proof["path"]]
    if len(proof["salt"]) != 64:
        refuse("a salt has not 32 bytes")
    leaf = sha256(b"\x00", bytes.fromhex(proof["salt"]), canonical(record).encode())
    if root_of_path(leaf, proof["index"], entry["records"], path).hex() != entry["root"]:
        refuse(f"a record is not in entry {entry['entry']} of the log")
    path = [bytes.fromhex(text) for text in proof["log"]]
    leaf = sha256(b"\x00", canonical(entry).encode())
    if root_of_path(leaf, entry["entry"] - 1, size, path) != root:
        refuse(f"entry {entry['entry']} is not in the log that was signed")
    return entry["entry"]


AMOUNTS = ("in_packets", "in_bytes", "out_packets", "out_bytes")


def main(file, key_text):
    with open(file, encoding="utf-8", newline="") as opened:
        note = opened.read()
    key = public_key(key_text)
    line = open_note(note, key).removesuffix("\n")
    document = json.loads(line)
    if canonical(document) != line:
        refuse("its text is not canonical")
    if document["format"] != "trafctl-statement/1" or document["issuer"] != key_text.strip():
        refuse("it has another format, or names another key")
    if document.get("faults") == []:
        refuse("its faults are an empty list")
    origin, size, root, *rest = open_note(document["checkpoint"], key).split("\n")
    if origin != key[0] or rest != [""]:
        refuse("the checkpoint is of another log")
    size, root = int(size), from_base64(root)

    period, figures = document["period"]["name"], document["figures"]
    number = figures["record"]["number"]
    last = check(figures, period, number, ("figures", "period"), size, root)
    sums = {}
    for row in figures["record"]["rows"]:
        sums.setdefault(row["class"], [0] * 4)
        sums[row["class"]] = [sum + amount(row[name]) for sum, name in zip(sums[row["class"]], AMOUNTS)]
    for part in document["corrections"]:
        entry = check(part, period, number, ("correction", "correction"), size, root)
        if entry <= last:
            refuse("the corrections are not in the order of the log")
        last, row = entry, part["record"]
        before = sums.get(row["class"], [0] * 4)
        sums[row["class"]] = [sum + amount(row[name]) for sum, name in zip(before, AMOUNTS)]
    stated = {sum["class"]: [amount(sum[name]) for name in AMOUNTS] for sum in document["sums"]}
    if stated != sums or [sum["class"] for sum in document["sums"]] != sorted(sums):
        refuse("its sums are not those of its rows and corrections")
    for number, amounts in sorted(sums.items()):
        print(f"class {number}:", ", ".join(f"{name} {amount}" for name, amount in zip(AMOUNTS, amounts)))
    print(f"valid: {ascii(figures['record']['container'])}, {period}, in a log of {size}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], sys.argv[2])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        refuse(f"a part of it is missing, or in another form: {error!r}")
