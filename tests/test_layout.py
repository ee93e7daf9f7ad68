"""The layout of the code: imports run one way, files stay small, and what is built holds what is here."""

from __future__ import annotations

import ast
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from built_wheel import FOLDERS, ROOT, build_wheel

# From the bottom up, as docs/architecture.md shows it: a room may import what stands in a line above its own, and what
# stands in its own line may not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("stbench.errors", "stbench.moved"),
    ("stbench", "stbench.statistics"),
    ("stbench.system",),
    ("stbench.slides",),
    ("stbench.method", "stbench.dataset"),
    ("stbench.data", "stbench.training", "stbench.fetching"),
    ("stbench.torch_method", "stbench.registry", "stbench.scores", "stbench.audit"),
    ("stbench.models",),
    ("stbench.trials", "stbench.switches", "stbench.readings", "stbench.method_checks", "stbench.scaffolding"),
    ("stbench.results",),
    ("stbench.external", "stbench.inference"),
    ("stbench.foreign",),
    ("stbench.datasets", "stbench.methods", "stbench.reports.published"),
    ("stbench.reports.sections",),
    ("stbench.reports.numbers",),
    ("stbench.reports.words", "stbench.reports.figures"),
    ("stbench.reports.tables",),
    ("stbench.reports.parts",),
    ("stbench.reports.page",),
    ("stbench.reports",),
    ("stbench.cli",),
)
LONGEST = 350  # lines of a file, but for those below
LONGER = {f"methods/{name}.py" for name in ("hist2st", "thitogene", "mclstexp")}  # one method, one file


@cache
def modules() -> dict[str, Path]:
    """Every module of the package to its file."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


def imports(module: str) -> Iterator[str]:
    """The modules of the package that a module imports: at its top, in functions, and for type checkers."""
    path = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield from (name for name in (inner if inner in modules() else source,) if name in modules())


def room(module: str) -> str:
    depth = 3 if module.startswith("stbench.reports.") else 2
    return ".".join(module.split(".")[:depth])


def test_every_room_has_a_place_in_the_order_of_layers() -> None:
    known = {name for layer in LAYERS for name in layer}
    assert {room(module) for module in modules()} == known


def test_no_import_runs_up() -> None:
    height = {name: level for level, layer in enumerate(LAYERS) for name in layer}
    upward = [
        f"{module} imports {target}"
        for module in modules()
        for target in imports(module)
        if room(module) != room(target) and height[room(target)] >= height[room(module)]
    ]
    assert not upward


def test_no_imports_run_in_a_circle() -> None:
    waiting = {module: set(imports(module)) - {module} for module in modules()}
    while free := [module for module, needs in waiting.items() if not needs]:
        for module in free:
            del waiting[module]
        for needs in waiting.values():
            needs.difference_update(free)
    assert not waiting, f"in a circle, or above one: {', '.join(sorted(waiting))}"


def test_the_harness_knows_no_method_dataset_or_report_by_name() -> None:
    outside = ("stbench.methods", "stbench.datasets", "stbench.reports")
    named = [
        f"{module} imports {target}"
        for module in modules()
        if not module.startswith((*outside, "stbench.cli"))
        for target in imports(module)
        if target.startswith(outside)
    ]
    assert not named


# packages whose __init__ holds more than a docstring; an import of one module of all others loads no neighbour
DOORS = {
    "stbench": "the version",
    "stbench.audit": "audit and its record",
    "stbench.cli": "main",
    "stbench.datasets.demo": "Demo",
    "stbench.datasets.panels": "panel",
    "stbench.datasets.readers.h5ad": "read, named_image",
    "stbench.datasets.readers.space_ranger": "find, read",
    "stbench.method_checks": "run_checks, CheckResult, CHECKS",
    "stbench.methods.controls": "the controls",
    "stbench.reports": "report and leaderboard",
    "stbench.statistics": "tests, intervals and ranks",
    "stbench.training": "the names of when it was one module, until 0.3",
}


def test_only_doors_hold_code_in_their_init() -> None:
    packages = {module: path for module, path in modules().items() if path.name == "__init__.py"}
    filled = {module for module, path in packages.items() if len(ast.parse(path.read_text(encoding="utf-8")).body) > 1}
    assert filled == set(DOORS)


def test_every_package_says_what_is_in_it() -> None:
    packages = {module: path for module, path in modules().items() if path.name == "__init__.py"}
    silent = [module for module, path in packages.items() if ast.get_docstring(ast.parse(path.read_text())) is None]
    assert not silent


def test_files_are_short() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules().values()
    }
    assert not {name: n for name, n in lengths.items() if n > LONGEST and name not in LONGER}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("wheel")))


def test_the_wheel_holds_every_module_and_every_data_file(wheel: zipfile.ZipFile) -> None:
    expected = set()
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add(f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder)}")
    built = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert built == expected


def test_declared_dependencies_are_what_is_imported() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {_name(requirement) for requirement in declared["dependencies"]}
    extras = {name: {_name(r) for r in rs} for name, rs in declared["optional-dependencies"].items() if name != "dev"}
    imported = {package for path in modules().values() for package in _third_parties(path)}
    optional = set().union(*extras.values())
    assert imported - optional == names
    assert optional - {"openslide-bin"} <= imported  # which has the library that openslide-python loads


DISTRIBUTIONS = {  # import name to distribution, where they differ
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "torch_geometric": "torch-geometric",
    "huggingface_hub": "huggingface-hub",
    "openslide": "openslide-python",
}


def _name(requirement: str) -> str:
    return requirement.split(";")[0].split("[")[0].translate({ord(c): " " for c in "<>=!~"}).split()[0].lower()


def _third_parties(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        for name in names:
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top != "stbench":
                yield DISTRIBUTIONS.get(top, top).lower()
