"""Labels of real files, and backing chains that qemu-img or somebody worse has made."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import subprocess
import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from needs import require, require_program
from privileges import as_nobody

from svirtlib.backends import _files
from svirtlib.backends._files import FileSystem
from svirtlib.guests import FileLabel, Image, ImageKind, ImageMode, ImageUse, Unreadable

LABEL = "system_u:object_r:svirt_image_t:s0:c1,c2"


def look(path, pid=None):
    return FileSystem().look(str(path), pid)


def put(path, label=LABEL, name="security.selinux", **settings):
    os.setxattr(path, name, label.encode() + b"\0", **settings)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(b"")
    return path


def test_no_such_file(tmp_path):
    assert look(tmp_path / "none") is None
    (tmp_path / "dangling").symlink_to("none")
    assert look(tmp_path / "dangling") is None


def test_a_file_without_a_label(file):
    label = look(file)
    assert isinstance(label, FileLabel)
    if not os.path.exists("/sys/fs/selinux/enforce"):
        assert label.context is None
    assert label.labelable
    assert (label.references, label.remembered) == (None, None)


@pytest.mark.root
def test_a_file_with_a_label(file):
    put(file)
    label = look(file)
    assert isinstance(label, FileLabel)
    assert (label.path, label.context) == (str(file), LABEL)


@pytest.mark.root
def test_the_label_is_that_of_the_file_and_not_of_links_to_it(file, tmp_path):
    put(file)
    link, other = tmp_path / "link", tmp_path / "other"
    link.symlink_to(file)
    put(link, "system_u:object_r:etc_t:s0", follow_symlinks=False)
    os.link(file, other)
    labels = [look(path) for path in (file, link, other)]
    assert [label.context for label in labels] == [LABEL] * 3
    assert len({label.identity for label in labels}) == 1
    assert [label.path for label in labels] == [str(file), str(link), str(other)]


def test_different_files_are_told_apart(file, tmp_path):
    (tmp_path / "b").write_text("")
    assert look(file).identity != look(tmp_path / "b").identity


@pytest.mark.root
def test_what_libvirt_notes_on_an_image(file):
    put(file)
    put(file, "2", "trusted.libvirt.security.ref_selinux")
    put(file, "system_u:object_r:virt_image_t:s0", "trusted.libvirt.security.selinux")
    label = look(file)
    assert label.references == 2
    assert label.remembered == "system_u:object_r:virt_image_t:s0"


@pytest.mark.root
@pytest.mark.parametrize("count", ["", "-1", "two", "²", "1.5"])
def test_a_count_that_is_none(file, count):
    put(file, count, "trusted.libvirt.security.ref_selinux")
    assert look(file).references is None


@pytest.mark.root
@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"a\0b", b"x" * 3000])
def test_labels_that_are_none_are_kept_as_they_are(file, data):
    # A kernel with SELinux refuses them to all but those who may set foreign labels.
    with contextlib.suppress(OSError):
        os.setxattr(file, "security.selinux", data)
        assert look(file).context == os.fsdecode(data)


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert isinstance(look(tmp_path / "pipe"), FileLabel)


def test_a_folder_is_looked_at_like_a_file(tmp_path):
    assert isinstance(look(tmp_path), FileLabel)


@pytest.mark.root
def test_a_device_is_one_by_its_number(tmp_path):
    one, two, three = tmp_path / "one", tmp_path / "two", tmp_path / "three"
    try:
        for path, minor in ((one, 3), (two, 3), (three, 5)):
            # Numbers of no driver: opened with O_PATH, a device is not asked.
            os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(260, minor))
    except PermissionError:
        require(False, "may not make device nodes here")
    put(one)
    labels = [look(path) for path in (one, two, three)]
    assert [label.identity for label in labels] == ["device 260:3", "device 260:3", "device 260:5"]
    assert labels[0].context == LABEL


def test_a_path_with_a_nul_byte_is_told(tmp_path):
    outcome = look(f"{tmp_path}/a\0b")
    assert isinstance(outcome, Unreadable)
    assert "null byte" in outcome.reason


@pytest.mark.parametrize("path", ["/" + "x" * 300, "/proc/self/status/x", "/" + "y/" * 5000])
def test_paths_that_lead_nowhere_are_told(path):
    assert isinstance(look(path), Unreadable)


def test_links_that_loop_are_told(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    outcome = look(tmp_path / "loop")
    assert isinstance(outcome, Unreadable)
    assert "symbolic links" in outcome.reason


@pytest.mark.root
def test_what_may_not_be_looked_at(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "disk.raw").write_text("")
    with as_nobody():
        outcome = look(closed / "disk.raw")
    assert outcome == Unreadable(
        str(closed / "disk.raw"),
        "its label could not be read: Permission denied; run as root",
    )


def test_a_file_system_without_labels():
    """The kernel's own files carry none where no SELinux runs, and real ones where it does."""
    label = look("/proc/self/status")
    assert isinstance(label, FileLabel)
    assert label.labelable is (label.context is not None)


def test_where_selinux_runs_the_mount_tells_whether_files_carry_labels(file, monkeypatch):
    table = FileSystem(enforced=True)
    descriptor = os.open(file, os.O_PATH)
    mount = _files._mount_of(descriptor)
    os.close(descriptor)
    assert mount > 0
    for mounts in (frozenset({mount}), frozenset[int]()):
        table._labelled_mounts = mounts
        label = table.look(str(file), None)
        assert isinstance(label, FileLabel)
        assert label.labelable is (mount in mounts)


def test_the_mounts_with_labels(monkeypatch, tmp_path):
    listing = tmp_path / "mountinfo"
    listing.write_text(
        "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,seclabel,errors=remount-ro\n"
        "22 21 0:5 / /srv\\040data rw - nfs4 host:/srv rw,vers=4.2\n"
        "23 21 0:6 / /mnt rw - ext4 /dev/sdb rw,context=system_u:object_r:virt_image_t:s0\n"
        "24 21 0:7 / /dev rw - devtmpfs udev rw,seclabel\n"
        "25 21 0:8 / /odd rw - \n"
    )
    real = open
    monkeypatch.setattr(
        "builtins.open",
        lambda path, *a, **k: real(listing if path == "/proc/self/mountinfo" else path, *a, **k),
    )
    assert _files._labelled_mounts() == {21, 24}


def test_a_guests_own_view_of_devices_counts():
    """Here with our own process in place of a guest's."""
    pid = os.getpid()
    assert look("/dev/null", pid).identity == look("/dev/null").identity
    # A link with an absolute target is followed where the guest sees it.
    assert look("/dev/fd", pid) is not None
    assert look("/dev/none", pid) is None
    assert isinstance(look("/dev/null", 999999999), FileLabel)


@pytest.mark.root
def test_the_devices_of_another_mount_namespace(tmp_path):
    """As libvirt makes it: a /dev of the guest's own, its node there with another label."""
    unshare = require_program("unshare", package="util-linux")
    script = (
        "mount -t tmpfs none /dev && mkdir /dev/vg && echo >/dev/node && "
        "ln -s ../node /dev/vg/relative && ln -s /dev/node /dev/vg/absolute && echo up && read end"
    )
    process = subprocess.Popen(
        [unshare, "--mount", "--propagation", "private", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        require(process.stdout.readline() == b"up\n", "may not mount in a namespace of its own")
        put(f"/proc/{process.pid}/root/dev/node")
        for path in ("/dev/node", "/dev/vg/relative", "/dev/vg/absolute"):
            label = look(path, process.pid)
            assert isinstance(label, FileLabel)
            assert (label.path, label.context) == (path, LABEL)
            assert look(path) is None
        with as_nobody():
            refused = look("/dev/node", process.pid)
        assert isinstance(refused, Unreadable)
        assert "run as root" in refused.reason
    finally:
        process.communicate(b"\n")


def image(path, format_="qcow2"):
    return Image(
        ImageUse.DISK, ImageKind.FILE, ImageMode.PRIVATE, str(path), str(path), "vda", None, format_
    )


def chain(path, format_="qcow2"):
    """Paths, or names, of the images below; and why there are no more."""
    found = list(FileSystem().below(image(path, format_)))
    images = [entry for entry in found if isinstance(entry, Image)]
    assert all(
        entry.use is ImageUse.BACKING and entry.mode is ImageMode.READONLY for entry in images
    )
    assert all(entry.target == "vda" for entry in images)
    gaps = [entry.reason for entry in found if isinstance(entry, Unreadable)]
    return [entry.path or entry.name for entry in images], gaps


@pytest.fixture
def qemu_img(tmp_path):
    program = require_program("qemu-img", package="qemu-utils")

    def make(name, backing=None, format_="qcow2", options=(), backing_format="qcow2"):
        below = [] if backing is None else ["-b", str(backing), "-F", backing_format]
        if backing is not None:
            # What it names need not exist.
            below.append("-u")
        subprocess.run(
            [program, "create", "-q", "-f", format_, *below, *options, tmp_path / name, "1M"],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return tmp_path / name

    return make


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_chains_of_qemu_img(qemu_img, tmp_path, compat):
    options = ["-o", f"compat={compat}"]
    (tmp_path / "sub").mkdir()
    base = qemu_img("base.raw", format_="raw")
    qemu_img("sub/middle.qcow2", "../base.raw", backing_format="raw", options=options)
    top = qemu_img("top.qcow2", "sub/middle.qcow2", options=options)
    absolute = qemu_img("absolute.qcow2", tmp_path / "sub" / "middle.qcow2", options=options)
    alone = qemu_img("alone.qcow2", options=options)
    middle = tmp_path / "sub" / "middle.qcow2"
    below = [str(middle), str(tmp_path / "sub" / ".." / "base.raw")]
    assert chain(top) == (below, [])
    assert chain(absolute) == (below, [])
    assert chain(alone) == ([], [])
    assert os.path.samefile(below[1], base)
    # A guest can write a header into a raw disk that names any file.
    assert chain(top, "raw") == ([], [])
    assert chain(top, None) == ([], [])


def test_kinds_and_formats_of_what_lies_below(qemu_img):
    top = qemu_img("top.qcow2", "/dev/none/lv", backing_format="raw")
    (below,) = FileSystem().below(image(top))
    assert isinstance(below, Image)
    assert (below.kind, below.path, below.format) == (ImageKind.BLOCK, "/dev/none/lv", "raw")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("nbd://host/export", None),
        ("rbd:pool/image:id=admin", None),
        ("ssh://user@host/path", None),
        ('json:{"driver":"file","filename":"/img/b"}', "/img/b"),
        ('json:{"driver":"raw","file":{"driver":"file","filename":"/img/b"}}', "/img/b"),
        ('json:{"driver":"raw","file.driver":"host_device","file.filename":"/dev/b"}', "/dev/b"),
        ('json:{"driver":"raw","file":{"driver":"file","filename":"b"}}', "HERE/b"),
        ('json:{"driver":"raw","file":{"driver":"nbd","host":"h"}}', None),
        ('json:{"driver":"rbd","pool":"p","image":"i"}', None),
        ("file:/img/b", "/img/b"),
        ("file:///img//b", "/img/b"),
        ("//img/b", "/img/b"),
        ("./a:b", "HERE/a:b"),
        ("sub/../b", "HERE/sub/../b"),
    ],
)
def test_names_of_what_lies_below(tmp_path, name, path):
    top = write(tmp_path, "top", header(name, "raw"))
    (below,) = FileSystem().below(image(top))
    assert isinstance(below, Image)
    assert below.path == (path and path.replace("HERE", str(tmp_path)))
    assert below.name == (below.path or name)
    assert (below.kind is ImageKind.NETWORK) == (path is None)
    assert below.format == "raw"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"file"',
        "{}",
        '{"driver":1}',
        '{"driver":"qcow2","file":"node-name"}',
        '{"driver":"file","filename":7}',
        '{"driver":"file","filename":""}',
        '{"driver":"file","filename":"a\\u0000b"}',
        "[" * 1000,
        '{"file":' * 120,
    ],
)
def test_descriptions_that_are_not_understood_are_told(tmp_path, text):
    assert "not understood" in chain(write(tmp_path, "top", header(f"json:{text}")))[1][0]


def test_a_description_tells_the_format_where_the_header_does_not(tmp_path, qemu_img):
    qemu_img("base.raw", format_="raw")
    qemu_img("middle.qcow2", "base.raw", backing_format="raw")
    name = 'json:{"driver":"qcow2","file":{"driver":"file","filename":"middle.qcow2"}}'
    top = write(tmp_path, "top", header(name))
    assert chain(top) == ([str(tmp_path / "middle.qcow2"), str(tmp_path / "base.raw")], [])


def test_an_image_with_its_data_in_a_second_file(qemu_img, tmp_path):
    data = tmp_path / "data.raw"
    top = qemu_img("top.qcow2", options=["-o", f"data_file={data},data_file_raw=on"])
    (found,) = FileSystem().below(image(top))
    assert isinstance(found, Image)
    assert (found.path, found.use, found.mode) == (str(data), ImageUse.DISK, ImageMode.PRIVATE)


def test_a_missing_image_ends_the_chain(qemu_img, tmp_path):
    top = qemu_img("top.qcow2", "gone.qcow2")
    assert chain(top) == ([str(tmp_path / "gone.qcow2")], [])
    assert chain(tmp_path / "none") == ([], [])


def test_chains_that_loop_are_told(qemu_img, tmp_path):
    qemu_img("self.qcow2", "self.qcow2")
    assert chain(tmp_path / "self.qcow2")[1] == [
        f"its backing chain loops at {tmp_path / 'self.qcow2'}"
    ]
    (tmp_path / "sub").mkdir()
    qemu_img("a.qcow2", "sub/../b.qcow2")
    qemu_img("b.qcow2", "sub/../a.qcow2")
    below, (gap,) = chain(tmp_path / "a.qcow2")
    assert below == [str(tmp_path / "sub" / ".." / "b.qcow2")]
    assert "loops at" in gap
    (tmp_path / "link.qcow2").symlink_to("c.qcow2")
    qemu_img("c.qcow2", "link.qcow2")
    assert chain(tmp_path / "c.qcow2")[0] == []


def test_a_chain_of_two_hundred_ends(tmp_path):
    for number in range(250):
        write(tmp_path, str(number), header(str(number + 1), "qcow2"))
    below, gaps = chain(tmp_path / "0")
    assert len(below) == 200
    assert gaps == ["its backing chain has no end"]


def test_each_image_is_read_once(tmp_path, monkeypatch):
    write(tmp_path, "base", header())
    tops = [write(tmp_path, name, header("base", "qcow2")) for name in "abc"]
    read = []
    real = _files._read_header

    def noting(path):
        read.append(path)
        return real(path)

    monkeypatch.setattr(_files, "_read_header", noting)
    table = FileSystem()
    assert all(len(list(table.below(image(top)))) == 1 for top in (*tops, *tops))
    assert sorted(read) == sorted(map(str, (*tops, tmp_path / "base")))


def test_a_link_out_of_the_folder_is_not_opened(qemu_img, tmp_path):
    (tmp_path / "other").mkdir()
    qemu_img("other/secret.qcow2", "/etc/shadow", backing_format="raw")
    (tmp_path / "link.qcow2").symlink_to("other/secret.qcow2")
    assert chain(tmp_path / "link.qcow2") == (
        [],
        ["its backing chain could not be read: it is a symbolic link that leads out of its folder"],
    )
    # Inside the folder a link is as good as a file.
    qemu_img("real.qcow2", "base.raw", backing_format="raw")
    (tmp_path / "near.qcow2").symlink_to("real.qcow2")
    assert chain(tmp_path / "near.qcow2") == ([str(tmp_path / "base.raw")], [])
    # So is a folder that is one.
    (tmp_path / "folder").symlink_to("other")
    assert chain(tmp_path / "folder" / "secret.qcow2") == (["/etc/shadow"], [])


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_storage_is_not_opened(tmp_path, kind):
    path = tmp_path / "image"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = "/dev/null"
    outcome = []
    # Whoever opened the pipe would never come back.
    reader = threading.Thread(target=lambda: outcome.append(chain(path)), daemon=True)
    reader.start()
    reader.join(60)
    assert not reader.is_alive()
    assert outcome == [
        (
            [],
            ["its backing chain could not be read: it is no regular file and no block device"],
        )
    ]


def test_a_pipe_below_does_not_hold_us(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    below, (gap,) = chain(write(tmp_path, "top", header("pipe", "qcow2")))
    assert below == [str(tmp_path / "pipe")]
    assert "no regular file" in gap


@pytest.mark.root
def test_a_header_that_may_not_be_read(tmp_path):
    top = write(tmp_path, "top", header("base"))
    top.chmod(0o600)
    with as_nobody():
        _, (gap,) = chain(top)
    assert "Permission denied" in gap


@pytest.mark.root
def test_a_block_device_with_a_chain(tmp_path):
    losetup = require_program("losetup", package="mount")
    (tmp_path / "disk").write_bytes(header("/img/base", "raw").ljust(1 << 20, b"\0"))
    made = subprocess.run(
        [losetup, "--find", "--show", "--read-only", tmp_path / "disk"],
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        # No loop devices here: then one of no driver, which cannot be opened.
        os.mknod(tmp_path / "node", stat.S_IFBLK | 0o600, os.makedev(260, 3))
        assert "No such device" in chain(tmp_path / "node")[1][0]
        return
    device = made.stdout.strip()
    try:
        assert chain(device) == (["/img/base"], [])
        assert look(device).identity.startswith("device 7:")
    finally:
        subprocess.run([losetup, "--detach", device], check=True)


def header(backing=None, backing_format=None, *, version=3, data_file=None, length=104):
    """A qcow2 header as QEMU's docs/interop/qcow2.txt describes it."""
    extensions = b""
    for kind, text in ((0xE2792ACA, backing_format), (0x44415441, data_file)):
        if text is not None:
            data = os.fsencode(text)
            extensions += struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)
    extensions += bytes(8)
    name = b"" if backing is None else os.fsencode(backing)
    size = length if version == 3 else 72
    offset = size + len(extensions) if name else 0
    start = b"QFI\xfb" + struct.pack(">IQI", version, offset, len(name))
    tail = struct.pack(">I", length) if version == 3 else b""
    return (start.ljust(100, b"\0") + tail).ljust(size, b"\0")[:size] + extensions + name


def write(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_our_own_headers_are_read_as_qemus(version):
    parsed = _files._parse_header(header("a/b", "raw", version=version, data_file="data"))
    assert (parsed.backing, parsed.backing_format, parsed.data_file) == ("a/b", "raw", "data")


HOSTILE = {
    "empty": b"",
    "short": header()[:50],
    "no magic": b"QFI\xfa" + header()[4:],
    "version 1": header("a").replace(b"\0\0\0\3", b"\0\0\0\1", 1),
    "version 4": header("a").replace(b"\0\0\0\3", b"\0\0\0\4", 1),
    "name behind the end": header("a")[:-1],
    "name far away": b"QFI\xfb" + struct.pack(">IQI", 3, 2**63, 10) + bytes(100),
    "long name": header("a" * 1024),
    "NUL in the name": header("a\0b"),
    "NUL in the format": header("a", "r\0w"),
    "NUL in the data file": header("a", data_file="\0"),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers_are_told(tmp_path, data):
    below, gaps = chain(write(tmp_path, "top", data))
    assert below == []
    assert len(gaps) == 1
    assert gaps[0].startswith("its backing chain could not be read: ")


@pytest.mark.parametrize(
    "data",
    [
        header("a"),
        header("a").replace(struct.pack(">I", 104), struct.pack(">I", 2**32 - 1), 1),
        header("a").replace(struct.pack(">I", 104), struct.pack(">I", 0), 1),
        header("a", "x" * 4000),
    ],
)
def test_odd_headers_that_still_name_a_file(tmp_path, data):
    assert chain(write(tmp_path, "top", data))[0] == [str(tmp_path / "a")]


names = (
    st.none()
    | st.text(max_size=40)
    | st.text('{}":,filedrvnm.', max_size=60).map("json:{}".__add__)
)
headers = st.builds(
    header,
    names,
    st.none() | st.text(max_size=20),
    version=st.sampled_from([2, 3]),
    data_file=st.none() | st.text(max_size=20),
    length=st.sampled_from([104, 112, 200]),
)


@st.composite
def damaged(draw):
    data = bytearray(draw(headers))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(b"QFI\xfb".__add__) | damaged())
@example(b"QFI\xfb" + bytes(68))
def test_a_header_is_read_or_refused(data):
    with contextlib.suppress(ValueError):
        parsed = _files._parse_header(data)
        if parsed.backing is not None:
            below = _files._backing("/images/top", parsed)
            assert below.path is None or (below.path[0] == "/" and "\0" not in below.path)
