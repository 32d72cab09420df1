#!/usr/bin/python
"""Make the file-context rules and labels for storage of guests right."""

from __future__ import annotations

DOCUMENTATION = """
module: svirt_storage
short_description: File-context rules and labels for storage of guests
description:
  - Runs C(svirt-label storage plan), and C(apply) if anything is to be changed. What running
    guests use is left alone; a change can be taken back with C(svirt-label storage undo).
options:
  paths:
    description: Folders, images or devices, by absolute paths.
    type: list
    elements: path
    required: true
  purpose:
    description: What is stored there.
    type: str
    choices: [images, content]
  type:
    description: The type of the rule, in place of that of I(purpose).
    type: str
  kind:
    description: The kind of files that the rule is for.
    type: str
    choices: [a, f, d, c, b, s, l, p]
  force:
    description: Set the whole context, not the type alone.
    type: bool
    default: false
  offline:
    description: Work where SELinux is off.
    type: bool
    default: false
  root:
    description: An unpacked system to work in.
    type: path
  executable:
    description: The program.
    type: str
    default: svirt-label
author: The svirtlib developers
attributes:
  check_mode:
    support: full
    description: The plan is returned.
  diff_mode:
    support: full
    description: Rules and labels, before and after.
"""

EXAMPLES = """
- name: Storage for guests
  svirtlib.svirt.svirt_storage:
    paths: [/virtstorage]
"""

RETURN = """
plan:
  description: What was to be changed, as of C(svirt-label storage plan --format json).
  type: dict
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.svirtlib.svirt.plugins.module_utils import svirt_label


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "required": True},
            "purpose": {"type": "str", "choices": ["images", "content"]},
            "type": {"type": "str"},
            "kind": {"type": "str", "choices": list("afdcbslp")},
            "force": {"type": "bool", "default": False},
            "offline": {"type": "bool", "default": False},
            "root": {"type": "path"},
            **svirt_label.COMMON,
        },
        supports_check_mode=True,
    )
    given = {"purpose": "--for", "type": "--type", "kind": "--kind", "root": "--root"}
    given.update(force="--force", offline="--offline")
    words = [*svirt_label.options(module, given), *module.params["paths"]]
    accepted = (svirt_label.OK, svirt_label.FINDINGS, svirt_label.INCOMPLETE)
    status, plan, _ = svirt_label.call(module, ["storage", "plan", "--exit-code", *words], accepted)
    difference = _difference(plan)
    # A plan that could not look at everything has a status of its own.
    changed = status == svirt_label.FINDINGS or difference["after"] != ""
    result = {"changed": changed, "plan": plan, "diff": difference}
    if changed and not module.check_mode:
        _, result["applied"], _ = svirt_label.call(
            module, ["storage", "apply", *words], (svirt_label.OK, svirt_label.INCOMPLETE)
        )
    module.exit_json(**result)


def _difference(plan):
    """Return the plan as texts before and after."""
    rules = [rule for rule in plan["rules"] if rule["action"] in ("add", "change")]
    before = [f"{change['path']}: {change['from']}\n" for change in plan["changes"]]
    after = [f"{rule['action']} {rule['pattern']}: {rule['context']}\n" for rule in rules]
    after += [f"{change['path']}: {change['to']}\n" for change in plan["changes"]]
    return {"before": "".join(before), "after": "".join(after)}


if __name__ == "__main__":
    main()
