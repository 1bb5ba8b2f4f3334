"""The house stands: arrows point down, the links point home, and only the lowest floor touches bytes on disk."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pistributer"

#: Who stands on which floor. A room may use any lower floor and itself; never a higher one, nor its neighbour.
FLOORS = {
    "pistributer.errors": 0,
    "pistributer.storage": 1,
    "pistributer.queues": 2,
    "pistributer.dicts": 2,
    "pistributer.records": 2,
    "pistributer.state": 2,
    # The lines of workers/__init__.py. workers.tickets is of the room `workers`: apps send through tickets.
    "pistributer.workers.checks": 3,
    "pistributer.workers.supervision": 4,
    "pistributer.workers": 5,
    "pistributer.workers.execution": 6,
    "pistributer.workers.inspection": 7,
    "pistributer.workers.plan": 8,
    "pistributer.workers.stress": 8,
    "pistributer.workers.chaos": 8,
    "pistributer.workers.run": 9,
    "pistributer.cli": 10,
    # For the tests of users: it runs apps, as commands do, and no part of the package needs it.
    "pistributer.testing": 10,
    # The faces of the package: they hand names on and hold no logic.
    "pistributer.__main__": 11,
    "pistributer": 11,
    # Names that release 0.2.0 gave to modules.
    "pistributer_txt": 12,
    "pistributer_sqlite": 12,
}

#: What the package reaches through links.
LINKED = ("pistributer.workers", "pistributer.cli")

#: What only storage may call: each decides whether rows survive a crash.
DISK_CALLS = {
    "write", "pwrite", "pwritev", "writev", "fsync", "fdatasync", "sync_file_range", "ftruncate", "truncate",
    "flock", "lockf", "sendfile", "copy_file_range",
}  # fmt: skip
OURS = {"pistributer", "pistributer_txt", "pistributer_sqlite"}
DISK_MODULES = {"os", "fcntl"}

#: Calls above storage that are not about rows on disk: (module, call) and why.
ALLOWED_DISK_CALLS: dict[tuple[str, str], str] = {}


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def source_files() -> Iterator[Path]:
    for folder in (PACKAGE, *(path for path in sorted(PACKAGE.iterdir()) if path.is_dir())):
        depth = folder.glob("*.py") if folder == PACKAGE else folder.rglob("*.py")
        yield from sorted(depth)
    yield ROOT / "pistributer_txt.py"
    yield ROOT / "pistributer_sqlite.py"


@functools.cache
def modules() -> dict[str, ast.Module]:
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in source_files()}


def is_package(module: str) -> bool:
    return (ROOT / Path(*module.split("."))).is_dir()


def room(module: str) -> str:
    """The longest entry of FLOORS that `module` lies in; a new room has to be entered there first."""
    if module in OURS:
        return module
    found = [name for name in FLOORS if name != "pistributer" and (module + ".").startswith(name + ".")]
    assert found, f"{module} stands on no floor: add its room to FLOORS"
    return max(found, key=len)


def is_linked(module: str) -> bool:
    return (module + ".").startswith(tuple(name + "." for name in LINKED))


def imported(module: str, node: ast.AST) -> Iterator[str]:
    """The modules of ours that one import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = absolute(module, node)
        # `from package import name` imports package.name if that is a module. The version is no module's matter: the
        # package itself is loaded before any of its modules.
        full = [f"{base}.{alias.name}" for alias in node.names if (base, alias.name) != ("pistributer", "__version__")]
        names = [name if name in modules() else base for name in full]
    else:
        return
    yield from (name for name in names if name.partition(".")[0] in OURS)


def absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    above = parts[: len(parts) - node.level + is_package(module)]
    return ".".join([*above, *([node.module] if node.module else [])])


def imports_anywhere(module: str) -> set[str]:
    return {name for node in ast.walk(modules()[module]) for name in imported(module, node)}


def imports_at_load(module: str) -> set[str]:
    """What is imported while the module loads: not in functions, not under TYPE_CHECKING."""
    found: set[str] = set()
    todo: list[ast.AST] = list(modules()[module].body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
            continue
        found.update(imported(module, node))
        todo.extend(ast.iter_child_nodes(node))
    return found


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_down_only(module: str) -> None:
    here = room(module)
    for name in imports_anywhere(module):
        there = room(name)
        assert there == here or FLOORS[there] < FLOORS[here], f"{module} ({here}) imports {name} ({there})"


@pytest.mark.parametrize("module", sorted(name for name in modules() if is_linked(name)))
def test_workers_and_cli_import_each_other_relatively_and_the_rest_absolutely(module: str) -> None:
    """So that both folders read the same at the top level of the repository and inside the package."""
    for node in ast.walk(modules()[module]):
        if not isinstance(node, ast.ImportFrom | ast.Import):
            continue
        relative = isinstance(node, ast.ImportFrom) and node.level > 0
        for name in imported(module, node):
            assert relative == is_linked(name), f"{module}, line {node.lineno}: {ast.unparse(node)}"


def test_no_module_is_imported_in_a_circle_while_it_loads() -> None:
    graph = {module: imports_at_load(module) - {module} for module in modules()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for name in sorted(graph.get(module, ())):
            visit(name, (*path, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


def disk_calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """`os.write(…)`, `fcntl.flock(…)` and names imported from os or fcntl, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in DISK_MODULES and node.attr in DISK_CALLS:
                yield node.lineno, f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in DISK_MODULES:
            taken = {alias.name for alias in node.names} & DISK_CALLS
            yield from ((node.lineno, f"{node.module}.{name}") for name in sorted(taken))


@pytest.mark.parametrize("module", sorted(name for name in modules() if room(name) != "pistributer.storage"))
def test_only_storage_writes_syncs_and_locks(module: str) -> None:
    found = [(line, call) for line, call in disk_calls(modules()[module]) if (module, call) not in ALLOWED_DISK_CALLS]
    assert not found, f"{module}: ask a function of pistributer.storage instead"


def test_every_allowed_disk_call_is_still_made() -> None:
    made = {(module, call) for module, tree in modules().items() for _, call in disk_calls(tree)}
    assert set(ALLOWED_DISK_CALLS) <= made


@pytest.mark.skipif(not (ROOT / "workers").is_dir(), reason="a source archive holds the rooms inside the package only")
@pytest.mark.parametrize("name", ["workers", "cli"])
def test_the_linked_folders_are_relative_links_to_the_top_level(name: str) -> None:
    link = PACKAGE / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
    assert (link / "__init__.py").is_file()
