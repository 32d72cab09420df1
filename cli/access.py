"""The verb ``access``: contexts to a question, the policy's answer to text and a status."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, Optional

from svirtlib.cli.exitcodes import ExitCode
from svirtlib.errors import SelectionError

if TYPE_CHECKING:
    # Slow to load; this module is part of the command line's grammar, which every verb needs.
    from svirtlib.access import AccessAnswer, DomainAccess, PermissionAnswer
    from svirtlib.backends.policy import Policy, Target

__all__ = ["NO_POLICY", "add_options", "run"]

_Write = Callable[[argparse.Namespace, str], None]
_WriteRows = Callable[
    [argparse.Namespace, Sequence[str], Sequence[Sequence[str]], str],
    int,
]

#: What stands in place of a decision where there is nothing to ask.
NO_POLICY = "not decided: no policy"

_SCHEMA = "svirt-label/access/1"
_WHO_CAN_SCHEMA = "svirt-label/who-can/1"
_DEFAULT_PERMISSIONS = ("read", "write")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    parser.add_argument(
        "source", metavar="SOURCE", nargs="?", help="context of the process that acts"
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="context of what it acts on, or the path of a file whose label is meant",
    )
    group = parser.add_argument_group("the question")
    group.add_argument(
        "--class",
        dest="target_class",
        metavar="CLASS",
        help="class of the target (default: the file's kind for a path, else file)",
    )
    group.add_argument(
        "--perm",
        metavar="PERM[,PERM]",
        action="append",
        help="permissions, all of which must be allowed (default: read,write)",
    )
    group.add_argument(
        "--boolean",
        metavar="NAME=on|off",
        action="append",
        default=[],
        help="answer as if a boolean of the policy were on, or off",
    )
    group.add_argument(
        "--who-can",
        metavar="PATH|CONTEXT",
        help="instead of SOURCE and TARGET: list every domain of the policy that may do this to an "
        "image, and whether its categories could keep it from that (default: --perm write)",
    )


def run(options: argparse.Namespace, write: _Write, write_rows: _WriteRows) -> int:
    """Ask the policy, write its answer and return the exit status."""
    from svirtlib.backends.policy import open_policy, target_of

    if options.who_can is None and options.target is None:
        raise SelectionError("access needs SOURCE and TARGET, two contexts, or --who-can")
    if options.who_can is not None and options.source is not None:
        raise SelectionError("--who-can stands in place of SOURCE and TARGET; leave them out")
    booleans = _booleans(options.boolean)
    permissions = _permissions(options.perm)
    target = target_of(options.target if options.who_can is None else options.who_can)
    policy = open_policy(options.policy, booleans)
    if options.who_can is not None:
        return _who_can(options, policy, target, permissions, write, write_rows)
    target_class = options.target_class or target.target_class or "file"
    answer = _ask(options.source, policy, target, target_class, permissions)
    if options.format == "json":
        write(options, json.dumps(_document(answer), indent=2) + "\n")
    else:
        rows = [
            (one.permission, "allowed" if one.allowed else "denied", _reason(one, answer))
            for one in answer.answers
        ]
        if answer.allowed is None:
            rows = [("-", "not decided", answer.undecided)]
        write_rows(options, ("permission", "answer", "reason"), rows, "permissions")
    return _status(answer.allowed)


def _status(allowed: Optional[bool]) -> int:
    if allowed is None:
        return ExitCode.INCOMPLETE
    return ExitCode.OK if allowed else ExitCode.FINDINGS


def _booleans(texts: Sequence[str]) -> dict[str, bool]:
    states = {"on": True, "1": True, "true": True, "off": False, "0": False, "false": False}
    booleans = {}
    for text in texts:
        name, _, state = text.partition("=")
        if not name or state.lower() not in states:
            raise SelectionError(f"--boolean {text}: expected NAME=on or NAME=off")
        booleans[name] = states[state.lower()]
    return booleans


def _permissions(texts: Optional[Sequence[str]]) -> tuple[str, ...]:
    """Return the permissions that were asked for; none if that was left open."""
    names = tuple(name.strip() for text in texts or () for name in text.split(","))
    if texts and not all(names):
        raise SelectionError(f"--perm {','.join(texts)}: a permission is missing")
    return names


def _ask(
    source: str,
    policy: Optional[Policy],
    target: Target,
    target_class: str,
    permissions: tuple[str, ...],
) -> AccessAnswer:
    from svirtlib.access import AccessAnswer

    if policy is None:
        return AccessAnswer(source, target.context, target_class, undecided=NO_POLICY)
    if not permissions:
        permissions = _DEFAULT_PERMISSIONS
        known = policy.permissions(target_class)
        if not set(permissions) <= set(known):
            raise SelectionError(
                f"--perm is needed for the class {target_class}: it has {', '.join(sorted(known))}"
            )
    return policy.explain(source, target.context, target_class, permissions)


def _document(answer: AccessAnswer) -> dict[str, object]:
    return {
        "schema": _SCHEMA,
        "source": answer.source,
        "target": answer.target,
        "class": answer.target_class,
        "policy": answer.policy,
        "allowed": answer.allowed,
        "reason": _summary(answer),
        "permissions": {one.permission: one.allowed for one in answer.answers},
        "reasons": [
            {
                "permission": one.permission,
                "allowed": one.allowed,
                "cause": one.cause.value,
                "text": _reason(one, answer),
                "booleans": [
                    {"name": name, "state": "on" if state else "off"}
                    for name, state in one.booleans
                ],
                "constraint": one.constraint or None,
            }
            for one in answer.answers
        ],
    }


def _summary(answer: AccessAnswer) -> str:
    """Return the reason for the whole: that of what was denied, else of what was allowed."""
    if answer.undecided:
        return answer.undecided
    decisive = [one for one in answer.answers if one.allowed is answer.allowed]
    texts: dict[str, list[str]] = {}
    for one in decisive:
        texts.setdefault(_reason(one, answer), []).append(one.permission)
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in texts.items())


def _reason(one: PermissionAnswer, answer: AccessAnswer) -> str:
    """Return why, in a sentence for a person."""
    from svirtlib.access import Cause

    source, target = (context.split(":", 3)[2] for context in (answer.source, answer.target))
    if one.cause is Cause.TYPE_RULE:
        return f"a type rule allows it to {source}, and the constraints are met"
    if one.cause is Cause.UNCONSTRAINED_TYPE:
        return (
            f"a type rule allows it to {source}, a type not constrained by categories"
            f"{_exempt(one)}: the levels alone would not allow it"
        )
    if one.cause is Cause.UNCONSTRAINED_TARGET:
        return (
            f"a type rule allows it to {source}, and the policy opens the type {target}"
            f"{_exempt(one)} to all levels: these alone would not allow it"
        )
    if one.cause is Cause.UNCONSTRAINED_PERMISSION:
        return (
            f"a type rule allows it to {source}, and the policy constrains {one.permission} of "
            f"{answer.target_class} by no level"
        )
    if one.cause is Cause.PERMISSIVE:
        why = "a constraint" if one.constraint else "no type rule"
        return (
            f"{source} is a permissive type: the policy denies it ({why}), the kernel logs that "
            f"and lets it happen"
        )
    if one.cause is Cause.BOOLEAN:
        return (
            f"the type rule that would allow it is off, as the boolean is: "
            f"{' or '.join(_command(*boolean) for boolean in one.booleans)} would allow it"
        )
    if one.cause is Cause.CONSTRAINT:
        return f"a constraint denies it, though a type rule allows it: {one.constraint}"
    if one.cause is Cause.ROLE:
        return "no rule lets the role of the source change to that of the target"
    if one.cause is Cause.BOUNDS:
        return f"{source} is bounded by a type that may not do it"
    more = (
        ""
        if one.booleans_known
        else (" (whether a boolean would was not asked: python3-selinux is missing)")
    )
    return f"no type rule allows it to {source} on {target}{more}"


def _exempt(one: PermissionAnswer) -> str:
    """Return the attribute, or the types, that a type is exempt by; an empty text if not known."""
    operator, _, names = one.exempt.partition(" ")
    return f" ({'not ' if operator == '!=' else ''}in {names})" if names else ""


def _command(name: str, state: bool) -> str:
    return f"`setsebool -P {name} {'on' if state else 'off'}`"


def _who_can(
    options: argparse.Namespace,
    policy: Optional[Policy],
    target: Target,
    permissions: tuple[str, ...],
    write: _Write,
    write_rows: _WriteRows,
) -> int:
    target_class = options.target_class or target.target_class or "file"
    permissions = permissions or ("write",)
    found: Sequence[DomainAccess] = ()
    if policy is not None:
        found = policy.who_can(target.context, target_class, permissions)
    if options.format == "json":
        document = {
            "schema": _WHO_CAN_SCHEMA,
            "target": target.context,
            "class": target_class,
            "permissions": list(permissions),
            "policy": None if policy is None else policy.source,
            "reason": NO_POLICY if policy is None else None,
            "domains": None
            if policy is None
            else [
                {
                    "domain": one.domain,
                    "permissions": list(one.permissions),
                    "categories": "ignored" if one.any_level else "bind",
                    "permissive": one.permissive,
                }
                for one in found
            ],
        }
        write(options, json.dumps(document, indent=2) + "\n")
    else:
        rows = [
            (
                one.domain,
                ",".join(one.permissions),
                ("whatever its categories are" if one.any_level else "if its level dominates")
                + (" (permissive type)" if one.permissive else ""),
            )
            for one in found
        ]
        if policy is None:
            rows = [("-", "-", NO_POLICY)]
        write_rows(options, ("domain", "may", "when"), rows, "domains")
    return ExitCode.INCOMPLETE if policy is None else ExitCode.OK
