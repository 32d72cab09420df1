"""What becomes of the result when it cannot be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_full_disk_under_standard_output_is_no_bug_of_ours(require) -> None:
    """Exit status 4 with a message, where Python itself would end with 120 or a traceback."""
    require(Path("/dev/full").exists(), "no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "svirtlib.cli", "explain", "s0:c1,c2"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 4
    assert done.stderr == (
        "svirt-label: error: the result cannot be written: No space left on device\n"
    )
