"""Calls svirt-label, and turns what it says into what Ansible wants."""

from __future__ import annotations

import json

#: Options that all modules have.
COMMON = {"executable": {"type": "str", "default": "svirt-label"}}

#: The exit statuses of svirt-label, docs/exit-codes.md.
OK, FINDINGS, USAGE, INCOMPLETE, ENVIRONMENT, PARTIAL = range(6)


def call(module, words, accepted):
    """Run svirt-label with JSON as its format; return its status and its document.

    Any status that is not among the accepted ones ends the module.
    """
    name = module.params["executable"]
    command = [name if "/" in name else module.get_bin_path(name, required=True)]
    command += [*words[:1], *words[1:], "--format", "json"]
    status, out, err = module.run_command(command)
    if status not in accepted:
        reason = err.strip() or "it gave no reason"
        module.fail_json(msg=f"svirt-label: {reason}", rc=status, stdout=out, stderr=err)
    try:
        return status, json.loads(out), err
    except ValueError:
        module.fail_json(msg="svirt-label wrote no JSON", rc=status, stdout=out, stderr=err)


def options(module, names):
    """Return the options of svirt-label for those parameters that were given."""
    words = []
    for name, option in names.items():
        value = module.params[name]
        if value is None or value is False:
            continue
        if value is True:
            words.append(option)
        elif isinstance(value, list):
            for one in value:
                words += [option, str(one)]
        else:
            words += [option, str(value)]
    return words
