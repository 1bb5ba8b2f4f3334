"""The files that docs/production.md and docs/running.md tell people to deploy are what their readers take them for."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pistributer.cli import exits, settings
from pistributer.cli.root import pistributer
from tests.test_docs import ROOT, Block, blocks

GUIDE = ROOT / "docs" / "production.md"


def named(file: str) -> str:
    return next(block.body for block in blocks(GUIDE) if block.markers.get("file") == file)


UNITS = [block for page in (GUIDE, ROOT / "docs" / "running.md") for block in blocks(page) if block.language == "ini"]


def read_unit(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_a_unit_stops_the_supervisor_alone_and_waits_longer_than_its_grace(unit: Block) -> None:
    service = read_unit(unit.body)["Service"]
    assert (service["Type"], service["KillMode"], service["SuccessExitStatus"]) == ("notify", "mixed", "143")
    words = shlex.split(service["ExecStart"])
    options = settings.tomllib.loads(named("pistributer.toml"))["run"]
    grace = float(words[words.index("--grace") + 1]) if "--grace" in words else options["grace"]
    assert float(service["TimeoutStopSec"]) > grace
    assert words[0].endswith("/bin/pistributer")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_systemd_understands_every_line_of_a_unit(unit: Block, tmp_path: Path) -> None:
    program = tmp_path / "pistributer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    # What this machine does not have is no fault of the unit.
    lines = [line for line in unit.body.splitlines() if not line.startswith("User=")]
    text = "\n".join(lines).replace("/srv/mail/venv/bin/pistributer", str(program))
    file = tmp_path / "mail.service"
    file.write_text(text.replace("WorkingDirectory=/srv/mail", f"WorkingDirectory={tmp_path}"))
    environment = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run(
        ["systemd-analyze", "verify", str(file)], env=environment, capture_output=True, text=True, timeout=60
    )
    told = [line for line in done.stderr.splitlines() if "mail.service" in line]
    assert told == []


def test_the_settings_file_is_understood(tmp_path: Path) -> None:
    (tmp_path / "pistributer.toml").write_text(named("pistributer.toml"))
    shown = CliRunner().invoke(pistributer, ["--config", str(tmp_path / "pistributer.toml"), "config", "show"])
    assert shown.exit_code == exits.OK


def test_the_container_hears_term_and_is_given_time() -> None:
    dockerfile = named("Dockerfile").splitlines()
    instructions = {line.split()[0] for line in dockerfile}
    known = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "VOLUME", "STOPSIGNAL", "ENTRYPOINT"}
    assert instructions <= known
    assert 'ENTRYPOINT ["pistributer", "run"]' in dockerfile, "the exec form: a shell would keep TERM to itself"
    compose: dict[str, Any] = yaml.safe_load(named("compose.yaml"))
    workers = compose["services"]["workers"]
    grace = settings.tomllib.loads(named("pistributer.toml"))["run"]["grace"]
    assert workers["init"] is True
    assert float(workers["stop_grace_period"].removesuffix("s")) > grace
    assert {volume.split(":")[0] for volume in workers["volumes"]} == set(compose["volumes"])
