"""How fast ``storage verify`` compares the labels of a tree with the rules.

Usage: bench_storage_verify.py [FILES]; root only, for it sets labels. Goals, on 100,000 files
(and with an argument on as many): at least 6 times as fast as ``setfiles -n`` of this
distribution, with the start of both programs; at most twice as long as a walk in C that reads
all folders and labels and compares nothing; at most 60 MiB of memory in each process. Exit
status 1 if one is missed.

The tree is libvirt's own folder for images in an unpacked system with this host's policy. How long
setfiles takes depends on where the rule for a path stands: it asks one after the other.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from harness import Bench

from svirtlib.backends.verify import verify

FILES = 100_000
IN_A_FOLDER = 100
IMAGE = b"system_u:object_r:virt_image_t:s0\0"
MOST_MEMORY = 60
IMAGES = "var/lib/libvirt/images"
CONTEXTS = "etc/selinux/default/contexts"
SETFILES = "/usr/sbin/setfiles"


def make_tree(root: Path, count: int) -> None:
    """Make folders of images, each with the label that the rules give it."""
    shutil.copytree(Path("/") / CONTEXTS, root / CONTEXTS)
    shutil.copy("/etc/selinux/config", root / "etc/selinux/config")
    top = root / IMAGES
    top.mkdir(parents=True)
    for number in range(0, count, IN_A_FOLDER):
        folder = top / f"pool{number // 10_000:03}" / f"guest{number}"
        folder.mkdir(parents=True)
        for disk in range(min(IN_A_FOLDER, count - number)):
            path = folder / f"disk{disk:03}.qcow2"
            path.touch()
            os.setxattr(path, "security.selinux", IMAGE)
    for folders in (top, *top.glob("*"), *top.glob("*/*")):
        os.setxattr(folders, "security.selinux", IMAGE)


def memory_of(command: list[str]) -> int:
    """Return the most memory, in MiB, that any process of a command had."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
        "stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *command], check=True, capture_output=True, text=True
    )
    return int(done.stdout) // 1024


def main() -> int:
    """Run the bench and return its exit status."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else FILES
    if os.geteuid() != 0 or not Path("/", CONTEXTS).is_dir():
        print("needs root, and the package selinux-policy-default")
        return 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        root = folder / "root"
        walk = folder / "walk_labels"
        source = Path(__file__).with_name("walk_labels.c")
        subprocess.run(["cc", "-O2", "-o", walk, source], check=True)
        make_tree(root, count)
        rules = str(root / CONTEXTS / "files" / "file_contexts")
        program = str(Path(sys.executable).with_name("svirt-label"))
        ours = [program, "storage", "verify", "--root", str(root), f"/{IMAGES}"]
        run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
        in_c = {"walk in C": partial(run, [walk, root / IMAGES])}
        setfiles = [SETFILES, "-n", "-m", "-r", str(root), rules, str(root / IMAGES)]
        bench = Bench(f"Compare the labels of {count:,} files", rounds=5 if count <= FILES else 3)
        peers = {"setfiles -n": partial(run, setfiles), **in_c}
        bench.compare("the program", partial(run, ours), peers, goal=6)
        jobs = len(os.sched_getaffinity(0))
        for number in sorted({1, jobs}, reverse=True):
            compare = partial(verify, [os.fsencode(f"/{IMAGES}")], root=str(root), jobs=number)
            result = compare()
            assert (result.right, result.drift_count) == (result.checked, 0)
            goal = 0.5 if number == jobs else None
            bench.compare(f"in a program, {number} processes", compare, in_c, goal=goal)
        memory = memory_of(ours)
        print(f"memory of the largest process: {memory} MiB, goal <= {MOST_MEMORY}")
        return bench.finish() or int(memory > MOST_MEMORY)


if __name__ == "__main__":
    sys.exit(main())
