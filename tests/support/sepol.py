"""libsepol as the judge of labels: the kernel's answer without a kernel.

    policy = Policy(sensitivities=["s0"], categories=["c0", "c1", ("c2", "alias")])
    judge = Judge(policy.compile(tmp_path))
    judge.canonical_range("s0:c1,c0,alias")  # "s0:c0.c2", or None where it is refused
    judge.contains("s0-s0:c1,c2", "s0:c1")   # True

Skips where libsepol or the compiler of policies is missing.

libsepol is not the kernel in two things, found to be so in 3.4. It drops what follows a
second "-" after categories, which the kernel refuses. And it prints some sets wrongly; see
prints_wrongly().
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Optional, Union

from needs import require_program, skip

from svirtlib.backends._sepol import Engine
from svirtlib.mls import LabelSpace

Names = Union[str, Sequence[str]]


class Policy:
    """A small policy with the given names; the arguments are those of LabelSpace."""

    users = ("user_u", "system_u")
    types = ("one_t", "svirt_t", "with.dot_t")

    def __init__(
        self,
        sensitivities: Sequence[Names],
        categories: Sequence[Names],
        allowed: Optional[Mapping[str, Sequence[str]]] = None,
    ) -> None:
        self.space = LabelSpace(sensitivities, categories, allowed)
        self._aliases = {
            "sensitivity": _aliases(sensitivities),
            "category": _aliases(categories),
        }
        self._allowed = dict.fromkeys(self.space.sensitivities, self.space.categories)
        for sensitivity, usable in (allowed or {}).items():
            self._allowed[sensitivity] = tuple(usable)

    def compile(self, folder: Path) -> Path:
        """Write the policy into *folder* and return the path of its binary form."""
        source = folder / "policy.cil"
        binary = folder / "policy.bin"
        source.write_text("\n".join(self._statements()), encoding="ascii")
        secilc = require_program("secilc", package="secilc")
        subprocess.run(
            [secilc, "--mls", "true", "-o", binary, "-f", os.devnull, source],
            check=True,
        )
        return binary

    def _statements(self) -> Iterable[str]:
        low = self.space.sensitivities[0]
        high = self.space.sensitivities[-1]
        yield "(class process (fork)) (classorder (process)) (sid kernel) (sidorder (kernel))"
        for kind, names in (
            ("sensitivity", self.space.sensitivities),
            ("category", self.space.categories),
        ):
            for name in names:
                yield f"({kind} {name})"
            yield f"({kind}order ({' '.join(names)}))"
            for alias, name in self._aliases[kind]:
                yield f"({kind}alias {alias}) ({kind}aliasactual {alias} {name})"
        for name, usable in self._allowed.items():
            if usable:
                yield f"(sensitivitycategory {name} ({' '.join(usable)}))"
        everything = f"({high} ({' '.join(self._allowed[high])}))"
        yield "(role object_r) (role system_r)"
        for user in self.users:
            yield f"(user {user}) (userrole {user} system_r) (userlevel {user} ({low}))"
            yield f"(userrange {user} (({low}) {everything}))"
        # A dot in the name of a type comes from a CIL block.
        for type_ in self.types:
            block, dot, name = type_.rpartition(".")
            yield f"(block {block} (type {name}))" if dot else f"(type {type_})"
            yield f"(roletype system_r {type_})"
            yield f"(allow {type_} self (process (fork)))"
        yield f"(sidcontext kernel (user_u system_r one_t (({low}) ({low}))))"


def _aliases(entries: Sequence[Names]) -> list[tuple[str, str]]:
    """Return pairs of an alias and the primary name."""
    return [
        (alias, entry[0]) for entry in entries if not isinstance(entry, str) for alias in entry[1:]
    ]


def prints_wrongly(categories: Iterable[int]) -> bool:
    """Tell whether libsepol may print a text for these categories that means others.

    It holds them in words of 64 bits and leaves out words without any. Its loop over the
    bits takes the next word that there is for the adjacent one, so that c62,c63,c200 is
    printed as c62,c191,c200. The kernel's loop looks at the numbers.
    """
    places = set(categories)
    words = {place // 64 for place in places}
    return any(
        place % 64 == 63 and place // 64 + 1 not in words and place // 64 < max(words)
        for place in places
    )


class Judge:
    """libsepol with one policy loaded.

    Its table of contexts is one for the whole process; whichever judge is asked makes that
    table its own.
    """

    #: Who has the table, and how many contexts it may have put there.
    _active: ClassVar[Optional[Judge]] = None
    _answers: ClassVar[int] = 0
    #: The table is searched from end to end, so that a full one is slow.
    _MOST_ANSWERS = 300

    def __init__(self, binary: Path) -> None:
        self._binary = binary
        try:
            self._sepol = ctypes.CDLL("libsepol.so.2")
            self._sepol.sepol_context_to_sid  # noqa: B018 - exported since 3.4
        except (OSError, AttributeError) as error:
            skip(f"no libsepol 3.4 or newer (Debian package libsepol2): {error}")
        self._libc = ctypes.CDLL(None)
        self._libc.fopen.restype = ctypes.c_void_p
        self._sepol.sepol_handle_create.restype = ctypes.c_void_p
        # Without a callback, nothing is printed.
        self._sepol.sepol_debug(0)
        self._handle = ctypes.c_void_p(self._sepol.sepol_handle_create())
        self._sepol.sepol_msg_set_callback(self._handle, None, None)
        self._policy = ctypes.c_void_p()
        self._read_policy()

    def canonical_range(self, text: str) -> Optional[str]:
        """Return how libsepol prints a range or level, or None if it refuses it."""
        # With object_r nothing is asked of the user or of the type.
        prefix = f"{Policy.users[0]}:object_r:{Policy.types[0]}:"
        context = self.canonical_context(prefix + text)
        return None if context is None else context[len(prefix) :]

    def canonical_context(self, text: str) -> Optional[str]:
        """Return how libsepol prints a context, or None if it refuses it."""
        assert "\0" not in text, "C would not see the rest"
        encoded = text.encode()
        # The library under test has libsepol load policies too.
        lost = Judge._active is not self or Engine._loaded is not None
        if lost or Judge._answers >= self._MOST_ANSWERS:
            self._make_active()
        Judge._answers += 1
        sid = ctypes.c_uint32()
        if self._sepol.sepol_context_to_sid(
            encoded, ctypes.c_size_t(len(encoded) + 1), ctypes.byref(sid)
        ):
            return None
        printed = ctypes.c_void_p()
        size = ctypes.c_size_t()
        error = self._sepol.sepol_sid_to_context(sid, ctypes.byref(printed), ctypes.byref(size))
        assert not error
        assert printed.value
        try:
            return ctypes.string_at(printed.value).decode()
        finally:
            self._libc.free(printed)

    def contains(self, outer: str, inner: str) -> bool:
        """Tell whether the range *outer* contains *inner*; neither need be valid."""
        answer = ctypes.c_int(-1)
        error = self._sepol.sepol_mls_contains(
            self._handle, self._policy, outer.encode(), inner.encode(), ctypes.byref(answer)
        )
        assert not error, f"libsepol can not read {outer!r} or {inner!r}"
        return bool(answer.value)

    def same(self, one: str, other: str) -> bool:
        """Tell whether two ranges mean the same, however they are printed."""
        return self.contains(one, other) and self.contains(other, one)

    def _open(self) -> ctypes.c_void_p:
        stream = self._libc.fopen(os.fsencode(self._binary), b"r")
        assert stream, f"can not open {self._binary}"
        return ctypes.c_void_p(stream)

    def _make_active(self) -> None:
        stream = self._open()
        error = self._sepol.sepol_set_policydb_from_file(stream)
        self._libc.fclose(stream)
        assert not error, f"libsepol can not load {self._binary}"
        Engine.forget()
        Judge._active = self
        Judge._answers = 0

    def _read_policy(self) -> None:
        file = ctypes.c_void_p()
        stream = self._open()
        assert not self._sepol.sepol_policydb_create(ctypes.byref(self._policy))
        assert not self._sepol.sepol_policy_file_create(ctypes.byref(file))
        self._sepol.sepol_policy_file_set_handle(file, self._handle)
        self._sepol.sepol_policy_file_set_fp(file, stream)
        error = self._sepol.sepol_policydb_read(self._policy, file)
        self._sepol.sepol_policy_file_free(file)
        self._libc.fclose(stream)
        assert not error, f"libsepol can not read {self._binary}"
