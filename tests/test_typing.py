"""What a type checker says to a user's code. Needs the extra `dev`.

basedpyright, not pyright: its wheels hold everything, Node included, so that it runs offline after the install; pyright's
fetches itself from another registry when it first runs. In its mode "standard" it finds what pyright finds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "tests" / "typing_sample.py"


def wrong_lines() -> set[int]:
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_mypy_finds_each_wrong_line_and_no_other() -> None:
    pytest.importorskip("mypy")
    told = run("mypy", "--strict", "--no-error-summary", "--hide-error-context", str(SAMPLE))
    found = {int(line.split(":")[1]) for line in told.splitlines() if ": error:" in line}
    assert found == wrong_lines(), told


def test_pyright_finds_each_wrong_line_and_no_other(tmp_path: Path) -> None:
    pytest.importorskip("basedpyright")
    settings = {"include": [str(SAMPLE)], "extraPaths": [str(ROOT)], "typeCheckingMode": "standard"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    told = run("basedpyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(tmp_path))
    found = {
        entry["range"]["start"]["line"] + 1
        for entry in json.loads(told)["generalDiagnostics"]
        if entry["severity"] == "error"
    }
    assert found == wrong_lines(), told
