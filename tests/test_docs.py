"""The documentation runs: every Python block and every shell line of it, in the order of the page, in an empty folder.

Markers in HTML comments before a block say what is special about it:

    <!-- file: app.py -->       save the block under this name, for the blocks that follow
    <!-- exits: 4 -->           the shell block ends with this code, not with 0
    <!-- output -->             this `text` block is what the block before it printed; `...` stands for anything
    <!-- not run: reason -->    why nobody can run this block here
    <!-- ci: name -->           .ci/run runs this block under that name, on a clean checkout

A Python block is a script of its own, so that it works as pasted. A shell block stops at the first line that fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pistributer import errors
from pistributer.cli import exits

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: Languages of blocks that show something instead of doing it.
SHOWN = {"text", "json", "jsonl", "toml", "ini", "yaml", "dockerfile"}
MARKERS = {"file", "exits", "output", "not run", "ci"}
#: Seconds that a block may take.
PATIENCE = 60

FENCE = re.compile(r"^(?P<fence>```+)(?P<language>[^\n`]*)\n(?P<body>.*?)^(?P=fence)\s*$", re.M | re.S)
MARKER = re.compile(r"<!--\s*(?P<name>[a-z ]+?)\s*(?::\s*(?P<value>[^>]*?))?\s*-->\s*\Z")
NAMED = re.compile(r"\b(?:benchmarks|examples|tests|docs)/[\w/]+\.(?:py|md)\b")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)#\s]+)(?:#(?P<anchor>[^)\s]*))?\)")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    body: str
    markers: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    end = 0
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match["language"].strip(), match["body"], markers(text[end : match.start()]))
        end = match.end()


def markers(before: str) -> dict[str, str]:
    """The run of comments that stands directly before a block."""
    found: dict[str, str] = {}
    while match := MARKER.search(before):
        found[match["name"]] = match["value"] or ""
        before = before[: match.start()]
    return found


def runs_here(block: Block) -> bool:
    return not {"not run", "ci"} & set(block.markers)


ALL_BLOCKS = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("block", ALL_BLOCKS, ids=str)
def test_every_block_is_run_shown_or_says_why_not(block: Block) -> None:
    assert block.language in {"python", "sh", *SHOWN}, "give the block a language; commands go into `sh` blocks"
    assert set(block.markers) <= MARKERS, "a marker that nobody reads"
    if "not run" in block.markers:
        assert len(block.markers["not run"].split()) >= 4, "say why it can not run here"


@pytest.mark.parametrize("block", [block for block in ALL_BLOCKS if "file" in block.markers], ids=str)
def test_every_saved_file_is_used_by_a_later_block(block: Block) -> None:
    stem = Path(block.markers["file"]).stem
    later = [other for other in blocks(block.page) if other.line > block.line and runs_here(other)]
    assert any(stem in other.body for other in later if other.language in ("python", "sh"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, cli_env: dict[str, str]) -> None:
    printed = ""
    for block in blocks(page):
        if not runs_here(block):
            continue
        if "output" in block.markers:
            assert matches(block.body, printed), f"{block} shows what is not printed; printed was:\n{printed}"
        elif "file" in block.markers:
            (tmp_path / block.markers["file"]).write_text(block.body, encoding="utf-8")
        elif block.language in ("python", "sh"):
            printed = run(block, tmp_path, cli_env)


def run(block: Block, folder: Path, env: dict[str, str]) -> str:
    interpreter = ["bash", "-euo", "pipefail"] if block.language == "sh" else [sys.executable, "-W", "error"]
    command = [*interpreter, "-c", block.body]
    done = subprocess.run(
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
    )
    expected = int(block.markers.get("exits", "0"))
    assert done.returncode == expected, f"{block} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def matches(shown: str, printed: str) -> bool:
    pattern = re.escape(shown.strip()).replace(re.escape("..."), ".*?")
    return re.fullmatch(pattern, printed.strip(), re.S) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for match in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" not in match["target"]:
            assert (page.parent / match["target"]).exists(), match["target"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_project_that_a_page_names_exist(page: Path) -> None:
    named = set(NAMED.findall(page.read_text(encoding="utf-8")))
    assert not {name for name in named if not (ROOT / name).is_file()}


def test_ci_runs_what_is_marked_for_it() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    names = [block.markers["ci"] for block in ALL_BLOCKS if "ci" in block.markers]
    assert sorted(names) == ["main job", "test"]
    assert all(f'"{name}"' in script for name in names)


def test_a_block_without_a_marker_is_not_skipped(tmp_path: Path) -> None:
    """The runner itself: what it must see in a page, so that no block slips through."""
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: it needs a network printer -->\n```sh\nlp x\n```\n\ntext\n\n```python\nprint(1)\n```\n\n"
        "<!-- output -->\n```text\n1\n```\n"
    )
    found = list(blocks(page))
    assert [(block.language, block.line, set(block.markers)) for block in found] == [
        ("sh", 2, {"not run"}),
        ("python", 8, set()),
        ("text", 13, {"output"}),
    ]
    assert matches("a ... c\n", "a b\nb c")
    assert not matches("a ... c", "a b")


def test_the_error_page_lists_every_error_and_every_exit_code() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == set(errors.__all__) - {"PistributerError"}
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.M)}
    assert codes <= listed
