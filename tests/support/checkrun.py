"""Run ``svirt-label`` in this process, and look at what it says without its words.

outcome = check("--xml", folder)
assert outcome.code == 1
assert outcome.told == [("label-collision", ["a", "b"], ["a", "b"])]
"""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from typing import Any

from svirtlib.cli.main import main

__all__ = ["Outcome", "check", "run"]


@dataclass(frozen=True)
class Outcome:
    """What one run did.

    Attributes:
        code: the exit status.
        out: what it wrote to standard output.
        err: what it wrote to standard error.
    """

    code: int
    out: str
    err: str

    @property
    def report(self) -> Any:
        """The JSON document on standard output."""
        return json.loads(self.out)

    @property
    def findings(self) -> Any:
        """The findings, in the report's order."""
        return self.report["findings"]

    @property
    def rules(self) -> list[str]:
        """The rule of each finding, in the report's order."""
        return [finding["rule"] for finding in self.findings]

    @property
    def told(self) -> list[tuple[str, list[str], list[str]]]:
        """Rule, guests and reached guests of each finding, in the report's order."""
        return [
            (finding["rule"], finding["guests"], finding["reaches"]) for finding in self.findings
        ]

    @property
    def unjudged(self) -> list[str]:
        """What the report says it could not look at."""
        return [entry["what"] for entry in self.report["unreadable"]]

    def of(self, rule: str) -> Any:
        """The findings of one rule."""
        return [finding for finding in self.findings if finding["rule"] == rule]

    def one(self, rule: str) -> Any:
        """The only finding of a rule."""
        (finding,) = self.of(rule)
        return finding


def run(*arguments: object) -> Outcome:
    """Run a command line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


def check(*arguments: object) -> Outcome:
    """Run ``svirt-label check --format json`` with these arguments."""
    return run("check", "--format", "json", *arguments)
