"""Each check by small documents on both sides of it; libvirt itself judges more in conformance."""

from __future__ import annotations

import pytest

from svirtlib import domainxml
from svirtlib.domainxml import parse_document
from svirtlib.errors import DomainXMLError
from svirtlib.problems import IGNORED, REJECTED, Layer
from svirtlib.seclabelxml import read_seclabels
from svirtlib.validation import Target, validate

TARGET = Target(version=(9, 0))
LABEL = "<label>system_u:system_r:svirt_t:s0:c1,c2</label>"
STATIC = f"<seclabel type='static' model='selinux' relabel='yes'>{LABEL}</seclabel>"
KEPT = f"<seclabel type='static' model='selinux'>{LABEL}</seclabel>"
DYNAMIC = "<seclabel type='dynamic' model='selinux'/>"
OVERRIDE = f"<seclabel model='selinux'>{LABEL}</seclabel>"


def domain(seclabels="", devices="", attributes="", os=""):
    return (
        f"<domain type='kvm'{attributes}><name>a</name><os><type>hvm</type>{os}</os>"
        f"{seclabels}<devices>{devices}</devices></domain>"
    )


def disk(inner="", kind="file", more=""):
    return f"<disk type='{kind}'><source file='/a'>{inner}</source>{more}<target dev='vda'/></disk>"


def backing(inner, more="", kind=" type='file'"):
    return (
        f"<backingStore{kind}><format type='raw'/><source file='/b'>{inner}</source>{more}"
        "</backingStore>"
    )


def problems(text, target=TARGET, **options):
    return [
        problem
        for document in read_seclabels(text.encode(), "test")
        for problem in validate(document, target, **options)
    ]


def codes(text, target=TARGET, **options):
    return [problem.code for problem in problems(text, target, **options)]


NO_PROBLEM = [
    domain(),
    domain(DYNAMIC),
    domain(STATIC),
    domain(KEPT),
    domain("<seclabel type='none' model='selinux'/>"),
    domain("<seclabel type='dynamic'/>"),
    domain("<seclabel model='selinux'/>"),
    domain(STATIC, disk(OVERRIDE)),
    domain("", disk("<seclabel model='selinux' relabel='no'/>")),
    domain(DYNAMIC, disk("<seclabel model='dac' relabel='no'/>")),
    domain(
        "<seclabel type='dynamic' model='selinux'><baselabel>system_u:system_r:x_t:s0</baselabel>"
        "</seclabel>"
    ),
    # What libvirt prints of a running guest.
    domain(
        "<seclabel type='dynamic' model='selinux' relabel='yes'>"
        f"{LABEL}<imagelabel>system_u:object_r:svirt_image_t:s0:c1,c2</imagelabel></seclabel>"
        "<seclabel type='dynamic' model='dac' relabel='yes'><label>+64055:+64055</label>"
        "<imagelabel>+64055:+64055</imagelabel></seclabel>",
        disk("<seclabel model='selinux' relabel='yes'/>"),
        " id='7'",
    ),
    STATIC,
    f"<domainsnapshot><disks><disk name='vda'><source file='/a'>{OVERRIDE}</source></disk></disks>"
    "</domainsnapshot>",
    f"<domainbackup><disks><disk name='vda'><target file='/a'>{OVERRIDE}</target></disk></disks>"
    "</domainbackup>",
]


@pytest.mark.parametrize("text", NO_PROBLEM, ids=range(len(NO_PROBLEM)))
def test_nothing_to_say(text):
    assert problems(text) == []


#: A document, and the codes of all that is wrong with it.
WRONG = [
    (domain("<seclabel type='dynamic' model='selinux' relabel='no'/>"), ["P4"]),
    (domain("<seclabel model='selinux' relabel='no'/>"), ["I1"]),
    (domain("<seclabel model='selinux'><baselabel>a:b:c</baselabel></seclabel>"), ["I2"]),
    (domain(STATIC.replace("</seclabel>", "<baselabel>a:b:c</baselabel></seclabel>")), ["I2"]),
    (domain("<seclabel type='none' model='none'/>"), ["I3"]),
    (domain("<seclabel type='dynamic' model='none'/>"), ["I3"]),
    (domain("<seclabel type='dynamic' model='dac'/>"), ["I4"]),
    (domain(DYNAMIC.replace("/>", f">{LABEL}</seclabel>")), ["I5"]),
    (domain(STATIC.replace("</seclabel>", "<imagelabel>a:b:c:s0</imagelabel></seclabel>")), ["I5"]),
    (
        domain(DYNAMIC.replace("/>", "><baselabel>me_u:me_r:x_t:s0:c9</baselabel></seclabel>")),
        ["I7"],
    ),
    (domain("", disk("", "file", backing(OVERRIDE.replace(" model='selinux'", "")))), ["I8"]),
    (domain("", disk(OVERRIDE.replace(" model='selinux'", ""))), ["S1"]),
    (domain("", disk("", "file", backing(OVERRIDE.replace("selinux", "smack")))), ["I9"]),
    (domain("", disk("<seclabel model='selinux' relabel='yes'/>")), ["I10"]),
    (domain("", disk("<seclabel model='selinux' labelskip='yes'/>")), ["I11"]),
    (domain("", disk("", more=DYNAMIC)), ["I12"]),
    (domain("", f"<hostdev><source>{OVERRIDE}</source></hostdev>"), ["I12"]),
    (domain("", disk("", "file", backing(OVERRIDE, kind=""))), ["I12"]),
    (domain("", disk(more=f"<mirror type='file'><source>{OVERRIDE}</source></mirror>")), ["I12"]),
    (domain("", "", "", f"<nvram><source>{OVERRIDE}</source></nvram>"), ["I12"]),
    (domain("", "", "", f"<nvram type='file'><source>{OVERRIDE}</source></nvram>"), []),
    (domain(KEPT, "", "", f"<nvram type='file'><source>{OVERRIDE}</source></nvram>"), ["I20"]),
    (domain("", disk(OVERRIDE, "network")), ["I13"]),
    (domain("", disk(OVERRIDE, "dir")), ["I13"]),
    (domain("", f"<serial type='pty'><source>{OVERRIDE}</source></serial>"), ["I13"]),
    (domain("", f"<serial type='file'><source>{OVERRIDE}</source></serial>"), []),
    (domain("", "<serial type='pty'/><console type='file'>"
                f"<source path='/a'>{OVERRIDE}</source></console>"), ["I13"]),
    (domain(DYNAMIC.replace("/>", " relable='no'/>")), ["I14"]),
    (domain(DYNAMIC.replace("/>", "><baseLabel>a:b:c</baseLabel></seclabel>")), ["I14"]),
    (domain(STATIC.replace(LABEL, LABEL * 2)), ["I15"]),
    (domain(f"<seclabel type='none' model='selinux'>{LABEL}</seclabel>"), ["I16"]),
    (domain(f"<seclabel type='none' model='{'m' * 257}'/>"), ["I17"]),
    (domain("", disk(f"<seclabel model='selinux'><label>{'x' * 4097}</label></seclabel>")),
     ["I10", "I18"]),
    (domain(STATIC.replace("c1,c2", "c2,c1")), ["L3"]),
    (domain(STATIC.replace("c1,c2", "c1024")), ["L1"]),
    (domain(STATIC.replace(":s0:c1,c2", "")), ["S4"]),
    (domain(STATIC.replace("<label>", "<label>\n ")), ["S3"]),
    (domain(STATIC.replace("</label>", " </label>")), ["L1"]),
    (domain("", disk(OVERRIDE.replace(":s0:c1,c2", ""))), ["L2"]),
    (domain(STATIC.replace("selinux", "SELinux")), ["S1", "I4"]),
    (domain(KEPT, disk(OVERRIDE)), ["V1"]),
    (domain(KEPT, disk("", "file", backing(OVERRIDE))), ["V1"]),
    (f"<domstatus><domain id='1'>{DYNAMIC}</domain></domstatus>", ["P7"]),
    (f"<domstatus><domain id='1'>{STATIC}</domain></domstatus>", ["P8"]),
    ("<domstatus><domain id='1'><seclabel type='dynamic' model='none'/></domain></domstatus>",
     ["P6"]),
    ("<domainbackup mode='pull'><disks><disk name='vda'><scratch><seclabel model='selinux' "
     "labelskip='x'/></scratch></disk></disks></domainbackup>", ["D5"]),
    ("<seclabel/>", ["P10"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), WRONG, ids=range(len(WRONG)))
def test_all_that_is_wrong(text, expected):
    assert codes(text) == expected
    for problem in problems(text):
        assert problem.line == 1
        assert problem.remedy
        assert (problem.rule == REJECTED) == problem.layer.of_libvirt == (problem.error is not None)
        assert (problem.rule == IGNORED) == (problem.layer is Layer.ADVICE)


@pytest.mark.parametrize(
    ("text", "version", "expected"),
    [
        (domain("", disk("<seclabel model='selinux' relabel='yes'/>")), (12, 0), ["D4"]),
        (domain("<seclabel model='selinux' relabel='no'/>"), (7, 0), ["P4"]),
        (domain("<seclabel/>"), (7, 0), []),
        (domain("<seclabel type='' relabel=''/>"), (7, 0), []),
        (domain("", "", "", f"<nvram type='file'><source>{OVERRIDE}</source></nvram>"),
         (8, 4), ["I12"]),
    ],
)  # fmt: skip
def test_versions_differ(text, version, expected):
    found = codes(text, Target(version=version))
    assert found[: len(expected)] == expected
    assert bool(found) == bool(expected)


def test_older_versions_have_other_words():
    (problem,) = problems(domain("<seclabel type='x' model='selinux'/>"), Target(version=(7, 0)))
    assert (problem.error, problem.fragment) == (67, "invalid security type")


def test_lines_and_order():
    text = """<domain type='kvm'><name>a</name>
      <devices>
        <channel type='unix'><source><seclabel model='a' relabel='x'/></source></channel>
        <disk type='file'><source file='/a'>
          <seclabel model='selinux' relabel='no'>
            <label>a:b:c:s0</label>
          </seclabel></source></disk>
      </devices>
      <seclabel type='Static' model='selinux'/>
    </domain>"""
    assert [(problem.code, problem.line) for problem in problems(text)] == [
        ("P2", 9),
        ("D3", 5),
        ("D2", 3),
    ]


def test_only_libvirt():
    text = domain(
        DYNAMIC.replace("/>", f" relabel='no'>{LABEL}</seclabel>"), disk("", more=DYNAMIC)
    )
    assert codes(text, libvirt_only=True) == ["P4"]


def test_hosts_without_selinux():
    host = Target(models=("none",))
    assert codes(domain(STATIC), host) == ["S1"]
    assert codes(domain("<seclabel type='dynamic'/>"), host) == []


def test_what_the_test_driver_lets_pass():
    assert codes(domain("<seclabel/>"), Target(driver="test")) == []
    assert codes(domain(STATIC.replace("selinux", "xyz")), Target(driver="test")) == []


@pytest.mark.parametrize(
    "text", ["", "<a", "<!DOCTYPE domain [<!ENTITY a 'b'>]><domain>&a;</domain>"]
)
def test_malformed(text):
    with pytest.raises(DomainXMLError):
        read_seclabels(text.encode(), "test")


def test_other_documents_have_none():
    assert read_seclabels(b"<network><name>default</name></network>", "test") == ()


def test_a_guest_carries_its_problems():
    text = domain("<seclabel type='Static' model='selinux'/>", disk("", more=DYNAMIC))
    (guest,) = parse_document(text.encode(), "test")
    assert [problem.code for problem in guest.seclabel_problems] == ["P2", "I12"]


@pytest.mark.parametrize("text", [text for text in NO_PROBLEM if text.startswith("<domain type")])
def test_a_guest_without_problems(text):
    (guest,) = parse_document(text.encode(), "test")
    assert guest.seclabel_problems == ()


@pytest.mark.parametrize(
    "text", [*NO_PROBLEM, *(text for text, _ in WRONG)], ids=range(len(NO_PROBLEM) + len(WRONG))
)
def test_a_second_look_says_the_same(text):
    """Shapes of seclabels without a problem are remembered."""
    if not text.startswith("<domain type"):
        return
    (before,) = parse_document(text.encode(), "test")
    (after,) = parse_document(text.encode(), "test")
    assert before == after
    told = {problem.code for problem in after.seclabel_problems}
    target = Target(models=None, version=None)
    assert told == {
        problem.code
        for problem in problems(text, target)
        if problem.rule in (REJECTED, IGNORED) and problem.code not in ("I4", "S3", "S4", "S5")
    }


def test_text_in_an_element_of_a_label_is_not_taken_for_none():
    """As libvirt reads all text of a label, also after a guest whose label is empty."""
    for label, told in (("", []), ("<b>x</b>", ["I5"])):
        text = domain(f"<seclabel type='dynamic' model='selinux'><label>{label}</label></seclabel>")
        (guest,) = parse_document(text.encode(), "test")
        assert [problem.code for problem in guest.seclabel_problems] == told


def test_what_is_remembered_of_seclabels_is_bounded(monkeypatch):
    monkeypatch.setattr(domainxml, "_SHAPES_WITHOUT_PROBLEM", set())
    for length in (10, 2000):
        baselabel = f"system_u:system_r:{'t' * length}:s0"
        text = f"<seclabel type='dynamic' model='selinux'><baselabel>{baselabel}</baselabel>"
        (guest,) = parse_document(domain(f"{text}</seclabel>").encode(), "test")
        assert guest.seclabel_problems == ()
    (kept,) = domainxml._SHAPES_WITHOUT_PROBLEM
    assert len(str(kept)) < 1000


def test_what_hosts_and_versions_decide_is_no_problem_of_a_guest():
    text = domain(STATIC.replace("selinux", "apparmor"), disk("<seclabel model='a' relabel='no'/>"))
    (guest,) = parse_document(text.encode(), "test")
    assert guest.seclabel_problems == ()
