"""What runs, how far and how long it will take: on a terminal redrawn in place, in a log a line for each step."""

import re
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from statistics import mean
from types import TracebackType

from tqdm import tqdm

from lib.pipeline.planning import Step
from lib.pipeline.worker import Outcome

ROWS = 8  # of the table, for steps that run
TAIL = 2_000  # bytes
PROGRESS = re.compile(rb"(\w[\w -]*): +\d+%\|[^|\r\n]*\| *(\d+/\d+)")


class Display:
    """The pipeline's table. A context: on leaving it, what was drawn in place is taken away."""

    def __init__(self, steps: list[Step], logs: Path) -> None:
        self.open = {step.name: step for step in steps}
        self.logs = logs  # where a step that runs has a file, <name>.log
        self.since: dict[str, float] = {}  # when each running step was first seen
        self.seconds: dict[str, list[float]] = defaultdict(list)  # of the steps that ended well, by notebook
        shape = "{bar:20} {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
        self.bar = tqdm(total=len(steps), bar_format=shape, disable=None)
        self.rows = [tqdm(bar_format="{desc}", leave=False, disable=None) for _ in range(min(ROWS, len(steps)))]

    def __enter__(self) -> "Display":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for bar in reversed([self.bar, *self.rows]):
            bar.close()

    def tell(self, step: Step, outcome: Outcome | None, workers: int) -> None:
        """A line for a step that has ended, or that could not be run."""
        del self.open[step.name]
        self.since.pop(step.name, None)
        self.bar.update()
        if outcome is None:
            line = f"not run {step.name}"
        else:
            if not outcome.failure:
                self.seconds[step.notebook].append(outcome.seconds)
            cost = f"({outcome.seconds:.0f} s, {outcome.peak_memory / 1e9:.1f} GB)"
            line = f"failed  {step.name}" if outcome.failure else f"done    {step.name} {cost}"
        self.bar.write(f"{line}; {self.bar.total - len(self.open)} of {self.bar.total}{self.time_left(workers)}")

    def redraw(self, workers: int) -> None:
        """The rows anew: each running step, how long it has run and how far it says that it is."""
        running = [name for name in self.open if (self.logs / f"{name}.log").exists()]
        self.since = {name: self.since.get(name, time.monotonic()) for name in running}
        self.bar.set_postfix_str(f"{workers} workers{self.time_left(workers)}")
        shown = [f"{name}  {tqdm.format_interval(now_since(self.since[name]))}  {self.told(name)}" for name in running]
        for row, text in zip(self.rows, shown + [""] * len(self.rows), strict=False):
            row.set_description_str(text)

    def told(self, name: str) -> str:
        """How far a notebook is: the last of the progress bars in what it has written."""
        with suppress(FileNotFoundError), (self.logs / f"{name}.log").open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - TAIL))
            if bars := PROGRESS.findall(log.read()):
                return b" ".join(bars[-1]).decode()
        return ""

    def time_left(self, workers: int) -> str:
        """An estimate from the mean time of the ended steps of the same notebook; it says how many steps have none."""
        known = [step for step in self.open.values() if self.seconds[step.notebook]]
        if not known:
            return ""
        left = [
            max(0, mean(self.seconds[step.notebook]) - now_since(self.since.get(step.name, time.monotonic())))
            for step in known
        ]
        seconds = max(max(left), sum(left) / max(1, workers))
        part = f" for {len(known)} of the {len(self.open)} left" if len(known) < len(self.open) else ""
        return f", about {tqdm.format_interval(round(seconds))} more{part}"


def now_since(moment: float) -> float:
    return time.monotonic() - moment
