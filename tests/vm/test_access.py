"""What the policy layer answers against what the kernel of the machine does."""

from __future__ import annotations

import json
import random

import pytest

pytestmark = pytest.mark.vm

PAIRS = 2500

#: Most are taken from here, as two types at random have nothing to do with each other.
DOMAINS = ["svirt_t", "svirt_prot_exec_t", "qemu_t", "virtd_t", "init_t", "sshd_t", "unconfined_t"]
IMAGES = [
    "svirt_image_t", "virt_content_t", "virt_image_t", "virt_var_lib_t", "fixed_disk_device_t",
    "nfs_t", "unlabeled_t", "etc_t", "tmp_t", "virt_var_run_t",
]  # fmt: skip
CLASSES = ["file", "blk_file", "dir", "chr_file", "fifo_file", "sock_file", "lnk_file"]
PROCESS_CLASSES = ["process", "unix_stream_socket", "tcp_socket", "shm"]


def _range(rng):
    """A range as it comes, now and then one that no policy accepts."""
    if rng.random() < 0.03:
        return rng.choice(["s1", "s0:c1024", "s0:c5.c3", "s0:c1-s0", "", "s0-s0:c1-junk"])
    few = rng.sample(range(5), rng.randint(0, 3))
    level = "s0" + (":" + ",".join(f"c{number}" for number in few) if few else "")
    return rng.choice([level, level, f"s0-{level}", "s0:c0.c1023", "s0-s0:c0.c1023"])


def test_decisions_are_the_kernel_s(machine):
    rng = random.Random()
    seed = rng.randrange(2**32)
    rng.seed(seed)
    names = machine.python("names")
    domains, types = names["domains"], names["types"]
    questions = []
    for _ in range(PAIRS):
        known = rng.random() < 0.6
        source = f"system_u:system_r:{rng.choice(DOMAINS if known else domains)}"
        if rng.random() < 0.3:
            kind = rng.choice(PROCESS_CLASSES)
            target = f"system_u:system_r:{rng.choice(DOMAINS if known else domains)}"
        else:
            kind = rng.choice(CLASSES)
            target = f"system_u:object_r:{rng.choice(IMAGES if known else types)}"
        user = rng.choice(["system_u"] * 9 + ["nobody_u"])
        source = source.replace("system_u", user)
        questions.append([f"{source}:{_range(rng)}", f"{target}:{_range(rng)}", kind])
    said = machine.python("kernel", stdin=questions)
    run = machine.run(
        "/opt/svirt/bin/python /root/inside/policy.py", stdin=json.dumps(questions).encode()
    )
    answered = run.json
    differing = [
        (question, sorted(set(kernel or ()) ^ set(ours or ())), kernel is None, ours is None)
        for question, kernel, ours in zip(questions, said, answered)
        if kernel != ours
    ]
    assert differing == [], f"seed {seed}"
    assert sum(answer is None for answer in said) > 20
    assert sum(bool(answer) for answer in said) > PAIRS // 5


def test_the_verb_asks_the_loaded_policy(machine):
    guest, image = "system_u:system_r:svirt_t:s0:c1,c2", "system_u:object_r:svirt_image_t:s0:c{}"
    answer = machine.label("access", guest, image.format("1,c2"), "--format", "json").json
    assert answer["policy"] == "/sys/fs/selinux/policy"
    assert answer["allowed"] is True
    assert machine.label("access", guest, image.format("3"), code=1).out


def test_booleans_are_those_of_the_kernel(machine):
    """One that is switched, but not for good, is in the loaded policy and in no file."""
    question = ["access", "system_u:system_r:svirt_t:s0", "system_u:object_r:nfs_t:s0"]
    answer = machine.label(*question, "--format", "json", code=1).json
    assert {"name": "virt_use_nfs", "state": "on"} in answer["reasons"][0]["booleans"]
    machine.run("setsebool virt_use_nfs on")
    try:
        assert machine.label(*question, code=0)
    finally:
        machine.run("setsebool virt_use_nfs off")
    assert machine.label(*question, code=1)


def test_a_user_who_may_not_read_the_policy(machine):
    """Not root, and confined: the loaded policy is refused, and nothing stands in for it."""
    machine.run("chmod 000 /sys/fs/selinux/policy")
    try:
        refused = machine.run(
            "setpriv --reuid=65534 --regid=65534 --clear-groups /opt/svirt/bin/svirt-label "
            "access system_u:system_r:svirt_t:s0 system_u:object_r:svirt_image_t:s0",
            code=4,
        )
    finally:
        machine.run("chmod 444 /sys/fs/selinux/policy")
    assert "/sys/fs/selinux/policy" in refused.err


def test_who_can(machine):
    answer = machine.label(
        "access", "--who-can", "system_u:object_r:svirt_image_t:s0:c1,c2", "--format", "json"
    ).json
    kinds = {entry["domain"]: entry["categories"] for entry in answer["domains"]}
    assert kinds["svirt_t"] == "bind"
    assert kinds["virtd_t"] == "ignored"
    questions = [
        [f"system_u:system_r:{domain}:s0:c7", "system_u:object_r:svirt_image_t:s0:c1,c2", "file"]
        for domain in kinds
    ]
    for (source, *_), kernel in zip(questions, machine.python("kernel", stdin=questions)):
        if kernel is not None:
            assert ("write" in kernel) is (kinds[source.split(":")[2]] == "ignored"), source
