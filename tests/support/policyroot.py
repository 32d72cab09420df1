"""A root folder with a real policy and its store, which a test may change.

    host = make_root(tmp_path, template)
    host.path("virtstorage/a.img").write_bytes(b"")
    host.run("storage", "apply", "/virtstorage")
    host.local_rules()

libsemanage works on it as on a host's own. The template is Debian's policy without the sources
of its modules, which changing rules does not need; the small one has few file contexts, so that
a change takes a fraction of the time.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Optional, Union

from checkrun import Outcome, run
from needs import require, require_module, require_program

__all__ = ["IMAGE", "LABEL", "Root", "label_of", "make_template", "set_label"]

LABEL = "security.selinux"

AnyPath = Union[str, bytes, Path]
IMAGE = "system_u:object_r:virt_image_t:s0"

_STORE = Path("/var/lib/selinux/default")
_POLICY = Path("/etc/selinux")
_FEW = re.compile(r"virt|^/home|^/var\(|^/dev/sd|^/tmp|^/mnt|^/srv|^/etc\(|postgres", re.MULTILINE)


def make_template(folder: Path, *, small: bool) -> Path:
    """Make a root to copy; skips where the machine has no policy, or we are not root."""
    require(os.geteuid() == 0, "needs root")
    require_module("semanage", "python3-semanage")
    require_program("setfiles", "policycoreutils")
    require((_STORE / "active" / "policy.kern").exists(), "no policy store: selinux-policy-default")
    root = folder / ("small" if small else "full")
    store = root / _STORE.relative_to("/")
    shutil.copytree(_POLICY, root / _POLICY.relative_to("/"), symlinks=True)
    shutil.copytree(
        _STORE, store, ignore=lambda at, names: names if at.endswith("modules/100") else ()
    )
    (root / "var/lib/selinux/final").mkdir()
    contexts = root / "etc/selinux/default/contexts/files"
    if small:
        for path in (contexts / "file_contexts", store / "active/file_contexts"):
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(line for line in lines if _FEW.search(line)))
        for path in contexts.glob("*.bin"):
            path.unlink()
    return root


class Root:
    """A root folder, and ``svirt-label`` working below it."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder / "root"
        shutil.copytree(template, self.folder, symlinks=True)
        self.journal = folder / "journal"

    def path(self, name: str) -> Path:
        """The place of an absolute path."""
        return self.folder / name.lstrip("/")

    def fill(self, *names: str) -> None:
        """Make files, and the folders that they lie in."""
        for name in names:
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            self.path(name).touch()

    def options(self, *words: object) -> list[str]:
        """The words of a command, with the options that make it work here."""
        changing = ["--journal", str(self.journal)] if "plan" not in words else []
        return [*map(str, words), "--root", str(self.folder), *changing]

    def run(self, *words: object) -> Outcome:
        """Run ``svirt-label`` below this root."""
        return run(*self.options(*words))

    def local_rules(self) -> list[str]:
        """The lines of the local rules that are in effect."""
        path = self.path("/etc/selinux/default/contexts/files/file_contexts.local")
        return _rules(path)

    def stored_rules(self) -> list[str]:
        """The same as the store has them."""
        return _rules(self.path("/var/lib/selinux/default/active/file_contexts.local"))

    def labels(self, top: str) -> dict[str, object]:
        """The labels of all files below a folder."""
        found: dict[str, object] = {}
        start = self.path(top)
        for path in [start, *sorted(start.rglob("*"))]:
            found[str(path.relative_to(self.folder))] = label_of(path)
        return found


def _rules(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = (line.split() for line in path.read_text().splitlines())
    return [" ".join(words) for words in lines if words and not words[0].startswith("#")]


def label_of(path: AnyPath) -> Optional[bytes]:
    """The label of a file as it is kept, or None."""
    try:
        return os.getxattr(path, LABEL, follow_symlinks=False)
    except OSError:
        return None


def set_label(path: AnyPath, context: str) -> None:
    """Give a file a label."""
    os.setxattr(path, LABEL, context.encode() + b"\0", follow_symlinks=False)
