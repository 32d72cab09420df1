"""Each rule has a page that is right about it; the examples in the pages are judged.

In the section "Example" of a page, blocks are marked by what follows the language:

    ```xml bad       domains of which the rule must tell
    ```xml good      domains of which no rule may tell anything
    ```xml           domains of both cases
    ```console bad   what the host holds: output of ls -Z, ps, getenforce and seinfo
    ```text          what the rule says of the bad case, message and remedy
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attr import evolve

from svirtlib.audit import ALL_RULES
from svirtlib.checks import ALL_CHECKS, Need, run_checks
from svirtlib.context import Context
from svirtlib.domainxml import parse_document
from svirtlib.guests import (
    BooleanState,
    FileLabel,
    Host,
    Inventory,
    Mode,
    PathRule,
    Process,
)
from svirtlib.policyfacts import DomainFacts, PolicyFacts

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "rules"
INDEX = FOLDER / "README.md"
#: The pages of audit's rules are held by test_audit_docs.py.
OTHERS = {rule.ident for rule in ALL_RULES}
PAGES = {
    path.stem: path
    for path in sorted(FOLDER.glob("*.md"))
    if path != INDEX and path.stem not in OTHERS
}
CHECKS = {check.ident: check for check in ALL_CHECKS}

#: The rules of the command line's agreement with its users that are there, in its order. A
#: rule keeps its name for ever; a new one is added here.
IDENTS = [
    "label-collision",
    "label-exposure",
    "image-exposure",
    "guest-unconfined",
    "guest-permissive",
    "host-not-enforcing",
    "process-label-drift",
    "image-label-drift",
    "shared-image-undeclared",
    "static-label-reuse",
    "stale-image-label",
    "relabel-off-mismatch",
    "storage-no-rule",
    "storage-boolean",
    "label-invalid",
    "label-not-canonical",
    "seclabel-rejected",
    "seclabel-ignored",
]

HEADINGS = [
    "What it means",
    "How it happens",
    "How the kernel sees it",
    "How to fix it",
    "Example",
]

NEEDS = {
    frozenset(): "the guests' XML",
    frozenset({Need.HOST}): "the host",
    frozenset({Need.FILES}): "the files",
    frozenset({Need.RULES}): "the file-context rules",
    frozenset({Need.PROCESSES}): "the processes",
    frozenset({Need.POLICY}): "a policy",
}

each_rule = pytest.mark.parametrize("ident", sorted(CHECKS))


def blocks(page, *infos):
    """The texts of the fenced blocks of an example with one of these marks."""
    example = page.split("\n## Example\n")[1]
    found = re.findall(r"^```([^\n]+)\n(.*?)^```$", example, re.MULTILINE | re.DOTALL)
    return [text for info, text in found if info in infos]


def inventory(page, case):
    """What the blocks of one case describe."""
    domains = "".join(blocks(page, "xml", f"xml {case}"))
    guests = []
    if domains:
        guests = list(parse_document(f"<node>{domains}</node>".encode(), "virsh dumpxml"))
    found = Inventory(guests=tuple(guests))
    text = "".join(blocks(page, "console", f"console {case}"))
    for console in re.findall(r"^\$ .*\n(?:(?!\$ ).*\n)*", text, re.MULTILINE):
        command, *output = console.splitlines()
        if command.startswith("$ ls -Z "):
            files = [FileLabel(path, path, context) for context, path in map(str.split, output)]
            found = evolve(found, files=(*found.files, *files), files_known=True)
        elif command.startswith("$ ps "):
            processes = {
                name: Process(pid=int(pid), context=context, source="/proc")
                for context, pid, name in (
                    re.findall(r"(\S+) +(\d+) .*guest=([^, ]+)", line)[0] for line in output
                )
            }
            guests = [evolve(guest, process=processes.pop(guest.name)) for guest in guests]
            assert not processes
            found = evolve(found, guests=tuple(guests), processes_known=True)
        elif command == "$ getenforce":
            host = Host(name="kvm1", mode=Mode(output[0].lower()))
            found = evolve(found, host=host, host_known=True)
        elif command.startswith("$ matchpathcon "):
            rules = {
                path: PathRule(context, "/.*", "file_contexts")
                for path, context in map(str.split, output)
            }
            found = evolve(
                found, files=tuple(evolve(one, rule=rules[one.path]) for one in found.files)
            )
        elif command.startswith("$ stat -f -c '%T %n' "):
            kinds_of = {path: kind for kind, path in map(str.split, output)}
            found = evolve(
                found,
                files=tuple(
                    evolve(one, filesystem=kinds_of[one.path], labelable=False)
                    for one in found.files
                ),
            )
        elif command.startswith("$ getsebool "):
            ((name, _, state),) = map(str.split, output)
            found = evolve(found, booleans=(BooleanState(name, state == "on"),))
        elif command == "$ seinfo --permissive":
            permissive = {line.strip() for line in output[1:]}
            labels = [guest.seclabel.label for guest in guests if guest.seclabel is not None]
            contexts = [Context.parse(label) for label in labels if label is not None]
            kinds = tuple(
                DomainFacts(str(one.with_range(None)), True, one.type in permissive)
                for one in contexts
            )
            found = evolve(found, policy=PolicyFacts("policy", domains=kinds))
        else:
            pytest.fail(f"cannot read the output of {command!r}")
    return found


def told(check, page):
    """What a rule says of the bad case of its page; it must say exactly one thing."""
    (finding,) = run_checks(inventory(page, "bad"), [check]).findings
    assert finding.rule == check.ident
    return f"{finding.message}\nmend: {finding.remedy}\n"


def _words(text):
    return " ".join(text.split())


def test_rules_are_those_agreed_upon():
    assert sorted(CHECKS) == sorted(IDENTS)
    assert len(CHECKS) == len(ALL_CHECKS) == len(set(IDENTS)), "identifiers are unique"
    assert [check.severity for check in ALL_CHECKS] == sorted(
        (check.severity for check in ALL_CHECKS), reverse=True
    )


def test_each_rule_has_a_page_and_each_page_a_rule():
    assert sorted(PAGES) == sorted(CHECKS)


@each_rule
def test_metadata_is_well_formed(ident):
    check = CHECKS[ident]
    assert re.fullmatch("[a-z]+(-[a-z]+)*", ident)
    assert re.fullmatch(r"\d+\.\d+", check.since)
    assert check.summary == check.summary.strip()
    assert not check.summary.endswith(".")
    assert len(check.summary) <= 95


@each_rule
def test_page_has_the_skeleton(ident):
    lines = PAGES[ident].read_text().splitlines()
    assert lines[0] == f"# {ident}"
    assert [line[3:] for line in lines if line.startswith("## ")] == HEADINGS
    assert not [line for line in lines if len(line) > 110]


@each_rule
def test_page_agrees_with_the_rule(ident):
    check = CHECKS[ident]
    _, _, summary, _, facts = PAGES[ident].read_text().splitlines()[:5]
    assert summary == check.summary
    assert facts == (
        f"**Severity:** {check.severity.label}. **Since:** {check.since}. "
        f"**Needs:** {NEEDS[check.needs]}."
    )


@each_rule
def test_rule_fires_on_the_bad_example(ident):
    page = PAGES[ident].read_text()
    (shown,) = blocks(page, "text")
    assert _words(shown) == _words(told(CHECKS[ident], page))


@each_rule
def test_rule_is_not_run_without_what_it_needs(ident):
    check = CHECKS[ident]
    report = run_checks(Inventory(), [check])
    assert report.findings == ()
    assert [entry.rule for entry in report.not_run] == ([ident] if check.needs else [])


@each_rule
def test_good_example_is_healthy(ident):
    page = PAGES[ident].read_text()
    assert blocks(page, "xml good", "console good")
    good = inventory(page, "good")
    report = run_checks(good)
    assert report.findings == ()
    assert report.unreadable == ()
    assert ident not in {entry.rule for entry in report.not_run}


def test_index_lists_the_rules():
    rows = [f"| [{c.ident}]({c.ident}.md) | {c.severity.label} | {c.summary} |" for c in ALL_CHECKS]
    table = INDEX.read_text().partition("\n## audit\n")[0]
    assert re.findall(r"^\| \[.*$", table, re.MULTILINE) == rows
