"""Damage, as disks, transfers, editors, users and enemies do it; it follows from a generator's state alone."""

import random
import re
from pathlib import Path

EXTREMES = ["-1", "0", "1e999", "nan", "1e-320", "-0.0", "9" * 30, "2147483648", "", "null", "true", "[]", "{}", "'"]
NUMBER = re.compile(rb"-?\d+(\.\d+)?(e-?\d+)?")


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Damage some bytes one to four times."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        first, last = sorted(chance.randrange(len(content) + 1) for _ in range(2))
        near = min(last, first + chance.choice((1, 2, 4, 8, 64, 1_024)))
        kind = chance.randrange(8)
        if kind == 0 and content:
            place = chance.randrange(len(content))
            content = content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
        elif kind == 1:
            content = content[: chance.choice((first, len(content) - min(first, 8)))]
        elif kind == 2:
            content = content[:first] + content[near:]
        elif kind == 3:
            content = content[:first] + chance.randbytes(near - first) + content[first:]
        elif kind == 4:
            content = content[:first] + content[first:near] * chance.choice((2, 3, 200)) + content[near:]
        elif kind == 5:
            content = content[last:] + content[first:last] + content[:first]
        elif kind == 6:
            extreme = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * (near - first)
            content = content[:first] + extreme + content[near:]
        elif numbers := list(NUMBER.finditer(content)):
            start, end = chance.choice(numbers).span()
            content = content[:start] + chance.choice(EXTREMES).encode() + content[end:]
    return content


def rewritten(path: Path, chance: random.Random) -> None:
    path.write_bytes(mutated(path.read_bytes(), chance))


def renamed(name: str, chance: random.Random) -> str:
    """A name that is nearly right, or not at all."""
    stem, _, ending = name.rpartition(".")
    odd = (
        *(
            name.upper(),
            f"{stem}.{ending.upper()}",
            f"{stem} (1).{ending}",
            f"{stem}.flac",
            stem,
            f"{name}.bak",
            f"{name} ",
        ),
        *(f"._{name}", name.replace("_", "-"), name.replace("0", "٣"), name.replace("0", "-1"), f"{stem}.{ending}~"),
    )
    if chance.random() < 0.5:
        return chance.choice(odd)
    content = mutated(name.encode(), chance).replace(b"\0", b"").replace(b"/", b"")[:200]
    return content.decode("utf-8", errors="surrogateescape") or "x"
