"""The Debian package in a root that has nothing else, and the RPM from the source distribution."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from needs import require, require_program
from xmlmaker import guest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
UNITS = {path.name for path in (ROOT / "packaging" / "systemd").iterdir()}

#: What is done in the clean root, as a user would: each line prints what the test looks for.
_TRY = """
set -e
svirt-label --version
svirt-label check --format json --xml /tmp/guests >/tmp/report.json || echo "check: $?"
svirt-label export --xml /tmp/guests --output /tmp/snapshot.json
svirt-label check --format json --snapshot /tmp/snapshot.json >/tmp/again.json || :
cmp /tmp/report.json /tmp/again.json && echo "snapshot: same"
svirt-label hook install --apply >/dev/null
hook=/etc/libvirt/hooks/qemu.d/50-svirt-label
$hook a start begin - </tmp/guests/a.xml && echo "hook: a starts"
$hook b start begin - </tmp/guests/b.xml || echo "hook: b is stopped"
python3 -c 'import svirtlib; print("library:", svirtlib.Level.parse("s0:c2,c1"))'
bash -c '. /usr/share/bash-completion/completions/svirt-label
    words=($(complete -p svirt-label)); function=${words[${#words[@]} - 2]}
    COMP_WORDS=(svirt-label val); COMP_CWORD=1; $function
    echo "completion: ${COMPREPLY[*]}"'
dpkg --audit
dpkg --purge svirt-label >/dev/null
test ! -e /usr/lib/python3/dist-packages/svirtlib && echo "purge: clean"
$hook b reconnect begin - </tmp/guests/b.xml && echo "hook: no guest dies without the package"
"""


def _run(*command, cwd=None, **variables):
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A clean copy of the checkout."""
    require((ROOT / ".git").exists(), "not a git checkout")
    git = require_program("git", package="git")
    listed = _run(git, "ls-files", "-z", "-c", "-o", "--exclude-standard", cwd=ROOT).split("\0")
    folder = tmp_path_factory.mktemp("tree")
    for name in listed:
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def deb(tree):
    require(shutil.which("dpkg-deb"), "no dpkg-deb: not a Debian")
    _run(tree / "tools" / "deb", cwd=tree, PYTHON=sys.executable)
    (package,) = (tree / "dist").glob("*.deb")
    return package


def test_deb_brings_all_parts(deb):
    listed = _run("dpkg-deb", "--contents", deb)
    paths = {line.split()[5].lstrip(".") for line in listed.splitlines()}
    assert {
        "/usr/bin/svirt-label",
        "/usr/share/man/man1/svirt-label.1.gz",
        "/usr/share/bash-completion/completions/svirt-label",
        "/usr/share/zsh/vendor-completions/_svirt-label",
        "/usr/share/fish/vendor_completions.d/svirt-label.fish",
        "/usr/share/doc/svirt-label/html/index.html",
        "/usr/share/doc/svirt-label/html/rules/label-collision.html",
        "/usr/lib/python3/dist-packages/svirtlib/cli/main.py",
        "/usr/lib/python3/dist-packages/svirtlib/py.typed",
        *(f"/lib/systemd/system/{unit}" for unit in UNITS),
    } <= paths
    assert not [path for path in paths if "__pycache__" in path or "/tests/" in path]
    assert all(line.split()[1] == "root/root" for line in listed.splitlines())


def test_fish_completes(deb, tmp_path):
    fish = require_program("fish", package="fish")
    _run("dpkg-deb", "--extract", deb, tmp_path)
    file = tmp_path / "usr/share/fish/vendor_completions.d/svirt-label.fish"
    asked = ("svirt-label storage ver", "svirt-label --for")
    words = "; ".join(["source $argv[1]", *(f"complete -C '{line}'" for line in asked)])
    told = _run(fish, "--no-config", "-c", words, file, HOME=str(tmp_path))
    assert [line.partition("\t")[0] for line in told.splitlines()] == ["verify", "--format"]


@pytest.mark.root
def test_deb_in_a_clean_root(deb, tmp_path):
    mmdebstrap = require_program("mmdebstrap", package="mmdebstrap")
    require(Path("/etc/os-release").exists(), "no /etc/os-release")
    facts = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().split("\n")
        if "=" in line
    )
    require(facts.get("ID") == "debian", "the root is made from this Debian's own sources")
    sources = [*Path("/etc/apt/sources.list.d").glob("*.sources"), Path("/etc/apt/sources.list")]
    guests = tmp_path / "guests"
    guests.mkdir()
    for name in "ab":
        (guests / f"{name}.xml").write_text(guest(name, "s0:c1,c2", how="static"))
    script = tmp_path / "try.sh"
    script.write_text(_TRY)
    options = [f"--aptopt={path}" for path in sorted(Path("/etc/apt/apt.conf.d").glob("99*"))]
    hooks = [
        f"copy-in {deb} {guests} {script} /tmp",
        'chroot "$1" apt-get install -q -y --no-install-recommends /tmp/' + deb.name,
        # The root is made without /proc, which the hook looks at.
        'mount -t proc proc "$1/proc"',
        'chroot "$1" sh /tmp/try.sh >"$1/tmp/outcome" 2>&1 || :',
        'umount "$1/proc"',
        f"copy-out /tmp/outcome {tmp_path}",
    ]
    _run(
        *(mmdebstrap, "--quiet", "--mode=root", "--variant=minbase", *options),
        *(f"--customize-hook={hook}" for hook in hooks),
        *(facts["VERSION_CODENAME"], "/dev/null"),
        *(str(path) for path in sources if path.is_file()),
    )
    outcome = (tmp_path / "outcome").read_text()
    for expected in (
        "svirt-label 0.",
        "check: 1",
        "snapshot: same",
        "hook: a starts",
        "label-collision",
        "hook: b is stopped",
        "library: s0:c1,c2",
        "completion: validate",
        "purge: clean",
        "hook: no guest dies without the package",
    ):
        assert expected in outcome, outcome
    assert "Traceback" not in outcome


def test_rpm_is_built_from_the_source_distribution(tree):
    require_program("rpmbuild", package="rpm")
    _run(tree / "tools" / "rpm", cwd=tree, PYTHON=sys.executable)
    (package,) = (tree / "dist").glob("*.rpm")
    paths = set(_run("rpm", "-qlp", package).split("\n"))
    assert {
        "/usr/bin/svirt-label",
        "/usr/share/man/man1/svirt-label.1",
        "/usr/share/bash-completion/completions/svirt-label",
        "/usr/share/zsh/site-functions/_svirt-label",
        "/usr/share/fish/vendor_completions.d/svirt-label.fish",
        *(f"/usr/lib/systemd/system/{unit}" for unit in UNITS),
    } <= paths
    assert any(path.endswith("/site-packages/svirtlib/cli/main.py") for path in paths)
    assert any(path.endswith("/html/index.html") for path in paths)


def test_rpmlint_accepts_the_spec():
    rpmlint = require_program("rpmlint", package="rpmlint")
    _run(rpmlint, ROOT / "packaging" / "svirt-label.spec")


def test_the_man_page_has_every_verb_and_option(tree):
    from svirtlib.cli.parser import FORMATS, make_parser

    _run(tree / "tools" / "docs", "man", cwd=tree, PYTHON=sys.executable)
    page = (tree / "build/docs/man/svirt-label.1").read_text().replace("\\-", "-")
    assert make_parser().prog in page
    for verb in FORMATS:
        assert verb in page
    for option in ("--fail-on", "--sosreport", "--time-limit", "--baselabel"):
        assert option in page
