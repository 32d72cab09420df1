"""Untrusted XML into an element tree, or a reason why not.

Entities, external DTDs and network access are off, a DOCTYPE is refused, and size and depth
are bounded. What a document means is not known here.
"""

from __future__ import annotations

from typing import Optional

from lxml import etree

from svirtlib.errors import DomainXMLError

__all__ = ["MAX_BYTES", "line_of", "parse_tree"]

#: Largest document that is read, in bytes. A domain with a thousand disks has less than 1 MB.
MAX_BYTES = 16 * 1024 * 1024

#: One for all documents: to make it costs as much as to read half a document with it. Nothing
#: that a document says stays in it, and lxml lets one thread at a time use it. Blank text
#: between elements is dropped, as libvirt drops it (``xmlKeepBlanksDefault``).
_PARSER = etree.XMLParser(
    resolve_entities=False,
    no_network=True,
    load_dtd=False,
    dtd_validation=False,
    huge_tree=False,
    collect_ids=False,
    remove_blank_text=True,
    remove_comments=True,
    remove_pis=True,
)


def parse_tree(data: bytes, source: str, expected: str) -> etree._Element:
    """Return the root element of a document.

    Args:
        data: the document, in any encoding that it declares.
        source: where it came from, for messages.
        expected: what it should have been, for messages.

    Raises:
        DomainXMLError: the document is malformed, too large, or has a DOCTYPE.
    """
    if len(data) > MAX_BYTES:
        raise DomainXMLError(source, f"too large (over {MAX_BYTES} bytes); expected {expected}")
    if not data.strip():
        raise DomainXMLError(source, f"empty; expected {expected}")
    try:
        root = etree.fromstring(data, _PARSER)
    except etree.XMLSyntaxError as error:
        reason = f"malformed XML: {_reason(error)}; expected {expected}"
        raise DomainXMLError(source, reason, error.lineno or None) from None
    except (ValueError, LookupError) as error:
        raise DomainXMLError(source, f"malformed XML: {error}") from None
    if root.getroottree().docinfo.doctype:
        raise DomainXMLError(source, "a DOCTYPE is not accepted; libvirt never writes one")
    return root


def line_of(element: etree._Element) -> Optional[int]:
    """Return the line of an element, counted from 1, if it is known."""
    line = element.sourceline
    return line if isinstance(line, int) else None


def _reason(error: etree.XMLSyntaxError) -> str:
    """Return libxml2's message without its position, which is told apart."""
    text = str(error.msg or "not XML").split(", line ", 1)[0]
    if text.startswith("Excessive depth"):
        # libxml2 goes on to name an option for programmers.
        return "elements nested too deeply"
    return text.encode("ascii", "backslashreplace").decode("ascii")[:200]
