"""Readers against damaged real files, for as long as you like: nothing may crash, hang or lose count.

python benchmarks/fuzz.py FOLDER [--minutes 5] [--seed 1] [--keep FOLDER] [--json]

Takes a piece of a file below FOLDER (any format), damages it (cut, glued, NUL-filled, flipped, nested, wrong
types, huge numbers, lines of other files), and reads it with the reader of its format, and now and then with
that of another; every fourth piece goes the whole way into a shard. A case fails when it raises, when records in are
not records kept and dropped, when what it gives cannot be written, or when it takes longer than 20 s.
Failing inputs are kept in --keep, named by format and number. The seed makes a run repeatable.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from gtft.corpus import jsonl
from gtft.corpus.claims import Claims
from gtft.corpus.files import InputFile
from gtft.corpus.reading import Setup, Unit, prepare
from gtft.corpus.redaction.redactor import RedactionConfig
from gtft.corpus.segment import Limits
from gtft.corpus.sources import FORMATS
from gtft.corpus.sources.sniff import sniff
from gtft.corpus.tally import Tally
from source_case import read_settled

PIECE = 200_000
SLOW_S = 20
NOISE = (
    b"\x00", b"\x00" * 4096, b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"}", b"}{", b"\n", b"[" * 70, b"[" * 20_000,
    b'{"type":' * 2000, b"9" * 5000, b"1e999", b"-Infinity", b"NaN", b"\\ud800", b'"', b"\\", b"null", b"\r\n",
    b'"\xe2\x80\xa8"', b"\x1b[31m", b" " * 5000, b"a" * 9000,
)  # fmt: skip
VALUES = (
    b"null", b"true", b"-1", b"0.5", b"1e400", b"9" * 5000, b'""', b'"\\ud83d"', b"[]", b"{}", b"[[1],{}]",
    b'{"a":{"b":[1]}}', b"[" * 200 + b"]" * 200, b'["x",7,null]', b'"' + b"x" * 9000 + b'"',
)  # fmt: skip
_VALUE = re.compile(rb'(?<=":)\s*(?:"(?:[^"\\]|\\.){0,200}"|-?[\d.]{1,20}|true|false|null)')


class TooSlow(Exception):
    """A case that took longer than `SLOW_S`."""


def damage(data: bytes, others: bytes, dice: random.Random) -> bytes:
    """The piece with one to eight things done to it."""
    for _ in range(dice.randint(1, 8)):
        at = dice.randrange(len(data) + 1)
        line = data.rfind(b"\n", 0, at) + 1
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        match dice.randrange(9):
            case 0:
                data = data[:at] + data[at + dice.randint(1, 300) :]
            case 1:
                data = data[:at] + dice.choice(NOISE) + data[at:]
            case 2:
                flipped = bytearray(data)
                for _ in range(dice.randint(1, 20)):
                    if flipped:
                        flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
                data = bytes(flipped)
            case 3:
                data = data[:end] + data[end + 1 :]
            case 4:
                data = data[:end] + b"\n" + data[line:end] + data[end:]
            case 5 | 6:
                found = list(_VALUE.finditer(data, line, min(end, line + 20_000)))
                for m in reversed(dice.sample(found, min(len(found), dice.randint(1, 4)))):
                    data = data[: m.start()] + dice.choice(VALUES) + data[m.end() :]
            case 7:
                start = others.find(b"\n", dice.randrange(len(others))) + 1
                stop = others.find(b"\n", start) + 1
                data = data[:line] + others[start:stop] + data[line:]
            case 8:
                data = data[: dice.choice((at, end))]
    return data


def read_piece(
    data: bytes, kind: str, folder: Path, harvest: Callable[[Unit], object] | None
) -> Counter[str]:
    """What was wrong in it, by reason. Raises whatever a reader raises, and AssertionError."""
    path = folder / "piece"
    path.write_bytes(data)
    file = InputFile(path, path.name)
    tally = Tally()
    sniff(file)
    fmt = FORMATS[kind]
    for talk in (
        read_settled(fmt.read, [file], tally) if fmt.alone else fmt.read([file], tally, Claims())
    ):
        msgspec.json.encode(talk)
    msgspec.json.encode(tally.as_dict())
    came, went = tally.total("records"), tally.total("kept") + tally.total("dropped")
    if harvest is not None:
        harvest(Unit(0, 0, kind, (file,), folder / "shard"))
    assert came == went, f"{came} records came in, {went} are accounted for"
    return tally.tables.get("bad", Counter())


def _ring(signum: int, frame: FrameType | None) -> None:
    raise TooSlow(f"longer than {SLOW_S} s")


def load_pieces(folder: Path) -> dict[str, list[bytes]]:
    """The files below ``folder`` by format."""
    found: dict[str, list[bytes]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        kind = sniff(InputFile(path, path.name))
        if kind is not None:
            found.setdefault(kind, []).append(path.read_bytes())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", action="store_true", dest="as_json")
    args = parser.parse_args()
    dice = random.Random(args.seed)
    pieces = load_pieces(args.folder)
    if not pieces:
        raise SystemExit(f"{args.folder} holds no file of a format that gtft reads")
    signal.signal(signal.SIGALRM, _ring)
    harvest = prepare(Setup(b"k" * 32, RedactionConfig(), Limits(16_000, 2000)))
    cases: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    failures: dict[str, str] = {}
    slowest = 0.0
    kinds = sorted(pieces)
    end = time.monotonic() + args.minutes * 60
    with tempfile.TemporaryDirectory() as tmp:
        while time.monotonic() < end:
            kind = dice.choice(kinds)
            whole = dice.choice(pieces[kind])
            start = dice.randrange(max(1, len(whole) - PIECE)) if dice.random() < 0.7 else 0
            others = dice.choice(pieces[dice.choice(kinds)])[:PIECE]
            data = damage(whole[start : start + PIECE], others + b"\n", dice)
            reader = kind if dice.random() < 0.9 else dice.choice(sorted(FORMATS))
            jsonl.BLOCK = dice.choice((64, 4096, 256 * 1024))
            jsonl.LONGEST_LINE = dice.choice((3000, 1 << 24, 1 << 25))
            cases[reader] += 1
            begin = time.monotonic()
            signal.alarm(SLOW_S)
            try:
                bad += read_piece(
                    data, reader, Path(tmp), harvest if dice.random() < 0.25 else None
                )
            except Exception as e:  # noqa: BLE001 - a crash of any kind is what is looked for
                place = traceback.extract_tb(e.__traceback__)[-1]
                name = f"{reader}: {type(e).__name__}: {e} ({Path(place.filename).name}:{place.lineno})"
                if name[:200] not in failures and args.keep:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    (args.keep / f"{reader}-{sum(cases.values())}").write_bytes(data)
                failures.setdefault(name[:200], f"case {sum(cases.values())}")
            finally:
                signal.alarm(0)
            slowest = max(slowest, time.monotonic() - begin)
    report = {
        "cases": sum(cases.values()),
        "by_format": dict(sorted(cases.items())),
        "named": dict(bad.most_common()),
        "slowest_s": round(slowest, 2),
        "failures": failures,
    }
    if not args.as_json:
        for name, value in report.items():
            print(f"{name:<12} {value}")
    print(json.dumps(report))
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
