"""The registry's tests once more, with the SQLAlchemy 1.4 and the psycopg2 of Debian 12.

The virtual environment has newer ones, which hide those; here they come first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEBIANS = Path("/usr/lib/python3/dist-packages")
#: Debian's package of each library.
PACKAGES = {"sqlalchemy": "python3-sqlalchemy", "psycopg2": "python3-psycopg2"}
HERE = Path(__file__).parent
#: Not this file, or it would run itself for ever.
THE_OTHERS = sorted(
    str(path) for path in HERE.glob("test_*.py") if path.name != Path(__file__).name
)


@pytest.mark.slow
def test_the_registry_with_debians_libraries(require, tmp_path):
    for library, package in PACKAGES.items():
        require((DEBIANS / library).is_dir(), f"no {library} of Debian's (package {package})")
        (tmp_path / library).symlink_to(DEBIANS / library)
    search = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": search}
    asked = "import psycopg2, sqlalchemy; print(sqlalchemy.__version__)"
    version = subprocess.run(
        [sys.executable, "-c", asked], env=environment, check=True, capture_output=True, text=True
    ).stdout
    require(version.startswith("1.4."), f"Debian has SQLAlchemy {version.strip()} here")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *THE_OTHERS],
        env=environment,
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
