"""A small policy with all that an answer can rest on, compiled by secilc.

    path = compile_policy(tmp_path)              # MCS: svirt_t is bound by categories
    path = compile_policy(tmp_path, mls=True)    # MLS: low levels count, writes need equality

Its types are called as in distributions where they play the same part. ``own_t`` is what an
administrator makes by hand: put among the guests' domains, but not among the types that
categories bind.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from needs import require_program

__all__ = ["compile_policy"]

_PERMISSIONS = "read write append open getattr relabelto create"

_TYPES = [
    "svirt_t",
    "svirt_image_t",
    "virt_content_t",
    "nfs_t",
    "own_t",
    "lax_t",
    "lax_image_t",
    "virtd_t",
    "other_t",
    "other_image_t",
    "bounded_t",
    "parent_t",
]

_RULES = """
(typealias qemu_t) (typealiasactual qemu_t svirt_t)
(typeattribute virt_domain) (typeattributeset virt_domain (svirt_t own_t lax_t))
(typeattribute mcs_constrained_type)
(typeattributeset mcs_constrained_type (svirt_t lax_t other_t))
(typepermissive lax_t)
(boolean virt_use_nfs false) (boolean nfs_everywhere false) (boolean refuse_content false)
(allow virt_domain svirt_image_t (file (read write append open getattr)))
(allow virt_domain svirt_image_t (blk_file (read write append open getattr)))
(allow virt_domain virt_content_t (file (read open getattr)))
(allow virt_domain self (process (fork signal)))
(allow lax_t lax_image_t (file (read write open getattr)))
(allow other_t self (process (fork signal)))
(allow other_t other_image_t (file (read write open getattr)))
(allow virtd_t svirt_image_t (file (read write open getattr relabelto)))
(allow virtd_t svirt_t (process (transition signal)))
(allow other_t svirt_t (process (transition)))
(booleanif virt_use_nfs (true (allow virt_domain nfs_t (file (read write open)))))
(booleanif nfs_everywhere (true (allow svirt_t nfs_t (file (read write open)))))
(booleanif refuse_content (false (allow svirt_t other_image_t (file (getattr)))))
(typebounds parent_t bounded_t)
(allow bounded_t svirt_image_t (file (getattr)))
(allow parent_t svirt_image_t (file (getattr)))
"""

_MCS = """
(mlsconstrain (file (read write append create relabelto))
    (or (dom h1 h2) (neq t1 mcs_constrained_type)))
(mlsconstrain (file (create relabelto)) (eq l2 h2))
(mlsconstrain (blk_file (read write)) (or (dom h1 h2) (neq t1 mcs_constrained_type)))
(mlsconstrain (process (signal)) (or (dom h1 h2) (neq t1 mcs_constrained_type)))
"""

_MLS = """
(mlsconstrain (file (read)) (dom l1 l2))
(mlsconstrain (file (write append)) (eq l1 l2))
(mlsconstrain (blk_file (read)) (dom l1 l2))
(mlsconstrain (blk_file (write append)) (eq l1 l2))
(mlsconstrain (process (signal)) (eq l1 l2))
"""


def compile_policy(
    folder: Path,
    *,
    mls: bool = False,
    rules: str = "",
    version: int = 33,
    levels: bool = True,
    categories: int = 1024,
    replace: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Compile the policy with more rules into *folder*; return the path of its binary form.

    Without *levels* it knows neither sensitivities nor categories. *replace* puts other text
    in the place of some of it.
    """
    source = folder / "small.cil"
    binary = folder / f"policy.{version}"
    constraints = (_MLS if mls else _MCS) if levels else ""
    text = "\n".join([*_names(mls, categories), _RULES, constraints, rules])
    for old, new in replace.items():
        assert old in text
        text = text.replace(old, new)
    source.write_text(text)
    secilc = require_program("secilc", package="secilc")
    subprocess.run(
        [
            secilc,
            "-M",
            str(levels).lower(),
            "-c",
            str(version),
            "-o",
            binary,
            "-f",
            os.devnull,
            source,
        ],
        check=True,
    )
    return binary


def _names(mls: bool, count: int) -> Iterable[str]:
    yield f"(class file ({_PERMISSIONS})) (class blk_file ({_PERMISSIONS}))"
    yield "(class dir (read write search)) (class process (fork transition signal))"
    yield "(classorder (process file blk_file dir)) (sid kernel) (sidorder (kernel))"
    yield "(handleunknown allow)"
    sensitivities = [f"s{number}" for number in range(4 if mls else 1)]
    categories = [f"c{number}" for number in range(count)]
    for name in sensitivities:
        yield f"(sensitivity {name})"
    yield f"(sensitivityorder ({' '.join(sensitivities)}))"
    for name in categories:
        yield f"(category {name})"
    yield f"(categoryorder ({' '.join(categories)}))"
    for name in sensitivities:
        yield f"(sensitivitycategory {name} (range c0 {categories[-1]}))"
    yield "(role system_r) (role user_r) (role object_r)"
    high = f"({sensitivities[-1]} (range c0 {categories[-1]}))"
    for user, top, roles in (
        ("system_u", high, ("system_r", "object_r")),
        ("user_u", "(s0)", ("user_r", "object_r")),
    ):
        yield f"(user {user}) (userlevel {user} (s0)) (userrange {user} ((s0) {top}))"
        for role in roles:
            yield f"(userrole {user} {role})"
    for type_ in _TYPES:
        yield f"(type {type_}) (roletype object_r {type_})"
    for type_ in _TYPES:
        if not type_.endswith("image_t") and type_ not in ("virt_content_t", "nfs_t"):
            yield f"(roletype system_r {type_})"
    yield "(roletype user_r svirt_t) (roleallow system_r user_r)"
    yield "(sidcontext kernel (system_u system_r virtd_t ((s0) (s0))))"
