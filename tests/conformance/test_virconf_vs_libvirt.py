"""libvirt's own parser reads and refuses exactly the files that ours does."""

from __future__ import annotations

import ctypes
import ctypes.util

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import require

from svirtlib.errors import ConfigurationError
from svirtlib.virconf import parse_conf


class _Value(ctypes.Structure):
    pass


_Value._fields_ = [
    ("type", ctypes.c_int),
    ("next", ctypes.POINTER(_Value)),
    ("l", ctypes.c_longlong),
    ("str", ctypes.c_char_p),
    ("list", ctypes.POINTER(_Value)),
]
_STRING, _LIST = 3, 4
_WALKER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_Value), ctypes.c_void_p)
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
_SILENT = _HANDLER(lambda *_: None)


@pytest.fixture(scope="module")
def libvirt():
    name = ctypes.util.find_library("virt")
    require(name, "no libvirt library (Debian package libvirt0)")
    library = ctypes.CDLL(name)
    require(hasattr(library, "virConfReadString"), "this libvirt shows no parser")
    library.virInitialize()
    library.virSetErrorFunc(None, _SILENT)
    library.virConfReadString.restype = ctypes.c_void_p
    library.virConfReadString.argtypes = [ctypes.c_char_p, ctypes.c_uint]
    library.virConfWalk.argtypes = [ctypes.c_void_p, _WALKER, ctypes.c_void_p]
    library.virConfFree.argtypes = [ctypes.c_void_p]
    return library


def _value(pointer):
    value = pointer.contents
    if value.type == _STRING:
        return value.str.decode("utf-8", "surrogateescape")
    if value.type == _LIST:
        items, at = [], value.list
        while at:
            items.append(_value(at))
            at = at.contents.next
        return tuple(items)
    return value.l


def _theirs(library, data):
    conf = library.virConfReadString(data, 0)
    if not conf:
        return None
    entries = []

    def walk(name, value, _):
        entries.append((name.decode(), _value(value)))
        return 0

    library.virConfWalk(conf, _WALKER(walk), None)
    library.virConfFree(conf)
    return entries


def _ours(data):
    try:
        return [(entry.key, entry.value) for entry in parse_conf(data, "test").entries]
    except ConfigurationError:
        return None


_SOUP = st.lists(
    st.sampled_from(
        [
            *("a", "vnc_tls", "b_1", "_x", "=", " = ", "1", "0", "-1", "+3", '"x"', "'y'", '"""'),
            *('"', '""', "[", "]", ",", "\n", " ", "\t", "\r", "#c", ";", "\xe9", '"un\n', "x"),
        ]
    ),
    max_size=14,
).map("".join)
_LINE = st.tuples(
    st.sampled_from(["a", "b", "vnc_tls"]),
    st.sampled_from(["=", " = ", "= "]),
    st.sampled_from(
        [
            *("1", '"s"', "'q'", '["a", "b",]', "[ ]", '[\n1\n,"""z"""]', "-5", '"""t\nu""" '),
            *('""""""', '"a" # c', '[["x"]]', '""', "[1 2]", "[,]"),
        ]
    ),
    st.sampled_from(["\n", " \n", "\n\n", ";", "; ", " # k\n", "", "\r\n"]),
).map("".join)


@given(text=_SOUP | st.lists(_LINE, max_size=4).map("".join))
@settings(max_examples=400)
def test_parser_is_libvirt_s(libvirt, text):
    data = text.encode()
    assert _ours(data) == _theirs(libvirt, data)


@pytest.mark.parametrize(
    "data",
    [
        b'vnc_listen = "0.0.0.0" # all\n',
        b"vnc_listen = '0.0.0.0'",
        b"a = 1\na = 2\n",
        b'security_driver = [ "selinux", "apparmor", ]\n',
        b"keepalive_interval = -1\n",
        b"\n\n",
        b"",
        b'a = """x"',
        b"half = ",
        b"half",
        b'a = "x',
    ],
)
def test_examples(libvirt, data):
    assert _ours(data) == _theirs(libvirt, data)
