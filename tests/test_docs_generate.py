"""The examples of docs/generate.md give what they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from needs import require, require_program

from svirtlib.backends import host
from svirtlib.generate import DEFAULT_CONTEXTS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "generate.md"


def _examples():
    """Commands with what they print."""
    text = DOCUMENT.read_text()
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = example.partition("\n")
            yield pytest.param(command, shown, id=command)


@pytest.mark.parametrize(("command", "shown"), list(_examples()))
def test_example(command, shown):
    contexts = host.read_contexts()
    require(
        (contexts.kvm, contexts.image) == (DEFAULT_CONTEXTS.kvm, DEFAULT_CONTEXTS.image),
        "this machine has contexts of its own",
    )
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [require_program("bash", package="bash"), "-c", command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    printed = done.stdout
    if "auto" in command:
        printed, shown = (re.sub(r"s0:c\d+,c\d+", "LEVEL", text) for text in (printed, shown))
    assert printed == shown


def test_there_are_examples():
    assert len(list(_examples())) > 10
