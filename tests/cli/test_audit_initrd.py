"""``audit --initrd``: what initial RAM disks were told of file systems, in real archives."""

from __future__ import annotations

import pytest
from checkrun import run
from hosttree import HostTree
from needs import require_module

DISK = (
    "<domain type='kvm'><name>web</name><devices><disk type='block' device='disk'>"
    "<source dev='/dev/vg0/web'/><target dev='vda'/></disk></devices></domain>"
)
RULE = "host-mount-by-label"


@pytest.fixture
def host(tmp_path):
    host = HostTree(tmp_path / "host")
    host.domains(DISK)
    return host


@pytest.fixture
def packed(tmp_path):
    """Return an archive with these files, packed by libarchive as kernels read it."""
    libarchive = require_module("libarchive", package="python3-libarchive-c")

    def packed(files, packing=None):
        path = tmp_path / "archive"
        with libarchive.file_writer(str(path), "cpio_newc", packing) as archive:
            for name, text in files.items():
                archive.add_file_from_memory(name, len(text), text.encode())
        return path.read_bytes()

    return packed


def audit(host, *options):
    return run("audit", "--format", "json", "--root", host.root, "--only", RULE, *options)


@pytest.mark.parametrize("packing", [None, "gzip", "xz", "zstd", "lz4", "bzip2"])
def test_all_packings_behind_microcode(host, packed, packing):
    microcode = packed({"kernel/x86/microcode/GenuineIntel.bin": "code" * 999})
    image = packed({"init": "#!/bin/sh", "etc/cmdline.d/95root.conf": "root=LABEL=a\n"}, packing)
    host.put("/boot/initramfs-6.1.0.img", microcode + b"\0" * 300 + image)
    assert audit(host).rules == []
    outcome = audit(host, "--initrd")
    assert (outcome.code, outcome.unjudged) == (1, [])
    seen = outcome.one(RULE)["evidence"]
    place = "/boot/initramfs-6.1.0.img (etc/cmdline.d/95root.conf):1"
    assert [(one["source"], one["text"]) for one in seen] == [(place, "LABEL=a")]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("etc/fstab", "LABEL=a /sysroot ext4", True),
        ("./etc/fstab.empty", "UUID=7e2b-11 /sysroot ext4", False),
        ("etc/crypttab", "root LABEL=a none", True),
        ("cryptroot/crypttab", "root /dev/disk/by-label/a none", True),
        ("cryptroot/crypttab", "root /dev/disk/by-uuid/a none", False),
        ("conf/conf.d/resume", "RESUME=LABEL=swap", True),
        ("conf/param.conf", "ROOT='PARTLABEL=root'", True),
        ("conf/initramfs.conf", "# RESUME=LABEL=swap\nCOMPRESS=zstd", False),
        ("usr/share/doc/fstab", "LABEL=a / ext4", False),
    ],
)
def test_files_that_tell_of_file_systems(host, packed, name, text, found):
    host.put("/boot/initrd.img-6.1.0-13-amd64", packed({name: f"{text}\n"}, "gzip"))
    outcome = audit(host, "--initrd")
    assert (outcome.rules, outcome.unjudged) == ([RULE] if found else [], [])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda image: image[: len(image) // 2],
        lambda image: b"\x1f\x8b" + image[2:40],
        lambda image: b"no image at all",
        lambda image: b"070701" + b"zz" * 60,
    ],
)
def test_what_is_no_image_is_unknown(host, packed, spoil):
    image = packed({"etc/fstab": "UUID=1 / ext4\n", "init": "x" * 5000}, "gzip")
    host.put("/boot/initrd.img-6.1.0", spoil(image))
    outcome = audit(host, "--initrd")
    assert (outcome.code, outcome.unjudged) == (3, ["/boot/initrd.img-6.1.0"])


def test_a_file_too_long_to_be_read_is_unknown(host, packed):
    image = packed({"etc/fstab": "LABEL=a / ext4\n" * 10_000}, "gzip")
    host.put("/boot/initrd.img-6.1.0", image)
    outcome = audit(host, "--initrd")
    assert (outcome.code, outcome.unjudged) == (3, ["/boot/initrd.img-6.1.0"])


def test_links_and_leftovers_are_passed_over(host, packed):
    host.put("/boot/initrd.img-6.1.0", packed({"etc/fstab": "LABEL=a / ext4\n"}, "gzip"))
    host.put("/boot/initrd.img-5.10.0.old-dkms", b"broken")
    host.put("/boot/vmlinuz-6.1.0", b"broken")
    (host.root / "boot" / "initrd.img").symlink_to("initrd.img-6.1.0")
    outcome = audit(host, "--initrd")
    assert (outcome.code, outcome.unjudged) == (1, [])
    assert len(outcome.one(RULE)["evidence"]) == 1
