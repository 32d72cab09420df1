"""Seclabels as libvirt writes them, and read back equal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svirtlib.domainxml import parse_document
from svirtlib.seclabel import DeviceSeclabel, Seclabel, SeclabelType
from svirtlib.seclabeltext import format_device_seclabel, format_seclabel

LABEL = "system_u:system_r:svirt_t:s0:c87,c520"
IMAGE = "system_u:object_r:svirt_image_t:s0:c87,c520"
BASE = "system_u:system_r:svirt_t:s0"

# What "virsh dumpxml" of libvirt 9.0 prints for each.
WRITTEN = [
    (Seclabel(SeclabelType.NONE, "selinux", False), "<seclabel type='none' model='selinux'/>"),
    (
        Seclabel(SeclabelType.DYNAMIC, "selinux"),
        "<seclabel type='dynamic' model='selinux' relabel='yes'/>",
    ),
    (
        Seclabel(SeclabelType.DYNAMIC, "selinux", baselabel=BASE),
        "<seclabel type='dynamic' model='selinux' relabel='yes'>\n"
        f"  <baselabel>{BASE}</baselabel>\n"
        "</seclabel>",
    ),
    (
        Seclabel(SeclabelType.DYNAMIC, "selinux", True, LABEL, IMAGE, BASE),
        "<seclabel type='dynamic' model='selinux' relabel='yes'>\n"
        f"  <label>{LABEL}</label>\n"
        f"  <imagelabel>{IMAGE}</imagelabel>\n"
        f"  <baselabel>{BASE}</baselabel>\n"
        "</seclabel>",
    ),
    (
        Seclabel(SeclabelType.STATIC, "selinux", False, LABEL),
        "<seclabel type='static' model='selinux' relabel='no'>\n"
        f"  <label>{LABEL}</label>\n"
        "</seclabel>",
    ),
    (Seclabel(SeclabelType.DEFAULT), "<seclabel/>"),
    (Seclabel(SeclabelType.DEFAULT, relabel=False), "<seclabel relabel='no'/>"),
    (Seclabel(SeclabelType.NONE, relabel=True), "<seclabel type='none' relabel='yes'/>"),
    (
        Seclabel(SeclabelType.STATIC, "a'\"<&\n", True, "]]>&\r"),
        "<seclabel type='static' model='a&apos;&quot;&lt;&amp;&#10;' relabel='yes'>\n"
        "  <label>]]&gt;&amp;&#13;</label>\n"
        "</seclabel>",
    ),
]


@pytest.mark.parametrize(("seclabel", "text"), WRITTEN)
def test_domain_seclabel(seclabel, text):
    assert format_seclabel(seclabel) == text


@pytest.mark.parametrize(
    ("seclabel", "text"),
    [
        (DeviceSeclabel("selinux", False), "<seclabel model='selinux' relabel='no'/>"),
        (DeviceSeclabel(), "<seclabel relabel='yes'/>"),
        (
            DeviceSeclabel("selinux", True, IMAGE),
            f"<seclabel model='selinux' relabel='yes'>\n  <label>{IMAGE}</label>\n</seclabel>",
        ),
    ],
)
def test_device_seclabel(seclabel, text):
    assert format_device_seclabel(seclabel) == text


def test_line_ends_and_indentation_are_the_callers():
    seclabel = Seclabel(SeclabelType.STATIC, "selinux", False, LABEL)
    assert format_seclabel(seclabel, newline="\r\n\t", unit="\t") == (
        "<seclabel type='static' model='selinux' relabel='no'>"
        f"\r\n\t\t<label>{LABEL}</label>\r\n\t</seclabel>"
    )
    assert "\n" not in format_seclabel(seclabel, newline="")


@pytest.mark.parametrize("text", ["\0", "a\x1b", "\ud800", "\uffff"])
def test_what_no_xml_can_hold_is_refused(text):
    with pytest.raises(ValueError, match="XML cannot hold"):
        format_seclabel(Seclabel(SeclabelType.STATIC, label=text))


_CHARACTERS = st.characters(
    blacklist_categories=["Cs"],
    blacklist_characters=[
        *(chr(code) for code in range(32) if chr(code) not in "\t\n\r"),
        "\ufffe",
        "\uffff",
    ],
)
_TEXTS = st.text(_CHARACTERS, max_size=20) | st.sampled_from([LABEL, IMAGE, BASE])


@given(
    st.builds(
        Seclabel,
        st.sampled_from(SeclabelType),
        st.none() | _TEXTS,
        st.booleans(),
        st.none() | _TEXTS,
        st.none() | _TEXTS,
        st.none() | _TEXTS,
    ),
    st.sampled_from(["\n", "\r\n", "", "\n\t"]),
)
def test_reading_gives_back_what_was_written(seclabel, newline):
    text = format_seclabel(seclabel, newline=newline)
    document = f"<domain type='kvm'><name>x</name>{text}</domain>"
    (guest,) = parse_document(document.encode(), "test")
    (back,) = guest.seclabels
    assert back == Seclabel(
        seclabel.type,
        seclabel.model,
        seclabel.relabel,
        seclabel.label,
        seclabel.imagelabel,
        seclabel.baselabel,
        line=1,
    )


@given(st.booleans(), st.none() | _TEXTS.filter(bool))
def test_reading_gives_back_a_device_override(relabel, label):
    text = format_device_seclabel(DeviceSeclabel("selinux", relabel, label))
    document = (
        "<domain type='kvm'><name>x</name><devices><disk type='file'>"
        f"<source file='/x'>{text}</source><target dev='vda'/></disk></devices></domain>"
    )
    (guest,) = parse_document(document.encode(), "test")
    assert guest.images[0].seclabel == DeviceSeclabel("selinux", relabel, label, line=1)
