"""The inventory as one JSON document: taken on one host, judged on another.

Schema ``svirt-label/snapshot/1``, published as ``svirtlib/schemas/snapshot-1.json``. It holds
what the rules look at and nothing else: no passwords, no other parts of the XML.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Optional

from attr import evolve

from svirtlib.devices import Devices, Graphics
from svirtlib.errors import SnapshotError
from svirtlib.guests import Guest, Inventory

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["MAX_BYTES", "SCHEMA", "dump_snapshot", "load_snapshot"]

SCHEMA = "svirt-label/snapshot/1"

#: Largest snapshot that is read, in bytes: some hundred thousand guests.
MAX_BYTES = 512 * 1024 * 1024


def dump_snapshot(inventory: Inventory) -> str:
    """Return an inventory as JSON text with a newline at its end."""
    guests = tuple(evolve(one, devices=_without_secrets(one.devices)) for one in inventory.guests)
    document = {
        "schema": SCHEMA,
        "inventory": _converter().unstructure(evolve(inventory, guests=guests)),
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def load_snapshot(data: bytes, source: str) -> Inventory:
    """Return the inventory of a snapshot.

    Args:
        data: the document as :func:`dump_snapshot` made it.
        source: where it came from, for messages.

    Raises:
        SnapshotError: the document is none, or one of another version.
    """
    if len(data) > MAX_BYTES:
        raise SnapshotError(f"{source}: too large for a snapshot (over {MAX_BYTES} bytes)")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SnapshotError(
            f"{source}: no JSON ({error}); expected what 'svirt-label export' writes"
        ) from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise SnapshotError(
            f"{source}: its schema is {str(schema)[:80]!a}, not {SCHEMA!r}; write it anew with "
            f"'svirt-label export' of this version"
        )
    import cattrs

    try:
        inventory: Inventory = _converter().structure(document["inventory"], Inventory)
    except (cattrs.BaseValidationError, ValueError, TypeError, KeyError) as error:
        raise SnapshotError(f"{source}: damaged: {_reason(error)}") from None
    return inventory


def _without_secrets(devices: Optional[Devices]) -> Optional[Devices]:
    """Return devices that say that there is a password, and never which."""
    if devices is None:
        return None
    return evolve(
        devices,
        graphics=tuple(
            evolve(one, password=None, password_hint=one.password_hint or one.password is not None)
            for one in devices.graphics
        ),
        # What stands behind an option of QEMU may be one, too.
        arguments=tuple(
            word.partition("=")[0] for word in devices.arguments if word.startswith("-")
        ),
    )


@lru_cache(maxsize=1)
def _converter() -> Converter:
    import attr
    import cattrs
    import cattrs.gen

    from svirtlib.policyfacts import PolicyFacts
    from svirtlib.problems import Problem

    # Their module imports these for type checkers alone.
    later = {"Devices": Devices, "PolicyFacts": PolicyFacts, "Problem": Problem}
    for kept in (Guest, Inventory):
        attr.resolve_types(kept, localns=later)
    converter = cattrs.Converter(forbid_extra_keys=True)
    # The library's own hooks would take "no" for true and 5 for "5".
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exactly)
    # Passwords are never written anywhere; that there is one is.
    without = cattrs.gen.override(omit=True)
    converter.register_structure_hook(
        Graphics,
        cattrs.gen.make_dict_structure_fn(
            Graphics, converter, password=without, _cattrs_forbid_extra_keys=True
        ),
    )
    converter.register_unstructure_hook(
        Graphics, cattrs.gen.make_dict_unstructure_fn(Graphics, converter, password=without)
    )
    return converter


def _exactly(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
    return value


def _reason(error: BaseException) -> str:
    import cattrs

    # Debian 12's cattrs, 22.2, has no words for it.
    if isinstance(error, cattrs.BaseValidationError) and hasattr(cattrs, "transform_error"):
        return "; ".join(cattrs.transform_error(error)[:3])
    return f"{type(error).__name__}: {error}"
