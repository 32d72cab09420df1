"""Our reading of file-context rules gives what libselinux gives, for every path."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from needs import require, require_program

from svirtlib.backends import filecontexts
from svirtlib.backends._selabel import Selabel
from svirtlib.backends.filecontexts import FileContexts
from svirtlib.backends.walk import Entry, Walk
from svirtlib.errors import BackendDataError
from svirtlib.filematch import Undecided

KINDS = (
    stat.S_IFREG,
    stat.S_IFDIR,
    stat.S_IFLNK,
    stat.S_IFCHR,
    stat.S_IFBLK,
    stat.S_IFIFO,
    stat.S_IFSOCK,
)
FLAGS = ("", "--", "-d", "-l", "-c", "-b", "-p", "-s")
HOST = "/etc/selinux/default/contexts/files/file_contexts"


@pytest.fixture(autouse=True)
def ours_alone(monkeypatch):
    """Without the comparison at run time, which would put right what we get wrong."""
    monkeypatch.setattr(FileContexts, "_compare", lambda *_: None)


def _policy(folder, base, homedirs="", local="", subs="", subs_dist=""):
    path = folder / "files" / "file_contexts"
    path.parent.mkdir(parents=True)
    for suffix, text in {
        "": base,
        ".homedirs": homedirs,
        ".local": local,
        ".subs": subs,
        ".subs_dist": subs_dist,
    }.items():
        if text or not suffix:
            path.with_name(path.name + suffix).write_text(text)
    return str(path)


def _lines(rules):
    return "".join(
        f"{pattern}\t{flag}\t{'<<none>>' if number % 7 == 6 else f'u:object_r:t{number}_t:s0'}\n"
        for number, (pattern, flag) in enumerate(rules)
    )


# Parts of paths that meet each other often, and parts of patterns that may match them.
NAMES = st.sampled_from(
    [
        b"a",
        b"b",
        b"ab",
        b"a.b",
        b"a b",
        b"lib",
        b"x.so",
        b"x.so.1",
        b"\xff",
        b"new\nline",
        b"a\n",
        b"-",
    ]
)
PIECES = st.sampled_from(
    [
        "a", "b", "ab", r"a\.b", "lib", ".*", ".+", "[^/]*", "[^/]+", "(/.*)?", "(a|b)", "(.*/)?",
        "[ab]", "[a-l]", r"x\.so(\.[^/]*)*", "a?", "b*", "a{2}", "[[:space:]]", r"\s", ".", r"\xff",
        "(/a)?", r"a\-b",
        "(lib|usr)?", r"[\x20]", "a|b", "(?:a)", "(?=a)a", r"\n", "[^a]", "/", "[]a]",
    ]
)  # fmt: skip
PATTERNS = st.lists(PIECES, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts)) | (
    st.lists(PIECES, min_size=1, max_size=5).map(lambda parts: "/" + "".join(parts))
)
RULES = st.lists(st.tuples(PATTERNS, st.sampled_from(FLAGS)), min_size=1, max_size=12)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda parts: b"/" + b"/".join(parts))
SUBS = st.lists(
    st.tuples(
        st.sampled_from(["/a", "/b", "/a/b", "/lib", "/b/a"]),
        st.sampled_from(["/b", "/", "/lib", "/a/lib", "/ab/a"]),
    ),
    max_size=3,
).map(lambda pairs: "".join(f"{source} {target}\n" for source, target in pairs))


@given(
    base=RULES,
    homedirs=RULES,
    local=RULES,
    subs=SUBS,
    subs_dist=SUBS,
    paths=st.lists(st.tuples(PATHS, st.sampled_from((0, *KINDS))), min_size=1, max_size=30),
)
@example(
    base=[("/a|b", ""), ("/.*", "")], homedirs=[("/a", "")], local=[("/a/*", "")],
    subs="/a/b /b\n", subs_dist="/a /lib\n",
    paths=[(b"/a", 0), (b"/a/b", stat.S_IFREG), (b"/a/ab", stat.S_IFDIR), (b"/xb", stat.S_IFREG)],
)  # fmt: skip
@example(  # A stem counts as it is written, also once it was asked for.
    base=[(r"/a\-b/c", "")], homedirs=[("/b", "")], local=[("/b", "")], subs="", subs_dist="",
    paths=[(rb"/a\-b/c", stat.S_IFREG), (b"/a-b/c", stat.S_IFREG)],
)  # fmt: skip
def test_any_rules_on_any_path(tmp_path_factory, base, homedirs, local, subs, subs_dist, paths):
    folder = tmp_path_factory.mktemp("policy")
    path = _policy(folder, _lines(base), _lines(homedirs), _lines(local), subs, subs_dist)
    judge = Selabel(path)
    contexts = FileContexts(path)
    try:
        for key, kind in paths:
            assert _ours(contexts, key, kind) == _theirs(judge, key, kind), (key, kind)
    finally:
        shutil.rmtree(folder)


def test_all_rules_that_match(tmp_path):
    rules = [("/a/b", "--"), ("/a/b", "-d"), ("/a/.*", ""), ("/a/c", ""), ("/.*", ""), ("/b/b", "")]
    contexts = FileContexts(_policy(tmp_path, _lines(rules)))
    found = {rule.context for rule in contexts.matching(b"/a/b", stat.S_IFREG)}
    assert found == {f"u:object_r:t{number}_t:s0" for number in (0, 2, 4)}


def _theirs(judge, key, kind):
    try:
        return judge.lookup(key, kind)
    except BackendDataError:
        return "an error"


def _ours(contexts, key, kind):
    try:
        return contexts.lookup_text(key, kind)
    except BackendDataError:
        return "an error"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/a\n", "has no context"),
        ("/a -x u:object_r:t_t:s0\n", "file type '-x'"),
        ("/caf\u00e9 u:object_r:t_t:s0\n", "no ASCII"),
    ],
)
def test_what_libselinux_does_not_load_we_do_not_load(tmp_path, text, says):
    path = _policy(tmp_path, "/ok u:object_r:t_t:s0\n" + text)
    with pytest.raises(BackendDataError):
        Selabel(path)
    with pytest.raises(BackendDataError, match=f"file_contexts:2: .*{says}"):
        FileContexts(path)


def _compile(path):
    program = require_program("sefcontext_compile", package="selinux-utils")
    subprocess.run([program, str(path)], check=True, capture_output=True)


@pytest.mark.parametrize("newer", ["text", "compiled", "neither", "no text", "damaged"])
def test_the_compiled_file_counts_when_libselinux_takes_it(tmp_path, newer):
    path = Path(
        _policy(tmp_path, "/a.*\tu:object_r:old_t:s0\n/a/b\t<<none>>\n/c -d u:object_r:c_t:s0\n")
    )
    _compile(path)
    compiled = path.with_name("file_contexts.bin")
    path.write_text("/a.*\tu:object_r:new_t:s0\n")
    times = {"text": (2000, 1000), "compiled": (1000, 2000)}.get(newer, (1000.9, 1000.1))
    os.utime(path, (times[0], times[0]))
    if newer == "damaged":
        compiled.write_bytes(compiled.read_bytes()[:150])
    os.utime(compiled, (times[1], times[1]))
    if newer == "no text":
        path.unlink()
    judge, contexts = Selabel(str(path)), FileContexts(str(path))
    for key in (b"/a", b"/a/b", b"/c", b"/d"):
        for kind in (stat.S_IFREG, stat.S_IFDIR):
            assert contexts.lookup_text(key, kind) == judge.lookup(key, kind)
    expected = "new_t" if newer in ("text", "damaged") else "old_t"
    assert f":{expected}:" in str(contexts.lookup_text(b"/a", stat.S_IFREG))


def _host():
    require(os.path.exists(HOST), f"no {HOST} (Debian package selinux-policy-default)")
    return HOST


def test_paths_made_of_the_policys_own_patterns():
    path = _host()
    contexts, judge = FileContexts(path), Selabel(path)
    draw = random.Random(5)
    rules = draw.sample(list(contexts.rules), 150)
    for rule in rules:
        # What is left of a pattern without its signs is a path that many rules are about.
        text = rule.pattern.replace(rb"(/.*)?", b"/x").replace(rb"\.", b".")
        for sign in (b"(.*/)?", b"[^/]+", b"[^/]*", b".*", b"?", b"(", b")", b"+", b"*"):
            text = text.replace(sign, b"q" if sign.endswith((b"*", b"]+")) else b"")
        for key in (text, text + b"/y.so.2", os.path.dirname(text) or b"/"):
            kind = draw.choice(KINDS)
            assert _ours(contexts, key, kind) == _theirs(judge, key, kind), (key, kind)


def test_nearly_all_of_the_hosts_policy_is_decided_without_libselinux():
    contexts = FileContexts(_host())
    folder = contexts.folder(b"/usr/share/doc")
    assert not isinstance(folder.answer(b"README", stat.S_IFREG), Undecided)
    constant = contexts.folder(b"/var/lib/libvirt/images").constant(stat.S_IFREG)
    assert not isinstance(constant, Undecided)
    assert constant is not None
    assert constant.context == "system_u:object_r:virt_image_t:s0"


def test_a_reading_that_libselinux_does_not_share_is_found_and_given_up(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(filecontexts, "in_order", tuple)
    path = _policy(tmp_path, "/.* u:object_r:all_t:s0\n/a.* u:object_r:a_t:s0\n")
    contexts = FileContexts(path)
    assert contexts.lookup_text(b"/a", stat.S_IFREG) == "u:object_r:a_t:s0"
    assert "reads the rules otherwise" in contexts.notes[0]
    assert contexts.lookup_text(b"/b", stat.S_IFREG) == "u:object_r:all_t:s0"


@pytest.mark.slow
@pytest.mark.parametrize("top", ["/etc", "/var", "/usr"])
def test_every_path_of_this_machine(top):
    path = _host()
    contexts, judge = FileContexts(path), Selabel(path)
    differences = []
    count = 0
    with Walk() as walk:
        for entry in walk.walk(os.fsencode(top)):
            if isinstance(entry, Entry):
                count += 1
                ours = contexts.lookup_text(entry.path, entry.mode)
                theirs = judge.lookup(entry.path, entry.mode)
                if ours != theirs:
                    differences.append((entry.path, ours, theirs))
    assert count > 100
    assert differences == []
