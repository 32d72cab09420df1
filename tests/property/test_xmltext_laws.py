"""Laws of putting a seclabel into a document, over documents that nobody tidied up."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from svirtlib.errors import DomainXMLError
from svirtlib.seclabel import DeviceSeclabel, Seclabel, SeclabelType
from svirtlib.seclabeltext import format_device_seclabel, format_seclabel
from svirtlib.seclabelxml import read_seclabels
from svirtlib.xmltext import set_seclabels

LABEL = "system_u:system_r:svirt_t:s0:c87,c520"
IMAGE = "system_u:object_r:svirt_image_t:s0:c87,c520"

seclabels = st.sampled_from(
    [
        Seclabel(SeclabelType.DYNAMIC, "selinux"),
        Seclabel(SeclabelType.DYNAMIC, "selinux", baselabel="system_u:system_r:svirt_t:s0"),
        Seclabel(SeclabelType.STATIC, "selinux", True, LABEL),
        Seclabel(SeclabelType.STATIC, "selinux", False, LABEL),
        Seclabel(SeclabelType.NONE, "selinux", False),
    ]
)
overrides = st.sampled_from(
    [DeviceSeclabel("selinux", relabel=False), DeviceSeclabel("selinux", True, IMAGE)]
)

#: Codecs with the encoding that is declared, and whether they have an e with an accent.
codecs = st.sampled_from(
    [
        ("utf-8", ""),
        ("utf-8", " encoding='utf-8'"),
        ("utf-8-sig", ' encoding="UTF-8"'),
        ("utf-16", " encoding='UTF-16'"),
        ("utf-16-le", ""),
        ("utf-16-be", " standalone='yes'"),
        ("latin-1", " encoding='ISO-8859-1'"),
        ("cp1252", " encoding='windows-1252'"),
    ]
)

#: What may stand anywhere among elements and belongs to nobody.
junk = st.sampled_from(
    [
        "<!-- \u00e9 <seclabel type='none' model='selinux'/> -->",
        "<!---->",
        "<!--\n   several\n   lines -->",
        "<?seclabel type='none'?>",
        "<a:seclabel xmlns:a='urn:a' model='selinux'>&#10;</a:seclabel>",
        "<seclabel xmlns='urn:b' type=\"static\"\tmodel='selinux'/>",
        "<metadata><seclabel model='selinux'/><x a='>' b=\"'/>\"/></metadata>",
        "<description>\u00e9 &lt;/domain&gt; <![CDATA[</devices>]]>&#xe9;\r\n ]]&gt;</description>",
        "<clock  offset = 'utc'\n  ></clock\n>",
        "<empty></empty>",
        "<empty/>",
    ]
)
others = st.sampled_from(
    [
        "<seclabel type='dynamic' model='dac' relabel='yes'/>",
        "<seclabel model=\"apparmor\" type='static'><label>libvirt-\u00e9</label></seclabel>",
        "<seclabel\n  type='none'  model='none' />",
    ]
)
old = st.sampled_from(
    [
        "<seclabel type='none'/>",
        '<seclabel  model = "selinux"   />',
        "<seclabel type='static' model='selinux'><label>\u00e9</label></seclabel >",
        "<seclabel\r\n model='selinux'>\r\n <!-- c --> <![CDATA[</seclabel>]]> <label/></seclabel>",
    ]
)
old_override = st.sampled_from(
    [
        "<seclabel model='selinux'/>",
        "<seclabel relabel='no'\n model='selinux'></seclabel>",
        "<seclabel model='selinux'><label>\u00e9</label><!-- x --></seclabel>",
    ]
)
spaces = st.sampled_from(["", "", "\n", "\r\n", "\n  ", "\r\n\t", "\n    ", " ", "\n\n \t", "x"])


@st.composite
def parts(draw, pieces):
    """Pieces in their order with junk and white space between them."""
    result = []
    for piece in pieces:
        for extra in draw(st.lists(junk, max_size=2)):
            result += [draw(spaces), extra]
        result += [draw(spaces), piece]
    return "".join([*result, draw(spaces)])


#: Marks what is to be replaced, when it is built into a document.
MARK = "\x7f"


@st.composite
def documents(draw, *, own, override):
    """A codec and a text in which what will be replaced stands between marks."""
    source_parts = [draw(st.sampled_from(["<slices/>", "", "<encryption format='luks'/>"]))]
    source_parts += draw(st.lists(st.just("<seclabel model='dac' relabel='no'/>"), max_size=1))
    if override:
        source_parts.insert(
            draw(st.integers(0, len(source_parts))), f"{MARK}{draw(old_override)}{MARK}"
        )
    source = f'<source file="/a\'/>" >{draw(parts(source_parts))}</source>'
    disk = draw(parts([source, "<target dev='vda'/>"]))
    devices = draw(parts([f"<disk type='file'>{disk}</disk>", "<disk><target dev='vdb'/></disk>"]))
    top = ["<name>\u00e9</name>"]
    top += draw(st.lists(others, max_size=1, unique=True))
    top.append(f"<devices >{devices}</devices >")
    top += draw(st.lists(st.just("<launchSecurity type='sev'/>"), max_size=1))
    if own:
        top.insert(draw(st.integers(0, len(top))), f"{MARK}{draw(old)}{MARK}")
    body = draw(parts(top))
    codec, declared = draw(codecs)
    head = f"<?xml version='1.0'{declared}?>\n" if declared else draw(st.sampled_from(["", "\n"]))
    if codec.endswith(("le", "be")):
        # Without a byte order mark libxml2 tells the encoding by the declaration's beginning.
        head = f"<?xml version='1.0'{declared}?>\n"
    tail = draw(st.sampled_from(["", "\n", "\r\n<!-- end -->", "<?end?>"]))
    return codec, f"{head}<domain type='kvm'>{body}</domain>{tail}"


def encoded(codec, text):
    return text.encode(codec)


@given(documents(own=True, override=False), seclabels)
def test_replacing_changes_the_old_seclabel_alone(document, seclabel):
    codec, text = document
    head, old, tail = text.split(MARK)
    after = set_seclabels(encoded(codec, head + old + tail), "test", seclabel).decode(codec)
    assert after.startswith(head)
    assert after.endswith(tail)
    new = after[len(head) : len(after) - len(tail)]
    assert new.split() == format_seclabel(seclabel, newline="\n").split() or (
        new == format_seclabel(seclabel, newline="")
    )


@given(documents(own=False, override=False), seclabels)
def test_inserting_changes_no_byte_of_the_document(document, seclabel):
    codec, text = document
    before = encoded(codec, text)
    after = set_seclabels(before, "test", seclabel)
    assert inserted(before, after)
    assert format_seclabel(seclabel, newline="").replace(" ", "") in "".join(
        after.decode(codec).split()
    )


@given(documents(own=True, override=True), seclabels, overrides)
def test_both_edits_at_once(document, seclabel, override):
    codec, text = document
    pieces = text.split(MARK)
    after = set_seclabels(
        encoded(codec, "".join(pieces)), "test", seclabel, {"vda": override}
    ).decode(codec)
    kept = [pieces[0], pieces[2], pieces[4]]
    assert after.startswith(kept[0])
    assert after.endswith(kept[2])
    rest = after[len(kept[0]) : len(after) - len(kept[2])]
    assert kept[1] in rest
    first, last = rest.split(kept[1], 1) if kept[1] else (rest, "")
    wanted = {
        "".join(format_seclabel(seclabel).split()),
        "".join(format_device_seclabel(override).split()),
    }
    assert "".join((first + last).split()) in {
        "".join(order) for order in (sorted(wanted), sorted(wanted, reverse=True))
    }


@given(documents(own=False, override=True), seclabels, overrides)
def test_repeating_changes_nothing(document, seclabel, override):
    codec, text = document
    devices = {"vda": override}
    once = set_seclabels(encoded(codec, text.replace(MARK, "")), "test", seclabel, devices)
    assert set_seclabels(once, "test", seclabel, devices) == once


@given(documents(own=False, override=False), seclabels, overrides)
def test_what_was_put_in_is_read_back(document, seclabel, override):
    codec, text = document
    (before,) = read_seclabels(encoded(codec, text), "test")
    after = set_seclabels(encoded(codec, text), "test", seclabel, {"vda": override})
    (result,) = read_seclabels(after, "test")
    own = [raw for raw in result.seclabels if raw.get("model") == "selinux"]
    assert [(raw.get("type"), raw.text("label"), raw.text("baselabel")) for raw in own] == [
        (seclabel.type.value, seclabel.label, seclabel.baselabel)
    ]
    assert len(result.seclabels) == len(before.seclabels) + 1
    (source,) = result.sources
    own = [raw for raw in source.seclabels if raw.get("model") == "selinux"]
    assert [(raw.get("relabel"), raw.text("label")) for raw in own] == [
        ("yes" if override.relabel else "no", override.label)
    ]


DAMAGE = [b"<", b">", b"&", b"'", b'"', b"/", b"\0", b"\xff", b"<!--", b"-->", b"]]>", b"<a>", b":"]


@given(documents(own=True, override=True), seclabels, overrides, st.data())
def test_damage_is_refused_or_kept(document, seclabel, override, data):
    """Whatever was done to a document, it is refused as such, or what was damaged stays so."""
    codec, text = document
    damaged = bytearray(encoded(codec, text.replace(MARK, "")))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged)))
        kept = data.draw(st.sampled_from([0, 1, 7]))
        damaged[place : place + kept] = data.draw(st.sampled_from([b"", *DAMAGE]))
    before = bytes(damaged)
    try:
        after = set_seclabels(before, "test", seclabel, {"vda": override})
    except DomainXMLError:
        return
    assert set_seclabels(after, "test", seclabel, {"vda": override}) == after


@given(st.binary(max_size=200), seclabels)
def test_anything_is_refused_as_such(data, seclabel):
    with contextlib.suppress(DomainXMLError):
        set_seclabels(data, "test", seclabel)


def inserted(before, after):
    """Tell whether *after* is *before* with bytes put in at one place."""
    size = len(before)
    start = 0
    while start < size and before[start] == after[start]:
        start += 1
    return any(after.endswith(before[place:]) for place in range(start, max(-1, start - 400), -1))
