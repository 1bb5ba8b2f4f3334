"""Ours against release 0.2.0, on this machine, in one go: the same scenarios, the same lines driving both.

    python benchmarks/versus_0_2_0.py --scale 0.1     a tenth of the rows, a few minutes
    python benchmarks/versus_0_2_0.py --save          all 2,700,000 rows; 0.2.0 needs about 20 minutes, our threads 8
    python benchmarks/versus_0_2_0.py --only staged --save    one part; the other stays in results/ as it was measured

Each run makes 18,000 files. On ext4 that takes 0.4 s, but 10 s where many files were deleted in the last minutes, because it
does not use their inodes again so soon; give it a --folder in another part of the disk, for example a new one in /.

Release 0.2.0 is installed from the package index into an environment of its own. Three runs of the interleaved
scenario: 0.2.0 with threads (as its own benchmark ran), ours with the same threads and the same code, ours with
processes (`pistributer stress --api classic`, whose ledger is part of its time). Then staged scenarios on both, several
times in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine

SCENARIO = Path(__file__).resolve().parent / "classic_scenario.py"
FULL = {"writers": 300, "readers": 64, "files": 30, "shared": 10, "rows": 300}
NAME = "versus_0_2_0"
#: Written, then read, by one thread: many short channels, where opening files weighs most, and a long one.
STAGED = {
    "300 files of 30 rows": {"kind": "staged", "files": 300, "rows": 30},
    "1 file of 20,000 rows": {"kind": "staged", "files": 1, "rows": 20_000},
}
#: Runs of each staged scenario, ours and 0.2.0 in turn; the middle one counts.
REPEATS = 5
#: Seconds beyond its limit after which a run is given up as hung.
GRACE = 300


def main() -> None:
    options = parse()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="pistributer-versus-", dir=options.folder) as folder:
        old = install_old(Path(folder) / "old")
        for part in options.only or PARTS_OF_PAGE:
            facts = machine.facts(Path(folder))
            found[part] = {"machine": facts, "sync": "none", **PARTS_OF_PAGE[part](old, folder, options)}
    if options.save:
        found = machine.saved(NAME) | found
    text = page(found)
    print(text)
    if options.save:
        machine.save(NAME, found, text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=list(PARTS_OF_PAGE), help="measure this part")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows; 1.0 is 2,700,000 (default: 1.0)")
    parser.add_argument(
        "--limit-seconds",
        type=float,
        default=1800.0,
        help="cut a run after so many seconds, and say so (default: 1800)",
    )
    parser.add_argument("--without-threads", action="store_true", help="leave out our own run with threads")
    parser.add_argument("--folder", help="work under this folder (default: the system's temporary one)")
    parser.add_argument("--save", action="store_true", help="keep the results in benchmarks/results/")
    return parser.parse_args()


def install_old(folder: Path) -> Path:
    """An environment with release 0.2.0 and nothing else; its Python."""
    say("installing release 0.2.0")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--quiet", "pistributer==0.2.0"], check=True)
    return python


def interleaved(old: Path, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    plan = FULL | {"rows": max(1, round(FULL["rows"] * options.scale))}
    limit = options.limit_seconds
    given = plan | {"kind": "interleaved", "limit": limit, "folder": folder}
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "ours, processes": lambda: stress(plan, folder, limit),
        "ours, threads": lambda: scenario(Path(sys.executable), given, limit, ours=True),
        "0.2.0, threads": lambda: scenario(old, given, limit),
    }
    if options.without_threads:
        del runs["ours, threads"]
    found = {}
    for name, run in runs.items():
        say(f"running: {name}")
        found[name] = run()
    return {"plan": plan, "limit_seconds": limit, "runs": found}


def staged(old: Path, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    return {"runs": {name: staged_pair(old, folder, plan) for name, plan in STAGED.items()}}


PARTS_OF_PAGE = {"interleaved": interleaved, "staged": staged}


def staged_pair(old: Path, folder: str, plan: dict[str, Any]) -> dict[str, Any]:
    """The median run of ours and of 0.2.0."""
    say(f"running: staged, {plan['files']} files")
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for _ in range(REPEATS):
        ours.append(scenario(Path(sys.executable), plan | {"folder": folder}, GRACE, ours=True))
        theirs.append(scenario(old, plan | {"folder": folder}, GRACE))
    return {"ours": middle(ours), "0.2.0": middle(theirs)}


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return sorted(runs, key=lambda run: run["total_seconds"])[len(runs) // 2]


def scenario(python: Path, plan: dict[str, Any], limit: float, *, ours: bool = False) -> dict[str, Any]:
    """The scenario in a process of its own, importing whatever that Python has (ours: this checkout)."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if ours:
        environment["PYTHONPATH"] = str(machine.ROOT)
    return run_json([str(python), str(SCENARIO), json.dumps(plan)], environment, limit)


def stress(plan: dict[str, Any], folder: str, limit: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "pistributer", "stress", "--json", "--api", "classic"]
    command += [part for name in FULL for part in (f"--{name}", str(plan[name]))]
    environment = os.environ | {"PYTHONPATH": str(machine.ROOT), "TMPDIR": folder}
    found = run_json(command, environment, limit)
    return found | {"put": found["planned"] - found["not_put"], "read": found["consumed"], "cut": False, "errors": 0}


def run_json(command: list[str], environment: dict[str, str], limit: float) -> dict[str, Any]:
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, timeout=limit + GRACE, check=False
    )
    if not done.stdout:
        raise SystemExit(f"{' '.join(command[:3])} ended with {done.returncode} and printed nothing")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def page(document: dict[str, Any]) -> str:
    lines = ["# Ours against release 0.2.0", ""]
    if part := document.get("interleaved"):
        plan = part["plan"]
        total = plan["writers"] * plan["files"] * plan["rows"]
        lines += [
            f"## Interleaved: {plan['writers']} writers, {plan['readers']} readers, {total:,} rows",
            "",
            where(part),
            "",
            interleaved_table(part["runs"]),
            "",
            *remarks(part["runs"], part["limit_seconds"]),
        ]
    if part := document.get("staged"):
        lines += ["## Staged: written, then read, by one thread", "", where(part), ""]
        for name, pair in part["runs"].items():
            lines += [f"{name[0].upper()}{name[1:]}:", "", staged_table(pair), ""]
    return "\n".join(lines).rstrip()


def where(part: dict[str, Any]) -> str:
    return (
        f"Machine: {machine.facts_line(part['machine'])}. Durability: sync={part['sync']} on both sides "
        "(page cache; a killed process loses nothing, a power cut may)."
    )


def interleaved_table(runs: dict[str, Any]) -> str:
    old = runs["0.2.0, threads"]
    rows = []
    for name, run in runs.items():
        faster = run["rows_per_second"] / old["rows_per_second"]
        cells = [f"{run[key]:,}" for key in ("put", "read", "lost", "malformed", "out_of_order")]
        times = [f"{run['write_seconds']:.1f} s", f"{run['total_seconds']:.1f} s", f"{run['rows_per_second']:,.0f}"]
        rows.append([name, *cells, *times, f"{faster:.1f}x"])
    header = ["run", "put", "read", "lost", "torn", "out of order", "write", "total", "rows/s", "faster than 0.2.0"]
    return machine.markdown_table(header, rows)


def remarks(runs: dict[str, Any], limit: float) -> list[str]:
    """What has to be said about a run that was cut, or whose library raised."""
    lines = []
    for name, run in runs.items():
        if run["cut"]:
            unread = "its rows/s are of that time, and `lost` counts rows that it had not come to"
            lines.append(f"`{name}` was cut after {limit:g} s: {unread}.\n")
        if run["errors"]:
            lines.append(f"`{name}`: {run['errors']} calls raised, the first: {run['first_errors'][0]}\n")
    return lines


def staged_table(pair: dict[str, Any]) -> str:
    old = pair["0.2.0"]
    rows = []
    for name, run in pair.items():
        times = [f"{run[key]:.3f} s ({old[key] / run[key]:.1f}x)" for key in (f"{part}_seconds" for part in PARTS)]
        rows.append([name, f"{run['read']:,}", f"{run['lost']:,}", *times])
    return machine.markdown_table(["run", "read", "lost", *PARTS], rows)


PARTS = ("write", "read", "total")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
