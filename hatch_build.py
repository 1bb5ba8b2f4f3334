"""Builds the C parts when there is a compiler, and goes on without them when there is none.

setuptools is used for one thing, which it knows best: how this Python wants its extensions compiled.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

#: Each module and the folder of its sources.
_MODULES = {
    "pistributer.records._speed": "pistributer/records/c",
    "pistributer.storage._quick": "pistributer/storage/c",
}
#: `PISTRIBUTER_NO_C=1 pip install …` leaves the C parts out.
_REFUSAL = "PISTRIBUTER_NO_C"


class CustomBuildHook(BuildHookInterface[Any]):
    """For wheels and editable installs; a source archive carries the sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        built = [path for module, sources in _MODULES.items() if (path := _compile(root, module, sources))]
        if len(built) < len(_MODULES):
            self.app.display_warning("built without its C parts: record files will be read and written slowly")
        if built:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["artifacts"] += [f"/{path.relative_to(root).as_posix()}" for path in built]


def _compile(root: Path, module: str, folder: str) -> Path | None:
    """Compile into the source tree, where an editable install imports it; None if that was refused or no compiler can."""
    sources = sorted(str(path) for path in (root / folder).glob("*.c"))
    extension = Extension(module, sources, extra_compile_args=["-O3", "-std=c11"], optional=True)
    command = build_ext(Distribution({"name": "pistributer", "ext_modules": [extension]}))
    command.ensure_finalized()
    built = root / command.get_ext_filename(module)
    built.unlink(missing_ok=True)  # else a failure would leave, and pack, that of an earlier build
    if os.environ.get(_REFUSAL, "") not in ("", "0"):
        return None
    with tempfile.TemporaryDirectory() as objects:
        command.build_temp, command.build_lib = objects, str(root)
        command.run()
    return built if built.exists() else None
