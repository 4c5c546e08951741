#!/usr/bin/env python3
"""Verifies a statement of trafctl: verify_statement.py FILE KEY [LATER] [--witness KEY]...

It needs nothing of trafctl: only Python's `cryptography` (Debian: python3-cryptography). docs/statement.md describes
what it computes. KEY is the issuer's public key as text, or one of its earlier keys. LATER is a later statement of the
same issuer, which shows whether the key was revoked. Each witness must have seen the log of FILE. Exit status 1 with the reason if anything is wrong.
"""
import base64
import hashlib
import json
import re
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


# Names of keys.
NAME = re.compile(r"[!#-%(-*,-;=?-[\]-_a-~]+")


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


def public_key(text, kind=b"\x01"):
    """A key of statements, or of another type. Witnesses have type 4."""
    name, identifier, key = text.strip().split("+", 2)
    raw = from_base64(key)
    if raw[:1] != kind or len(raw) != 33 or not NAME.fullmatch(name):
        refuse("the key is of another type, or its name is none")
    if sha256(name.encode(), b"\n", raw)[:4].hex() != identifier:
        refuse("the id of the key is not that of its name and bytes")
    return name, bytes.fromhex(identifier), Ed25519PublicKey.from_public_bytes(raw[1:])


def open_note(note, *keys):
    """The text of a note that these keys have signed, in this order, and nobody else."""
    text, separator, signatures = note.rpartition("\n\n")
    lines = signatures.removesuffix("\n").split("\n")
    if not separator or not signatures.endswith("\n") or len(lines) != len(keys):
        refuse("it is no note with the signatures that it must have")
    for line, (name, identifier, verifier) in zip(lines, keys):
        dash, signer, signature = line.split(" ")
        raw = from_base64(signature)
        if (dash, signer, raw[:4]) != ("\u2014", name, identifier):
            refuse("it is signed by another key")
        try:
            verifier.verify(raw[4:], (text + "\n").encode())
        except InvalidSignature:
            refuse("the signature is not that of the key")
    return text + "\n"


def open_checkpoint(note, key):
    """The text of a checkpoint, and its cosignatures: name, id, time in seconds since the Unix epoch, signature."""
    text, _, signatures = note.rpartition("\n\n")
    first, *others, end = signatures.split("\n")
    cosignatures = []
    for line in others:
        dash, name, signature = line.split(" ")
        raw = from_base64(signature)
        time = int.from_bytes(raw[4:12], "big")
        if dash != "\u2014" or not NAME.fullmatch(name) or len(raw) != 76 or time > 253402300799:
            refuse("a line of its checkpoint is no cosignature")
        if (name, raw[:4]) in [of[:2] for of in cosignatures]:
            refuse("a witness has cosigned its checkpoint twice")
        cosignatures.append((name, raw[:4], time, raw[12:]))
    return open_note(f"{text}\n\n{first}\n{end}", key), cosignatures


def check_witness(of, key_text):
    """That a witness has seen the log. Returns when."""
    name, identifier, verifier = public_key(key_text, b"\x04")
    for cosigner, of_key, time, signature in of["cosignatures"]:
        if (cosigner, of_key) == (name, identifier):
            try:
                verifier.verify(signature, f"cosignature/v1\ntime {time}\n{of['checkpoint']}".encode())
            except InvalidSignature:
                refuse(f"the cosignature of {name} is not that of its key")
            return time
    refuse(f"{name} has not cosigned the log")


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
    if (record.get("period"), entry.get("period"), record.get("number")) != (period, period, number):
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


TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def keys_of(document, size, root):
    """The keys before the issuer's with the entries that replaced them, and the revocations by key."""
    former, current, revoked, last = [], None, {}, 0
    for part in document.get("keys", []):
        entry = check(part, None, None, ("key", "key"), size, root)
        if entry <= last:
            refuse("the changes of its key are not in the order of the log")
        last, note = entry, part["record"]["note"]
        kind, *lines = note.rpartition("\n\n")[0].split("\n")
        if kind == "trafctl-key/1 rotation":
            old, new, made = lines
            open_note(note, public_key(old), public_key(new))
            if current not in (None, old) or new in [old, *(key for key, _ in former)]:
                refuse(f"entry {entry} replaces another key, or by one that there was")
            if old.split("+")[0] != new.split("+")[0] or not TIME.fullmatch(made):
                refuse(f"entry {entry} leads to a key of another name, or has no time")
            former.append((old, entry))
            current = new
        elif kind == "trafctl-key/1 revocation":
            key, since, made, reason = lines
            open_note(note, public_key(current))
            if key not in [key for key, _ in former] or key in revoked:
                refuse(f"entry {entry} revokes a key that was not replaced, or again")
            if not TIME.fullmatch(since) or not TIME.fullmatch(made) or not reason.strip():
                refuse(f"entry {entry} has no time or no reason")
            revoked[key] = (since, reason)
        else:
            refuse(f"entry {entry} is no change of the key")
    if "keys" in document and current != document["issuer"]:
        refuse("the changes of its key do not lead to the key that signed it")
    return former, revoked


AMOUNTS = ("in_packets", "in_bytes", "out_packets", "out_bytes")


def is_of(required, optional={}):
    """Whether a value has these members and no others, each in its form."""
    forms = required | optional
    return lambda value: isinstance(value, dict) and required.keys() <= value.keys() <= forms.keys() and all(
        forms[name](member) for name, member in value.items())


def is_list_of(form, least=0):
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(form, value))


def is_text(value):
    return isinstance(value, str)


def is_number(value, most=2**53 - 1):
    return type(value) is int and 0 <= value <= most


def is_class(value):
    return is_number(value, 255)


def is_count(value):
    return is_text(value) and re.fullmatch("0|[1-9][0-9]{0,19}", value) is not None and int(value) < 2**64


def is_signed(value):
    return is_text(value) and re.fullmatch("0|-?[1-9][0-9]{0,37}", value) is not None


def is_hash(value):
    return is_text(value) and re.fullmatch("[0-9a-f]{64}", value) is not None


def amounts(form):
    return dict.fromkeys(AMOUNTS, form)


IS_COUNTED = is_of(amounts(is_count))
OF_RECORD = {"kind": is_text, "period": is_text, "container": is_text, "number": is_number}
IS_FIGURES = is_of(OF_RECORD | {
    "rows": is_list_of(is_of(
        {"node": is_text, "class": is_class, "family": is_text, "class_table": is_text} | amounts(is_count))),
    "rates": is_list_of(is_of(
        {"basis": is_text, "in_bits": is_count, "out_bits": is_count, "total_bits": is_count}, {"class": is_class})),
})
IS_CORRECTION = is_of(
    OF_RECORD | {"made": is_text, "class": is_class, "family": is_text, "reason": is_text} | amounts(is_signed))
IS_KEY = is_of({"kind": is_text, "note": is_text})


def is_proven(is_record):
    return is_of({
        "record": is_record,
        "entry": is_of(
            {"entry": is_number, "kind": is_text, "chain": is_text, "records": is_number, "root": is_hash},
            {"period": is_text}),
        "proof": is_of(
            {"salt": is_hash, "index": is_number, "path": is_list_of(is_hash), "log": is_list_of(is_hash)}),
    })


is_statement = is_of({
    **dict.fromkeys(("format", "issuer", "trafctl", "made", "checkpoint"), is_text),
    "period": is_of({
        **dict.fromkeys(("name", "start", "end", "closed", "time_zone"), is_text), "billing_day": is_number}),
    "sums": is_list_of(is_of({"class": is_class} | amounts(is_signed), {"name": is_text})),
    "figures": is_proven(IS_FIGURES),
    "corrections": is_list_of(is_proven(IS_CORRECTION)),
    "gaps": is_list_of(is_of(
        {"end": is_text, "reason": is_text}, {"start": is_text, "interface": is_text, "missing": IS_COUNTED})),
    "days": is_list_of(is_of({"day": is_text} | amounts(is_count))),
    "class_tables": is_list_of(is_of({"hash": is_text, "loaded": is_text, "prefixes": is_number})),
}, {
    "container_now": is_text,
    "keys": is_list_of(is_proven(IS_KEY), 1),
    "faults": is_list_of(is_of({"reason": is_text} | amounts(is_count)), 1),
    "dropped": is_of({
        "recorded_from": is_text,
        "rows": is_list_of(is_of({"class": is_class, "reason": is_text} | amounts(is_count)))}),
    "calibration": is_of({
        **dict.fromkeys(("time", "class_table", "program"), is_text), "sent": IS_COUNTED, "counted": IS_COUNTED,
        "differing": is_number}),
})


def statement(file):
    """Checks a statement by the key that it names. Returns its parts, and the text of what is in it."""
    with open(file, encoding="utf-8", newline="") as opened:
        note = opened.read()
    issuer = json.loads(note.partition("\n")[0])["issuer"]
    key = public_key(issuer)
    line = open_note(note, key).removesuffix("\n")
    document = json.loads(line)
    if canonical(document) != line:
        refuse("its text is not canonical")
    if document["format"] != "trafctl-statement/1":
        refuse("it has another format")
    if not is_statement(document):
        refuse("a part of it is missing, or in another form")
    checkpoint, cosignatures = open_checkpoint(document["checkpoint"], key)
    origin, size, root, *rest = checkpoint.split("\n")
    if origin != key[0] or rest != [""] or not re.fullmatch("[1-9][0-9]*", size):
        refuse("the checkpoint is of another log")
    size, root = int(size), from_base64(root)

    former, revoked = keys_of(document, size, root)
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
    shown = ""
    for number, amounts in sorted(sums.items()):
        shown += f"class {number}: " + ", ".join(f"{name} {amount}" for name, amount in zip(AMOUNTS, amounts)) + "\n"
    shown += f"valid: {ascii(figures['record']['container'])}, {period}, in a log of {size}"
    parts = [figures, *document["corrections"], *document.get("keys", [])]
    entries = {part["entry"]["entry"]: part["entry"] for part in parts}
    return {
        "issuer": issuer, "made": document["made"], "size": size, "root": root, "former": former, "revoked": revoked,
        "entries": entries, "shown": shown, "checkpoint": checkpoint, "cosignatures": cosignatures,
    }


def check_key(of, key):
    """That the issuer has this key, or had it before."""
    public_key(key)
    if key in of["revoked"]:
        refuse("the key was revoked from {} on: {}".format(*of["revoked"][key]))
    if key not in [of["issuer"], *(former for former, _ in of["former"])]:
        refuse(f"another key signed it: {of['issuer']}")


def check_with(of, later):
    """That a later statement continues the log of this one, and no key was revoked that signed this one."""
    if later["size"] < of["size"]:
        refuse("the other statement is not the later one")
    keys = [key for key, _ in later["former"]]
    if of["issuer"] not in [*keys, later["issuer"]]:
        refuse("the later statement is of another issuer")
    place = keys.index(of["issuer"]) if of["issuer"] in keys else len(keys)
    two = "two histories were shown: "
    if of["former"] != later["former"][:place]:
        refuse(two + "the keys differ")
    if of["size"] == later["size"] and of["root"] != later["root"]:
        refuse(two + "the roots differ")
    if any(later["entries"].get(number, entry) != entry for number, entry in of["entries"].items()):
        refuse(two + "an entry differs")
    if place == len(keys):
        return
    if of["size"] >= later["former"][place][1]:
        refuse(two + "its key had been replaced")
    since, reason = later["revoked"].get(of["issuer"], (None, None))
    if since and (not TIME.fullmatch(of["made"]) or of["made"] >= since):
        refuse(f"its key was revoked from {since} on: {reason}")
    if since:
        of["shown"] += f"\nthe key was revoked from {since} on, and whoever has it can write an earlier time: {reason}"


def main(file, key, later=None, witnesses=()):
    of = statement(file)
    newest = statement(later) if later else of
    check_key(newest, key.strip())
    if later:
        check_with(of, newest)
    for witness in witnesses:
        of["shown"] += f"\ncosigned {check_witness(of, witness)}: {witness}"
    print(of["shown"])


if __name__ == "__main__":
    arguments, witnesses = sys.argv[1:], []
    while "--witness" in arguments[:-1]:
        place = arguments.index("--witness")
        witnesses.append(arguments[place + 1])
        del arguments[place : place + 2]
    if len(arguments) not in (2, 3):
        sys.exit(__doc__)
    try:
        main(*arguments, witnesses=witnesses)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        refuse(f"a part of it is missing, or in another form: {error!r}")
