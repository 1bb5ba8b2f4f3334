"""A census of this machine's Python standard library: how large it is, and what it imports most.

    pistributer run examples/census.py --until-empty

The producer names every module, `measure` runs once for each in the worker processes, the consumer appends what came
out to `census/census.jsonl`, and at the end it prints the totals. `CENSUS_OF=FOLDER` counts other Python files.

Kill any of these processes with `kill -9` while it runs: the totals stay the same. What a killed process held is done
again, so a module may be measured twice and its line written twice, or half. This file deals with that in the simplest
way: a line names its module, a half line can not spoil the next one, and the report counts each module once.
"""

from __future__ import annotations

import ast
import json
import os
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pistributer import App, Call, Hook

LIBRARY = Path(os.environ.get("CENSUS_OF") or sysconfig.get_path("stdlib"))
#: What others have installed into the library's folder is not of the library.
INSTALLED = {"site-packages", "dist-packages"}
OUTPUT = Path("census") / "census.jsonl"

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

app = App("census")


@app.producer
def modules() -> Iterator[Call]:
    """One call for each module. Begun again after a kill, it names some twice, which is harmless here."""
    for module in list_modules():
        yield measure.call(module)


@app.task(results=False)
def measure(module: str) -> None:
    """Measure one module and send the result to the consumer."""
    app.queue("measures").put({"module": module, **measured((LIBRARY / module).read_bytes())})


@app.consumer("measures", batch=100)
def write(measures: list[dict[str, Any]]) -> None:
    """Append a batch of lines. They are acknowledged when this returns, so after a kill they are written again."""
    lines = "".join(f"{json.dumps(line)}\n" for line in measures)
    with OUTPUT.open("a", encoding="utf-8") as file:
        file.write(f"\n{lines}")  # the newline in front ends what a killed process may have left half written


class Report(Hook):
    """Before the consumer's process leaves in good order, it tidies the file and prints the totals."""

    def on_stop(self, role: str) -> None:
        if role == "consumer write":
            found = read_census()
            OUTPUT.write_text("".join(f"{json.dumps(found[module])}\n" for module in sorted(found)), encoding="utf-8")
            print(f"\n{totals(list(found.values()), of=len(list_modules()))}")  # below the progress bar


app.add_hook(Report())


def list_modules() -> list[str]:
    """Every Python file of the library, as paths relative to it, sorted; without what was installed into it."""
    found = (path.relative_to(LIBRARY) for path in LIBRARY.rglob("*.py"))
    return sorted(str(path) for path in found if not INSTALLED & set(path.parts))


def measured(source: bytes) -> dict[str, Any]:
    """Lines, functions, the longest function and the imported top-level modules of one file."""
    lines = source.count(b"\n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a module is warned of is its own affair
            tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:  # the library's tests hold files that are wrong on purpose
        return {"lines": lines, "unreadable": type(error).__name__}
    nodes = list(ast.walk(tree))
    functions = [(length(node), node.name) for node in nodes if isinstance(node, FUNCTION)]
    longest = list(max(functions, default=(0, "")))
    imports = sorted({name for node in nodes for name in imported(node)})
    return {"lines": lines, "functions": len(functions), "longest": longest, "imports": imports}


def length(function: ast.stmt) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def imported(node: ast.AST) -> list[str]:
    """Top-level modules that one statement imports; relative imports stay at home and do not count."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level and node.module:
        return [node.module.partition(".")[0]]
    return []


def read_census() -> dict[str, dict[str, Any]]:
    """The measures of the modules that the library has now: each once, half lines left out."""
    wanted = set(list_modules())
    found = {}
    for line in OUTPUT.read_text(encoding="utf-8").splitlines() if OUTPUT.exists() else []:
        try:
            measure = json.loads(line)
        except ValueError:
            continue  # empty, or cut off by a kill: its batch was never acknowledged and has been written again
        if measure["module"] in wanted:
            found[measure["module"]] = measure
    return found


def totals(measures: list[dict[str, Any]], of: int) -> str:
    """The report: a few lines of text, the same for the same library."""
    readable = [measure for measure in measures if "imports" in measure]
    imports = Counter(name for measure in readable for name in measure["imports"])
    longest = max([[*measure["longest"], measure["module"]] for measure in readable], default=[0, "-", "-"])
    ranked = sorted(imports.items(), key=lambda item: (-item[1], item[0]))[:10]
    return "\n".join([
        f"{len(measures):,} of {of:,} modules, {len(measures) - len(readable)} unreadable",
        f"{sum(measure['lines'] for measure in measures):,} lines",
        f"{sum(measure['functions'] for measure in readable):,} functions",
        "longest function: {1} in {2}, {0} lines".format(*longest),
        "most imported:",
        *(f"  {count:5}  {name}" for name, count in ranked),
    ])  # fmt: skip
