"""The supervisor of a test's pool (pools.py): `python -m pistributer.testing '{"source": …}'`."""

from __future__ import annotations

import json
import sys

from pistributer.workers.run import run


def main(told: str) -> int:
    """Run the app at `source`, found as the test would find it, until told to stop."""
    options = json.loads(told)
    sys.path[:] = options["path"]
    return run(options["source"], **options["options"]).exit_code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
