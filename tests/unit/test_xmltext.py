"""Seclabels put into awkward documents: what stands around them stays, byte for byte."""

from __future__ import annotations

import pytest

from svirtlib import domainxml, xmltext
from svirtlib.errors import DomainXMLError
from svirtlib.seclabel import DeviceSeclabel, Seclabel, SeclabelType
from svirtlib.xmltext import set_seclabels

DYNAMIC = Seclabel(SeclabelType.DYNAMIC, "selinux")
STATIC = Seclabel(SeclabelType.STATIC, "selinux", True, "u:r:svirt_t:s0:c1,c2")
KEPT = DeviceSeclabel("selinux", relabel=False)
LABELLED = DeviceSeclabel("selinux", True, "u:object_r:svirt_image_t:s0")

D = "<seclabel type='dynamic' model='selinux' relabel='yes'/>"
K = "<seclabel model='selinux' relabel='no'/>"


def put(text, seclabel=DYNAMIC, **devices):
    before = text.encode()
    after = set_seclabels(before, "test", seclabel, devices)
    assert set_seclabels(after, "test", seclabel, devices) == after, "not idempotent"
    return after.decode()


# Where the new seclabel goes: @ marks the place, and what stands between two @ goes.
PLACES = {
    "after the devices": """\
<domain type='kvm'>
  <name>x</name>
  <devices>
  </devices>@
  D@
</domain>
""",
    "before what is in a name space": """\
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <devices/>@
  D@
  <qemu:commandline>
    <qemu:arg value='-seclabel'/>
  </qemu:commandline>
</domain>""",
    "before launchSecurity and keywrap, without devices": """\
<domain>
    <name>x</name>@
    D@
    <keywrap/>
    <launchSecurity type='sev'/>
</domain>
""",
    "before those of other models": """\
<domain>
  <devices/>
  @D
  @<seclabel type='dynamic' model='dac' relabel='yes'/>
  <seclabel type='none' model="apparmor"/>
</domain>
""",
    "in place of the old one": """\
<domain>
  <seclabel model="dac" type='none'/>
  @<seclabel  type = "static"
      model='selinux'><!-- why --><label>a</label>
        </seclabel
  >D@
  <devices/>
</domain>
""",
    "in place of one without a model": """\
<domain>
\t<devices/>
\t@<seclabel type='none'></seclabel>D@
</domain>
""",
    "all in one line": "<domain><devices></devices>@D@<x:y xmlns:x='urn:y'/></domain>",
    "in place, all in one line": (
        "<domain>@<seclabel type='none' model='selinux'/>D@<devices/></domain>"
    ),
    "with tabs": "<domain>\n\t<devices/>@\n\tD@\n</domain>",
    "with carriage returns": "<domain>\r\n <devices/>@\r\n D@\r\n</domain>\r\n",
    "after a comment on the same line": """\
<domain>
  <devices/>  <!-- none --> <!-- at all -->@
  D@
</domain>
""",
    "before a comment on the next line": """\
<domain>
  <devices/>@
  D@
  <!-- the rest -->
</domain>
""",
    "before a neighbour on the same line and its comment": """\
<domain>
  <devices/>@
  D@ <!-- clock --> <clock/>
</domain>
""",
    "after the last of two devices": """\
<domain>
  <devices/>
  <devices/>@
  D@
</domain>
""",
    "in an empty domain": "<domain>@D@</domain>",
    "not into what looks like one": """\
<?xml version='1.0'?>
<!-- <domain><seclabel type='none' model='selinux'/></domain> -->
<?pi <seclabel/> ?>
<domain>
  <metadata><seclabel model='selinux'/><a:seclabel xmlns:a='urn:a'/></metadata>
  <description><![CDATA[<seclabel type='none' model='selinux'/>]]>&lt;seclabel/&gt;</description>
  <seclabel xmlns='urn:other' model='selinux'/>
  <devices><disk><seclabel model='selinux'/></disk></devices>@D@
</domain>
<!-- end -->
""",
}


@pytest.mark.parametrize("name", PLACES)
def test_place_of_the_domains_seclabel(name):
    text = PLACES[name]
    head, middle, tail = text.split("@")
    if "seclabel" in middle:
        old, new = middle[: middle.rindex("D")], "D"
    else:
        old, new = "", middle
    if name == "not into what looks like one":
        # The devices stand on a line of their own.
        new = "\n  D"
    assert put(head + old + tail) == head + new.replace("D", D) + tail


DEVICES = {
    "an empty source": (
        "<domain>\n  <devices>\n    <disk type='file'>\n"
        '      <source file = "/a/>b" @/@>\n        K\n      </source>@\n'
        "      <target dev='vda'/>\n    </disk>\n  </devices>\n</domain>\n"
    ),
    "a source without elements": (
        "<domain>\n <devices>\n  <disk>\n   <source file='/a'>@@\n    K\n   @</source>\n"
        "   <target dev='vda'/>\n  </disk>\n </devices>\n</domain>\n"
    ),
    "a source with white space": (
        "<domain>\n <devices>\n  <disk>\n   <source file='/a'>@@\n    K@\n   </source>\n"
        "   <target dev='vda'/>\n  </disk>\n </devices>\n</domain>\n"
    ),
    "before encryption": (
        "<domain>\n <devices>\n  <disk>\n   <source file='/a'>\n    <slices/>\n"
        "    @@K\n    @<encryption format='luks'/>\n   </source>\n"
        "   <target dev='vda'/>\n  </disk>\n </devices>\n</domain>\n"
    ),
    "after slices": (
        "<domain>\n <devices>\n  <disk>\n   <source file='/a'>\n    <slices/>@@\n    K@\n"
        "   </source>\n   <target dev='vda'/>\n  </disk>\n </devices>\n</domain>\n"
    ),
    "in place of the old one, before dac's": (
        "<domain><devices><disk><target dev='vda'/><source>@<seclabel model='selinux'><label>x"
        "</label></seclabel>@K@<seclabel model='dac' relabel='no'/></source></disk></devices>"
        "</domain>"
    ),
    "the top of a chain alone": (
        "<domain><devices><disk type='block'><source dev='/a'@/@>K</source>@<backingStore "
        "type='file'><source file='/b'/></backingStore><target dev='vda'/></disk><disk><source "
        "file='/c'/><target dev='vdb'/></disk></devices></domain>"
    ),
}


@pytest.mark.parametrize("name", DEVICES)
def test_place_of_a_devices_seclabel(name):
    head, old, new, tail = DEVICES[name].split("@")
    if old == "/":
        old = "/>"
    before = head + old + tail
    after = put(before, vda=KEPT)
    # The domain's own is judged above.
    assert after.replace(D, "", 1).split() == (head + new.replace("K", K) + tail).split()
    assert head in after
    assert new.replace("K", K) in after


def test_nvram():
    text = "<domain><os><nvram type='file'><source file='/vars'/></nvram></os><devices/></domain>"
    assert put(text, nvram=KEPT) == (
        f"<domain><os><nvram type='file'><source file='/vars'>{K}</source></nvram></os><devices/>"
        f"{D}</domain>"
    )


def test_children_are_indented_like_the_document():
    text = (
        "<domain>\r\n\t<devices>\r\n\t\t<disk>\r\n\t\t\t<source file='/a'/>\r\n"
        "\t\t\t<target dev='vda'/>\r\n\t\t</disk>\r\n\t</devices>\r\n</domain>"
    )
    assert put(text, STATIC, vda=LABELLED) == (
        "<domain>\r\n\t<devices>\r\n\t\t<disk>\r\n\t\t\t<source file='/a'>\r\n"
        "\t\t\t\t<seclabel model='selinux' relabel='yes'>\r\n"
        "\t\t\t\t\t<label>u:object_r:svirt_image_t:s0</label>\r\n"
        "\t\t\t\t</seclabel>\r\n\t\t\t</source>\r\n\t\t\t<target dev='vda'/>\r\n"
        "\t\t</disk>\r\n\t</devices>\r\n"
        "\t<seclabel type='static' model='selinux' relabel='yes'>\r\n"
        "\t\t<label>u:r:svirt_t:s0:c1,c2</label>\r\n\t</seclabel>\r\n</domain>"
    )


ENCODINGS = {
    "utf-8": ("utf-8", ""),
    "utf-8-sig": ("utf-8-sig", " encoding='UTF-8'"),
    "utf-16 with a mark": ("utf-16", " encoding='utf-16'"),
    "utf-16, little endian": ("utf-16-le", ""),
    "utf-16, big endian": ("utf-16-be", ""),
    "latin-1": ("latin-1", " encoding='ISO-8859-1'"),
    "ascii": ("ascii", " encoding='US-ASCII'"),
    "windows": ("cp1252", " encoding='windows-1252'"),
    "cyrillic": ("koi8-r", " encoding='KOI8-R'"),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_encodings(name):
    codec, declared = ENCODINGS[name]
    odd = {"ascii": "e", "koi8-r": "\u044f"}.get(codec, "\u00e9")
    text = (
        f"<?xml version='1.0'{declared}?>\n<domain a='{odd}'>\n  <title>{odd}</title>"
        f"<!-- {odd} -->\n  <devices/>@\n</domain>\n"
    )
    before = text.replace("@", "").encode(codec)
    after = set_seclabels(before, "test", DYNAMIC)
    assert after == text.replace("@", f"\n  {D}").encode(codec)
    assert set_seclabels(after, "test", DYNAMIC) == after


REFUSED = {
    "malformed": ("<domain><devices></domain>", "malformed XML"),
    "empty": ("", "malformed XML"),
    "a name space that is not declared": ("<domain><a:b/></domain>", "malformed XML"),
    "entities": (
        "<!DOCTYPE d [<!ENTITY a 'a'>]><domain>&a;</domain>",
        "a DOCTYPE is not accepted",
    ),
    "an unknown entity": ("<domain>&a;</domain>", "malformed XML"),
    "another document": ("<network/>", "its root element is <network>"),
    "another name space": ("<domain xmlns='urn:a'/>", "its root element is <domain>"),
    "two": (
        "<domain>\n<seclabel model='selinux'/>\n<seclabel/></domain>",
        r"2 SELinux seclabels \(lines 2 and 3\)",
    ),
    "an encoding of many bytes": (
        "<?xml version='1.0' encoding='gbk'?><domain/>",
        "its encoding cannot be edited",
    ),
    "an unknown encoding": (
        "<?xml version='1.0' encoding='xyz'?><domain/>",
        "its encoding cannot be edited|unknown encoding",
    ),
    "depth": ("<domain>" + "<a>" * 300 + "</a>" * 300 + "</domain>", "more than 256 deep"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    text, message = REFUSED[name]
    with pytest.raises(DomainXMLError, match=message):
        set_seclabels(text.encode(), "test", DYNAMIC)


def _disk(kind="file", source="<source/>"):
    return f"<disk type='{kind}'>{source}<target dev='vda'/></disk>"


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (_disk().replace("vda", "vdb"), r"no disk with the target 'vda' \(it has: vdb\)"),
        (_disk() * 2, "2 disks have the target"),
        (_disk(source=""), "has no <source>"),
        (_disk("network"), "drops"),
        (_disk("nvme"), "NVMe"),
        (_disk("dir"), "directory"),
        (
            _disk(source="<source><seclabel model='selinux'/><seclabel model='selinux'/></source>"),
            "the source of vda has 2 SELinux seclabels",
        ),
    ],
)
def test_device_refused(devices, message):
    text = f"<domain><devices>{devices}</devices></domain>"
    with pytest.raises(DomainXMLError, match=message):
        put(text, vda=KEPT)


def test_too_large(monkeypatch):
    text = b"<domain><devices/></domain>"
    monkeypatch.setattr(xmltext, "MAX_BYTES", len(text))
    with pytest.raises(DomainXMLError, match="too large"):
        set_seclabels(text, "test", DYNAMIC)
    with pytest.raises(DomainXMLError, match="too large"):
        set_seclabels(text + b" ", "test", DYNAMIC)


def test_the_limit_is_that_of_reading():
    assert xmltext.MAX_BYTES == domainxml.MAX_BYTES


def test_an_edit_that_changes_more_is_not_given_out(monkeypatch):
    monkeypatch.setattr(xmltext, "_applied", lambda data, edits: data.replace(b"kvm", b"qemu"))
    with pytest.raises(AssertionError, match="changed more"):
        set_seclabels(b"<domain type='kvm'><devices/></domain>", "test", DYNAMIC)
