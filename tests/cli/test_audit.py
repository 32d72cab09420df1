"""``svirt-label audit`` from its command line to its report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from auditrun import audit, guest
from checkrun import run
from hosttree import HostTree
from needs import require

from svirtlib.backends import _practices
from svirtlib.backends._tree import Tree
from svirtlib.devices import CHANNELS
from svirtlib.errors import ConfigurationError
from svirtlib.guests import Unreadable
from svirtlib.hostpractices import classify_by_name
from svirtlib.settings import QEMU_KEYS, read_settings
from svirtlib.virconf import parse_conf


def test_healthy_host_is_silent(tree):
    tree.domains(guest(inner="<listen type='socket'/>"))
    outcome = audit(tree)
    assert (outcome.code, outcome.findings, outcome.unjudged) == (0, [], [])
    assert outcome.report["guests"] == 1


def test_guests_that_share_a_cause_are_one_finding(tree):
    tree.domains("".join(guest(f"web{number}", "listen='0.0.0.0'") for number in range(20)))
    outcome = audit(tree)
    assert outcome.code == 1
    assert outcome.rules == ["vnc-no-auth"]
    assert len(outcome.one("vnc-no-auth")["guests"]) == 20


@pytest.mark.parametrize(
    ("address", "severity"),
    [
        ("0.0.0.0", "critical"),
        ("::", "critical"),
        ("192.0.2.1", "critical"),
        ("kvm1.example.org", "critical"),
        ("127.0.0.1", "medium"),
        ("127.0.0.53", "medium"),
        ("::1", "medium"),
        ("::ffff:127.0.0.1", "medium"),
        ("localhost", "medium"),
        ("", "medium"),
    ],
)
def test_address_makes_the_severity(tree, address, severity):
    tree.domains(guest(attributes=f"listen='{address}'"))
    assert audit(tree).one("vnc-no-auth")["severity"] == severity


def test_configuration_decides_on_guests_without_an_address(tree):
    tree.domains(guest())
    tree.put("/etc/libvirt/qemu.conf", "vnc_listen = '0.0.0.0' # all of them\n")
    assert audit(tree).one("vnc-no-auth")["severity"] == "critical"
    tree.put("/etc/libvirt/qemu.conf", "vnc_auto_unix_socket = 1\n")
    assert audit(tree).rules == []


def test_documents_alone_are_incomplete_where_the_host_decides(tmp_path):
    path = tmp_path / "web.xml"
    path.write_text(guest(attributes="passwd='kX7r2Qp9' passwdValidTo='2099-01-01T00:00:00'"))
    outcome = run("audit", "--format", "json", "--xml", path)
    assert (outcome.code, outcome.rules) == (3, [])
    assert "qemu.conf" in outcome.report["unreadable"][0]["reason"]
    path.write_text(guest(inner="<listen type='none'/>"))
    assert run("audit", "--format", "json", "--xml", path).code == 0


def test_documents_of_a_host(tree, tmp_path):
    path = tmp_path / "web.xml"
    path.write_text(guest())
    tree.put("/etc/libvirt/qemu.conf", "vnc_auto_unix_socket = 1")
    outcome = audit(tree, "--xml", path)
    assert (outcome.code, outcome.rules) == (0, [])


def test_no_secret_is_ever_written(tree):
    secret = "Sup3rS3cretTicket"
    tree.put("/etc/libvirt/qemu.conf", f'vnc_password = "{secret}"\nspice_password = "{secret}"')
    tree.domains("".join(guest(name, f"listen='0.0.0.0' passwd='{secret}'") for name in ("a", "b")))
    for form in ("table", "json", "sarif"):
        outcome = run("--format", form, "audit", "-v", "--root", tree.root)
        assert secret not in outcome.out + outcome.err
        assert "graphics-password-shared" in outcome.out
    tree.put("/etc/libvirt/qemu.conf", f'vnc_password = ["{secret}"]\n')
    outcome = run("audit", "-v", "--debug", "--root", tree.root)
    assert "conf-parse" in outcome.out
    assert secret not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"vnc_tls = ", 1),
        (b"\n\nvnc_tls", 3),
        (b"\x7fELF\0\0\0", 1),
        (b'vnc_tls = "1"', 1),
        (b"vnc_tls = 2", 1),
        (b'a = 1\nvnc_listen = "0.0.0.0', 2),
    ],
)
def test_configuration_that_libvirt_refuses(tree, text, line):
    tree.domains(guest())
    tree.put("/etc/libvirt/qemu.conf", text)
    outcome = audit(tree)
    assert (outcome.code, outcome.rules) == (1, ["conf-parse"])
    assert f"qemu.conf:{line} " in outcome.one("conf-parse")["message"]
    assert outcome.unjudged == [f"/etc/libvirt/qemu.conf:{line}"]


def test_configuration_that_cannot_be_read(tree):
    tree.domains(guest())
    tree.path("/etc/libvirt/qemu.conf").mkdir(parents=True)
    outcome = audit(tree)
    assert (outcome.code, outcome.rules) == (3, [])
    assert outcome.unjudged == ["/etc/libvirt/qemu.conf"]


def test_damaged_definition_is_not_passed_over(tree):
    tree.put("/etc/libvirt/qemu/web.xml", "<domain type='kvm'><name>web</na")
    outcome = audit(tree)
    assert outcome.code == 3
    assert outcome.unjudged == ["/etc/libvirt/qemu/web.xml:1"]


@pytest.mark.parametrize(
    "data", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nMIIB", b"\0" * 99]
)
def test_certificate_that_is_none(tree, data):
    tree.put("/etc/libvirt/qemu.conf", "vnc_tls = 1")
    tree.pki("/etc/pki/libvirt-vnc", "")
    tree.put("/etc/pki/libvirt-vnc/server-cert.pem", data)
    outcome = audit(tree)
    assert (outcome.code, outcome.rules) == (1, ["x509-missing"])


def test_no_link_leads_out_of_the_root(tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "qemu.conf").write_text("vnc_tls = broken")
    tree.path("/etc/libvirt").mkdir(parents=True)
    for target in (str(outside), "../../../outside", "../../../../../../../../" + str(outside)):
        link = tree.path("/etc/libvirt/qemu.conf")
        link.unlink(missing_ok=True)
        link.symlink_to(f"{target}/qemu.conf")
        assert audit(tree).rules == []


def test_links_are_those_of_the_host(tree):
    tree.put("/srv/libvirt/qemu.conf", "vnc_tls = broken")
    tree.path("/etc").mkdir(exist_ok=True)
    tree.path("/etc/libvirt").symlink_to("/srv/libvirt")
    assert audit(tree).rules == ["conf-parse"]


def test_fifo_and_endless_link(tree):
    os.mkfifo(tree.path("/pipe"))
    tree.path("/loop").symlink_to("/loop")
    below = Tree(str(tree.root))
    for name in ("/pipe", "/loop"):
        assert isinstance(below.read(name), Unreadable)
    assert below.read("/nowhere/at/all") is None
    below.close()


@pytest.mark.root
def test_file_that_everybody_may_replace(tree):
    tree.put("/etc/libvirt/qemu.conf", "vnc_tls = 1\nvnc_tls_x509_verify = 1")
    tree.pki("/etc/pki/libvirt-vnc", "")
    tree.path("/etc/pki").chmod(0o777)
    finding = audit(tree).one("secret-file-mode")
    assert finding["severity"] == "critical"
    assert "/etc/pki above it" in finding["message"]


def test_selection_and_ignored_findings(tree):
    tree.domains(guest("a", "listen='0.0.0.0'") + guest("b", "listen='127.0.0.1'"))
    assert len(audit(tree).findings) == 2
    assert len(audit(tree, "a").findings) == 1
    outcome = audit(tree, "--ignore", "vnc-no-auth=b")
    assert (len(outcome.findings), outcome.report["ignored"]) == (1, 1)
    assert audit(tree, "--only", "conf-parse").findings == []
    assert audit(tree, "--ignore", "vnc-no-auth").code == 0
    assert audit(tree, "--fail-on", "critical", "b").code == 0
    assert audit(tree, "--exit-zero").code == 0
    assert audit(tree, "--only", "label-collision").code == 2
    assert audit(tree, "nobody").code == 2


def test_wrong_uses(tree, tmp_path):
    assert run("audit", "--root", tmp_path / "nowhere").code == 4
    assert run("audit", "--root", tree.root, "-c", "qemu:///system").code == 2
    assert run("audit", "--root", tree.root, "--format", "xml").code == 2


def test_list_of_rules():
    outcome = run("audit", "--list-rules", "--format", "json")
    assert "vnc-no-auth" in {row["rule"] for row in json.loads(outcome.out)["rules"]}


def test_sarif(tree):
    tree.domains(guest(attributes="listen='0.0.0.0'"))
    outcome = run("audit", "--format", "sarif", "--root", tree.root)
    (result,) = json.loads(outcome.out)["runs"][0]["results"]
    assert result["ruleId"] == "vnc-no-auth"


def test_running_guest_is_judged_as_it_runs(tree):
    live = "<domain type='kvm' id='3'><name>web</name><devices>{}</devices></domain>"
    console = "<graphics type='spice' autoport='yes' {} listen='192.0.2.1' passwd='{}'/>"
    ticket = "a-long-enough-ticket' passwdValidTo='2099-01-01T00:00:00"
    tree.domains(live.format(console.format("port='-1' tlsPort='5901'", ticket)))
    tree.put("/etc/libvirt/qemu.conf", "")
    assert "spice-cleartext-exposed" in audit(tree, "--fail-on", "high").rules
    tree.domains(live.format(console.format("tlsPort='5901'", ticket)))
    assert "spice-cleartext-exposed" not in audit(tree).rules


def _everything(folder):
    """A host with a file of each kind that is read, and guests that make them matter."""
    tree = HostTree(folder)
    tree.domains(
        guest("web", "listen='192.0.2.1' passwd='kX7r2Qp9'")
        + "<domain type='kvm' id='3'><name>live</name><devices><disk type='block'>"
        "<source dev='/dev/sdb1'/><target dev='vda'/></disk></devices></domain>"
    )
    tree.put("/etc/libvirt/qemu.conf", "vnc_tls = 1\nvnc_sasl = 1\nspice_tls = 1\n")
    tree.put("/etc/libvirt/libvirtd.conf", "listen_tls = 1\n")
    tree.put("/etc/libvirt/virtqemud.conf", "audit_level = 2\n")
    tree.put("/etc/libvirt/virtproxyd.conf", "listen_tls = 1\n")
    tree.put("/etc/libvirt/qemu/networks/lan.xml", "<network><name>lan</name></network>")
    tree.put("/etc/default/libvirtd", 'LIBVIRTD_ARGS="--listen"\n')
    tree.put("/etc/default/grub", 'GRUB_CMDLINE_LINUX="quiet"\n')
    tree.put("/etc/kernel/cmdline", "root=UUID=1\n")
    tree.put("/etc/fstab", "UUID=1 / ext4 defaults 0 1\n")
    tree.put("/etc/hosts", "192.0.2.1 kvm1\n")
    tree.put("/etc/lvm/lvm.conf", 'devices {\n global_filter = [ "r|.*|" ]\n}\n')
    tree.put("/etc/modprobe.d/a.conf", "options kvm nested=0\n")
    tree.put("/etc/polkit-1/rules.d/a.rules", "polkit.addRule(function() {});\n")
    tree.put("/etc/sasl2/qemu.conf", "mech_list: gssapi\nkeytab: /etc/krb5.tab\n")
    tree.put("/etc/krb5.tab", "x")
    tree.put("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n")
    tree.put("/etc/selinux/targeted/policy/policy.33", "x")
    tree.put("/etc/ssh/sshd_config", "PermitRootLogin no\n")
    tree.put("/etc/sudoers", "root ALL=(ALL) ALL\n")
    tree.put("/etc/sudoers.d/viewers", "anna ALL=(anna) /usr/bin/remote-viewer x\n", 0o440)
    tree.put("/etc/sysctl.d/a.conf", "net.ipv4.ip_forward = 0\n")
    tree.put("/etc/systemd/system/multi-user.target.wants/nftables.service", "")
    tree.put("/etc/systemd/system/libvirtd.socket", "[Socket]\nSocketMode=0660\n")
    for service in ("vnc", "spice"):
        tree.pki(f"/etc/pki/libvirt-{service}", "")
    return tree


_DAMAGE = {
    "binary": lambda data: bytes(range(256)) * 4,
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "blank": lambda data: b" \t\n",
    "no text": lambda data: b"\xff\xfe\xfa" + data,
    "folder": None,
}


def test_text_that_is_none_is_not_passed_over(tree):
    tree.put("/etc/fstab", b"LABEL=\0root / ext4 defaults 0 1")
    outcome = audit(tree)
    assert (outcome.code, outcome.unjudged) == (3, ["/etc/fstab"])


DISK = (
    "<domain type='kvm'><name>web</name><devices><disk type='block' device='disk'>"
    "<source dev='{}'/><target dev='vda'/></disk></devices></domain>"
)
_SCAN = "lvm-filter-missing"
_LABEL = "host-mount-by-label"
_OPEN = "libvirt-polkit-open"
_POLKIT = "polkit.addRule(function(action, subject) {{ {} return polkit.Result.YES; }});"


@pytest.mark.parametrize(
    ("path", "text", "rules", "unknown"),
    [
        ("lvm/lvm.conf", "devices { }", [_SCAN], 0),
        ("lvm/lvm.conf", 'devices { global_filter=["r|/dev/sd[bc]|", "a|.*|"] }', [], 0),
        ("lvm/lvm.conf", 'devices { global_filter=["r|^/dev/sdb2#?$|"] # a|.*|\n}', [], 0),
        ("lvm/lvm.conf", "devices {", [], 1),
        ("lvm/lvm.conf", "\0", [], 1),
        ("lvm/lvmlocal.conf", 'devices/global_filter = "r|.*|"', [], 0),
        ("lvm/devices/system.devices", "IDTYPE=devname", [], 0),
        ("fstab", "LABEL=srv /srv ext4", [_LABEL], 0),
        ("fstab", "LABEL=srv", [], 1),
        ("crypttab", "srv LABEL=srv none", [_LABEL], 0),
        ("../boot/grub/grub.cfg", " linux /vmlinuz root=LABEL=a\n search --label b", [_LABEL], 0),
        ("../boot/grub2/grub.cfg", " linux /vmlinuz root=UUID=a\n search --label b", [], 0),
        ("../proc/cmdline", "root=/dev/disk/by-label/a", [_LABEL], 0),
        ("polkit-1/rules.d/a.rules", _POLKIT.format(""), [_OPEN], 0),
        (
            "polkit-1/rules.d/a.rules",
            _POLKIT.format('if (action.id.indexOf("org.libvirt.") == 0)'),
            [_OPEN],
            0,
        ),
        (
            "polkit-1/rules.d/a.rules",
            _POLKIT.format('if (action.id == "org.libvirt.unix.monitor")'),
            [],
            0,
        ),
        ("polkit-1/rules.d/a.rules", _POLKIT.format("")[:-4], [], 1),
        ("libvirt/qemu.conf", 'user = "nobody-there"', [], 1),
        ("libvirt/qemu.conf", 'group = "disk"', ["qemu-user-shared"], 0),
        ("libvirt/qemu.conf", "allow_disk_format_probing = 1", ["conf-parse"], 1),
    ],
)
def test_configuration_as_its_reader_takes_it(tree, path, text, rules, unknown):
    tree.domains(DISK.format("/dev/sdb2"))
    tree.put(f"/etc/{path}", text)
    outcome = audit(tree)
    assert outcome.rules == rules
    assert len(outcome.unjudged) == unknown


SNAPPED = """
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>web</name><devices>
  <graphics type='vnc' listen='0.0.0.0' passwd='S3cret-1'/>
  <graphics type='spice' autoport='yes' listen='192.0.2.1' passwd='S3cret-2'/>
  <disk type='network'><source protocol='http' name='me:S3cret-3@x?S3cret-4'>
    <host name='w'/></source><target dev='vda'/></disk>
  <hostdev mode='subsystem' type='usb'><source><address bus='1' device='2'/></source></hostdev>
  <serial type='tcp'><source mode='bind' host='0.0.0.0' service='1'/></serial>
</devices><qemu:commandline><qemu:arg value='-vnc'/><qemu:arg value=':7,password=S3cret-5'/>
<qemu:arg value='-vnc=:8,password=S3cret-6'/>
</qemu:commandline></domain>
"""


def test_snapshot_is_judged_as_its_documents(tree, tmp_path):
    """It tells that there are passwords, and none of them."""
    document, snapshot = tmp_path / "web.xml", tmp_path / "snapshot.json"
    document.write_text(SNAPPED)
    snapshot.write_text(run("export", "--xml", document).out)
    assert "S3cret" not in snapshot.read_text()
    # Of a password that nobody sees, nobody tells that it never ends.
    blind = {"graphics-password-no-expiry", "graphics-password-weak"}
    for more in ([], ["--root", tree.root]):
        told = run("audit", "--format", "json", "--snapshot", snapshot, *more)
        source = run("audit", "--format", "json", "--xml", document, *more)
        assert set(source.rules) - set(told.rules) <= blind
        assert set(told.rules) <= set(source.rules)
        assert len(told.rules) > 4
        assert "passwords of the consoles of web" in told.unjudged


def test_snapshot_without_devices_is_unknown(tmp_path):
    document, snapshot = tmp_path / "web.xml", tmp_path / "snapshot.json"
    document.write_text(guest())
    written = json.loads(run("export", "--xml", document).out)
    for one in written["inventory"]["guests"]:
        del one["devices"]
    snapshot.write_text(json.dumps(written))
    outcome = run("audit", "--format", "json", "--snapshot", snapshot)
    assert (outcome.code, outcome.unjudged) == (3, ["consoles and devices of web"])
    snapshot.write_text("{}")
    assert run("audit", "--snapshot", snapshot).code == 2
    assert run("audit", "--snapshot", snapshot, "--xml", document).code == 2


@pytest.mark.parametrize("device", ["/dev/dm-3", "/dev/disk/by-label/a"])
def test_device_of_which_a_name_tells_nothing(tree, device):
    tree.domains(DISK.format(device))
    outcome = audit(tree)
    assert (outcome.code, outcome.rules) == (3, [])
    assert outcome.unjudged == [f"block devices {device}"]


def test_console_that_is_locked(tree):
    """QEMU asks for a password, and takes none where it is empty."""
    tree.domains(guest(attributes="listen='0.0.0.0' passwd=''"))
    assert audit(tree).rules == []


def test_channels_that_no_xml_can_name(tree):
    channels = "".join(f"<channel name='{name}' mode='secure'/>" for name in CHANNELS)
    tree.domains(
        "<domain type='kvm'><name>web</name><devices><graphics type='spice' autoport='yes' "
        "listen='192.0.2.1' defaultMode='insecure' passwd='long-enough-it-is' "
        f"passwdValidTo='2099-01-01T00:00:00'>{channels}</graphics></devices></domain>"
    )
    tree.put("/etc/libvirt/qemu.conf", "spice_tls = 1")
    tree.pki("/etc/pki/libvirt-spice", "")
    assert "spice-channel-insecure" in audit(tree).rules


def test_transport_of_nfs_that_is_none(tree):
    tree.domains(
        "<domain type='kvm'><name>web</name><devices><disk type='file'>"
        "<source file='/srv/web.img'/><target dev='vda'/></disk></devices></domain>"
    )
    for options, rules in (("xprtsec=none", ["storage-nfs-sec"]), ("xprtsec=mtls", [])):
        tree.put("/etc/fstab", f"nas:/vms /srv nfs4 {options} 0 0\n")
        assert audit(tree).rules == rules


@pytest.mark.slow
@pytest.mark.parametrize("damage", _DAMAGE)
def test_any_damaged_file_is_a_report_and_no_crash(tmp_path, damage):
    root = tmp_path / "host"
    names = [path.relative_to(root) for path in _everything(root).root.rglob("*") if path.is_file()]
    assert len(names) > 30
    whole = {name: (root / name).read_bytes() for name in names}
    for name in names:
        path = root / name
        path.unlink()
        harm = _DAMAGE[damage]
        if harm is None:
            path.mkdir()
        else:
            path.write_bytes(harm(whole[name]))
        outcome = run("audit", "--root", root)
        assert outcome.code in (1, 3), (name, outcome.err)
        if harm is None:
            path.rmdir()
        path.write_bytes(whole[name])


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/dev/sda", "disk"),
        ("/dev/sdaa", "disk"),
        ("/dev/vdb1", "partition"),
        ("/dev/nvme0n1", "disk"),
        ("/dev/nvme0n1p2", "partition"),
        ("/dev/disk/by-id/ata-X", "disk"),
        ("/dev/disk/by-id/ata-X-part3", "partition"),
        ("/dev/disk/by-path/pci-0000:00:1f.2-ata-1", "disk"),
        ("/dev/disk/by-partuuid/1", "partition"),
        ("/dev/disk/by-uuid/1", "unknown"),
        ("/dev/disk/by-id/dm-name-vg0-web", "lv"),
        ("/dev/mapper/mpatha", "multipath"),
        ("/dev/mapper/mpatha-part1", "partition"),
        ("/dev/mapper/vg0-web", "lv"),
        ("/dev/mapper/luks-1", "crypt"),
        ("/dev/vg0/web", "lv"),
        ("/dev/md0", "array"),
        ("/dev/md127p1", "partition"),
        ("/dev/loop3", "loop"),
        ("/dev/dm-3", "unknown"),
    ],
)
def test_block_device_by_its_name(path, kind):
    assert classify_by_name(path) == kind


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"partition": "1", "dm/uuid": ""}, "partition"),
        ({"dm/uuid": "LVM-abc\n"}, "lv"),
        ({"dm/uuid": "mpath-36\n"}, "multipath"),
        ({"dm/uuid": "part1-mpath-36\n"}, "partition"),
        ({"dm/uuid": "CRYPT-LUKS2-1\n"}, "crypt"),
        ({"dm/name": "x"}, "unknown"),
        ({"loop/backing_file": "/x"}, "loop"),
        ({"md/level": "raid1"}, "array"),
        ({"size": "1"}, "disk"),
    ],
)
def test_block_device_by_sysfs(tree, files, kind):
    for name, text in files.items():
        if text or name != "dm/uuid":
            tree.put(f"/sys/dev/block/8:1/{name}", text)
    below = Tree(str(tree.root))
    assert _practices._classify(below, "/sys/dev/block/8:1") == kind
    below.close()


@pytest.fixture
def debian(tree):
    """A host with Debian's policy."""
    policies = sorted(Path("/etc/selinux/default/policy").glob("policy.*"))
    require(policies, "no policy (Debian package selinux-policy-default)")
    tree.put("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=default\n")
    for path in (policies[-1], Path("/etc/selinux/default/contexts/virtual_domain_context")):
        tree.put(str(path), path.read_bytes())
    return tree


@pytest.mark.slow
def test_booleans_of_a_real_policy(debian):
    debian.put("/etc/fstab", "nas:/vms /srv/vms nfs4 sec=krb5p 0 0\n")
    debian.domains(
        "<domain type='kvm'><name>web</name><devices><disk type='file'>"
        "<source file='/srv/vms/web.img'/><target dev='vda'/></disk></devices></domain>"
    )
    outcome = audit(debian)
    finding = outcome.one("selinux-boolean-missing")
    assert finding["remedy"] == "`setsebool -P virt_use_nfs on`"
    assert outcome.rules == ["selinux-boolean-missing"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("domain", "conf", "denied"),
    [
        ("svirt_t", "remote_display_port_min = 6000", []),
        ("passenger_t", "", ["unreserved_port_t", "virt_migration_port_t"]),
        (
            "passenger_t",
            "remote_display_port_min = 6000\nmigration_port_min = 5999",
            ["unreserved_port_t", "unreserved_port_t", "xserver_port_t"],
        ),
    ],
)
def test_ports_of_a_real_policy(debian, domain, conf, denied):
    """Debian's guests may bind any port; those with a type of their own what it may."""
    debian.put("/etc/libvirt/qemu.conf", f'vnc_password = "kX7r2Qp9"\n{conf}')
    seclabel = (
        f"<seclabel type='static' model='selinux'><label>system_u:system_r:{domain}:s0:c1,c2"
        f"</label></seclabel></domain>"
    )
    fixed = guest("fixed", "port='5901'").replace("</domain>", seclabel)
    chosen = guest("chosen").replace("</domain>", seclabel)
    debian.domains(fixed + chosen if conf else fixed)
    told = [one["message"] for one in audit(debian, "--only", "selinux-port-type").findings]
    assert sorted(text.split(" type ")[1].split()[0] for text in told) == denied


@pytest.mark.parametrize("xml", ["<domain type='kvm'", "<network/>", ""])
def test_documents_that_are_none(tmp_path, xml):
    path = tmp_path / "web.xml"
    path.write_text(xml)
    assert run("audit", "--xml", path).code == 2


def test_password_that_was_left_out_is_not_judged(tree):
    attributes = "listen='0.0.0.0' passwdValidTo='2099-01-01T00:00:00'"
    tree.domains(guest(attributes=attributes))
    outcome = audit(tree)
    assert outcome.rules == ["vnc-password-exposed"]
    assert outcome.unjudged == ["passwords of the consoles of web"]


def test_types_of_values_are_libvirt_s():
    lines = [
        'vnc_listen = "0.0.0.0"', "vnc_tls = 1", 'security_driver = [ "selinux", "apparmor" ]',
        "seccomp_sandbox = 1", "keepalive_interval = -1", 'max_core = "unlimited"',
        "max_core = 0", 'hugetlbfs_mount = "/dev/hugepages"', 'nvram = [ "a:b" ]',
        'user = "+0"', "migration_port_min = 49152", 'capability_filters = [ "x" ]',
    ]  # fmt: skip
    for line in lines:
        settings = read_settings(parse_conf(line.encode(), "qemu.conf"), QEMU_KEYS)
        assert settings.unknown == ()
    for line in ("vnc_tls = -1", "user = 107", "nvram = 1", "migration_port_min = -1"):
        with pytest.raises(ConfigurationError):
            read_settings(parse_conf(line.encode(), "qemu.conf"), QEMU_KEYS)
