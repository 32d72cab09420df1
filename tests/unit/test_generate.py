"""Every configuration of a seclabel, and every refusal."""

from __future__ import annotations

import pickle

import pytest

from svirtlib import Context, Level, Range
from svirtlib.errors import CategoriesExhaustedError, DomainXMLError, GenerationError
from svirtlib.generate import (
    AUTO,
    DEFAULT_CONTEXTS,
    DomainContexts,
    Request,
    generate,
    image_context,
    insert,
)
from svirtlib.guests import (
    FileLabel,
    Guest,
    Image,
    ImageKind,
    ImageMode,
    ImageUse,
    Inventory,
    Process,
    Unreadable,
)
from svirtlib.levelsinuse import InUse, UsedLevel, levels_in_use
from svirtlib.seclabel import DeviceSeclabel, Seclabel, SeclabelType

DYNAMIC, STATIC, NONE = SeclabelType.DYNAMIC, SeclabelType.STATIC, SeclabelType.NONE
C = Context.parse
R = Range.parse
LABEL = "system_u:system_r:svirt_t:s0:c87,c520"

FEDORA = DomainContexts(
    kvm=C("system_u:system_r:svirt_t:s0"),
    tcg=C("system_u:system_r:svirt_tcg_t:s0"),
    image=C("system_u:object_r:svirt_image_t:s0"),
    content=C("system_u:object_r:virt_content_t:s0"),
    source="test",
)


def ask(**given):
    """What is asked for, by the names of a request."""
    return given


def used(*texts, process=True):
    return InUse(tuple(UsedLevel(Level.parse(text), f"guest g{text}", process) for text in texts))


GIVEN = [
    (ask(type=DYNAMIC), Seclabel(DYNAMIC, "selinux")),
    (ask(type=DYNAMIC, relabel=True), Seclabel(DYNAMIC, "selinux")),
    (
        ask(type=DYNAMIC, baselabel=C("system_u:system_r:svirt_tcg_t:s0")),
        Seclabel(DYNAMIC, "selinux", baselabel="system_u:system_r:svirt_tcg_t:s0"),
    ),
    (
        # libvirt takes one without a range as well.
        ask(type=DYNAMIC, baselabel=C("system_u:system_r:svirt_t")),
        Seclabel(DYNAMIC, "selinux", baselabel="system_u:system_r:svirt_t"),
    ),
    (
        ask(type=DYNAMIC, selinux_type="svirt_custom_t"),
        Seclabel(DYNAMIC, "selinux", baselabel="system_u:system_r:svirt_custom_t:s0"),
    ),
    (
        ask(type=STATIC, label=C(LABEL), relabel=True),
        Seclabel(STATIC, "selinux", True, LABEL),
    ),
    (ask(type=STATIC, label=C(LABEL), relabel=False), Seclabel(STATIC, "selinux", False, LABEL)),
    (ask(type=STATIC, label=C(LABEL)), Seclabel(STATIC, "selinux", False, LABEL)),
    (ask(type=STATIC, level=R("s0:c520,c87")), Seclabel(STATIC, "selinux", False, LABEL)),
    (
        ask(type=STATIC, level=R("s0:c1,c2"), virt_type="qemu"),
        Seclabel(STATIC, "selinux", False, "system_u:system_r:svirt_tcg_t:s0:c1,c2"),
    ),
    (
        ask(type=STATIC, level=R("s0:c1,c2"), selinux_type="svirt_kvm_net_t"),
        Seclabel(STATIC, "selinux", False, "system_u:system_r:svirt_kvm_net_t:s0:c1,c2"),
    ),
    (
        ask(type=STATIC, level=R("s0-s0:c1,c2")),
        Seclabel(STATIC, "selinux", False, "system_u:system_r:svirt_t:s0-s0:c1,c2"),
    ),
    (ask(type=NONE), Seclabel(NONE, "selinux", False)),
    (ask(type=NONE, relabel=False), Seclabel(NONE, "selinux", False)),
]


@pytest.mark.parametrize(("request_", "seclabel"), GIVEN)
def test_configuration(request_, seclabel):
    assert generate(Request(**request_), FEDORA).seclabel == seclabel


STATIC_YES = ask(type=STATIC, label=C(LABEL), relabel=True)
LONG = ",".join(f"c{number}" for number in range(0, 1024, 2))

#: What is asked for, and a piece of what is answered.
REFUSED = [
    # What libvirt would refuse.
    (ask(type=DYNAMIC, relabel=False), "dynamic without relabelling"),
    (ask(type=NONE, relabel=True), "none with relabelling"),
    (ask(type=STATIC), "static without a label"),
    (ask(type=STATIC, relabel=True, selinux_type="svirt_t"), "static without a label"),
    (ask(type=STATIC, label=C("system_u:system_r:svirt_t")), "without a level"),
    (ask(type=NONE, devices={"vda": None}), "an override for vda"),
    (ask(type=STATIC, label=C(LABEL), devices={"vda": None}), "an override for vda"),
    (
        ask(type=STATIC, label=C(f"a:b:svirt_t:s0:{LONG}-s0:{LONG},c1")),
        "libvirt reads 4096 of them at most",
    ),
    # What it would drop.
    (ask(type=STATIC, label=C(LABEL), baselabel=C("a:b:c")), "--baselabel with static"),
    (ask(type=DYNAMIC, label=C(LABEL)), "--label with dynamic"),
    (ask(type=DYNAMIC, level=R("s0:c1,c2")), "--level with dynamic"),
    (ask(type=DYNAMIC, level=AUTO), "--level with dynamic"),
    (ask(type=NONE, label=C(LABEL)), "--label with none"),
    (ask(type=NONE, level=AUTO), "--level with none"),
    (ask(type=NONE, baselabel=C("a:b:c")), "--baselabel with none"),
    (ask(type=NONE, selinux_type="svirt_t"), "--type with none"),
    (ask(type=DYNAMIC, baselabel=C("a:b:c:s0:c1")), "a baselabel with categories"),
    (ask(type=DYNAMIC, baselabel=C("a:b:c:s0-s0:c0.c1023")), "a baselabel with categories"),
    # What contradicts itself.
    (ask(type=DYNAMIC, baselabel=C("a:b:c"), selinux_type="d"), "--type with --baselabel"),
    (ask(type=STATIC, label=C(LABEL), selinux_type="svirt_t"), "--type with --label"),
    (ask(type=STATIC, label=C(LABEL), level=R("s0:c1,c2")), "--level with --label"),
    # What would not start.
    (ask(type=STATIC, label=C("a:object_r:svirt_t:s0:c1,c2")), "the role object_r for a guest"),
    (ask(type=STATIC, label=C("a:b:svirt_image_t:s0:c1,c2")), "it is a type of files"),
    (ask(type=DYNAMIC, selinux_type="virt_image_t"), "it is a type of files"),
    (
        ask(**STATIC_YES, devices={"vda": C("a:object_r:svirt_image_t:s0:c1,c2")}),
        "does not include it",
    ),
    (
        ask(type=DYNAMIC, devices={"vda": C("a:object_r:svirt_image_t:s0:c1,c2")}),
        "draws a fresh level",
    ),
    (ask(**STATIC_YES, devices={"vda": C("a:object_r:default_t:s0")}), "may not use files"),
    (ask(**STATIC_YES, devices={"vda": C("a:object_r:svirt_t:s0")}), "may not use files"),
]


@pytest.mark.parametrize(("request_", "message"), REFUSED)
def test_refused(request_, message):
    with pytest.raises(GenerationError) as caught:
        generate(Request(**request_), FEDORA)
    assert message in str(caught.value)
    assert not caught.value.unsafe
    # Who knows better cannot have it either.
    with pytest.raises(GenerationError):
        generate(Request(**request_, allow_unsafe=True), FEDORA)


UNSAFE = [
    (ask(type=STATIC, level=R("s0")), None, "without categories"),
    (ask(type=STATIC, level=R("s0:c7")), None, "with one category"),
    (ask(type=STATIC, level=R("s0-s0:c0.c1023")), None, "with 1024 categories"),
    (ask(type=STATIC, level=R("s0:c0.c102")), None, "1% of all that libvirt draws"),
    (ask(type=STATIC, label=C("a:b:virtd_t:s0:c1,c2")), None, "categories do not bind this type"),
    (ask(type=DYNAMIC, selinux_type="unconfined_t"), None, "categories do not bind this type"),
    (ask(type=STATIC, level=R("s0:c2,c1")), used("s0:c1,c2"), "has it already"),
    (ask(type=STATIC, level=R("s0:c1,c2")), used("s0:c1"), "it includes the level of"),
    (ask(type=STATIC, level=R("s0:c1,c2")), used("s0:c0.c5"), "includes it, and would reach"),
    (
        ask(type=STATIC, level=R("s0:c1.c3")),
        used("s0:c1,c2", process=False),
        "it includes the level of",
    ),
    (
        ask(
            type=STATIC,
            level=R("s0:c1.c3"),
            relabel=True,
            devices={"vda": C("a:object_r:svirt_image_t:s0:c1")},
        ),
        used("s0:c1,c9"),
        "would reach that image too",
    ),
]


@pytest.mark.parametrize(("request_", "in_use", "message"), UNSAFE)
def test_unsafe(request_, in_use, message):
    with pytest.raises(GenerationError) as caught:
        generate(Request(**request_), FEDORA, in_use)
    assert message in str(caught.value)
    assert caught.value.unsafe
    given = generate(Request(**request_, allow_unsafe=True), FEDORA, in_use)
    assert message in "; ".join(given.warnings)


@pytest.mark.parametrize(
    "in_use",
    [
        used("s0:c1,c3", "s0:c9", "s0:c2.c500"),
        # A file with more categories is out of reach, and reaches nobody.
        used("s0:c0.c1023", process=False),
        InUse(),
    ],
)
def test_incomparable_is_safe(in_use):
    given = generate(Request(STATIC, level=R("s0:c1,c2"), relabel=True), FEDORA, in_use)
    assert given.seclabel.label == "system_u:system_r:svirt_t:s0:c1,c2"
    assert given.warnings == given.notes == ()


@pytest.mark.parametrize(
    ("request_", "note"),
    [
        (ask(type=STATIC, label=C(LABEL)), "svirt_image_t:s0:c87,c520"),
        (ask(type=STATIC, level=R("s0:c1.c3")), "with 3 categories"),
        (ask(type=STATIC, level=R("s0-s0:c1,c2")), "the whole range s0-s0:c1,c2"),
        (ask(type=DYNAMIC, selinux_type="svirt_custom_t"), "for the policy to say"),
        (ask(type=DYNAMIC, baselabel=C("a:object_r:svirt_t:s0")), "not a:object_r"),
        (ask(type=DYNAMIC, devices={"vda": None}), "will not touch the label of vda"),
    ],
)
def test_notes(request_, note):
    assert note in "; ".join(generate(Request(**request_), FEDORA).notes)


@pytest.mark.parametrize(
    ("request_", "warning"),
    [
        (ask(type=NONE), "nothing will confine"),
        (ask(type=DYNAMIC, baselabel=C("system_u:system_r:svirt_t:s3")), "has no effect"),
        (ask(type=STATIC, level=AUTO), "compared with nothing"),
        (ask(**STATIC_YES, devices={"a": C("a:object_r:svirt_image_t:s0")}), "to write as well"),
    ],
)
def test_warnings(request_, warning):
    assert warning in "; ".join(generate(Request(**request_), FEDORA).warnings)


def test_overrides():
    image = C("system_u:object_r:svirt_image_t:s0:c520,c87")
    content = C("system_u:object_r:virt_content_t:s0")
    given = generate(
        Request(**STATIC_YES, devices={"vda": image, "vdb": None, "vdc": content}), FEDORA
    )
    assert given.devices == {
        "vda": DeviceSeclabel("selinux", True, "system_u:object_r:svirt_image_t:s0:c87,c520"),
        "vdb": DeviceSeclabel("selinux", False),
        "vdc": DeviceSeclabel("selinux", True, "system_u:object_r:virt_content_t:s0"),
    }


def test_the_type_of_an_emulated_guest_is_not_guessed():
    request = Request(STATIC, level=R("s0:c1,c2"), virt_type="qemu")
    with pytest.raises(GenerationError, match="distributions differ"):
        generate(request, DEFAULT_CONTEXTS)


def test_the_contexts_of_containers_are_others():
    with pytest.raises(GenerationError, match="lxc_contexts"):
        generate(Request(STATIC, level=R("s0:c1,c2"), virt_type="lxc"), FEDORA)
    assert generate(Request(DYNAMIC, virt_type="lxc"), FEDORA).seclabel == Seclabel(
        DYNAMIC, "selinux"
    )
    base = C("system_u:system_r:container_t:s0")
    assert generate(Request(DYNAMIC, baselabel=base, virt_type="lxc"), FEDORA).notes == ()


# What libvirt 9.0 gave for these labels.
@pytest.mark.parametrize(
    ("label", "image"),
    [
        ("system_u:system_r:svirt_t:s0:c1,c2", "system_u:object_r:svirt_image_t:s0:c1,c2"),
        ("a:b:c:s0-s0:c0.c1023", "system_u:object_r:svirt_image_t:s0-s0:c0.c1023"),
        ("a:b:c:s2", "system_u:object_r:svirt_image_t:s2"),
    ],
)
def test_image_context(label, image):
    assert str(image_context(C(label), FEDORA)) == image


def test_image_context_of_an_unconfined_daemon():
    context = image_context(C(LABEL), FEDORA, user="unconfined_u")
    assert str(context) == "unconfined_u:object_r:svirt_image_t:s0:c87,c520"


def test_imagelabel_is_told_where_it_is_known():
    assert str(generate(Request(**STATIC_YES), FEDORA).imagelabel) == (
        "system_u:object_r:svirt_image_t:s0:c87,c520"
    )
    assert generate(Request(DYNAMIC), FEDORA).imagelabel is None


def _picked(contexts, in_use):
    label = generate(Request(STATIC, level=AUTO), contexts, in_use).seclabel.label
    assert label is not None
    level = C(label).level
    assert level is not None
    return level


def test_a_picked_level_is_kept_apart():
    in_use = used("s0:c1,c2", "s0:c3", "s0:c4.c1021")
    levels = set()
    # Some hundred thousand are free: to draw one twice by chance is out of the question.
    for _ in range(2):
        level = _picked(FEDORA, in_use)
        assert len(level.categories) == 2
        assert all(level.incomparable_with(other.level) for other in in_use.levels)
        levels.add(level)
    assert len(levels) == 2


def test_a_picked_level_has_the_sensitivity_of_the_host():
    contexts = DomainContexts(
        C("system_u:system_r:svirt_t:s2-s3"), None, FEDORA.image, FEDORA.content, "test"
    )
    assert _picked(contexts, InUse()).sensitivity == 2


def test_none_is_free():
    with pytest.raises(CategoriesExhaustedError, match=r"guest gs0:c0.c1023 \(s0:c0.c1023\)"):
        generate(Request(STATIC, level=AUTO), FEDORA, used("s0:c0.c1023", "s0:c1,c2"))


@pytest.mark.slow
def test_none_is_free_where_each_category_is_somebodys():
    singles = used(*(f"s0:c{number}" for number in range(1023)))
    with pytest.raises(CategoriesExhaustedError):
        generate(Request(STATIC, level=AUTO), FEDORA, singles)


def test_a_seclabel_without_a_type_is_not_made():
    with pytest.raises(ValueError, match="without a type"):
        generate(Request(SeclabelType.DEFAULT), FEDORA)


def test_the_error_can_be_pickled():
    error = GenerationError("a", "b", "c", unsafe=True)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.unsafe) == (str(error), True)


# What a level is compared with.


def _guest(name, *, running=True, label=None, process=None, type=DYNAMIC, **more):
    seclabels = () if type is None else (Seclabel(type, "selinux", label=label),)
    return Guest(
        name=name,
        uuid=more.pop("uuid", None),
        running=running,
        virt_type="kvm",
        source="test",
        seclabels=seclabels,
        process=None if process is None else Process(1, process, "test"),
        **more,
    )


def _image(path, label=None):
    return Image(
        ImageUse.DISK,
        ImageKind.FILE,
        ImageMode.PRIVATE,
        path,
        path,
        "vda",
        seclabel=None if label is None else DeviceSeclabel("selinux", True, label),
    )


def _svirt(level):
    return f"system_u:system_r:svirt_t:{level}"


def _found(*guests, besides=None, **more):
    found = levels_in_use(Inventory(guests=guests, **more), besides=besides)
    return [(str(entry.level), entry.holder) for entry in found.levels], found


def test_levels_of_guests():
    levels, found = _found(
        _guest("a", label=_svirt("s0:c2,c1")),
        _guest("b", process=_svirt("s0:c3,c4")),
        _guest("c", running=False, type=STATIC, label=_svirt("s0-s0:c5,c6")),
        # What a dynamic guest had when its XML was written is free again.
        _guest("d", running=False, label=_svirt("s0:c7,c8")),
        _guest("e", type=STATIC, label=_svirt("s0:c9,c10"), process=_svirt("s0:c11,c12")),
        _guest("f", running=False),
        _guest("g", running=False, type=None),
    )
    assert levels == [
        ("s0:c1,c2", "guest a"),
        ("s0:c3,c4", "guest b"),
        ("s0:c5,c6", "guest c"),
        ("s0:c11,c12", "guest e"),
        ("s0:c9,c10", "guest e"),
    ]
    assert found.notes == found.unknown == ()


def test_guests_that_no_level_keeps_apart():
    levels, found = _found(
        _guest("bare", label=_svirt("s0")),
        _guest("daemon", type=NONE, process="system_u:system_r:virtd_t:s0-s0:c0.c1023"),
        _guest("none", type=NONE),
    )
    assert levels == []
    assert [note.split(" ")[1] for note in found.notes] == ["bare", "daemon"]
    assert found.unknown == ()


def test_what_is_not_known():
    levels, found = _found(
        _guest("implicit", type=None),
        _guest("broken", label="garbage"),
        unreadable=(Unreadable("guest c", "no permission", "c"),),
    )
    assert levels == []
    assert sorted(text.partition(":")[0] for text in found.unknown) == [
        "guest broken",
        "guest c",
        "guest implicit",
    ]


def test_levels_of_files():
    levels, _ = _found(
        _guest("a", label=_svirt("s0:c1,c2"), images=(_image("/a", "u:object_r:t:s0:c1"),)),
        files=(
            FileLabel("/a", "file 1", "u:object_r:svirt_image_t:s0:c1,c2"),
            FileLabel("/b", "file 2", "u:object_r:svirt_image_t:s0:c3,c4"),
            FileLabel("/c", "file 3", "u:object_r:virt_content_t:s0"),
            FileLabel("/d", "file 4", None),
            FileLabel("/e", "file 5", "garbage"),
        ),
    )
    assert levels == [
        ("s0:c1,c2", "guest a"),
        ("s0:c1", "an override of guest a"),
        ("s0:c1,c2", "/a"),
        ("s0:c3,c4", "/b"),
    ]


@pytest.mark.parametrize(
    ("uuid", "other", "same"),
    [(None, None, True), ("1", None, True), ("1", "1", True), ("1", "2", False)],
)
def test_the_guest_itself_is_no_obstacle(uuid, other, same):
    guest = _guest("a", uuid=uuid, label=_svirt("s0:c1,c2"), images=(_image("/a"),))
    levels, _ = _found(
        guest,
        besides=_guest("a", uuid=other),
        files=(FileLabel("/a", "file 1", "u:object_r:svirt_image_t:s0:c1,c2"),),
    )
    assert (levels == []) is same


def test_an_image_that_others_use_too_is_an_obstacle():
    levels, _ = _found(
        _guest("a", images=(_image("/a"),)),
        _guest("b", running=False, images=(_image("/a"),)),
        besides=_guest("a"),
        files=(FileLabel("/a", "file 1", "u:object_r:svirt_image_t:s0:c1,c2"),),
    )
    assert levels == [("s0:c1,c2", "/a")]


# Into a document.

DOCUMENT = b"""\
<domain type='kvm'>
  <name>a</name>
  <devices>
    <disk type='file'>
      <source file='/a'>
        <seclabel model='selinux' relabel='no'/>
      </source>
      <target dev='vda'/>
    </disk>
  </devices>
</domain>
"""


def test_insert():
    given = generate(Request(DYNAMIC), FEDORA)
    assert insert(given, DOCUMENT, "a.xml") == DOCUMENT.replace(
        b"  </devices>\n",
        b"  </devices>\n  <seclabel type='dynamic' model='selinux' relabel='yes'/>\n",
    )


@pytest.mark.parametrize("request_", [ask(type=NONE), ask(type=STATIC, label=C(LABEL))])
def test_what_libvirt_would_refuse_of_the_whole_is_not_given(request_):
    given = generate(Request(**request_), FEDORA)
    with pytest.raises(GenerationError, match="label overrides require relabeling"):
        insert(given, DOCUMENT, "a.xml")


def test_other_models_are_not_judged():
    text = DOCUMENT.replace(
        b"</domain>", b"  <seclabel type='dynamic' model='apparmor'/>\n</domain>"
    )
    assert b"apparmor" in insert(generate(Request(DYNAMIC), FEDORA), text, "a.xml")


def test_insert_needs_a_domain():
    with pytest.raises(DomainXMLError):
        insert(generate(Request(DYNAMIC), FEDORA), b"<network/>", "a.xml")
