"""Names of the loaded policy by setools: {"domains": [...], "types": [...]}."""

import json
import sys

import setools

policy = setools.SELinuxPolicy("/sys/fs/selinux/policy")
names = {
    "domains": sorted(str(name) for name in policy.lookup_role("system_r").types()),
    "types": sorted(str(name) for name in policy.types()),
}
json.dump(names, sys.stdout)
