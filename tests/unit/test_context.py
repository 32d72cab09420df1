"""Contexts: what is one, what is not and why, and contexts as values."""

from __future__ import annotations

import copy
import pickle

import pytest

from svirtlib.context import Context
from svirtlib.errors import InvalidContextError, LabelSpaceError
from svirtlib.mls import MAX_TEXT, LabelSpace, Level, Range

SVIRT = "system_u:system_r:svirt_t:s0:c87,c520"


def high(context: Context) -> Level:
    assert context.level is not None
    return context.level


def test_parts():
    context = Context.parse(SVIRT)
    assert context.user == "system_u"
    assert context.role == "system_r"
    assert context.type == "svirt_t"
    assert context.range == Range.parse("s0:c87,c520")
    assert context.level == Level.parse("s0:c87,c520")
    assert context == Context("system_u", "system_r", "svirt_t", Range(Level(0, (87, 520))))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (SVIRT, SVIRT),
        ("system_u:system_r:svirt_t:s0:c520,c87", SVIRT),
        ("system_u:object_r:svirt_image_t:s0-s0", "system_u:object_r:svirt_image_t:s0"),
        ("system_u:system_r:virtd_t:s0-s0:c0.c1023", "system_u:system_r:virtd_t:s0-s0:c0.c1023"),
        ("user_u:user_r:user_t", "user_u:user_r:user_t"),
        ("a:b:c:s0:c1.c2", "a:b:c:s0:c1,c2"),
        # A block of CIL gives its types names with a dot.
        ("a:b:my-block.type_t:s0", "a:b:my-block.type_t:s0"),
    ],
)
def test_text(text, canonical):
    assert str(Context.parse(text)) == canonical
    assert Context.parse(text) == Context.parse(canonical)
    assert hash(Context.parse(text)) == hash(Context.parse(canonical))


@pytest.mark.parametrize(
    ("text", "reason", "span"),
    [
        ("", "a context is user:role:type:range", None),
        ("svirt_t", "a context is user:role:type:range", None),
        ("svirt_t:s0", "a context is user:role:type:range", None),
        ("::", "the user is missing", (0, 0)),
        (":b:c:s0", "the user is missing", (0, 0)),
        ("a::c:s0", "the role is missing", (2, 2)),
        ("a:b::s0", "the type is missing", (4, 4)),
        ("a:b:", "the type is missing", (4, 4)),
        ("a:b:c:", "a level is missing", (6, 6)),
        ("a:b:c:s0:", "a category is missing", (9, 9)),
        ("a:b:c:s0:c1024", "unknown category 'c1024' (the policy has c0 to c1023)", (9, 14)),
        ("a:b:c:s0:c1:c2:c3", "unknown category 'c1:c2:c3' (the policy has c0 to c1023)", (9, 17)),
        ("a:b:c:s0-s0:c1-s0", "more than one '-'", (14, 15)),
        (
            "a:b:c:s0:c1-s0",
            "the high level s0 does not dominate the low level s0:c1",
            (12, 14),
        ),
        ("a:b:c:SystemLow", "unknown sensitivity 'SystemLow' (the policy has s0 to s15)", (6, 15)),
        ("a:b:1c:s0", "no policy can have such a type", (4, 6)),
        ("a:b r:c:s0", "no policy can have such a role", (2, 5)),
        ("a\0:b:c:s0", "no policy can have such a user", (0, 2)),
        ("\xe9:b:c:s0", "no policy can have such a user", (0, 1)),
        # Without regard to case this one is a K.
        ("a:\u212a:c:s0", "no policy can have such a role", (2, 3)),
        (" a:b:c:s0", "white space in the user", (0, 2)),
        ("a:b:c :s0", "white space in the type", (4, 6)),
        ("a:b:c\n", "white space in the type", (4, 6)),
        ("a:b:c:s0\n", "white space", (6, 9)),
        ("a:b:c: s0", "white space", (6, 9)),
        ("a:*:c:s0", "no policy can have such a role", (2, 3)),
    ],
)
def test_refusal(text, reason, span):
    with pytest.raises(InvalidContextError) as caught:
        Context.parse(text)
    error = caught.value
    assert (error.text, error.reason, error.span) == (text, reason, span)
    assert str(error) == f"invalid context {text!a}: {reason}"
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__


@pytest.mark.parametrize(
    "text",
    [
        "u:r:t:s0:c2147483647",
        "u:r:t:s0:c0.c2147483647",
        "u:r:t:s0:c" + "1" * 10**6,
        "u:r:t:" + "," * 2**20,
        "u:r:t:s0:" + "c1," * 2**20 + "c1",
        ":" * 2**20,
        "a" * 2**20 + ":r:t:s0",
        "u:r:" + "t" * 2**20,
        "u:r:t:s0:" + "," * 60_000,
        " " * 2**20,
    ],
    ids=lambda text: f"{text[:12]!a}x{len(text)}",
)
def test_absurd_text_is_refused(text):
    with pytest.raises(InvalidContextError) as caught:
        Context.parse(text)
    assert len(str(caught.value)) < 1000


def test_longest_text():
    longest = "u:r:" + "t" * (MAX_TEXT - 4)
    assert str(Context.parse(longest)) == longest
    with pytest.raises(InvalidContextError, match="longer than any label can be"):
        Context.parse(longest + "t")


@pytest.mark.parametrize(
    ("parts", "reason", "text"),
    [
        (("", "r", "t"), "the user is missing", ":r:t"),
        (("u", "r:r", "t"), "no policy can have such a role", "u:r:r:t"),
        (("u:r", "t", ""), "no policy can have such a user", "u:r:t:"),
        (("u", "r", "t\n"), "white space in the type", "u:r:t\n"),
        (("u", "r", "1", Range.parse("s0:c1")), "no policy can have such a type", "u:r:1:s0:c1"),
    ],
)
def test_parts_that_no_policy_can_have(parts, reason, text):
    with pytest.raises(InvalidContextError) as caught:
        Context(*parts)
    assert (caught.value.text, caught.value.reason) == (text, reason)


def test_level_is_the_high_one():
    assert str(Context.parse("u:r:t:s0-s0:c1,c2").level) == "s0:c1,c2"
    assert Context.parse("u:r:t").level is None


def test_replacing_a_part_makes_another_context():
    context = Context.parse(SVIRT)
    image = context.with_type("svirt_image_t")
    assert str(image) == "system_u:system_r:svirt_image_t:s0:c87,c520"
    assert str(context.with_range(Range.parse("s0"))) == "system_u:system_r:svirt_t:s0"
    assert str(context.with_range(None)) == "system_u:system_r:svirt_t"
    assert str(context) == SVIRT
    with pytest.raises(InvalidContextError, match="no policy can have such a type"):
        context.with_type("svirt:t")


def test_other_policies():
    named = LabelSpace(["low", ("high", "top")], ["apple", "pear"])
    context = Context.parse("u:r:t:low-top:pear,apple", named)
    assert str(context) == "u:r:t:low-high:apple,pear"
    with pytest.raises(InvalidContextError, match="unknown sensitivity 's0'"):
        Context.parse(SVIRT, named)
    assert context != Context.parse(SVIRT)
    with pytest.raises(LabelSpaceError):
        high(context).dominates(high(Context.parse(SVIRT)))


def test_contexts_can_not_be_changed():
    context = Context.parse(SVIRT)
    for name in ("user", "role", "type", "range", "level", "anything"):
        with pytest.raises(AttributeError):
            setattr(context, name, "a")
        with pytest.raises(AttributeError):
            delattr(context, name)


def test_contexts_have_no_order():
    with pytest.raises(TypeError):
        Context.parse(SVIRT) < Context.parse(SVIRT)  # noqa: B015


def test_context_equals_no_text():
    text: object = SVIRT
    assert Context.parse(SVIRT) != text


def test_repr_is_the_parsing_of_the_text():
    context = Context.parse(SVIRT)
    assert repr(context) == f"Context.parse({SVIRT!r})"
    assert eval(repr(context)) == context


def test_copies():
    context = Context.parse(SVIRT)
    for other in (pickle.loads(pickle.dumps(context)), copy.copy(context), copy.deepcopy(context)):
        assert other == context
        assert str(other) == SVIRT
        assert high(other).dominates(high(context))
    assert len(pickle.dumps(context)) < 400
