"""What README and docs tell the reader to type exists, and what they show is true."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
from needs import require_module

import svirtlib
from svirtlib.cli.exitcodes import ExitCode
from svirtlib.cli.main import main
from svirtlib.cli.parser import make_parser

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
each_document = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix()
)

#: What ends one command of a line of shell.
ENDS = {"|", "||", "&&", ";", "<", ">", ">>", "2>"}


def _blocks(text, *languages):
    found = re.findall(r"^```(\w+)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for language, block in found if language in languages]


def _prose(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def _lines(text):
    """All lines of shell in a document: typed at a prompt, in scripts, and in backticks."""
    for block in _blocks(text, "console"):
        yield from (line[2:] for line in block.splitlines() if line.startswith(("$ ", "# ")))
    for block in _blocks(text, "sh"):
        yield from block.splitlines()
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", _prose(text)))


def _commands(text, program):
    """The arguments of each call of a program in a document."""
    for line in _lines(text):
        if not re.search(program, line):
            continue
        words = shlex.split(line, comments=True)
        for place, word in enumerate(words):
            if re.search(rf"(^|/){program}$", word) and (place == 0 or words[place - 1] in ENDS):
                arguments = words[place + 1 :]
                ends = [at for at, argument in enumerate(arguments) if argument in ENDS]
                yield arguments[: ends[0]] if ends else arguments


def _parsers(parser=None):
    """The program's parser, those of its verbs, and those of the verbs' own verbs."""
    parser = parser or make_parser()
    groups = [
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    ]
    inner = [choice for group in groups for choice in group.choices.values()]
    return [parser, *(found for choice in inner for found in _parsers(choice))]


def _refusal(arguments, capsys):
    try:
        make_parser().parse_args(arguments)
    except SystemExit as stop:
        return capsys.readouterr().err if stop.code else ""
    return ""


@each_document
def test_commands_parse(path, capsys):
    verbs = _parsers()[1:]
    for arguments in _commands(path.read_text(), "svirt-label"):
        # The name of the program alone, or of a verb, is no command to be typed.
        if arguments and arguments not in [verb.prog.split()[1:] for verb in verbs]:
            assert _refusal(arguments, capsys) == "", arguments


def test_commands_are_found():
    found = list(_commands((ROOT / "README.md").read_text(), "svirt-label"))
    assert ["check"] in found
    assert ["check", "--xml", "-"] in found
    assert ["explain", "s0:c77", "s0:c77,c401"] in found


@each_document
def test_options_exist(path):
    """An option that a text names alone must be one of some verb, or of the program."""
    known = {
        option
        for parser in _parsers()
        for action in parser._actions
        for option in action.option_strings
    }
    spans = re.findall(r"`(--[a-z][a-z-]*)[^`]*`", _prose(path.read_text()))
    assert set(spans) <= known


@each_document
def test_make_targets_exist(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for arguments in _commands(path.read_text(), "make"):
        assert {word for word in arguments if "=" not in word} <= targets


@each_document
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", _prose(path.read_text())):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@each_document
def test_python_is_true(path):
    """A line of Python that ends with a comment has that value."""
    for block in _blocks(path.read_text(), "python"):
        names = {}
        for line in block.splitlines():
            code, _, comment = line.partition("  # ")
            if not comment:
                exec(code, names)
                continue
            value = repr(eval(code, names))
            assert re.match(re.escape(value) + r"\b|" + re.escape(value) + "[:,]", comment)


@pytest.mark.parametrize("name", ["README.md", "docs/exit-codes.md"])
def test_exit_statuses_are_the_code_s(name):
    rows = re.findall(r"^\| (\d+) \|", (ROOT / name).read_text(), re.MULTILINE)
    statuses = [str(int(code)) for code in ExitCode]
    assert rows == statuses if name.startswith("docs") else set(rows) <= set(statuses)


def test_readme_shows_what_the_demo_says(capsys, monkeypatch):
    require_module("libvirt", package="python3-libvirt")
    monkeypatch.setenv("COLUMNS", "88")
    host = ROOT / "svirtlib" / "demo" / "host.xml"
    assert main(["check", "--exit-zero", "--connect", f"test://{host}"]) == 0
    said = capsys.readouterr().out
    (shown,) = _blocks((ROOT / "README.md").read_text(), "text")
    for part in shown.split("...\n"):
        assert part in said


def test_changelog_tells_of_this_version():
    heads = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] in ("Unreleased", svirtlib.__version__)


@pytest.mark.parametrize("path", sorted(ROOT.glob("svirtlib/**/*.py")), ids=lambda path: path.stem)
def test_messages_name_verbs_that_exist(path, capsys):
    for verb in re.findall(r"['`]svirt-label ([a-z]+(?:-[a-z]+)*)", path.read_text()):
        assert "invalid choice" not in _refusal([verb], capsys)
