"""Give each reader of what comes from outside thousands of damaged inputs: ``python tests/fuzz.py [READER…]``.

An input is a file of the small world that was changed: bits flipped, parts cut, put in or swapped, numbers replaced by
extremes. Right is a value, or one of the documented errors in a line that names the file. All else is a finding: other
errors, the end of the process, seconds without an answer, a value that cannot be. An input follows from its reader and
seed alone: ``python tests/fuzz.py wav --seed 17 --inputs 1`` makes that one again.
"""

import argparse
import multiprocessing
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from fuzz_readers import READERS, Reader, World, make
from mutations import rewritten

SECONDS = 10  # without an answer: the reader hangs
MEMORY = 24 * 2**30  # bytes of address space: an input that makes a reader ask for more is a bomb
REFUSALS = (ValueError, OSError, FloatingPointError)


class Sound:
    """A world as it was made, which is put back after each input."""

    def __init__(self, world: World):
        self.world, self.content = world, {path: path.read_bytes() for path in world.rglob("*") if path.is_file()}
        self.states = {path: self.state(path) for path in self.content}

    def state(self, path: Path) -> tuple[int, int]:
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns

    def restore(self) -> None:
        for path in [path for path in self.world.rglob("*") if path.is_file() or path.is_symlink()]:
            if path not in self.content:
                path.unlink()
        for path, content in self.content.items():
            if not path.is_file() or self.state(path) != self.states[path]:
                if path.is_dir():
                    shutil.rmtree(path)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                os.utime(path, ns=(self.states[path][1],) * 2)


def attempt(name: str, reader: Reader, sound: Sound, valid: Any, seed: int) -> str:
    """Read one damaged input: "accepted", "refused", or what is wrong."""
    chance = random.Random(f"{name} {seed}")
    files = sorted(
        path for path in sound.content if any(path.relative_to(sound.world).match(of) for of in reader.files)
    )
    path = chance.choice(files)
    try:
        (reader.change or rewritten)(path, chance)
        value = reader.read(sound.world)
        return "accepted" if reader.right(value, valid) else "a value that cannot be"
    except REFUSALS as error:
        said = str(error)
        if "\n" in said or (reader.named and path.name not in said and str(sound.world) not in said):
            return f"{type(error).__name__} that names no file, or in several lines: {said[:200]!r}{origin(error)}"
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]!r}{origin(error)}"
    finally:
        sound.restore()


def origin(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/lib/" in frame.filename]
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f" from {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def attempts(name: str, reader: Reader, source: World, seeds: range, progress: Any, told: Any) -> None:
    """In a process of its own, which may end of it: read the inputs of these seeds."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, open(os.devnull, "w") as nowhere:
        world = shutil.copytree(source, Path(folder, "world"), symlinks=True)
        sound = Sound(world)
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            valid = reader.read(world)
            sound.restore()
            for seed in seeds:
                progress[0], progress[1] = seed, time.monotonic()
                outcome = attempt(name, reader, sound, valid, seed)
                told.send((seed, outcome))
    told.send(None)


def outcomes(name: str, reader: Reader, world: World, seeds: range) -> Iterator[tuple[int, str]]:
    """What became of each input, also of those that end a process or keep it."""
    context, first = multiprocessing.get_context("fork"), seeds.start
    while first < seeds.stop:
        heard, told = context.Pipe(duplex=False)
        progress = context.Array("d", [first, time.monotonic() + 60])  # as long may it take to begin
        arguments = name, reader, world, range(first, seeds.stop), progress, told
        process = context.Process(target=attempts, args=arguments)
        process.start()
        told.close()
        last, wrong = first - 1, ""
        try:
            while True:
                if heard.poll(1):
                    if (said := heard.recv()) is None:
                        break
                    last = said[0]
                    yield said
                elif time.monotonic() - progress[1] > SECONDS:
                    wrong = f"no answer in {SECONDS} seconds"
                    process.kill()
                    break
        except EOFError:
            pass
        process.join()
        if not wrong and process.exitcode:
            wrong = f"the process ends with {process.exitcode}"
        if wrong:
            yield last + 1, wrong
        first = last + 2 if wrong else seeds.stop


def fuzz(name: str, reader: Reader, source: World, seeds: range) -> int:
    """Print how many inputs were accepted and refused, and each kind of finding with its first seed; their number."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for needed in reader.folders:
            shutil.copytree(source / needed, Path(folder, needed))
        counts, first = Counter(), {}
        began = time.monotonic()
        for seed, outcome in outcomes(name, reader, Path(folder), seeds):
            kind = re.sub(r"'.*'|\".*\"", "…", outcome)
            counts[kind] += 1
            first.setdefault(kind, (seed, outcome))
    accepted, refused = counts.pop("accepted", 0), counts.pop("refused", 0)
    seconds = time.monotonic() - began
    print(f"{name}: {len(seeds):,} inputs, {refused:,} refused, {accepted:,} accepted, {sum(counts.values())} findings "
          f"({seconds:.0f} s)", flush=True)  # fmt: skip
    for kind, count in counts.most_common():
        print(f"    {count} times, first with seed {first[kind][0]}: {first[kind][1]}", flush=True)
    return sum(counts.values())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python tests/fuzz.py", description="Give readers damaged inputs.")
    parser.add_argument("readers", nargs="*", choices=[*READERS, []], help=f"of {', '.join(READERS)}; without, all")
    parser.add_argument("--inputs", type=int, default=10_000, help="for each reader")
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        with redirect_stderr(open(os.devnull, "w")):
            make(Path(folder))
        seeds = range(options.seed, options.seed + options.inputs)
        found = sum(fuzz(name, READERS[name], Path(folder), seeds) for name in options.readers or READERS)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
