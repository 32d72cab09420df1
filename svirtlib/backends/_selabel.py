"""libselinux's own answer to which context a path gets, for any policy on disk.

The bindings of the distribution take text alone, and names of files are bytes; so the library
is called through ``ctypes``. Nothing here asks the kernel: it works where SELinux is off.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import lru_cache
from typing import Any, Optional

from svirtlib.errors import BackendDataError, BackendUnavailableError

__all__ = ["Selabel"]

_LIBRARY = "libselinux.so.1"

#: <selinux/label.h>, <selinux/selinux.h>
_CTX_FILE = 0
_OPT_PATH = 3
_CB_LOG = 0

_LOG = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p)


class _Option(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("value", ctypes.c_char_p))


def _quiet(_kind: int, _format: bytes) -> int:
    """Take a message of libselinux; what is wrong with a file, our own reader tells."""
    return 0


_QUIET = _LOG(_quiet)


@lru_cache(maxsize=1)
def _library() -> Any:
    """Load libselinux.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    try:
        library = ctypes.CDLL(_LIBRARY, use_errno=True)
    except OSError as error:
        raise BackendUnavailableError(
            f"{_LIBRARY} cannot be loaded ({error}); install libselinux1 (Debian) or "
            f"libselinux (Fedora)"
        ) from None
    library.selabel_open.restype = ctypes.c_void_p
    library.selabel_open.argtypes = (ctypes.c_uint, ctypes.POINTER(_Option), ctypes.c_uint)
    library.selabel_close.restype = None
    library.selabel_close.argtypes = (ctypes.c_void_p,)
    library.selabel_lookup_raw.restype = ctypes.c_int
    library.selabel_lookup_raw.argtypes = (
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_char_p,
        ctypes.c_int,
    )
    library.freecon.restype = None
    library.freecon.argtypes = (ctypes.c_void_p,)
    library.selinux_get_callback.restype = ctypes.c_void_p
    library.selinux_get_callback.argtypes = (ctypes.c_int,)
    library.selinux_set_callback.restype = None
    library.selinux_set_callback.argtypes = (ctypes.c_int, ctypes.c_void_p)
    return library


class Selabel:
    """An open file-context specification of libselinux.

    Args:
        path: the text file ``file_contexts``; what belongs to it lies beside it.

    Raises:
        BackendUnavailableError: libselinux is not installed.
        BackendDataError: libselinux refuses the files.
    """

    def __init__(self, path: str) -> None:
        self._library = _library()
        self._handle: Optional[int] = None
        option = _Option(_OPT_PATH, os.fsencode(path))
        before = self._library.selinux_get_callback(_CB_LOG)
        self._library.selinux_set_callback(_CB_LOG, ctypes.cast(_QUIET, ctypes.c_void_p))
        try:
            ctypes.set_errno(0)
            self._handle = self._library.selabel_open(_CTX_FILE, ctypes.byref(option), 1)
            code = ctypes.get_errno()
        finally:
            self._library.selinux_set_callback(_CB_LOG, before)
        if not self._handle:
            reason = os.strerror(code) if code else "it does not say why"
            raise BackendDataError(
                f"{path}: libselinux cannot load it, or a file beside it: {reason}; "
                f"`selabel_lookup -b file -f {path} -k /` shows its messages"
            )

    def lookup(self, path: bytes, mode: int) -> Optional[str]:
        """Return the context of a path, or None where no rule gives it one.

        Args:
            path: absolute, without a NUL byte.
            mode: the file's ``st_mode``, of which the kind counts; 0 for any kind.

        Raises:
            BackendDataError: a rule that would have to be asked is damaged.
        """
        context = ctypes.c_void_p()
        ctypes.set_errno(0)
        code = self._library.selabel_lookup_raw(self._handle, ctypes.byref(context), path, mode)
        if code == 0:
            try:
                return os.fsdecode(ctypes.string_at(context.value or 0))
            finally:
                self._library.freecon(context)
        if ctypes.get_errno() == errno.ENOENT:
            return None
        raise BackendDataError(
            f"{os.fsdecode(path)!a}: libselinux cannot match it: "
            f"{os.strerror(ctypes.get_errno())}; one of the patterns is no regular expression"
        )

    def close(self) -> None:
        """Free it; closing twice does no harm."""
        handle, self._handle = self._handle, None
        if handle:
            self._library.selabel_close(handle)

    def __del__(self) -> None:
        self.close()
