"""A PostgreSQL server of the tests' own: on loopback, in a temporary directory, unprivileged.

with Server(tmp_path) as server:
    store.open_registry(server.url)
    server.restart()
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Optional

from needs import require

USER = "postgres"


def _programs() -> Optional[Path]:
    """Where Debian keeps the programs of a server, which are not on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return None if initdb is None else Path(initdb).resolve().parent


class Server:
    """Runs while the context lasts."""

    def __init__(self) -> None:
        programs = _programs()
        require(programs is not None, "no PostgreSQL server (Debian package postgresql)")
        self._programs = programs or Path()
        self._user: Optional[str] = None
        if os.geteuid() == 0:
            # The server refuses to run as root.
            with contextlib.suppress(KeyError):
                self._user = pwd.getpwnam(USER).pw_name
            require(self._user, f"no user {USER} to run a server as (Debian package postgresql)")
        self._folder = Path(tempfile.mkdtemp(prefix="svirt-pg-"))
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql://{USER}@127.0.0.1:{self.port}/{USER}"

    def __enter__(self) -> Server:  # noqa: PYI034 - Self is of Python 3.11
        data = self._folder / "data"
        try:
            self._run(
                "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"
            )
            self.start()
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self._folder}"
        log = self._folder / "log"
        self._run("pg_ctl", "-D", self._folder / "data", "-w", "-l", log, "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", self._folder / "data", "-w", "-m", mode, "stop")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def _run(self, program: str, *arguments: object) -> None:
        subprocess.run(
            [str(self._programs / program), *map(str, arguments)],
            user=self._user,
            group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
            extra_groups=None if self._user is None else [],
            cwd=self._folder,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )
