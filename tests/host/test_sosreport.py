"""Guests, processes and labels of files from a sosreport."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkrun import check, run
from xmlmaker import context, disk, guest, image_context, uuid_of

PS = "LABEL            USER   PID %CPU %MEM    VSZ   RSS TTY      STAT START   TIME COMMAND\n"
LS = "-rw-r--r--. 1 qemu qemu {} 196616 Nov 21 23:20 {}\n"


class Report:
    """A folder that gets what sos collects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "sos_commands").mkdir(parents=True)

    def put(self, path, text):
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def dump(self, name, level, **settings):
        disks = [disk(f"/img/{name}.qcow2")]
        self.put(
            f"sos_commands/virsh/virsh_-r_dumpxml_{name}",
            guest(name, level, disks=disks, **settings),
        )

    def processes(self, *guests):
        lines = [
            f"{context(level)} qemu {pid}  1.0  2.0 1 1 ? Sl 10:00 0:01 /usr/libexec/qemu-kvm "
            f"-name guest={name},debug-threads=on -S -uuid {uuid_of(name)} -no-user-config\n"
            for pid, (name, level) in enumerate(guests, 400)
        ]
        service = f"{context('s0', 'init_t')} root 1 0.0 0.1 1 1 ? Ss 09:00 0:02 /sbin/init\n"
        self.put("sos_commands/selinux/ps_auxZww", PS + service + "".join(lines))

    def listing(self, **labels):
        text = "total 8\n" + "".join(
            LS.format(label, f"{name}.qcow2") for name, label in labels.items()
        )
        self.put("sos_commands/libvirt/ls_-lZ_.img", text)

    def host(self):
        self.put(
            "sos_commands/selinux/sestatus",
            "SELinux status:                 enabled\n"
            "Loaded policy name:             targeted\n"
            "Current mode:                   permissive\n",
        )
        self.put("sos_commands/host/hostname", "host7\n")


@pytest.fixture
def report(tmp_path):
    return Report(tmp_path / "sosreport-host7-2026-11-22-abcdef")


def test_everything(report):
    report.dump("a", "s0:c1,c2")
    report.dump("b", "s0:c3,c4")
    report.processes(("a", "s0:c1,c2"), ("b", "s0:c5,c6"))
    report.listing(a=image_context("s0:c1,c2"), b=image_context("s0:c1,c2"))
    report.host()
    # The report lies alone in the folder that it was unpacked in.
    outcome = check("--sosreport", report.folder.parent)
    assert outcome.code == 1
    assert outcome.report["host"] == {
        "name": "host7",
        "selinux": {"mode": "permissive", "policy": "targeted"},
    }
    assert {"host-not-enforcing", "process-label-drift", "image-label-drift"} <= {*outcome.rules}
    assert outcome.one("process-label-drift")["guests"] == ["b"]
    assert outcome.one("image-label-drift")["paths"] == ["/img/b.qcow2"]
    assert outcome.unjudged == []


def test_a_collision_of_documents_alone(report):
    report.dump("a", "s0:c1,c2")
    report.dump("b", "s0:c2,c1", how="static")
    outcome = check("--sosreport", report.folder)
    assert outcome.one("label-collision")["guests"] == ["a", "b"]
    not_run = {entry["rule"] for entry in outcome.report["not_run"]}
    assert {"host-not-enforcing", "process-label-drift", "image-label-drift"} <= not_run


def test_libvirt_s_own_record_of_a_running_guest(report):
    live = guest("a", "s0:c1,c2", disks=[disk("/img/a.qcow2")])
    inner = live[live.index("<domain") :]
    report.put(
        "run/libvirt/qemu/a.xml",
        f"<!-- WARNING -->\n<domstatus state='running' pid='400'>{inner}</domstatus>",
    )
    report.put("etc/libvirt/qemu/a.xml", guest("a", live=False, how="dynamic"))
    report.put(
        "sos_commands/selinux/ps_-eZ",
        f"LABEL PID TTY TIME CMD\n{context('s0:c1,c2')} 400 ? 0:01 qemu-kvm\n",
    )
    outcome = run("list", "--format", "json", "--sosreport", report.folder)
    assert outcome.code == 0
    assert '"pid": 400' in outcome.out
    assert outcome.out.count('"name": "a"') == 1


def test_a_process_that_libvirt_does_not_know(report):
    report.dump("a", "s0:c1,c2")
    report.processes(("a", "s0:c1,c2"), ("ghost", "s0:c1,c2"))
    assert check("--sosreport", report.folder).one("label-collision")["guests"] == ["a", "ghost"]


def test_what_is_missing_is_told(report):
    report.dump("a", "s0:c1,c2")
    report.dump("b", "s0:c3,c4")
    report.put("sos_commands/virsh/virsh_-r_dumpxml_c", "error: failed to connect\n")
    report.processes(("a", "s0:c1,c2"))
    report.listing(a=image_context("s0:c1,c2"))
    outcome = check("--sosreport", report.folder)
    assert outcome.code == 3
    assert "/img/b.qcow2" in outcome.unjudged
    assert "process of guest b" in outcome.unjudged
    assert any("dumpxml_c" in what for what in outcome.unjudged)


def test_recursive_listings(report):
    report.dump("a", "s0:c1,c2")
    report.put(
        "sos_commands/selinux/ls_-lRZ_.img",
        f"/img:\ntotal 4\n{LS.format(image_context('s0:c7,c8'), 'a.qcow2')}\n/img/deeper:\n",
    )
    assert "image-label-drift" in check("--sosreport", report.folder).rules


def test_a_link_out_of_the_report_is_not_followed(report, tmp_path):
    outside = tmp_path / "secret.xml"
    outside.write_text(guest("secret", "s0:c1,c2"))
    report.dump("a", "s0:c1,c2")
    (report.folder / "sos_commands/virsh/virsh_-r_dumpxml_x").symlink_to(outside)
    outcome = run("list", "--sosreport", report.folder)
    assert "secret" not in outcome.out


CONTEXTS = """\
/.*\tsystem_u:object_r:default_t:s0
/img(/.*)?\tsystem_u:object_r:virt_image_t:s0
"""
MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,seclabel
30 21 0:50 / /img/nfs rw,relatime shared:2 - nfs4 server:/export rw,vers=4.1
"""


def _rules(report, local=""):
    report.host()
    folder = "etc/selinux/targeted/contexts/files/file_contexts"
    report.put(folder, CONTEXTS)
    report.put(f"{folder}.local", local)
    return folder


def test_rules_of_the_report_without_a_listing(report):
    """No plugin of sos lists images: rules are for paths, which the XML tells."""
    report.dump("a", "s0:c1,c2")
    _rules(report, "/img/a.*  system_u:object_r:httpd_sys_content_t:s0\n")
    outcome = check("--sosreport", report.folder)
    finding = outcome.one("storage-no-rule")
    assert finding["paths"] == ["/img/a.qcow2"]
    assert finding["evidence"][0]["source"].startswith(
        "etc/selinux/targeted/contexts/files/file_contexts.local"
    )
    assert "although the rule /img(/.*)?" in finding["message"]
    # What nobody saw has no label, and is not said to have none.
    not_run = {entry["rule"] for entry in outcome.report["not_run"]}
    assert "image-label-drift" in not_run
    assert "not looked at" in run("show", "a", "--sosreport", report.folder).out
    snapshot = report.folder.parent / "snapshot.json"
    assert run("export", "--sosreport", report.folder, "-o", snapshot).code == 0
    assert check("--snapshot", snapshot).report["findings"] == outcome.report["findings"]


def test_rules_that_are_right(report):
    report.dump("a", "s0:c1,c2")
    _rules(report)
    assert "storage-no-rule" not in check("--sosreport", report.folder).rules


def test_equivalences_of_the_report(report):
    report.dump("a", "s0:c1,c2")
    folder = _rules(report)
    report.put(f"{folder}.subs", "/img /srv/other\n")
    finding = check("--sosreport", report.folder).one("storage-no-rule")
    assert finding["labels"] == ["system_u:object_r:default_t:s0"]


def test_file_systems_and_booleans_of_the_report(report):
    report.put(
        "sos_commands/virsh/virsh_-r_dumpxml_a",
        guest("a", "s0:c1,c2", disks=[disk("/img/nfs/a.qcow2")]),
    )
    _rules(report)
    report.put("proc/self/mountinfo", MOUNTS)
    report.put(
        "sos_commands/selinux/ls_-alZh_.img.nfs",
        LS.replace("196616", "193K").format("system_u:object_r:nfs_t:s0", "a.qcow2"),
    )
    outcome = check("--sosreport", report.folder)
    assert "booleans" in outcome.unjudged
    booleans = "sos_commands/selinux/sestatus_-b"
    report.put(booleans, "\nPolicy booleans:\nvirt_use_nfs      off\nvirt_use_usb   on\n")
    assert check("--sosreport", report.folder).one("storage-boolean")["guests"] == ["a"]
    report.put(booleans, "Policy booleans:\nvirt_use_nfs      on\n")
    assert "storage-boolean" not in check("--sosreport", report.folder).rules


def test_rules_that_a_link_leads_to_are_not_followed_out(report, tmp_path):
    report.dump("a", "s0:c1,c2")
    folder = _rules(report)
    outside = tmp_path / "outside"
    outside.write_text("/img(/.*)?\tsystem_u:object_r:secret_t:s0\n")
    (report.folder / folder).unlink()
    (report.folder / folder).symlink_to(outside)
    assert "secret_t" not in run("export", "--sosreport", report.folder).out


def test_rules_that_are_damaged_are_told(report):
    report.dump("a", "s0:c1,c2")
    report.put(_rules(report), "/img( system_u:object_r:default_t:s0 too many words here\n")
    outcome = check("--sosreport", report.folder)
    assert not outcome.report["complete"]
    assert any("rules" in what or "/img" in what for what in outcome.unjudged)


@pytest.mark.parametrize("content", [None, "empty"])
def test_a_folder_that_is_none(tmp_path, content):
    if content:
        (tmp_path / "sos_commands").mkdir()
    outcome = check("--sosreport", tmp_path)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
