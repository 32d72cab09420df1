"""What a policy says of a host's guests and images: a part of the inventory; values only."""

from __future__ import annotations

from typing import Optional

from attr import frozen

from svirtlib.mls import Relation

__all__ = ["DomainFacts", "PolicyFacts", "RefusedContext", "TypeAccess"]


@frozen
class TypeAccess:
    """What one kind of process may do to one kind of image, by how their levels stand.

    Attributes:
        source: ``user:role:type`` of the process.
        target: ``user:role:type`` of the image.
        target_class: ``file``, ``blk_file``, ...
        relation: how the source's level stands to the target's.
        read: whether it may open and read.
        write: whether it may open and write.
    """

    source: str
    target: str
    target_class: str
    relation: Relation
    read: bool
    write: bool


@frozen
class DomainFacts:
    """What the policy says of the type of a guest's process.

    Attributes:
        domain: ``user:role:type``.
        bound: whether categories bind it; None where nothing on the host shows it.
        permissive: whether the type is permissive; None where that could not be told.
    """

    domain: str
    bound: Optional[bool]
    permissive: Optional[bool]


@frozen
class RefusedContext:
    """A context of the inventory that the policy does not know, and why."""

    context: str
    reason: str


@frozen
class PolicyFacts:
    """What a policy says of the contexts in an inventory; asked once, kept with it.

    Attributes:
        source: path of the policy.
        low_levels: the policy compares the low levels of ranges (MLS), not the high ones (MCS).
        domains: one for each ``user:role:type`` of guests' processes, sorted.
        accesses: of each domain to each kind of image, for every relation of levels.
        refused: contexts that the policy refuses, sorted.
        beyond: contexts that the policy takes, with names of levels that are not known here
            (more than the usual categories and sensitivities), sorted.
    """

    source: str
    low_levels: bool = False
    domains: tuple[DomainFacts, ...] = ()
    accesses: tuple[TypeAccess, ...] = ()
    refused: tuple[RefusedContext, ...] = ()
    beyond: tuple[str, ...] = ()
