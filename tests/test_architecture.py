"""Holds every import to docs/architecture.md, which is the only place that lists the layers."""

from __future__ import annotations

import ast
import fnmatch
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from needs import require

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "architecture.md"
BINDINGS = ["libvirt", "libvirtmod", "libvirt_qemu", "selinux", "semanage", "seobject", "setools"]

# Importable everywhere, besides the standard library.
COMMON_LIBRARIES = {"attr", "attrs"}
# Standard library, but the terminal is the CLI's.
CLI_ONLY = {"argparse"}


def _fenced(info: str) -> str:
    found = re.findall(rf"^```{info}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"docs/architecture.md needs exactly one block ```{info}"
    return found[0]


def _layers() -> dict[str, int]:
    """Patterns of module names with their layers, as the document lists them."""
    layers: dict[str, int] = {}
    layer = None
    for line in _fenced("layers").splitlines():
        row = re.fullmatch(r"(\d*) +(svirtlib[\w.*]*) +\S.*", line)
        if row is None:
            assert line.startswith(" "), f"docs/architecture.md: cannot read {line!r}"
            continue
        if row[1]:
            layer = int(row[1])
        assert layer is not None, f"docs/architecture.md: no layer stands before {line!r}"
        assert row[2] not in layers, f"docs/architecture.md lists {row[2]} twice"
        layers[row[2]] = layer
    return layers


def _libraries() -> dict[str, list[str]]:
    """Foreign libraries with the patterns of the modules that may import them."""
    libraries = {}
    for line in _fenced("libraries").splitlines():
        names, places = re.split(r"\s{2,}", line)
        for name in names.split():
            libraries[name] = places.split()
    return libraries


def _modules() -> dict[str, Path]:
    """All modules by the names they have once installed."""
    modules = {}
    for top, name in (("svirtlib", "svirtlib"), ("cli", "svirtlib.cli")):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT / top).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            modules[".".join((name, *parts))] = path
    return modules


LAYERS = _layers()
LIBRARIES = _libraries()
MODULES = _modules()
TREES = {name: ast.parse(path.read_bytes(), str(path)) for name, path in MODULES.items()}
each_module = pytest.mark.parametrize("module", sorted(MODULES))


def _matches(module: str, pattern: str) -> bool:
    """``package.*`` stands for the package too."""
    return fnmatch.fnmatchcase(module, pattern) or (
        pattern.endswith(".*") and module == pattern[:-2]
    )


def _layer(module: str) -> int:
    if module in LAYERS:
        return LAYERS[module]
    for pattern, layer in LAYERS.items():
        if fnmatch.fnmatchcase(module, pattern):
            return layer
    pytest.fail(
        f"{module} is in no layer: add it to the block ```layers of docs/architecture.md, "
        "with what it owns and what it must not do"
    )


def _package(module: str) -> str:
    """The package in which a module may import modules of its own layer."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def _imports(module: str) -> list[tuple[str, str, int]]:
    """What a module imports, anywhere in it: module, name from it or "", line."""
    found = []
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found += [(alias.name, "", node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES:
                    found.append((inner, "", node.lineno))
                else:
                    found.append((str(node.module), alias.name, node.lineno))
    return found


@each_module
def test_imports_only_lower_layers(module):
    layer = _layer(module)
    for imported, _, line in _imports(module):
        if imported.partition(".")[0] != "svirtlib":
            continue
        other = _layer(imported)
        inside = _package(module) != "svirtlib" and imported in MODULES
        inside = inside and _package(module) == _package(imported)
        assert other < layer or (other == layer and inside), (
            f"{module}:{line} (layer {layer}) imports {imported} (layer {other})"
        )


@each_module
def test_foreign_libraries_only_in_their_places(module):
    for imported, _, line in _imports(module):
        top = imported.partition(".")[0]
        assert top != "cli", f"{module}:{line}: cli is installed as svirtlib.cli"
        for place in LIBRARIES.get(top, [module]):
            if _matches(module, place):
                break
        else:
            pytest.fail(f"{module}:{line} imports {top}; only {LIBRARIES[top]} may")


@each_module
def test_no_undeclared_library(module):
    standard = getattr(sys, "stdlib_module_names", frozenset())
    require(standard, "Python before 3.10 does not list its standard library")
    known = standard | COMMON_LIBRARIES | set(LIBRARIES) | {"svirtlib"}
    for imported, _, line in _imports(module):
        assert imported.partition(".")[0] in known, (
            f"{module}:{line} imports {imported}: add it to setup.cfg, and to the block "
            "```libraries of docs/architecture.md"
        )


@each_module
def test_only_the_cli_touches_the_terminal(module):
    if _matches(module, "svirtlib.cli.*"):
        return
    for imported, name, line in _imports(module):
        assert imported not in CLI_ONLY, f"{module}:{line} imports {imported}"
        assert (imported, name) != ("sys", "stdout"), f"{module}:{line} imports sys.stdout"
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("sys", "stdout"), f"{module}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{module}:{node.lineno} prints"


@each_module
def test_private_names_stay_in_their_package(module):
    for imported, name, line in _imports(module):
        parts = [*imported.split("."), name] if name else imported.split(".")
        for depth, part in enumerate(parts):
            if parts[0] == "svirtlib" and part.startswith("_") and not part.startswith("__"):
                owner = ".".join(parts[:depth])
                inside = module == owner or module.startswith(owner + ".")
                assert inside, f"{module}:{line} imports {part}, which is private to {owner}"


def test_the_cli_is_the_highest_layer():
    """So that nothing in the library can import it."""
    cli = {layer for name, layer in LAYERS.items() if name.startswith("svirtlib.cli")}
    rest = {layer for name, layer in LAYERS.items() if not name.startswith("svirtlib.cli")}
    assert len(cli) == 1
    assert min(cli) > max(rest)


def _run(code: str, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *args],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_modules_import_without_the_bindings():
    public = [name for name in MODULES if not fnmatch.fnmatchcase(name, "svirtlib.backends._*")]
    # Importing a __main__ runs it.
    public = [name for name in public if not name.endswith(".__main__")]
    _run(
        """
        import importlib, sys

        class Absent:
            def __init__(self, names):
                self.names = names

            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in self.names:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        bindings, modules = (text.split() for text in sys.argv[1:])
        sys.meta_path.insert(0, Absent(bindings))
        for module in modules:
            importlib.import_module(module)
        """,
        " ".join(BINDINGS),
        " ".join(public),
    )


def test_the_cli_starts_without_slow_libraries():
    require("svirtlib.cli.main" in MODULES, "no svirtlib.cli.main yet")
    code = "import sys, svirtlib.cli.main; print(*sys.modules)"
    loaded = set(_run(code).split())
    assert not loaded & {*BINDINGS, "rich", "cattrs", "jsonschema"}
