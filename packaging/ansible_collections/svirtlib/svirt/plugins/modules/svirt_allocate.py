#!/usr/bin/python
"""Reserve a level for the static label of a guest, or give it back."""

from __future__ import annotations

DOCUMENTATION = """
module: svirt_allocate
short_description: Reserve a level for the static label of a guest
description:
  - Runs C(svirt-label allocate) for an owner that has no level yet, or C(release).
options:
  owner:
    description: The guest's UUID.
    type: str
    required: true
  name:
    description: The guest's name, for people.
    type: str
  purpose:
    description: What the level is for.
    type: str
  size:
    description: How many categories it is to have.
    type: int
  within:
    description: Categories to draw from, such as C(c512.c1023).
    type: str
  registry:
    description: The registry; by default that of the host.
    type: str
  domain:
    description: The storage domain within which levels are unique.
    type: str
  sync:
    description: Look at first what the host uses.
    type: bool
    default: true
  state:
    description: Whether the owner has a level.
    type: str
    choices: [present, absent]
    default: present
  executable:
    description: The program.
    type: str
    default: svirt-label
author: The svirtlib developers
attributes:
  check_mode:
    support: full
    description: In check mode no level is drawn, so that none is returned for a new owner.
"""

EXAMPLES = """
- name: A level for web01
  svirtlib.svirt.svirt_allocate:
    owner: 57a571f8-9623-4e3e-921b-35a34d5b7d10
    name: web01
  register: web01
"""

RETURN = """
level:
  description: The owner's level, or null.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.svirtlib.svirt.plugins.module_utils import svirt_label


def main():
    """Run the module."""
    names = ("name", "purpose", "within", "registry", "domain")
    module = AnsibleModule(
        argument_spec={
            "owner": {"type": "str", "required": True},
            **{name: {"type": "str"} for name in names},
            "size": {"type": "int"},
            "sync": {"type": "bool", "default": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            **svirt_label.COMMON,
        },
        supports_check_mode=True,
    )
    owner = module.params["owner"].lower()
    registry = svirt_label.options(module, {"registry": "--registry", "domain": "--domain"})
    _, listed, _ = svirt_label.call(module, ["list", "--reserved", *registry], (svirt_label.OK,))
    before = next(
        (entry["level"] for entry in listed["reservations"] if entry["owner"] == owner), None
    )
    present = module.params["state"] == "present"
    changed = present == (before is None)
    level = before if present else None
    if changed and not module.check_mode:
        if present:
            words = ["allocate", "--owner", owner, *registry]
            given = {name: f"--{name}" for name in ("name", "purpose", "size", "within")}
            words += svirt_label.options(module, given)
            words += [] if module.params["sync"] else ["--no-sync"]
            accepted = (svirt_label.OK, svirt_label.INCOMPLETE)
            _, document, _ = svirt_label.call(module, words, accepted)
            level = document["levels"][0]
        else:
            words = ["release", "--owner", owner, *registry]
            svirt_label.call(module, words, (svirt_label.OK,))
    unknown = "(drawn when it is applied)" if present and level is None else None
    module.exit_json(
        changed=changed,
        level=level,
        diff={
            "before": f"{owner}: {before}\n",
            "after": f"{owner}: {unknown or level}\n",
        },
    )


if __name__ == "__main__":
    main()
