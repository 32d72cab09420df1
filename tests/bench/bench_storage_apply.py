"""Speed of storage apply: a full relabel beside setfiles, many rules beside one, memory.

Works below a root of its own with Debian's whole policy, which has a rule for the images; needs
root, and Debian's selinux-policy-default.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable

from harness import Bench

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

from policyroot import Root, make_template, set_label

from svirtlib.backends.rulestore import LocalRule, RuleStore

#: How many times as long setfiles takes.
GOAL = 3
#: How many times as long 50 rules may take as one.
RULES = 1.5
#: How many bytes more ten times the files may take.
GROWTH = 8 << 20

FILES = int(os.environ.get("SVIRT_BENCH_FILES", "100000"))
IMAGES = "/var/lib/libvirt/images"
IN_FOLDER = 1000


def fill(root: Root, count: int) -> str:
    """Make a folder with so many images, a thousand to a folder, and return its path."""
    top = f"{IMAGES}/{count}"
    for number in range(count):
        folder = root.path(f"{top}/pool{number // IN_FOLDER:04}")
        if number % IN_FOLDER == 0:
            folder.mkdir(parents=True)
        os.close(os.open(folder / f"image{number:07}.qcow2", os.O_CREAT | os.O_WRONLY, 0o600))
    return top


def apply(root: Root, path: str, *more: str) -> int:
    """Run ``storage apply`` and return the most memory that it took, in bytes."""
    program = Path(sys.executable).with_name("svirt-label")
    words = root.options("-q", "storage", "apply", path, *more)
    with subprocess.Popen([program, *words], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"storage apply failed with {process.returncode}")
    return usage.ru_maxrss * 1024


def unlabel(root: Root, path: str) -> None:
    """Give all files another type, so that each label has to be changed."""
    for folder, _, names in os.walk(root.path(path)):
        for name in ("", *names):
            set_label(os.path.join(folder, name), "system_u:object_r:default_t:s0")


def setfiles(root: Root, rules: Path, path: str) -> None:
    """Have setfiles label a tree by the rules of the policy alone."""
    words = ["/sbin/setfiles", "-r", str(root.folder), str(rules), str(root.path(path))]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Run all and return the exit status."""
    bench = Bench("Storage: apply", rounds=5)
    with tempfile.TemporaryDirectory(prefix="svirt-bench.") as folder:
        template = make_template(Path(folder), small=False)
        root = Root(Path(folder), template)
        rules = template / "etc/selinux/default/contexts/files/file_contexts"
        few, many = fill(root, FILES // 10), fill(root, FILES)
        bench.compare(
            f"label {FILES:,} files anew",
            lambda: apply(root, many),
            {"setfiles": lambda: setfiles(root, rules, many)},
            goal=GOAL,
            prepare=lambda: unlabel(root, many),
        )
        bench.compare(
            "the same, one process",
            lambda: apply(root, many, "--jobs", "1"),
            {"setfiles": lambda: setfiles(root, rules, many)},
            prepare=lambda: unlabel(root, many),
        )
        bench.compare(
            f"nothing to do for {FILES:,}",
            lambda: apply(root, many),
        )
        unlabel(root, few)
        unlabel(root, many)
        small, large = (apply(root, path, "--jobs", "1") for path in (few, many))
        print(
            f"memory: {small / (1 << 20):.0f} MiB for {FILES // 10:,} files, "
            f"{large / (1 << 20):.0f} MiB for {FILES:,}"
        )
        if large - small > GROWTH:
            print("memory grows: MISSED")
        store = RuleStore(str(root.folder), "default")
        bench.compare(
            "50 rules in one transaction",
            toggle(store, 50),
            {"one rule": toggle(store, 1)},
            goal=1 / RULES,
        )
    return bench.finish()


def toggle(store: RuleStore, count: int) -> Callable[[], None]:
    """Return what gives so many rules another type at each call."""
    types = ["virt_image_t", "virt_content_t"]

    def change() -> None:
        types.reverse()
        context = f"system_u:object_r:{types[0]}:s0"
        store.change([LocalRule(f"/bench{count}/{n}(/.*)?", "a", context) for n in range(count)])

    change()
    return change


if __name__ == "__main__":
    sys.exit(main())
