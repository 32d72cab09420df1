"""What a journal of changes tells, as values and as the JSON documents of its lines."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Optional, Union

from attr import field, frozen

from svirtlib.backends.rulestore import LocalBoolean, LocalRule

__all__ = [
    "AttributesRecord",
    "BooleanRecord",
    "LabelRecord",
    "Record",
    "RuleRecord",
    "attributes_document",
    "booleans_document",
    "labels_document",
    "records_in",
    "rules_document",
]

#: As os.fsdecode has them.
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


@frozen
class RuleRecord:
    """Local rules of the policy store, as they were and as they shall be."""

    policy: str
    before: tuple[LocalRule, ...]
    after: tuple[LocalRule, ...]


@frozen
class BooleanRecord:
    """Booleans of the policy, as they were and as they shall be."""

    policy: str
    before: tuple[LocalBoolean, ...]
    after: tuple[LocalBoolean, ...]


@frozen
class LabelRecord:
    """One file's label, as it was (None: it had none) and as it shall be."""

    path: bytes
    inode: int
    old: Optional[bytes]
    new: bytes


@frozen
class AttributesRecord:
    """One file's attributes and owner, as they were and as they shall be.

    Attributes:
        path: the file.
        inode: its number; what has another one is another file.
        before: values of extended attributes, None for one that was not there.
        after: the same as they shall be.
        owner_before: user and group, or None where they do not change.
        owner_after: the same as they shall be.
    """

    path: bytes
    inode: int
    before: dict[str, Optional[bytes]] = field(hash=False)
    after: dict[str, Optional[bytes]] = field(hash=False)
    owner_before: Optional[tuple[int, int]] = None
    owner_after: Optional[tuple[int, int]] = None


Record = Union[RuleRecord, BooleanRecord, LabelRecord, AttributesRecord]


def rules_document(record: RuleRecord) -> dict[str, Any]:
    """Return what a line says of rules."""
    return {
        "rules": {
            "policy": record.policy,
            "before": [[rule.pattern, rule.kind, rule.context] for rule in record.before],
            "after": [[rule.pattern, rule.kind, rule.context] for rule in record.after],
        }
    }


def booleans_document(record: BooleanRecord) -> dict[str, Any]:
    """Return what a line says of booleans."""
    return {
        "booleans": {
            "policy": record.policy,
            "before": [[one.name, one.local, one.live] for one in record.before],
            "after": [[one.name, one.local, one.live] for one in record.after],
        }
    }


def labels_document(
    paths: Sequence[bytes],
    inodes: Sequence[int],
    old: Sequence[Optional[bytes]],
    new: Sequence[bytes],
) -> dict[str, Any]:
    """Return what a line says of labels: one sequence each, of equal length."""
    # Few labels are spread over many files: each is written once a line.
    numbers = {label: number for number, label in enumerate({*old, *new})}
    return {
        "contexts": [None if label is None else os.fsdecode(label) for label in numbers],
        # As os.fsdecode does it, for a hundred thousand of them.
        "paths": [path.decode(_ENCODING, _ERRORS) for path in paths],
        "inodes": inodes,
        "old": [numbers[label] for label in old],
        "new": [numbers[label] for label in new],
    }


def attributes_document(records: Sequence[AttributesRecord]) -> dict[str, Any]:
    """Return what a line says of attributes and owners."""
    return {
        "attributes": [
            {
                "path": os.fsdecode(record.path),
                "inode": record.inode,
                "before": _encoded(record.before),
                "after": _encoded(record.after),
                "owner_before": record.owner_before,
                "owner_after": record.owner_after,
            }
            for record in records
        ]
    }


def records_in(line: bytes) -> Iterator[Record]:
    """Yield the records of a line.

    Raises:
        KeyError, IndexError, TypeError, ValueError: it is none of ours.
    """
    document = json.loads(line)
    if "rules" in document:
        rules = document["rules"]
        yield RuleRecord(
            rules["policy"],
            tuple(LocalRule(*rule) for rule in rules["before"]),
            tuple(LocalRule(*rule) for rule in rules["after"]),
        )
    elif "booleans" in document:
        booleans = document["booleans"]
        yield BooleanRecord(
            booleans["policy"],
            tuple(LocalBoolean(*one) for one in booleans["before"]),
            tuple(LocalBoolean(*one) for one in booleans["after"]),
        )
    elif "contexts" in document:
        labels = [None if text is None else os.fsencode(text) for text in document["contexts"]]
        columns = (document[name] for name in ("paths", "inodes", "old", "new"))
        for path, inode, old, new in zip(*columns):
            wanted = labels[new]
            if wanted is None:
                raise ValueError
            yield LabelRecord(os.fsencode(path), inode, labels[old], wanted)
    for entry in document.get("attributes", ()):
        yield AttributesRecord(
            os.fsencode(entry["path"]),
            entry["inode"],
            _values(entry["before"]),
            _values(entry["after"]),
            _owner(entry["owner_before"]),
            _owner(entry["owner_after"]),
        )


def _encoded(values: dict[str, Optional[bytes]]) -> dict[str, Optional[str]]:
    return {
        name: None if value is None else base64.b64encode(value).decode("ascii")
        for name, value in values.items()
    }


def _values(encoded: dict[str, Optional[str]]) -> dict[str, Optional[bytes]]:
    return {
        name: None if value is None else base64.b64decode(value, validate=True)
        for name, value in encoded.items()
    }


def _owner(numbers: Optional[Sequence[int]]) -> Optional[tuple[int, int]]:
    return None if numbers is None else (int(numbers[0]), int(numbers[1]))
