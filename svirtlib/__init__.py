"""svirtlib: know, and make sure, that SELinux keeps the virtual machines of a host apart.

The names below are the stable part of the library: values for security contexts, their
levels and ranges, and the errors that parsing them raises. They need no SELinux, no libvirt
and no privileges.

>>> from svirtlib import Level
>>> Level.parse("s0:c520,c87").dominates(Level.parse("s0:c87"))
True
>>> str(Level.parse("s0:c3,c1,c2"))
's0:c1.c3'

Each is loaded when it is first asked for: libvirt's hook runs at each start of a guest, and
must not wait for what it does not use.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from svirtlib.context import Context
    from svirtlib.errors import (
        InvalidContextError,
        InvalidLevelError,
        InvalidRangeError,
        LabelError,
        LabelSpaceError,
        SvirtError,
    )
    from svirtlib.mls import CategorySet, LabelSpace, Level, Range, Relation

__all__ = [
    "CategorySet",
    "Context",
    "InvalidContextError",
    "InvalidLevelError",
    "InvalidRangeError",
    "LabelError",
    "LabelSpace",
    "LabelSpaceError",
    "Level",
    "Range",
    "Relation",
    "SvirtError",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import svirtlib.context
    import svirtlib.errors
    import svirtlib.mls

    for module in (svirtlib.context, svirtlib.errors, svirtlib.mls):
        if name in module.__all__:
            value: object = getattr(module, name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
