"""The rules of ``check`` against a naive judge of small random hosts.

The judge knows the contract and what libvirt and the kernel do, and nothing of the library: it
compares every guest with every other, with sets of numbers for levels. Where the library groups
and aggregates, it must tell every pair that the judge finds, and nothing that is not true.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Optional

import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from svirtlib.checks import run_checks
from svirtlib.findings import Report
from svirtlib.guests import (
    FileLabel,
    Guest,
    Host,
    Image,
    ImageKind,
    ImageMode,
    ImageUse,
    Inventory,
    Process,
)
from svirtlib.inventory import take_inventory
from svirtlib.seclabel import DeviceSeclabel, Seclabel, SeclabelType
from svirtlib.snapshot import dump_snapshot, load_snapshot

# --- Hosts as plain data ----------------------------------------------------------------------

#: Categories are drawn from these few, so that levels meet; the gaps are there for spellings.
CATEGORIES = (0, 1, 2, 3, 7)

#: What guests may do to files of a type, and which process types categories bind.
ACCESS = {
    "svirt_image_t": "rw",
    "virt_content_t": "r",
    "svirt_home_t": "rw",
    "virt_image_t": "",
    "nfs_t": "",
}
BOUND = {"svirt_t": True, "svirt_tcg_t": True, "virtd_t": False}


@dataclass(frozen=True)
class Lvl:
    """A level: what the kernel compares, and how somebody wrote it."""

    sensitivity: int
    categories: frozenset[int]
    seed: int = 0
    low: Optional[frozenset[int]] = None

    @property
    def key(self):
        return (self.sensitivity, self.categories)

    def dominates(self, other):
        return self.sensitivity >= other.sensitivity and self.categories >= other.categories

    @property
    def text(self):
        """One of the spellings, chosen by the seed; 0 is the kernel's own."""
        high = _spelled(self.sensitivity, self.categories, self.seed)
        if self.low is None:
            return high
        return f"{_spelled(0, self.low & self.categories, self.seed)}-{high}"


def _spelled(sensitivity, categories, seed):
    items = []
    for run in _runs(sorted(categories)):
        if len(run) > 2 or (len(run) == 2 and seed % 2):
            items.append(f"c{run[0]}.c{run[-1]}")
        else:
            items += [f"c{number}" for number in run]
    if seed:
        random.Random(seed).shuffle(items)
        items += items[: seed % 3]
    return f"s{sensitivity}" + (":" + ",".join(items) if items else "")


def _runs(numbers):
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


@dataclass(frozen=True)
class Ctx:
    """A context."""

    type: str
    level: Lvl

    def text(self, role):
        return f"system_u:{role}:{self.type}:{self.level.text}"

    @property
    def key(self):
        return (self.type, self.level.key, self.level.low and self.level.low)


@dataclass(frozen=True)
class Img:
    """A guest's use of an image."""

    path: str
    mode: str = "private"
    kind: str = "file"
    on_purpose: bool = False
    device: Optional[Ctx] = None
    device_relabel: bool = True


@dataclass(frozen=True)
class Gst:
    """A guest."""

    name: str
    running: bool
    how: str
    label: Ctx
    relabel: bool
    imagelabel: Ctx
    process: Optional[Ctx]
    images: tuple[Img, ...]


@dataclass(frozen=True)
class Hst:
    """A host. A path without a label in *files* was not found; None is a file without one."""

    guests: tuple[Gst, ...]
    files: Optional[dict[str, Optional[Ctx]]]


class Choices:
    """Makes choices by the digits of a number, so that a whole guest is one draw.

    Hypothesis draws and shrinks a few numbers many times as fast as many small things; 0 is
    the first, simplest choice everywhere.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def below(self, count: int) -> int:
        self._number, digit = divmod(self._number, count)
        return digit

    def of(self, *options):
        return options[self.below(len(options))]

    def rarely(self, one_in: int) -> bool:
        return self.below(one_in) == one_in - 1

    def categories(self) -> frozenset[int]:
        return frozenset(number for number in CATEGORIES if self.below(2))

    def level(self) -> Lvl:
        categories = self.categories()
        low = self.categories() if self.rarely(4) else None
        return Lvl(int(self.rarely(10)), categories, self.below(6), low)

    def image_context(self, levels) -> Ctx:
        return Ctx(self.of(*ACCESS), self.of(*levels))


def _guest(number: int, choices: Choices, levels, with_processes: bool) -> Gst:
    levels = (*levels, choices.level())
    label = Ctx(choices.of(*["svirt_t"] * 6, "svirt_tcg_t", "virtd_t"), choices.of(*levels))
    own = Ctx("svirt_image_t", label.level)
    how = choices.of(*["dynamic"] * 4, *["static"] * 4, "none", "absent")
    running = not choices.rarely(4)
    process = None
    if with_processes and running:
        process = Ctx("svirt_t", choices.of(*levels)) if choices.rarely(5) else label
        if how == "none":
            process = Ctx("virtd_t", Lvl(0, frozenset()))
    relabel = how == "dynamic" or (how == "static" and not choices.rarely(3))
    imagelabel = choices.image_context(levels) if choices.rarely(5) else own
    images = []
    for path in (f"/own{number}", "/x", "/y", "net"):
        if choices.below(2):
            continue
        device = None
        if choices.rarely(4):
            device = own if choices.rarely(3) else choices.image_context(levels)
        images.append(
            Img(
                path,
                mode=choices.of(*["private"] * 4, "readonly", "shareable"),
                kind="network" if path == "net" else "file",
                on_purpose=choices.rarely(10),
                device=device,
                device_relabel=device is not None or not choices.rarely(6),
            )
        )
    return Gst(f"g{number}", running, how, label, relabel, imagelabel, process, tuple(images))


def _files(guests, choices: Choices, levels) -> dict[str, Optional[Ctx]]:
    files: dict[str, Optional[Ctx]] = {}
    for guest in guests:
        for image in guest.images:
            if image.kind == "file" and not choices.rarely(8):
                files[image.path] = choices.of(
                    guest.imagelabel, None, choices.image_context(levels)
                )
    return files


def _host(seed: int, files_seed: Optional[int], guest_seeds) -> Hst:
    choices = Choices(seed)
    with_processes = choices.rarely(2)
    # Few levels, so that guests and images have one in common.
    levels = [choices.level() for _ in range(2 + choices.below(3))]
    guests = tuple(
        _guest(number, Choices(guest_seed), levels, with_processes)
        for number, guest_seed in enumerate(guest_seeds)
    )
    if files_seed is None:
        return Hst(guests, None)
    return Hst(guests, _files(guests, Choices(files_seed), levels))


#: Not drawn as integers, of which most would be small, and most choices the first.
_seeds = st.binary(min_size=16, max_size=16).map(lambda data: int.from_bytes(data, "little"))


def hosts():
    return st.builds(_host, _seeds, st.none() | _seeds, st.lists(_seeds, min_size=3, max_size=8))


# --- The same host as the library takes it ----------------------------------------------------


def guest_of(guest: Gst) -> Guest:
    seclabels: tuple[Seclabel, ...] = ()
    if guest.how == "none":
        seclabels = (Seclabel(SeclabelType.NONE, "selinux", relabel=False),)
    elif guest.how == "static" or (guest.how == "dynamic" and guest.running):
        labelled = guest.running and guest.relabel
        seclabels = (
            Seclabel(
                SeclabelType(guest.how),
                "selinux",
                relabel=guest.relabel,
                label=guest.label.text("system_r"),
                imagelabel=guest.imagelabel.text("object_r") if labelled else None,
            ),
        )
    dac = Seclabel(SeclabelType.DYNAMIC, "dac", label="+107:+107", imagelabel="+107:+107")
    process = None
    if guest.process is not None:
        process = Process(1, guest.process.text("system_r"), f"/proc/of {guest.name}")
    return Guest(
        name=guest.name,
        uuid=None,
        running=guest.running,
        virt_type="kvm",
        source=f"{guest.name}.xml",
        seclabels=(*seclabels, dac),
        images=tuple(image_of(image) for image in guest.images),
        process=process,
    )


def image_of(image: Img) -> Image:
    seclabel = None
    if image.device is not None:
        seclabel = DeviceSeclabel("selinux", label=image.device.text("object_r"))
    elif not image.device_relabel:
        seclabel = DeviceSeclabel("selinux", relabel=False)
    return Image(
        use=ImageUse.DISK,
        kind=ImageKind(image.kind),
        mode=ImageMode(image.mode),
        path=image.path if image.kind == "file" else None,
        name=image.path,
        target="vda",
        seclabel=seclabel,
        shared_on_purpose=image.on_purpose,
    )


def files_of(host: Hst) -> tuple[FileLabel, ...]:
    return tuple(
        FileLabel(
            path=path,
            identity=f"file {path}",
            context=None if label is None else label.text("object_r"),
        )
        for path, label in sorted((host.files or {}).items())
    )


def inventory_of(host: Hst) -> Inventory:
    return Inventory(
        guests=tuple(sorted(map(guest_of, host.guests), key=lambda guest: guest.name)),
        files=files_of(host),
        files_known=host.files is not None,
        processes_known=any(guest.process is not None for guest in host.guests),
    )


# --- The naive judge --------------------------------------------------------------------------


class Judge:
    """What is true of a host, pair by pair."""

    def __init__(self, host: Hst) -> None:
        self.host = host
        self.confined = {
            guest.name: context.level
            for guest in host.guests
            if guest.running
            for context in [self.process(guest)]
            if context is not None and BOUND[context.type]
        }
        self.unconfined = {
            guest.name for guest in host.guests if guest.running
        } - self.confined.keys()
        self.uses: dict[str, list[tuple[Gst, Img]]] = {}
        for guest in host.guests:
            for image in guest.images:
                self.uses.setdefault(image.path, []).append((guest, image))

    def process(self, guest):
        """The context of a running guest, or None where it has none."""
        if guest.process is not None:
            return guest.process
        return guest.label if guest.how in ("dynamic", "static") else None

    def planned(self, guest, image):
        """The label that libvirt gives the image of a running guest, or None."""
        if image.kind != "file" or guest.how == "none":
            return None
        if guest.how in ("dynamic", "static") and not guest.relabel:
            return None
        if not image.device_relabel:
            return None
        if image.device is not None:
            return image.device
        if image.mode == "shareable":
            return Ctx("svirt_image_t", Lvl(0, frozenset()))
        if image.mode == "readonly":
            return Ctx("virt_content_t", Lvl(0, frozenset()))
        return None if guest.how == "absent" else guest.imagelabel

    def reach_by_level(self):
        """Pairs of running guests of which the first dominates the second."""
        return {
            (one, other)
            for one in self.confined
            for other in self.confined
            if one != other and self.confined[one].dominates(self.confined[other])
        }

    def labels(self):
        """Own images with each label that they have, or may have: path, owners, label."""
        for path, uses in self.uses.items():
            if any(image.mode != "private" or image.on_purpose for _, image in uses):
                continue
            if self.host.files is not None and path in self.host.files:
                labels = [self.host.files[path]]
            else:
                labels = [self.planned(guest, image) for guest, image in uses if guest.running]
            for label in labels:
                if label is not None and ACCESS[label.type]:
                    yield path, {guest.name for guest, _ in uses}, label

    def reach_by_image(self):
        """Who reaches whose own image, by its real label or else by a stated one."""
        return {
            (name, owner, path)
            for path, owners, label in self.labels()
            for name, level in self.confined.items()
            if name not in owners and level.dominates(label.level)
            for owner in owners
        }

    def open_images(self):
        """Own images that every guest reaches, whether or not another one runs now."""
        return {
            (owner, path)
            for path, owners, label in self.labels()
            if label.level.key == (0, frozenset())
            for owner in owners
        }

    def exposure_stars(self):
        """The fewest findings that tell all strict dominance among levels with categories.

        Each finding is about one level, as the dominating or the dominated one; so they are a
        cover of a bipartite graph, as small as its largest matching is large (Koenig).
        """
        levels = {level.key: level for level in self.confined.values() if level.categories}
        below = {
            key: [other for other in levels if other != key and level.dominates(levels[other])]
            for key, level in levels.items()
        }
        matched: dict[object, object] = {}

        def matches(key, seen):
            for other in below[key]:
                if other not in seen:
                    seen.add(other)
                    if other not in matched or matches(matched[other], seen):
                        matched[other] = key
                        return True
            return False

        return sum(matches(key, set()) for key in below)


def findings(report: Report, rule: str):
    return [finding for finding in report.findings if finding.rule == rule]


def pairs(finding):
    return {(one, other) for one in finding.guests for other in finding.reaches if one != other}


def judged(host: Hst) -> tuple[Judge, Report]:
    return Judge(host), run_checks(inventory_of(host))


# --- Nothing missed, nothing invented ---------------------------------------------------------


def collisions_are_the_groups_of_equal_levels(judge, report):
    groups: dict[object, list[str]] = {}
    for name, level in sorted(judge.confined.items()):
        groups.setdefault(level.key, []).append(name)
    expected = sorted(tuple(names) for names in groups.values() if len(names) > 1)
    found = findings(report, "label-collision")
    assert sorted(finding.guests for finding in found) == expected
    assert all(finding.reaches == finding.guests for finding in found)


def exposures_are_exact_complete_and_fewest(judge, report):
    levels = judge.confined
    expected = {
        (one, other)
        for one, other in judge.reach_by_level()
        if levels[one].key != levels[other].key and levels[other].categories
    }
    found = findings(report, "label-exposure")
    assert set().union(*map(pairs, found)) == expected
    for finding in found:
        assert pairs(finding) <= expected
        assert finding.reaches_count == len(finding.reaches)
        # One level is the cause, with all that hold it and all that it tells of.
        whole = []
        for centre, mine, other_side in ((0, finding.guests, 1), (1, finding.reaches, 0)):
            held = {levels[name].key for name in mine}
            if len(held) == 1:
                holders = {name for name in levels if levels[name].key in held}
                far = {pair[other_side] for pair in expected if pair[centre] in holders}
                far_named = (finding.guests, finding.reaches)[other_side]
                whole.append(holders == set(mine) and far == set(far_named))
        assert any(whole)
    assert len(found) == judge.exposure_stars()


def every_pair_is_told_and_every_finding_is_true(judge, report):
    told = set()
    for rule in ("label-collision", "label-exposure"):
        told |= set().union(*map(pairs, findings(report, rule)))
    by_level = judge.reach_by_level()
    by_image = judge.reach_by_image()
    true = by_level | {(one, owner) for one, owner, _ in by_image}
    open_images = judge.open_images()
    open_guests = {name for name, level in judge.confined.items() if level.key == (0, frozenset())}
    told_open = set()
    for finding in findings(report, "image-exposure"):
        if all(label.rpartition(":")[2].rpartition("-")[2] == "s0" for label in finding.labels):
            # Every guest reaches it; its owner is named.
            assert finding.guests == finding.reaches
            assert set(finding.guests) <= open_guests | {owner for owner, _ in open_images}
            told_open |= {*finding.guests, *finding.paths}
        else:
            assert pairs(finding) & true
            for one in finding.guests:
                assert any((one, other) in true for other in finding.reaches)
            for other in finding.reaches:
                assert any((one, other) in true for one in finding.guests)
            told |= pairs(finding)
    for one, other in by_level:
        assert (one, other) in told or other in told_open
    for one, owner, path in by_image:
        # That of a guest which has no level is told by another one's of the same image.
        owners = {owner}
        if owner not in judge.confined:
            owners |= {guest.name for guest, _ in judge.uses[path]}
        assert any((one, other) in told for other in owners) or told_open & {path, *owners}


def guests_without_categories_are_one_finding(judge, report):
    bare = tuple(
        sorted(name for name, level in judge.confined.items() if level.key == (0, frozenset()))
    )
    # Findings about images are told by the labels of images.
    about = [
        finding
        for finding in findings(report, "image-exposure")
        if any(":system_r:" in label for label in finding.labels)
        and all(judge.confined[name].sensitivity == 0 for name in finding.reaches)
    ]
    found = [(finding.guests, finding.reaches) for finding in about]
    assert found == ([(bare, bare)] if bare else [])


def unconfined_guests_are_all_told(judge, report):
    found = findings(report, "guest-unconfined")
    assert sorted(name for finding in found for name in finding.guests) == sorted(judge.unconfined)
    running = {guest.name for guest in judge.host.guests if guest.running}
    for finding in found:
        assert set(finding.reaches) == running - set(finding.guests)


def shared_images_are_all_told(judge, report):
    expected = {}
    for path, uses in judge.uses.items():
        users = tuple(sorted({guest.name for guest, _ in uses}))
        writers = [g for g, image in uses if image.mode == "private" and not image.on_purpose]
        running = {guest.name for guest, _ in uses if guest.running}
        if len(users) < 2:
            continue
        if len(running) >= 2 and any(guest.running for guest in writers):
            expected[path] = ("HIGH", users)
        elif len({guest.name for guest in writers}) >= 2:
            expected[path] = ("MEDIUM", users)
    told = {}
    for finding in findings(report, "shared-image-undeclared"):
        for path in finding.paths or ("net",):
            assert path not in told
            told[path] = (finding.severity.name, finding.guests)
    if "net" in expected:
        # It may stand beside others in a finding, but has no path to be told by.
        told["net"] = expected["net"]
    assert told == expected


def static_levels_are_all_told(judge, report):
    """Each pair of comparable static levels, once at least; and none that is not."""
    statics = {
        guest.name: guest.label.level
        for guest in judge.host.guests
        if guest.how == "static" and BOUND[guest.label.type]
    }
    expected = {
        frozenset((one, other))
        for one in statics
        for other in statics
        if one != other and statics[one].dominates(statics[other])
    }
    told = set()
    for finding in findings(report, "static-label-reuse"):
        of_finding = {frozenset(pair) for pair in pairs(finding)} or {
            frozenset((one, other))
            for one in finding.guests
            for other in finding.guests
            if one != other
        }
        assert of_finding <= expected
        told |= of_finding
    assert told == expected


def drift_is_all_told(judge, report):
    """Of processes, and of files; in whatever way the files are put together."""
    drifting = {
        guest.name
        for guest in judge.host.guests
        if guest.running
        and guest.process is not None
        and guest.how in ("dynamic", "static")
        and _differ(guest.process, guest.label)
    }
    told = [name for finding in findings(report, "process-label-drift") for name in finding.guests]
    assert sorted(told) == sorted(drifting)
    expected = set()
    for guest in judge.host.guests:
        for image in guest.images:
            wanted = judge.planned(guest, image)
            if not guest.running or guest.how not in ("dynamic", "static") or wanted is None:
                continue
            if judge.host.files is not None and image.path in judge.host.files:
                label = judge.host.files[image.path]
                if label is None or _differ(label, wanted):
                    expected.add((guest.name, image.path))
    found = findings(report, "image-label-drift")
    assert {path for finding in found for path in finding.paths} == {path for _, path in expected}
    assert {name for finding in found for name in finding.guests} == {name for name, _ in expected}


def _differ(one, other):
    def key(context):
        level = context.level
        low = level.key if level.low is None else (0, level.low & level.categories)
        return (context.type, low, level.key)

    return key(one) != key(other)


def stale_labels_are_all_told(judge, report):
    expected = set()
    for path, uses in judge.uses.items():
        label = (judge.host.files or {}).get(path)
        if label is None or not label.level.categories:
            continue
        if any(guest.running for guest, _ in uses):
            continue
        if label.level.key in {level.key for level in judge.confined.values()}:
            continue
        wanted = [image.device for _, image in uses if image.device is not None]
        wanted += [guest.label for guest, _ in uses if guest.how == "static"]
        if label.level.key not in {context.level.key for context in wanted}:
            expected.add((path,))
    assert {finding.paths for finding in findings(report, "stale-image-label")} == expected


def images_that_are_not_relabelled_are_all_told(judge, report):
    """Those that their guest may not use; for a type that needs a policy the level decides."""
    expected = set()
    for guest in judge.host.guests:
        for image in guest.images:
            kept = not image.device_relabel or (guest.how == "static" and not guest.relabel)
            process = judge.process(guest) if guest.running or guest.how == "static" else None
            if not kept or guest.how == "none" or image.kind != "file":
                continue
            if judge.host.files is None or image.path not in judge.host.files:
                continue
            if process is not None and not BOUND[process.type]:
                continue
            label = judge.host.files[image.path]
            readable = {"svirt_image_t", "svirt_home_t", "virt_content_t", "nfs_t"}
            if image.mode == "readonly":
                readable |= {"virt_image_t"}
            else:
                readable -= {"virt_content_t"}
            fits = (
                label is not None
                and label.type in readable
                and (
                    not label.level.categories
                    or (process is not None and process.level.dominates(label.level))
                )
            )
            if not fits:
                expected.add((guest.name, image.path))
    found = findings(report, "relabel-off-mismatch")
    assert {(finding.guests[0], path) for finding in found for path in finding.paths} == expected
    assert all(len(finding.guests) == 1 for finding in found)


def no_finding_comes_twice(judge, report):
    keys = [
        (finding.rule, finding.guests, finding.reaches, finding.paths, finding.labels)
        for finding in report.findings
    ]
    assert len(set(keys)) == len(keys)
    for finding in report.findings:
        for names in (finding.guests, finding.reaches, finding.paths):
            assert list(names) == sorted(set(names))


JUDGEMENTS = (
    collisions_are_the_groups_of_equal_levels,
    exposures_are_exact_complete_and_fewest,
    every_pair_is_told_and_every_finding_is_true,
    guests_without_categories_are_one_finding,
    unconfined_guests_are_all_told,
    shared_images_are_all_told,
    static_levels_are_all_told,
    drift_is_all_told,
    stale_labels_are_all_told,
    images_that_are_not_relabelled_are_all_told,
    no_finding_comes_twice,
)


@settings(max_examples=3 * settings().max_examples)
@given(hosts())
def test_the_naive_judge_agrees(host):
    """One host is judged in all respects: what takes time is to make it."""
    judge, report = judged(host)
    for agree in JUDGEMENTS:
        note(agree.__name__)
        agree(judge, report)


# --- What must make no difference -------------------------------------------------------------


class Given:
    """A source of guests that are at hand, and of the labels of their images."""

    def __init__(self, guests, files):
        self._guests = guests
        self._files = {label.path: label for label in files}

    def host(self):
        return Host(name="h"), ()

    def guests(self, progress):
        yield from self._guests

    def notes(self):
        return ()

    def volume_path(self, image, *, in_use):
        return None

    def look(self, path, pid):
        return self._files.get(path)

    def below(self, image):
        return iter(())


@given(hosts(), st.randoms(use_true_random=False))
def test_the_order_of_documents_is_irrelevant(host, chance):
    guests = [guest_of(guest) for guest in host.guests]
    shuffled = list(guests)
    chance.shuffle(shuffled)
    reports = []
    for order in (guests, shuffled):
        source = Given(order, files_of(host))
        reports.append(run_checks(take_inventory(source, files=source)))
    assert reports[0] == reports[1]


@given(hosts(), st.randoms(use_true_random=False))
def test_the_order_of_an_inventory_is_irrelevant(host, chance):
    """Snapshots may be edited; who reaches whom stays."""
    inventory = inventory_of(host)
    guests, files = list(inventory.guests), list(inventory.files)
    chance.shuffle(guests)
    chance.shuffle(files)
    shuffled = replace_inventory(inventory, guests, files)
    assert gist(run_checks(shuffled)) == gist(run_checks(inventory))


def replace_inventory(inventory, guests, files):
    return Inventory(
        host=inventory.host,
        guests=tuple(guests),
        files=tuple(files),
        files_known=inventory.files_known,
        processes_known=inventory.processes_known,
    )


def gist(report, names=None, without=()):
    """Findings without their words, as a sorted list; guests renamed, some rules left out."""
    names = names or {}

    def named(some):
        return tuple(sorted(names.get(name, name) for name in some))

    return sorted(
        (
            finding.severity,
            finding.rule,
            named(finding.guests),
            named(finding.reaches),
            finding.paths,
        )
        for finding in report.findings
        if finding.rule not in without
    )


@given(hosts())
def test_a_snapshot_is_judged_as_the_host_was(host):
    inventory = inventory_of(host)
    loaded = load_snapshot(dump_snapshot(inventory).encode(), "snapshot")
    assert loaded == inventory
    assert run_checks(loaded) == run_checks(inventory)


@given(hosts(), st.permutations(range(8)))
def test_names_of_guests_are_irrelevant(host, order):
    names = {f"g{number}": f"n{place}" for number, place in enumerate(order)}
    renamed = replace(
        host,
        guests=tuple(replace(guest, name=names[guest.name]) for guest in host.guests),
    )
    assert gist(judged(renamed)[1]) == gist(judged(host)[1], names)


@given(hosts(), st.integers(0, 5))
def test_spellings_are_irrelevant(host, seed):
    def respelled(context):
        return context and replace(context, level=replace(context.level, seed=seed))

    guests = tuple(
        replace(
            guest,
            label=respelled(guest.label),
            imagelabel=respelled(guest.imagelabel),
            process=respelled(guest.process),
            images=tuple(replace(image, device=respelled(image.device)) for image in guest.images),
        )
        for guest in host.guests
    )
    files = host.files and {path: respelled(label) for path, label in host.files.items()}
    without = {"label-not-canonical"}
    other = Hst(guests, host.files if host.files is None else files or {})
    assert gist(judged(other)[1], without=without) == gist(judged(host)[1], without=without)


@given(hosts())
def test_another_healthy_guest_is_no_news(host):
    """A guest with a fresh level and its own image adds no finding, and is in none.

    But for what is open to every guest, which is news as soon as there is somebody to use it.
    """
    level = Lvl(0, frozenset({400, 401}))
    label = Ctx("svirt_t", level)
    own = Ctx("svirt_image_t", level)
    healthy = Gst(
        name="healthy",
        running=True,
        how="dynamic",
        label=label,
        relabel=True,
        imagelabel=own,
        process=label if any(guest.process for guest in host.guests) else None,
        images=(Img("/healthy"),),
    )
    files = host.files and {**host.files, "/healthy": own}
    more = Hst((*host.guests, healthy), host.files if host.files is None else files or {})
    _, before = judged(host)
    judge, after = judged(more)
    assume(not any(one == "healthy" for one, _, _ in judge.reach_by_image()))
    gone = {"healthy": ""}
    # Who is unconfined reaches it, as it reaches all.
    assert [
        (severity, rule, guests, tuple(name for name in reaches if name), paths)
        for severity, rule, guests, reaches, paths in gist(after, gone)
    ] == gist(before)
    for finding in after.findings:
        assert "healthy" not in finding.guests
        assert "healthy" not in finding.reaches or finding.rule == "guest-unconfined"


@given(st.integers(0, 40))
def test_healthy_hosts_have_no_finding(count):
    """Whatever their number, guests as libvirt starts them have nothing to be told."""
    guests = []
    for number in range(count):
        level = Lvl(0, frozenset({number, number + 1}))
        label = Ctx("svirt_t", level)
        images = (Img(f"/own{number}"), Img("/base", "readonly"), Img("/cluster", "shareable"))
        guests.append(
            Gst(
                f"g{number}",
                True,
                "dynamic",
                label,
                True,
                Ctx("svirt_image_t", level),
                label,
                images,
            )
        )
    files: dict[str, Optional[Ctx]] = {
        f"/own{number}": guest.imagelabel for number, guest in enumerate(guests)
    }
    files["/base"] = Ctx("virt_content_t", Lvl(0, frozenset()))
    files["/cluster"] = Ctx("svirt_image_t", Lvl(0, frozenset()))
    report = run_checks(inventory_of(Hst(tuple(guests), files)))
    assert (report.findings, report.unreadable) == ((), ())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("categories", [(), (0,), (0, 1), (0, 1, 2, 3, 7), (1, 2, 7)])
def test_the_judge_writes_levels_as_it_means_them(seed, categories):
    """The only place where the judge asks the library: whether its spellings are ones."""
    from svirtlib.mls import Level

    text = Lvl(0, frozenset(categories), seed).text
    assert tuple(Level.parse(text).categories) == categories
    assert seed or str(Level.parse(text)) == text
