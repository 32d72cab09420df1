"""Which policy ``/etc/selinux/config`` names: as libselinux says in a namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from needs import require, require_module, require_program

from svirtlib.selinuxconfig import policy_name

ASK = "import selinux; print(selinux.selinux_getpolicytype()[1], end='.')"
SCRIPT = 'mount --bind "$1" /etc/selinux || exit 99; shift; exec "$@"'


@pytest.mark.root
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "targeted"),
        ("# SELINUXTYPE=no\nSELINUX=enforcing\nSELINUXTYPE=mls\n", "mls"),
        ("SELINUXTYPE=one\nSELINUXTYPE=two\n", "two"),
        ("selinuxtype=low\n", "low"),
        ("\t SELINUXTYPE= spaced \n", "spaced"),
        ("SELINUXTYPE =no\n", "targeted"),
        ("SELINUXTYPE=no\nSELINUXTYPE=\n", ""),
        ("SELINUXTYPE=a # no comment", "a # no comment"),
        ("SELINUXTYPES=no\n", "targeted"),
    ],
)
def test_the_policy_that_is_named(tmp_path, text, name):
    require_module("selinux", package="python3-selinux")
    unshare = require_program("unshare", package="util-linux")
    require(os.path.isdir("/etc/selinux"), "no /etc/selinux (Debian package libsemanage-common)")
    (tmp_path / "config").write_text(text)
    private = [unshare, "--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]
    done = subprocess.run(
        [*private, str(tmp_path), sys.executable, "-c", ASK], capture_output=True, text=True
    )
    require(done.returncode != 99, "may not mount in a namespace of its own")
    assert (policy_name(text), done.stdout) == (name, f"{name}.")
