"""What we say of seclabels against what libvirt says.

Documents at random go to the real libvirt: its QEMU driver with its SELinux driver in front
(a library plays the kernel, nothing plays libvirt), the same without a security driver, and
its test driver. Wanted is not one difference: in accepting or refusing, in when, in the
number and the words of the first error, and in what is kept. The fast tests repeat the same
documents; the slow ones make up others in each run, and what fails names its seed.

What the test driver lets pass that QEMU's refuses is written down in one place,
``Target.default_model``: it has no security model to fill in (P10), and starts nothing.
"""

from __future__ import annotations

import os
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libvirtjudge import Judge
from seclabeldocs import DomainMaker

from svirtlib._seclabelreading import Reading
from svirtlib.problems import IGNORED, Layer
from svirtlib.rawseclabel import Place
from svirtlib.seclabelxml import read_seclabels
from svirtlib.validation import Target, validate

#: The installed libvirt must be this one for its words to be compared.
VERSION = (9, 0)


@pytest.fixture(scope="module")
def libvirt_version():
    from needs import require, require_module

    number = require_module("libvirt", package="python3-libvirt").getVersion()
    version = (number // 1_000_000, number // 1000 % 1000)
    require((8, 5) <= version < (10, 10), f"libvirt {version} may have other words than {VERSION}")
    return version


@pytest.fixture(
    scope="module",
    params=[
        "selinux",
        # Each starts a driver of its own, which takes seconds.
        pytest.param("none", marks=pytest.mark.slow),
        pytest.param("confined", marks=pytest.mark.slow),
    ],
)
def qemu(request, libvirt_version):
    """QEMU's driver: with SELinux, without any, and with a duty to confine."""
    with Judge(
        security_driver="none" if request.param == "none" else None,
        require_confined=request.param == "confined",
    ) as judge:
        target = Target(
            models=judge.models,
            version=libvirt_version,
            require_confined=request.param == "confined",
        )
        xml = DomainMaker(random.Random(3), odd=0, startable=True).document()
        xml = re.sub(r"<seclabel.*?(/>|</seclabel>)", "", xml, flags=re.DOTALL)
        filled_in = judge.ask(xml.replace("<os>", "<seclabel type='none'/><os>")).xml
        assert f"<seclabel type='none' model='{judge.models[0]}'/>" in filled_in
        yield judge, target


@pytest.fixture(scope="module")
def test_driver(libvirt_version):
    with Judge("test") as judge:
        yield judge, Target(driver="test", version=libvirt_version)


@pytest.fixture(scope="module")
def status(libvirt_version):
    with Judge("status") as judge:
        yield judge, Target(models=judge.models, version=libvirt_version)


def amounts(fast: int, slow: int):
    return pytest.mark.parametrize(
        ("seed", "count"),
        [
            pytest.param(1, fast, id="fast"),
            pytest.param(None, slow, id="slow", marks=pytest.mark.slow),
        ],
    )


def seeds(seed, count):
    if seed is None:
        # Others each time, but not where a change is judged, as with hypothesis.
        seed = 2 if "CI" in os.environ else random.SystemRandom().randrange(10**9)
    return range(seed * 10**6, seed * 10**6 + count)


def maker(seed: int, **options) -> DomainMaker:
    """A maker of documents of which about half are right."""
    generator = random.Random(seed)
    odd = generator.choice([0, 0.05, 0.1, 0.3])
    return DomainMaker(generator, odd=odd, odd_labels=generator.choice([0, 0.3, 0.9]), **options)


def compare(judge, target, xml, *, start=False, told=""):
    """Let both judge a document; return ours and libvirt's verdict."""
    (document,) = read_seclabels(xml.encode(), "document")
    problems = [
        problem
        for problem in validate(document, target, libvirt_only=True)
        if start or problem.layer is not Layer.START
    ]
    verdict = judge.ask(xml, start=start)
    ours = problems[0] if problems else None
    where = f"{told}\n{xml}\nlibvirt: {verdict}\nours: {ours}"
    if ours is None:
        assert verdict.stage == "accepted", where
    else:
        assert verdict.stage == ("start" if ours.layer is Layer.START else "define"), where
        assert verdict.code == ours.error, where
        assert ours.fragment in verdict.message, where
    if verdict.xml:
        assert_kept(document, target, verdict.xml, where)
    return problems, verdict


def assert_kept(document, target, xml, where):
    """What libvirt prints after define is what we say that it keeps."""
    judge = Reading(document, target)
    assert not list(judge.parse()), where
    objections = validate(document, target, libvirt_only=True)
    assert {problem.layer for problem in objections} <= {Layer.START}, where
    (printed,) = read_seclabels(xml.encode(), "printed")
    kept = [
        (
            seclabel.type,
            seclabel.model,
            None if seclabel.type == "none" else seclabel.relabel,
            seclabel.label,
            seclabel.baselabel,
        )
        for seclabel in judge.domain
        if seclabel.type != "default"
    ]
    assert kept == [
        (
            raw.get("type"),
            raw.get("model"),
            None if raw.get("relabel") is None else raw.get("relabel") == "yes",
            raw.text("label"),
            raw.text("baselabel"),
        )
        for raw in printed.seclabels
    ], where
    disks = {Place.DISK, Place.BACKING, Place.NVRAM}
    assert sorted(_overrides(judge, disks)) == sorted(_printed(printed, disks)), where
    for place in (Place.PARALLEL, Place.CHANNEL):
        assert _overrides(judge, {place}) == _printed(printed, {place}), where
    # The first console and the first serial port may be one, and are printed as two: with what
    # the serial port has, whatever stood in the console.
    ports = {Place.SERIAL, Place.CONSOLE}
    assert {*_overrides(judge, ports)} == {*_printed(printed, ports)}, where
    advice = {problem.code for problem in validate(document, target) if problem.rule == IGNORED}
    # A live dump is expected to hold what libvirt does not take from it.
    # Nor is one told of SELinux on a host without.
    if (
        not document.live
        and target.models[:1] != ("none",)
        and not advice & {"I2", "I3", "I5", "I14", "I15", "I16", "I17"}
    ):
        # Where nothing is said to be lost, nothing is.
        written = [raw for raw in document.seclabels if raw.get("type") is not None]
        assert [
            {child.name: child.text for child in raw.children if child.text} for raw in written
        ] == [{child.name: child.text for child in raw.children} for raw in printed.seclabels], (
            where
        )
    for source in document.sources:
        for raw in source.seclabels:
            assert raw.line, where


def _overrides(judge, places):
    return [
        (str(device.model), device.relabel, str(device.label))
        for device in judge.devices
        if device.source.place in places
        and not device.source.replaced
        and not device.source.alias_of_serial
        and (device.label is not None or not device.relabel)
        and device.source.kind
        in ("file", "block", "dir", "volume", "nvme", "vhostuser", "dev", "pipe", "unix")
    ]


def _printed(document, places):
    return [
        (str(raw.get("model")), raw.get("relabel") == "yes", str(raw.text("label")))
        for source in document.sources
        if source.place in places
        for raw in source.seclabels
    ]


@amounts(130, 3000)
def test_define(qemu, seed, count):
    judge, target = qemu
    for number in seeds(seed, count):
        compare(judge, target, maker(number).document(), told=f"seed {number}")


@amounts(50, 1000)
def test_start(qemu, seed, count):
    judge, target = qemu
    for number in seeds(seed, count):
        xml = maker(number, startable=True).document()
        compare(judge, target, xml, start=True, told=f"seed {number}")


@amounts(40, 700)
def test_labels_at_start(qemu, seed, count):
    """One seclabel with one text, mostly an odd one."""
    judge, target = qemu
    for number in seeds(seed, count):
        one = DomainMaker(random.Random(number), odd=0, odd_labels=0.8, startable=True)
        kind, name = random.Random(number).choice([("static", "label"), ("dynamic", "baselabel")])
        xml = DomainMaker(random.Random(0), startable=True).document()
        xml = re.sub(r"<seclabel.*?(/>|</seclabel>)", "", xml, flags=re.DOTALL)
        seclabel = f"<seclabel type='{kind}' model='selinux'>{one.text_element(name)}</seclabel>"
        xml = xml.replace("<os>", f"{seclabel}<os>", 1)
        compare(judge, target, xml, start=True, told=f"seed {number}")


@amounts(150, 3000)
def test_define_with_the_test_driver(test_driver, seed, count):
    judge, target = test_driver
    for number in seeds(seed, count):
        compare(judge, target, maker(number).document("test"), told=f"seed {number}")


@amounts(20, 1500)
def test_records_of_running_guests(status, seed, count):
    """Live XML; libvirt says only whether it takes it."""
    judge, target = status
    for number in seeds(seed, count):
        xml = _status(maker(number).document())
        (document,) = read_seclabels(xml.encode(), "status")
        problems = validate(document, target, libvirt_only=True)
        verdict = judge.ask_status(xml)
        where = f"seed {number}\n{xml}\nours: {problems[:1]}"
        assert (verdict.stage == "accepted") == (not problems), where


def _status(xml: str) -> str:
    xml = re.sub(r"<domain type='qemu'([^>]*?)( id='5')?>", r"<domain type='qemu'\1 id='5'>", xml)
    identity = "<name>live</name><uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid><vcpu>1</vcpu>"
    xml = xml.replace("<name>live</name>", identity)
    monitor = "<monitor path='/nonexistent/monitor' type='unix'/>"
    return f"<domstatus state='running' reason='booted' pid='4194303'>{monitor}{xml}</domstatus>"


@amounts(60, 1500)
def test_snapshots(test_driver, seed, count):
    """The test driver makes no external snapshot; it says so after it has read the document."""
    judge, target = test_driver
    domain = (
        "<domain type='test'><name>live</name><memory>65536</memory><os><type>hvm</type></os>"
        "<devices><disk type='file'><source file='/nonexistent/a'/><target dev='vda'/></disk>"
        "</devices></domain>"
    )
    for number in seeds(seed, count):
        one = maker(number)
        kind = random.Random(number).choice(["file", "block", "network"])
        stray = one.device_seclabel() if one.chance(0.2) else ""
        xml = (
            f"<domainsnapshot xmlns:x='urn:x'><disks><disk name='vda' type='{kind}' "
            f"snapshot='external'>{one.source(kind, 1, one.device_seclabels())}{stray}</disk>"
            "</disks></domainsnapshot>"
        )
        (document,) = read_seclabels(xml.encode(), "snapshot")
        problems = validate(document, target, libvirt_only=True)
        verdict = judge.ask_snapshot(domain, xml)
        where = f"seed {number}\n{xml}\nlibvirt: {verdict}\nours: {problems[:1]}"
        if problems:
            assert verdict.code == problems[0].error, where
            assert problems[0].fragment in verdict.message, where
        else:
            assert "must use snapshot mode" in verdict.message, where


@given(drawn=st.randoms(use_true_random=False), odd=st.sampled_from([0.0, 0.1, 0.3]))
def test_documents_that_hypothesis_finds(test_driver, drawn, odd):
    """The same once more, with a search that looks for the smallest document that fails."""
    judge, target = test_driver
    compare(judge, target, DomainMaker(drawn, odd=odd).document("test"))


#: Hand-made: each check by the smallest document that meets it, and its neighbours.
DOMAIN = [
    ("<seclabel type=''/>", "P2"),
    ("<seclabel type='default' model='selinux'/>", "P2"),
    ("<seclabel relabel='' model='selinux'/>", "P3"),
    ("<seclabel type='dynamic' model='none' relabel='no'/>", "P4"),
    ("<seclabel type='none' relabel='yes'/>", "P5"),
    ("<seclabel type='static' model='none'/>", None),
    ("<seclabel type='static' model='selinux'><label/></seclabel>", "P7"),
    ("<seclabel type='static' model='selinux'><label> </label></seclabel>", None),
    (f"<seclabel type='static' model='selinux'><label>{'x' * 4097}</label></seclabel>", "P7"),
    (f"<seclabel type='static' model='selinux'><label>{'x' * 4096}</label></seclabel>", None),
    ("<seclabel type='none'/><seclabel type='none'/>", "P9"),
    ("<seclabel type='none' model='a'/><seclabel type='none' model='a'/>", "P9"),
    (f"<seclabel model='{'m' * 257}'/><seclabel/>", "P9"),
    ("<seclabel/>", "P10"),
    ("<seclabel type='none'/>", None),
    ("<seclabel type='dynamic'/>", None),
    ("<seclabel type='dynamic'><baselabel>a:b:c</baselabel></seclabel>", "P10"),
    (f"<seclabel type='dynamic'><baselabel>{'x' * 4097}</baselabel></seclabel>", None),
    ("<seclabel type='static'><label>a:b:c:s0</label></seclabel>", "P10"),
    ("<seclabel type='none' model='a'/><seclabel/>", "P11"),
    ("<seclabel model='selinux' relabel='no'/>", None),
    ("<seclabel type='dynamic' model='selinux'><label>x</label><imagelabel>y</imagelabel>"
     "</seclabel>", None),
]  # fmt: skip


@pytest.mark.parametrize(("seclabels", "code"), DOMAIN, ids=range(len(DOMAIN)))
def test_each_check_of_the_domain(qemu, seclabels, code):
    judge, target = qemu
    xml = DomainMaker(random.Random(3), odd=0, startable=True).document()
    xml = re.sub(r"<seclabel.*?(/>|</seclabel>)", "", xml, flags=re.DOTALL)
    problems, _ = compare(judge, target, xml.replace("<os>", f"{seclabels}<os>", 1))
    assert [problem.code for problem in problems][:1] == ([code] if code else [])
