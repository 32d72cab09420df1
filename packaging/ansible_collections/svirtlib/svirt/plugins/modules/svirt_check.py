#!/usr/bin/python
"""Judge whether SELinux keeps the guests of a host apart."""

from __future__ import annotations

DOCUMENTATION = """
module: svirt_check
short_description: Judge whether SELinux keeps the guests of a host apart
description:
  - Runs C(svirt-label check) and returns its report. Changes nothing.
options:
  connect:
    description: The libvirt to connect to.
    type: str
  xml:
    description: Files or folders of C(virsh dumpxml) output, instead of libvirt.
    type: list
    elements: path
  snapshot:
    description: A file that C(svirt-label export) wrote, instead of libvirt.
    type: path
  guests:
    description: Report on these guests alone.
    type: list
    elements: str
    default: []
  only:
    description: Apply these rules alone.
    type: list
    elements: str
  ignore:
    description: Findings to leave out, C(RULE) or C(RULE=GUEST).
    type: list
    elements: str
  fail_on:
    description: The task fails for findings from this severity on; C(never) only tells.
    type: str
    choices: [critical, high, medium, low, info, never]
    default: medium
  allow_incomplete:
    description: Do not fail where something could not be judged.
    type: bool
    default: false
  executable:
    description: The program.
    type: str
    default: svirt-label
author: The svirtlib developers
attributes:
  check_mode:
    support: full
    description: It changes nothing.
"""

EXAMPLES = """
- name: No guest reaches another one's images
  svirtlib.svirt.svirt_check:
    fail_on: high
    ignore: [label-exposure=backup]
"""

RETURN = """
report:
  description: The report, C(svirt-label/report/1).
  type: dict
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.svirtlib.svirt.plugins.module_utils import svirt_label


def main():
    """Run the module."""
    strings = {"type": "list", "elements": "str"}
    levels = ["critical", "high", "medium", "low", "info", "never"]
    module = AnsibleModule(
        argument_spec={
            "connect": {"type": "str"},
            "xml": {"type": "list", "elements": "path"},
            "snapshot": {"type": "path"},
            "guests": {**strings, "default": []},
            "only": strings,
            "ignore": strings,
            "fail_on": {"type": "str", "choices": levels, "default": "medium"},
            "allow_incomplete": {"type": "bool", "default": False},
            **svirt_label.COMMON,
        },
        mutually_exclusive=[["connect", "xml", "snapshot"]],
        supports_check_mode=True,
    )
    words = ["check", *module.params["guests"]]
    given = {"connect": "--connect", "snapshot": "--snapshot", "only": "--only"}
    words += svirt_label.options(module, {**given, "ignore": "--ignore", "xml": "--xml"})
    fail_on = module.params["fail_on"]
    words += ["--exit-zero"] if fail_on == "never" else ["--fail-on", fail_on]
    accepted = (svirt_label.OK, svirt_label.FINDINGS, svirt_label.INCOMPLETE)
    status, report, _ = svirt_label.call(module, words, accepted)
    result = {"changed": False, "report": report}
    if status == svirt_label.FINDINGS:
        first = report["findings"][0]
        more = len(report["findings"]) - 1
        also = f", and {more} more" if more else ""
        module.fail_json(msg=f"{first['rule']}: {first['message']}{also}", **result)
    if not report["complete"] and not module.params["allow_incomplete"]:
        first = report["unreadable"][0]
        module.fail_json(msg=f"not judged: {first['what']}: {first['reason']}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
