"""Writes token files in Megatron's format from its description, with Python's struct alone.

python3 test/oracles/megatron-pair.py fixtures/megatron
"""
import json
import struct
import sys

# Code of the format, letter of struct, largest token.
TYPES = {
    "uint8": (1, "B", 255),
    "int8": (2, "b", 127),
    "int16": (3, "h", 2**15 - 1),
    "int32": (4, "i", 151935),
    "int64": (5, "q", 151935),
    "uint16": (8, "H", 65535),
    # No tokens, to be refused.
    "float64": (6, "d", 100),
    "float32": (7, "f", 100),
}


def write(prefix, dtype, documents):
    code, letter, _ = TYPES[dtype]
    lengths, pointers, ends, data = [], [], [0], b""
    for sequences in documents:
        for tokens in sequences:
            pointers.append(len(data))
            lengths.append(len(tokens))
            data += struct.pack(f"<{len(tokens)}{letter}", *tokens)
        ends.append(len(lengths))
    with open(prefix + ".bin", "wb") as out:
        out.write(data)
    with open(prefix + ".idx", "wb") as out:
        out.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(lengths), len(ends)))
        out.write(struct.pack(f"<{len(lengths)}i", *lengths))
        out.write(struct.pack(f"<{len(pointers)}q", *pointers))
        out.write(struct.pack(f"<{len(ends)}q", *ends))


def documents(largest, sequences_of):
    state, made = 1, []
    for d in range(12):
        sequences = []
        for _ in range(sequences_of(d)):
            tokens = []
            for _ in range((5 * d + 3 * len(sequences)) % 17):
                state = (state * 1103515245 + 12345) % 2**31
                tokens.append(state // 7 % (largest + 1))
            sequences.append(tokens)
        made.append(sequences)
    made[1][0][0] = largest
    return made


if __name__ == "__main__":
    folder = sys.argv[1]
    written = {}
    for dtype, (_, _, largest) in TYPES.items():
        written[dtype] = documents(largest, lambda d: 1)
        write(f"{folder}/{dtype}", dtype, written[dtype])
    # Several sequences a document, none in some.
    written["several"] = documents(151935, lambda d: (d + 1) % 4 if d != 1 else 3)
    write(f"{folder}/several", "int32", written["several"])
    with open(f"{folder}/documents.json", "w") as out:
        out.write(json.dumps(written, separators=(",", ":")) + "\n")
