#!/usr/bin/env python3
"""Encodes the fields of the vectors in this folder, by docs/protocol.md and without the C code.

    vectors.py check FILE...   compares the bytes of every canonical vector with its fields
    vectors.py write FILE...   writes them anew
"""
import json
import re
import sys

TYPES = {
    "HELLO": 1, "HELLO_OK": 2, "TOKEN": 3, "PING": 5, "PONG": 6, "GOAWAY": 8, "BYE": 9, "ERROR": 10,
    "SEND": 16, "ACCEPTED": 17, "REJECTED": 18, "ENTRIES": 19, "ACK": 21, "HISTORY": 33, "PAGE": 34,
}

# name:bytes of an integer, name:hex of that many bytes, name:body of bytes after their length u16.
FIXED = {
    "HELLO": "version:2 caps:8 user:8 device:4 epoch:8 seq:8 sver:8 max_catchup:4 mode:1 window:4",
    "HELLO_OK": "caps:8 time_unix_ms:8 epoch:8 head:8 floor:8 sver:8 last_counter:8 result:1 "
                "keepalive_s:4 life_s:4 frame_bytes_max:4 body_bytes_max:4 "
                "sends_outstanding_max:2 requests_outstanding_max:2 window:4",
    "TOKEN": "life_s:4",
    "PING": "opaque:8",
    "PONG": "opaque:8",
    "GOAWAY": "why:2 wait_min_ms:4 wait_max_ms:4",
    "BYE": "",
    "ERROR": "code:2 request:4 retry_ms:4 fatal:1",
    "SEND": "counter:8 nonce:hex conversation:8 kind:1 body:body",
    "ACCEPTED": "counter:8 id:8 seq:8",
    "REJECTED": "counter:8 code:2 retry_ms:4 expected:8",
    "ENTRIES": "first:8 entries:list",
    "ACK": "seq:8 sver:8",
    "HISTORY": "request:4 conversation:8 direction:1 anchor:8 n:2 bytes:4",
    "PAGE": "request:4 conversation:8 flags:1 entries:list",
}

ENTRY = {
    1: "form:1 flags:1 kind:1 id:8 conversation:8 sender:8 device:4 prev:8 n:8 cn:8 body:body",
    2: "form:1 counter:8 id:8",
    3: "form:1 code:2 ref_seq:8 id:8 conversation:8",
}

# In the order in which an encoder of ours writes them: name, tag, is text.
TLVS = {
    "HELLO": [("token", 2, False), ("client", 1, True)],
    "HELLO_OK": [("resume_token", 2, False)],
    "TOKEN": [("token", 2, False)],
    "GOAWAY": [("alternative", 1, True)],
    "ERROR": [("text", 1, True)],
}


def encode_fields(layout, fields):
    out = b""
    for item in layout.split():
        name, form = item.split(":")
        value = fields.pop(name)
        if form == "hex":
            out += bytes.fromhex(value)
        elif form == "body":
            body = bytes.fromhex(value)
            out += len(body).to_bytes(2, "big") + body
        elif form == "list":
            out += len(value).to_bytes(2, "big") + b"".join(map(encode_entry, value))
        else:
            out += value.to_bytes(int(form), "big")
    return out


def encode_entry(fields):
    fields = dict(fields)
    out = fields.pop("seq").to_bytes(8, "big") if "seq" in fields else b""
    own = fields["form"] == 1 and fields["flags"] & 1
    out += encode_fields(ENTRY[fields["form"]], fields)
    if own:
        out += encode_fields("nonce:hex counter:8", fields)
    assert not fields, fields
    return out


def encode(frame, fields):
    fields = dict(fields)
    payload = encode_fields(FIXED[frame], fields)
    for name, tag, is_text in TLVS.get(frame, []):
        if name in fields:
            value = fields.pop(name)
            value = value.encode() if is_text else bytes.fromhex(value)
            payload += bytes([tag]) + len(value).to_bytes(2, "big") + value
    assert not fields, fields
    return len(payload).to_bytes(3, "big") + bytes([TYPES[frame]]) + payload


def lines_of(data):
    pairs = [data[at:at + 32].hex(" ") for at in range(0, len(data), 32)]
    return "bytes  " + "\n       ".join(pairs) + "\n"


BLOCK = re.compile(r"^(?:(?:vector|frame|fields|error|canonical|bytes)\b.*\n|  .*\n)+", re.M)
BYTES = re.compile(r"^bytes\b.*\n(?: .*\n)*", re.M)


def field(block, key):
    found = re.search(rf"^{key} +(.*)$", block, re.M)
    return found.group(1) if found else None


def work(path, write):
    text = open(path, encoding="utf-8").read()
    compared = wrong = 0

    def one(match):
        nonlocal compared, wrong
        block = match.group(0)
        if field(block, "fields") is None or field(block, "canonical") == "no":
            return block
        wanted = lines_of(encode(field(block, "frame"), json.loads(field(block, "fields"))))
        compared += 1
        if write:
            return BYTES.sub("", block) + wanted
        found = BYTES.search(block)
        if found is None or found.group(0) != wanted:
            wrong += 1
            print(f"{path}: {field(block, 'vector')}: the bytes should be\n{wanted}")
        return block

    text = BLOCK.sub(one, text)
    if write:
        open(path, "w", encoding="utf-8").write(text)
    print(f"{path}: {compared} encoded, {wrong} wrong")
    return wrong == 0 and compared > 0


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("check", "write"):
        sys.exit(__doc__)
    results = [work(path, sys.argv[1] == "write") for path in sys.argv[2:]]
    sys.exit(0 if all(results) else 1)
