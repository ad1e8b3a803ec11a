"""What a result was computed with: library versions, commit, machine and time.

Records can be committed: nothing in them names the machine, its user or a place on it.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

VERSIONS = ("torch", "torchaudio", "ivon-opt", "numpy", "numba")


def here() -> dict[str, Any]:
    """The record of this moment; its commit is None where git is not installed or the code is in no repository."""
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS},
        "commit": COMMIT,
        "machine": machine(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def commit() -> str | None:
    """The commit of this code, followed by "-dirty" where files differ from it that are no results, which it writes."""
    if not shutil.which("git"):
        return None
    git = ["git", "-C", Path(__file__).parent]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    code = [*git, "diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)data/results"]
    differs = head.returncode == 0 and subprocess.run(code, capture_output=True, check=False).returncode == 1
    return head.stdout.strip() + "-dirty" * differs or None


def machine() -> dict[str, Any]:
    """System, processor, the instructions that PyTorch picks on it, cores, threads in use, and the GPU, if any."""
    return {
        "system": platform.system(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def processor() -> str:
    """The processor's name as its maker gives it where the system says it, else its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return platform.machine()


COMMIT = commit()  # of the code that was loaded: the files may change while it runs
