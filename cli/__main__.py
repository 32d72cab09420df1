"""Run ``svirt-label`` as ``python -m svirtlib.cli``."""

from __future__ import annotations

import sys

from svirtlib.cli.main import run

sys.exit(run())
