"""``svirt-label generate``: every configuration, refusal and exit status, as a user meets them."""

from __future__ import annotations

import io
import json
import sys
import types
from pathlib import Path

import pytest
from needs import require_module

from svirtlib import Context
from svirtlib.backends import host
from svirtlib.cli.main import main
from svirtlib.errors import BackendDataError
from svirtlib.generate import DEFAULT_CONTEXTS, DomainContexts

C = Context.parse
FEDORA = DomainContexts(
    kvm=C("system_u:system_r:svirt_t:s0"),
    tcg=C("system_u:system_r:svirt_tcg_t:s0"),
    image=C("system_u:object_r:svirt_image_t:s0"),
    content=C("system_u:object_r:virt_content_t:s0"),
    source="virtual_domain_context",
)
LABEL = "system_u:system_r:svirt_t:s0:c392,c662"
SVIRT = "system_u:system_r:svirt_t"


@pytest.fixture
def generate(monkeypatch, capsysbinary):
    """Run the verb on a host with Fedora's contexts: exit status, stdout, stderr."""
    monkeypatch.setattr(host, "read_contexts", lambda: FEDORA)

    def run(*arguments):
        status = main(["generate", *map(str, arguments)])
        captured = capsysbinary.readouterr()
        return status, captured.out.decode(), captured.err.decode()

    return run


GIVEN = {
    "dynamic": "<seclabel type='dynamic' model='selinux' relabel='yes'/>\n",
    "dynamic --relabel yes --model selinux": (
        "<seclabel type='dynamic' model='selinux' relabel='yes'/>\n"
    ),
    f"dynamic --baselabel {SVIRT}:s0": (
        "<seclabel type='dynamic' model='selinux' relabel='yes'>\n"
        f"  <baselabel>{SVIRT}:s0</baselabel>\n"
        "</seclabel>\n"
    ),
    "dynamic --type svirt_tcg_t --virt-type qemu": (
        "<seclabel type='dynamic' model='selinux' relabel='yes'>\n"
        "  <baselabel>system_u:system_r:svirt_tcg_t:s0</baselabel>\n"
        "</seclabel>\n"
    ),
    f"static --label {LABEL} --relabel yes": (
        "<seclabel type='static' model='selinux' relabel='yes'>\n"
        f"  <label>{LABEL}</label>\n"
        "</seclabel>\n"
    ),
    f"-q static --label {LABEL} --relabel no": (
        "<seclabel type='static' model='selinux' relabel='no'>\n"
        f"  <label>{LABEL}</label>\n"
        "</seclabel>\n"
    ),
    "static --level s0:c392,c662 --relabel yes": (
        "<seclabel type='static' model='selinux' relabel='yes'>\n"
        f"  <label>{LABEL}</label>\n"
        "</seclabel>\n"
    ),
    "-q dynamic --device vda=relabel-no --device vdb=system_u:object_r:virt_content_t:s0": (
        "<seclabel type='dynamic' model='selinux' relabel='yes'/>\n"
        "<!-- in the <source> of vda: -->\n"
        "<seclabel model='selinux' relabel='no'/>\n"
        "<!-- in the <source> of vdb: -->\n"
        "<seclabel model='selinux' relabel='yes'>\n"
        "  <label>system_u:object_r:virt_content_t:s0</label>\n"
        "</seclabel>\n"
    ),
}


@pytest.mark.parametrize("arguments", GIVEN)
def test_configurations(generate, arguments):
    assert generate(*arguments.split()) == (0, GIVEN[arguments], "")


def test_none_warns(generate):
    status, out, err = generate("none", "-q")
    assert (status, out) == (0, "<seclabel type='none' model='selinux'/>\n")
    assert err.startswith("svirt-label: warning: nothing will confine this guest")


NOTED = {
    "static --level s0:c662,c392 --relabel yes": "s0:c662,c392 is written s0:c392,c662",
    f"static --label {SVIRT}:s0:c2,c1 --relabel yes": f"is written {SVIRT}:s0:c1,c2",
    "dynamic --baselabel system_u:system_r:svirt_t:s0-s0": f"is written {SVIRT}:s0,",
    f"static --label {LABEL}": "the context system_u:object_r:svirt_image_t:s0:c392,c662",
    "static --relabel yes --level s0:c1,c2 --device a=u:object_r:svirt_image_t:s0:c2,c1": (
        "is written u:object_r:svirt_image_t:s0:c1,c2"
    ),
}


@pytest.mark.parametrize("arguments", NOTED)
def test_notes(generate, arguments):
    status, _, err = generate(*arguments.split())
    assert status == 0
    assert err.startswith("svirt-label: note: ")
    assert NOTED[arguments] in err
    assert generate(*arguments.split(), "-q")[2] == ""


REFUSED = {
    "dynamic --relabel no": "libvirt refuses it",
    "dynamic --baselabel u:r:svirt_t:s0:c1": "a baselabel with categories",
    "dynamic --baselabel svirt_t": "invalid context 'svirt_t'",
    "dynamic --label u:r:t:s0:c1,c2": "--label with dynamic",
    "dynamic --type": "expected one argument",
    "dynamic --type a:b": "invalid context",
    "dynamic --xml .": "has none",
    "static": "static without a label",
    "static --baselabel u:r:t": "--baselabel with static",
    "static --level s0": "without categories",
    "static --level s0:c1,c1025": "unknown category",
    "static --level c1,c2": "unknown sensitivity",
    "static --label u:r:svirt_t": "without a level",
    "static --label u:r:svirt_t:s0:c1,c2 --level auto": "--level with --label",
    "static --level s0:c1,c2 --relabel maybe": "invalid choice",
    "static --level s0:c1,c2 --model dac": "invalid choice",
    "static --level s0:c1,c2 --device vda": "--device vda",
    "static --level s0:c1,c2 --device =relabel-no": "--device =relabel-no",
    "static --level s0:c1,c2 --device vda=": "--device vda=",
    "static --level s0:c1,c2 --device vda=x": "invalid context",
    "static --level s0:c1,c2 --device vda=relabel-no": "an override for vda",
    "dynamic --device a=relabel-no --device a=relabel-no": "given twice",
    "none --relabel yes": "none with relabelling",
    "none --level auto": "--level with none",
    "none --snapshot x": "has none",
    "dynamic --into /nonexistent/x.xml": "there is no such file",
    "dynamic --into x --format json": "leave out --format",
    "static --level auto --into - --xml -": "standard input cannot be read for",
    "dynamic --format sarif": "sarif",
    "dynamic --format table": "generate cannot write table",
    "default": "invalid choice",
    "": "required",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_refused(generate, arguments):
    status, out, err = generate(*arguments.split())
    assert (status, out) == (2, "")
    assert REFUSED[arguments] in err


def test_unsafe_on_demand(generate):
    status, out, err = generate("static", "--level", "s0", "--relabel", "yes", "--allow-unsafe")
    assert status == 0
    assert f"<label>{SVIRT}:s0</label>" in out
    assert err.startswith("svirt-label: warning: a static label without categories")
    assert "--allow-unsafe gives it" in generate("static", "--level", "s0")[2]


def test_json(generate):
    status, out, err = generate(
        "static", "--level", "s0:c2,c1", "--relabel", "yes", "--format", "json",
        "--device", "vda=relabel-no", "-q",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert json.loads(out) == {
        "schema": "svirt-label/generate/1",
        "type": "static",
        "model": "selinux",
        "relabel": True,
        "label": f"{SVIRT}:s0:c1,c2",
        "baselabel": None,
        "imagelabel": "system_u:object_r:svirt_image_t:s0:c1,c2",
        "xml": (
            "<seclabel type='static' model='selinux' relabel='yes'>\n"
            f"  <label>{SVIRT}:s0:c1,c2</label>\n</seclabel>"
        ),
        "devices": [
            {
                "target": "vda",
                "model": "selinux",
                "relabel": False,
                "label": None,
                "xml": "<seclabel model='selinux' relabel='no'/>",
            }
        ],
        "contexts_from": "virtual_domain_context",
        "compared_with": None,
        "not_compared": [],
        "warnings": [],
        "notes": [
            "s0:c2,c1 is written s0:c1,c2, as the kernel prints it",
            "libvirt will not touch the label of vda: give it one that fits",
        ],
    }


# Comparing.


def running(name, level, **more):
    label = f"{SVIRT}:{level}"
    return domain(
        name,
        id="3",
        rest=f"<seclabel type='dynamic' model='selinux' relabel='yes'><label>{label}</label>"
        f"<imagelabel>{label}</imagelabel></seclabel>",
        **more,
    )


def domain(name, *, id=None, rest="", type="kvm", devices=""):
    number = "" if id is None else f" id='{id}'"
    return (
        f"<domain type='{type}'{number}>\n  <name>{name}</name>\n"
        f"  <devices>{devices}</devices>\n{rest}</domain>\n"
    )


@pytest.fixture
def dumps(tmp_path):
    """A folder with the documents of two running guests."""
    folder = tmp_path / "dumps"
    folder.mkdir()
    (folder / "web.xml").write_text(running("web", "s0:c1,c2"))
    (folder / "db.xml").write_text(running("db", "s0:c3"))
    return folder


def test_a_level_in_use_is_refused(generate, dumps):
    status, out, err = generate("static", "--level", "s0:c2,c1", "--xml", dumps)
    assert (status, out) == (2, "")
    assert "the level s0:c1,c2: guest web (s0:c1,c2) has it already" in err
    assert generate("static", "--level", "s0:c3,c4", "--xml", dumps)[0] == 2
    assert generate("static", "--level", "s0:c4,c5", "--xml", dumps)[0] == 0


def test_a_level_is_picked(generate, dumps):
    status, out, err = generate("static", "--level", "auto", "--xml", dumps, "--format", "json")
    report = json.loads(out)
    assert (status, report["warnings"], report["compared_with"]) == (0, [], 2)
    level = Context.parse(report["label"]).level
    assert level is not None
    assert len(level.categories) == 2
    assert 3 not in level.categories
    assert str(level) != "s0:c1,c2"
    assert "compared" not in err


def test_a_level_picked_without_comparison_claims_nothing(generate):
    status, _, err = generate("static", "--level", "auto")
    assert status == 0
    assert "warning: the level was compared with nothing" in err


def test_no_level_is_left(generate, tmp_path):
    (tmp_path / "all.xml").write_text(running("all", "s0:c0.c1023"))
    status, out, err = generate("static", "--level", "auto", "--xml", tmp_path)
    assert (status != 0, out) == (True, "")
    assert "guest all (s0:c0.c1023)" in err


def test_what_could_not_be_read_is_told(generate, dumps):
    (dumps / "broken.xml").write_text("<domain")
    status, out, err = generate("static", "--level", "s0:c8,c9", "--relabel", "yes", "--xml", dumps)
    assert status == 3
    assert f"<label>{SVIRT}:s0:c8,c9</label>" in out
    assert "svirt-label: not compared: " in err
    assert "broken.xml" in err


def test_a_guests_own_level_is_no_obstacle(generate, dumps):
    web = dumps / "web.xml"
    arguments = ["static", "--level", "s0:c1,c2", "--relabel", "yes", "--xml", dumps]
    assert generate(*arguments, "--into", web)[0] == 0
    assert generate(*arguments, "--into", dumps / "db.xml")[0] == 2


# Into a document.


def test_into_a_file(generate, tmp_path):
    path = tmp_path / "a.xml"
    before = domain("a", rest="  <!-- mine -->\n")
    path.write_text(before)
    status, out, err = generate("dynamic", "--into", path)
    new = "  <seclabel type='dynamic' model='selinux' relabel='yes'/>\n"
    assert (status, err) == (0, "")
    assert out == before.replace("</devices>\n", f"</devices>\n{new}")
    assert path.read_text() == before


def test_into_standard_input(generate, monkeypatch):
    before = domain("a")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(before.encode())))
    status, out, _ = generate("none", "--into", "-")
    assert status == 0
    assert out == before.replace(
        "</domain>", "  <seclabel type='none' model='selinux'/>\n</domain>"
    )


def test_bytes_stay_what_they_are(generate, tmp_path):
    path, result = tmp_path / "a.xml", tmp_path / "b.xml"
    text = "<?xml version='1.0' encoding='utf-16'?>\r\n" + domain("\u00e9").replace("\n", "\r\n")
    path.write_bytes(text.encode("utf-16"))
    assert generate("dynamic", "--into", path, "-o", result) == (0, "", "")
    new = "  <seclabel type='dynamic' model='selinux' relabel='yes'/>\r\n"
    assert result.read_bytes() == text.replace("</domain>", f"{new}</domain>").encode("utf-16")


def test_in_place_when_the_output_is_the_input(generate, tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(domain("a"))
    assert generate("dynamic", "--into", path, "-o", path) == (0, "", "")
    once = path.read_bytes()
    assert once.count(b"<seclabel") == 1
    assert generate("dynamic", "--into", path, "-o", path) == (0, "", "")
    assert path.read_bytes() == once


def test_a_refusal_leaves_the_output_alone(generate, tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(domain("a"))
    assert generate("dynamic", "--into", path, "--device", "x=relabel-no", "-o", path)[0] == 2
    assert path.read_text() == domain("a")


def test_the_domains_type_tells_the_context(generate, tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(domain("a", type="qemu"))
    arguments = ["static", "--level", "s0:c1,c2", "--relabel", "yes", "--into", path]
    assert "svirt_tcg_t:s0:c1,c2" in generate(*arguments)[1]
    status, _, err = generate(*arguments, "--virt-type", "kvm")
    assert status == 2
    assert "is of the type qemu" in err


def test_other_models_keep_theirs(generate, tmp_path):
    path = tmp_path / "a.xml"
    dac = "  <seclabel type='static'   model=\"dac\"><label>1:1</label></seclabel>\n"
    path.write_text(domain("a", rest=dac))
    _, out, _ = generate("dynamic", "--into", path)
    assert dac in out


def test_a_running_guest(generate, dumps):
    _, _, err = generate("dynamic", "--into", dumps / "web.xml")
    assert "started anew" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("<domain>", "malformed XML"),
        ("<network/>", "<network>"),
        ("<domain type='kvm'/>", "no <name>"),
        ("<node>" + domain("a") * 2 + "</node>", "it holds 2 domains"),
        ("<node>" + domain("a") + "</node>", "its root element is <node>"),
        ("<!DOCTYPE x><domain/>", "DOCTYPE"),
        (domain("a", rest="<seclabel model='selinux'/>" * 2), "2 SELinux seclabels"),
        (
            domain(
                "a",
                devices="<disk><source><seclabel model='selinux' relabel='no'/></source>"
                "<target dev='vda'/></disk>",
            ),
            "label overrides require relabeling",
        ),
    ],
)
def test_documents_that_are_refused(generate, tmp_path, text, message):
    path = tmp_path / "a.xml"
    path.write_text(text)
    status, out, err = generate("none", "--into", path)
    assert (status, out) == (2, "")
    assert message in err


def test_a_file_that_cannot_be_read(generate, tmp_path):
    status, _, err = generate("dynamic", "--into", tmp_path)
    assert status == 4
    assert str(tmp_path) in err


# What the host says.


@pytest.fixture
def files(monkeypatch, tmp_path):
    """Stand-ins for libselinux and its two files."""
    module = types.ModuleType("selinux")
    setattr(module, "selabel_open", None)  # noqa: B010 - a module has no such attribute
    for name in ("domain", "image"):
        path = tmp_path / f"virtual_{name}_context"
        setattr(module, f"selinux_virtual_{name}_context_path", lambda path=path: str(path))
    monkeypatch.setitem(sys.modules, "selinux", module)
    return tmp_path


def test_contexts_of_fedora(files):
    (files / "virtual_domain_context").write_text(f"{SVIRT}:s0\nu:r:tcg_t:s0\n")
    (files / "virtual_image_context").write_text("u:object_r:image_t:s0\nu:object_r:content_t:s0\n")
    contexts = host.read_contexts()
    assert (str(contexts.kvm), str(contexts.tcg)) == (f"{SVIRT}:s0", "u:r:tcg_t:s0")
    assert (str(contexts.image), str(contexts.content)) == (
        "u:object_r:image_t:s0",
        "u:object_r:content_t:s0",
    )
    assert contexts.source == str(files / "virtual_domain_context")


def test_contexts_of_debian(files):
    (files / "virtual_domain_context").write_text("u:r:my_t:s0\n")
    contexts = host.read_contexts()
    assert str(contexts.tcg) == str(contexts.kvm) == "u:r:my_t:s0"
    assert contexts.image == DEFAULT_CONTEXTS.image


def test_contexts_of_a_machine_without_a_policy(files):
    assert host.read_contexts() == DEFAULT_CONTEXTS


def test_contexts_without_the_bindings(monkeypatch):
    monkeypatch.setitem(sys.modules, "selinux", None)
    assert host.read_contexts() == DEFAULT_CONTEXTS


def test_a_damaged_file(files):
    (files / "virtual_domain_context").write_text("garbage\n")
    with pytest.raises(BackendDataError, match="restore it from its package"):
        host.read_contexts()


def test_a_libvirt_is_compared_with(generate):

    require_module("libvirt", package="python3-libvirt")
    demo = Path(__file__).resolve().parents[2] / "svirtlib" / "demo" / "host.xml"
    uri = f"test://{demo}"
    status, out, err = generate("static", "--level", "s0:c10,c20", "-c", uri)
    assert (status, out) == (2, "")
    assert "web01 (s0:c10,c20)" in err
