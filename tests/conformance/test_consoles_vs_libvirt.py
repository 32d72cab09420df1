"""What a console is, we and the real libvirt agree on: XML and qemu.conf to QEMU's arguments."""

from __future__ import annotations

import itertools
import random

import pytest
from attr import evolve
from libvirtjudge import Judge

from svirtlib.consoles import Exposure, consoles_of_arguments, effective_console
from svirtlib.domainxml import parse_document
from svirtlib.settings import QEMU_KEYS, read_settings
from svirtlib.virconf import parse_conf

pytestmark = pytest.mark.slow

DOCUMENT = """\
<domain type='qemu'>
  <name>console</name>
  <memory>65536</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <source file='/nonexistent/stopper'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    {graphics}
  </devices>
</domain>
"""

CONFIGURATIONS = {
    "defaults": [],
    "everything": [
        "vnc_tls = 1", "vnc_tls_x509_verify = 1", "vnc_sasl = 1", 'vnc_listen = "0.0.0.0"',
        'vnc_password = "XYZ12345"', "spice_tls = 1", "spice_sasl = 1",
        'spice_listen = "::"', 'spice_password = "XYZ12345"',
    ],
    "vnc with TLS by the default": ["vnc_tls = 1", "default_tls_x509_verify = 1"],
    "vnc with TLS against the default": [
        "default_tls_x509_verify = 1  # not for VNC", "vnc_tls_x509_verify = 0", "vnc_tls = 1",
    ],
    "sockets": [
        "vnc_auto_unix_socket = 1", "spice_auto_unix_socket = 1", 'vnc_listen = "192.0.2.1"',
    ],
    "the first line counts": [
        'vnc_listen = "127.0.0.2"; vnc_listen = "0.0.0.0"', "spice_tls = 1", "spice_tls = 0",
        "no_such_key = [ 'a', ]",
    ],
}  # fmt: skip


def _listens():
    yield ""
    yield "listen='0.0.0.0'"
    yield "listen='::1'"
    yield "listen='127.0.0.1'"
    yield "listen=''"


def _inner():
    yield ""
    yield "<listen type='address'/>"
    yield "<listen type='address' address=''/>"
    yield "<listen type='address' address='192.0.2.7'/>"
    yield "<listen type='socket'/>"
    yield "<listen type='socket' socket='/tmp/console.sock'/>"
    yield "<listen type='none'/>"


def _vnc():
    for ports, passwd, other in itertools.product(
        ("", "port='5905'", "port='-1'", "autoport='yes'", "port='5911' autoport='yes'"),
        ("", "passwd='abc'", "passwd=''"),
        ("", "websocket='5700'", "websocket='-1'", "socket='/tmp/v.sock'"),
    ):
        yield "vnc", f"{ports} {passwd} {other}", ""


def _spice():
    for ports, passwd, mode in itertools.product(
        (
            "",
            "autoport='yes'",
            "port='5910'",
            "tlsPort='5911'",
            "port='5910' tlsPort='5911'",
            "port='-1' tlsPort='-1'",
            "port='-1'",
            "autoport='yes' port='5910'",
        ),
        ("", "passwd='abcabcabcabc'"),
        ("", "defaultMode='secure'", "defaultMode='insecure'", "defaultMode='any'"),
    ):
        for channels in (
            "",
            "<channel name='main' mode='secure'/>",
            "<channel name='main' mode='secure'/><channel name='inputs' mode='insecure'/>",
            "<channel name='record' mode='any'/>",
        ):
            yield "spice", f"{ports} {passwd} {mode}", channels


def _elements(seed):
    draw = random.Random(seed)
    kinds = [*_vnc(), *_spice()]
    for kind, attributes, channels in draw.sample(kinds, 110):
        listen, inner = draw.choice([*_listens()]), ""
        if draw.random() < 0.6:
            listen, inner = "", draw.choice([*_inner()])
        yield f"<graphics type='{kind}' {attributes} {listen}>{inner}{channels}</graphics>"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_console_is_what_libvirt_makes_of_it(name):
    lines = CONFIGURATIONS[name]
    conf = read_settings(parse_conf("\n".join(lines).encode() or b"#", "qemu.conf"), QEMU_KEYS)
    compared = refused = 0
    with Judge(settings=lines) as judge:
        for element in _elements(name):
            document = DOCUMENT.format(graphics=element)
            (guest,) = parse_document(document.encode(), "test", devices=True)
            assert guest.devices is not None
            ours = effective_console(guest.devices.graphics[0], conf)
            verdict = judge.ask(document, start=True)
            if verdict.stage == "accepted":
                # The missing disk ends a start before the arguments are made.
                verdict = judge.ask_arguments(document)
            if verdict.stage != "accepted":
                if "TLS" in verdict.message:
                    refused += 1
                    assert ours.secure_without_tls, (element, verdict.message)
                continue
            assert not ours.secure_without_tls, element
            (theirs,) = consoles_of_arguments(tuple(verdict.message.split("\n")), "QEMU")
            fields = ("type", "exposure", "password", "sasl", "tls", "verify_peer", "modes")
            for field in fields:
                if field == "modes" and theirs.exposure is Exposure.NONE:
                    continue
                assert getattr(ours, field) == getattr(theirs, field), (field, element)
            if ours.reachable:
                assert ours.where == theirs.where, element
                assert ours.plain == theirs.plain, element
                assert ours.websocket == theirs.websocket, element
            compared += 1
    assert compared > 20
    assert refused or conf.flag("spice_tls")


def test_evolved_console_compares():
    """That the comparison above can fail."""
    (guest,) = parse_document(
        DOCUMENT.format(graphics="<graphics type='vnc'/>").encode(), "test", devices=True
    )
    assert guest.devices is not None
    with Judge() as judge:
        told = judge.ask_arguments(DOCUMENT.format(graphics="<graphics type='vnc'/>"))
    (theirs,) = consoles_of_arguments(tuple(told.message.split("\n")), "QEMU")
    conf = read_settings(parse_conf(b"vnc_sasl = 1", "qemu.conf"), QEMU_KEYS)
    ours = effective_console(guest.devices.graphics[0], conf)
    assert evolve(ours, sasl=False).sasl == theirs.sasl != ours.sasl
