"""The real libvirt takes every seclabel that is generated, and reads it as it was meant."""

from __future__ import annotations

import pytest
from attr import evolve
from hypothesis import given
from hypothesis import strategies as st
from libvirtjudge import NOWHERE, Judge

from svirtlib import Context, Level, Range
from svirtlib.domainxml import parse_document
from svirtlib.errors import GenerationError
from svirtlib.generate import DEFAULT_CONTEXTS, Request, generate, insert
from svirtlib.seclabel import SELINUX, Seclabel, SeclabelType
from svirtlib.seclabeltext import format_device_seclabel, format_seclabel

C = Context.parse
DYNAMIC, STATIC, NONE = SeclabelType.DYNAMIC, SeclabelType.STATIC, SeclabelType.NONE
LABEL = C("system_u:system_r:svirt_t:s0:c87,c520")
IMAGE = C("system_u:object_r:svirt_image_t:s0:c87,c520")
SHARED = C("system_u:object_r:svirt_image_t:s0")

#: The four configurations of the Red Hat guide, and none.
CONFIGURATIONS = {
    "dynamic": Request(DYNAMIC),
    "dynamic with a baselabel": Request(DYNAMIC, baselabel=C("system_u:object_r:svirt_t:s0")),
    "static with resource labelling": Request(STATIC, label=LABEL, relabel=True),
    "static without resource labelling": Request(STATIC, label=LABEL, relabel=False),
    "none": Request(NONE),
    "dynamic with overrides": Request(DYNAMIC, devices={"vda": None, "vdb": SHARED}),
    "static with overrides": Request(
        STATIC, label=LABEL, relabel=True, devices={"vda": IMAGE, "vdb": None}
    ),
}

#: The last disk ends each start, before QEMU would be run.
DOCUMENT = """\
<domain type='{type}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <!-- kept -->
  <name>generated</name>
  <memory>65536</memory>
  <os><type>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <source file='{nowhere}/a'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <disk type='block' device='disk'>
      <source dev='{nowhere}/b'><!-- no label yet --></source>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'>
      <source file='{nowhere}/stopper'/>
      <target dev='vdz' bus='virtio'/>
    </disk>
  </devices>
{other}</domain>
"""
DAC = """\
  <seclabel type='static' model='dac' relabel='no'>
    <label>+0:+0</label>
  </seclabel>
"""
OLD = "  <seclabel type='none' model='selinux'/>\n"


def _document(kind, other=""):
    text = DOCUMENT.format(type=kind, nowhere=NOWHERE, other=other)
    # Only the QEMU driver knows this name space.
    if kind == "qemu":
        text = text.replace(
            "</domain>", "  <qemu:commandline><qemu:arg value='-S'/></qemu:commandline>\n</domain>"
        )
    return text.encode()


@pytest.fixture(scope="module", params=["test", "qemu"])
def driver(request):
    """A driver of libvirt, with the type of its domains."""
    with Judge(request.param) as judge:
        yield judge, request.param


def _meant(seclabel):
    """Return a seclabel without the line."""
    return Seclabel(
        seclabel.type,
        seclabel.model,
        seclabel.relabel,
        seclabel.label,
        seclabel.imagelabel,
        seclabel.baselabel,
    )


def _hold(driver, generated, data):
    judge, kind = driver
    # No user's own libvirt has the driver of dac, without which such a guest does not start.
    start = kind == "qemu" and b"'dac'" not in data
    verdict = judge.ask(data.decode(), start=start)
    assert verdict.stage == "accepted", verdict
    (guest,) = parse_document(verdict.xml.encode(), "libvirt")
    assert [_meant(own) for own in guest.seclabels if own.model == SELINUX] == [generated.seclabel]
    overrides = {
        image.target: (image.seclabel.relabel, image.seclabel.label)
        for image in guest.images
        if image.seclabel is not None
    }
    assert overrides == {
        target: (own.relabel, own.label) for target, own in generated.devices.items()
    }
    return verdict.xml


@pytest.mark.parametrize("other", ["", DAC, OLD, OLD + DAC], ids=["", "dac", "old", "old and dac"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_libvirt_takes_it_and_reads_what_was_meant(driver, name, other):
    generated = generate(CONFIGURATIONS[name])
    written = _hold(driver, generated, insert(generated, _document(driver[1], other), "test"))
    if "dac" in other:
        assert DAC in written


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_libvirt_writes_it_in_the_same_way(driver, name):
    """What libvirt prints holds our text, indentation aside; so it stays as it is ever after."""
    generated = generate(CONFIGURATIONS[name])
    written = _hold(driver, generated, insert(generated, _document(driver[1]), "test"))
    assert format_seclabel(generated.seclabel, newline="\n  ") in written
    for own in generated.devices.values():
        assert format_device_seclabel(own, newline="\n        ") in written
    # And what was put into libvirt's own output comes back byte for byte.
    again = insert(generated, written.encode(), "test")
    assert again.decode() == written


_LEVELS = st.lists(st.integers(0, 1023), min_size=2, max_size=5, unique=True).map(
    lambda numbers: Level(0, numbers)
)
_NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,9}_t", fullmatch=True)


#: What goes with each type; now and then it is refused all the same.
_REQUESTS = st.one_of(
    st.builds(Request, st.just(DYNAMIC), baselabel=st.none() | _NAMES.map(SHARED.with_type)),
    st.builds(Request, st.just(DYNAMIC), relabel=st.just(True), selinux_type=_NAMES),
    st.builds(
        Request,
        st.just(STATIC),
        relabel=st.sampled_from([None, False, True, True]),
        label=_LEVELS.map(lambda level: LABEL.with_range(Range(level))),
    ),
    st.builds(
        Request,
        st.just(STATIC),
        relabel=st.sampled_from([None, False, True, True]),
        selinux_type=st.none() | _NAMES,
        level=_LEVELS.map(lambda level: Range(Level(0), level)),
    ),
    st.builds(Request, st.just(NONE), relabel=st.sampled_from([None, False])),
)
_DEVICES = st.dictionaries(st.sampled_from(["vda", "vdb"]), st.sampled_from([None, SHARED]))


@given(_REQUESTS, st.just({}) | _DEVICES, st.sampled_from(["", DAC, OLD, OLD + DAC]))
def test_libvirt_takes_whatever_is_generated(driver, request_, devices, other):
    request = evolve(request_, devices=devices)
    try:
        generated = generate(request, DEFAULT_CONTEXTS)
    except GenerationError:
        return
    _hold(driver, generated, insert(generated, _document(driver[1], other), "test"))


@pytest.mark.parametrize(
    ("type", "relabel"), [(DYNAMIC, False), (NONE, True), (STATIC, False), (STATIC, True)]
)
def test_libvirt_refuses_what_is_not_generated(driver, type, relabel):
    """Dynamic without relabelling, none with it, and static without a label."""
    judge, kind = driver
    with pytest.raises(GenerationError):
        generate(Request(type, relabel=relabel))
    text = format_seclabel(Seclabel(type, SELINUX, relabel))
    assert judge.ask(_document(kind, text).decode()).stage == "define"


@pytest.mark.parametrize(
    "seclabel",
    [Seclabel(NONE, SELINUX, False), Seclabel(STATIC, SELINUX, False, str(LABEL))],
)
def test_libvirt_refuses_overrides_without_relabelling(driver, seclabel):
    judge, kind = driver
    text = _document(kind, format_seclabel(seclabel)).decode()
    override = "<seclabel model='selinux' relabel='no'/>"
    verdict = judge.ask(text.replace("<!-- no label yet -->", override))
    assert verdict.stage == "define"
    assert "label overrides require relabeling" in verdict.message
