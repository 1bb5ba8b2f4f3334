"""One run of the seed's benchmark on whichever `pistributer` this Python imports: release 0.2.0 or ours.

Uses nothing but `Pistributer.put`, `Pistributer(path).next()` and the standard library, so that both are driven by the
same lines. Threads of one process, as the seed had it. Prints one JSON document.

    python classic_scenario.py '{"kind": "interleaved", "writers": 300, "readers": 64, "files": 30, "shared": 10,
                                 "rows": 300, "limit": 600}'
    python classic_scenario.py '{"kind": "staged", "files": 300, "rows": 30}'
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections import defaultdict
from typing import Any

from pistributer import Pistributer

#: Rows that a reader takes from one channel before it looks at the next.
BATCH = 256
#: Pause of a reader that found nothing anywhere, in seconds.
PAUSE = 0.005


class Interleaved:
    def __init__(self, folder: str, plan: dict[str, Any]) -> None:
        self.folder, self.plan = folder, plan
        self.own: int = plan["files"] - plan["shared"]
        self.first_shared: int = plan["writers"] * self.own
        self.channels = self.first_shared + plan["shared"]
        self.put: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0])
        self.writing = threading.Event()
        self.cut = threading.Event()
        self.readers: list[Reader] = []
        self.errors: list[str] = []

    def path(self, channel: int) -> str:
        return os.path.join(self.folder, f"{channel:06d}.jsonl")

    def channel(self, writer: int, assignment: int) -> int:
        if assignment < self.own:
            return writer * self.own + assignment
        return self.first_shared + assignment - self.own

    def write(self, writer: int) -> None:
        """Row by row over all channels of the writer; what was acknowledged is summed up per channel."""
        files = [(channel, self.path(channel)) for channel in self._channels_of(writer)]
        sums = {channel: [0, 0, 0] for channel, _ in files}
        for seq in range(self.plan["rows"]):
            if self.cut.is_set():
                break
            for channel, path in files:
                value = (writer * 7919 + channel * 104729 + seq * 31) & 0xFFFFF
                Pistributer.put(path, {"writer": writer, "channel": channel, "seq": seq, "value": value})
                add(sums[channel], value)
        for channel, moments in sums.items():
            self.put[writer, channel] = moments

    def _channels_of(self, writer: int) -> list[int]:
        return [self.channel(writer, assignment) for assignment in range(self.plan["files"])]

    def guarded(self, target: Any, *args: Any) -> None:
        try:
            target(*args)
        except Exception as error:  # noqa: BLE001 - whatever the library raises is counted, and the others go on
            self.errors.append(f"{type(error).__name__}: {error}")

    def run(self) -> dict[str, Any]:
        started = time.perf_counter()
        self.readers = [Reader(self, index) for index in range(self.plan["readers"])]
        writers = self._threads(self.write, range(self.plan["writers"]))
        readers = self._threads(Reader.run, self.readers)
        for thread in (*writers, *readers):
            thread.start()
        deadline = started + self.plan["limit"]
        join(writers, deadline)
        if any(thread.is_alive() for thread in writers):
            self.cut.set()
            join(writers, float("inf"))
        write_seconds = time.perf_counter() - started
        self.writing.set()
        join(readers, max(deadline, time.perf_counter()))
        self.cut.set()
        join(readers, float("inf"))
        last = max((reader.active for reader in self.readers), default=started)
        return self.judge(write_seconds, last - started)

    def _threads(self, target: Any, arguments: Any) -> list[threading.Thread]:
        return [threading.Thread(target=self.guarded, args=(target, one), daemon=True) for one in arguments]

    def judge(self, write_seconds: float, total_seconds: float) -> dict[str, Any]:
        got: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0])
        for reader in self.readers:
            got.update(reader.got)  # no key comes twice, because a channel has one reader
        put = sum(moments[0] for moments in self.put.values())
        read = sum(moments[0] for moments in got.values())
        return {
            "planned": self.plan["writers"] * self.plan["files"] * self.plan["rows"],
            "put": put,
            "read": read,
            "lost": sum(max(0, moments[0] - got[key][0]) for key, moments in self.put.items()),
            "doubled": sum(max(0, got[key][0] - moments[0]) for key, moments in self.put.items()),
            "wrong_sums": sum(moments != got[key] for key, moments in self.put.items()),
            "malformed": sum(reader.malformed for reader in self.readers),
            "out_of_order": sum(reader.out_of_order for reader in self.readers),
            "errors": len(self.errors),
            "first_errors": self.errors[:3],
            "write_seconds": write_seconds,
            "total_seconds": total_seconds,
            "rows_per_second": read / total_seconds,
            "cut": self.cut.is_set() and not self.finished(),
        }

    def finished(self) -> bool:
        return all(reader.finished for reader in self.readers)


class Reader:
    """Reads every `readers`-th channel. With several on one, release 0.2.0 would hand each row to all of them."""

    def __init__(self, run: Interleaved, index: int) -> None:
        self.shared = run
        self.channels = list(range(index, run.channels, run.plan["readers"]))
        self.got: dict[tuple[int, int], list[int]] = {}
        self.last: dict[tuple[int, int], int] = {}
        self.malformed = self.out_of_order = 0
        self.finished = False
        self.active = time.perf_counter()

    def run(self) -> None:
        opened = [Pistributer(self.shared.path(channel)) for channel in self.channels]
        while not self.shared.cut.is_set():
            # Asked before the round: what was put before the writers ended is then seen by it.
            done = self.shared.writing.is_set()
            found = sum(self.drain(channel) for channel in opened)
            if found:
                self.active = time.perf_counter()
            elif done:
                self.finished = True
                return
            else:
                time.sleep(PAUSE)

    def drain(self, channel: Pistributer) -> int:
        for count in range(BATCH):
            try:
                row = channel.next()
            except StopIteration:
                return count
            except Exception as error:  # noqa: BLE001 - as above
                self.shared.errors.append(f"{type(error).__name__}: {error}")
                return count
            self.take(row)
        return BATCH

    def take(self, row: str) -> None:
        try:
            found = json.loads(row)
            key, seq, value = (found["writer"], found["channel"]), found["seq"], found["value"]
        except (ValueError, TypeError, KeyError):
            self.malformed += 1
            return
        add(self.got.setdefault(key, [0, 0, 0]), value)
        self.out_of_order += seq <= self.last.get(key, -1)
        self.last[key] = seq


def add(moments: list[int], value: int) -> None:
    """Count, sum and sum of squares."""
    moments[0] += 1
    moments[1] += value
    moments[2] += value * value


def join(threads: list[threading.Thread], deadline: float) -> None:
    for thread in threads:
        left = deadline - time.perf_counter()
        thread.join(None if left == float("inf") else max(0.0, left))


def staged(folder: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Write everything, then read everything: no overlap, one thread. Making and checking rows is not measured."""
    rows = {
        os.path.join(folder, f"{number:04d}.jsonl"): [
            {"file": number, "seq": seq, "text": "a row of the staged benchmark"} for seq in range(plan["rows"])
        ]
        for number in range(plan["files"])
    }
    started = time.perf_counter()
    for path, values in rows.items():
        for value in values:
            Pistributer.put(path, value)
    written = time.perf_counter()
    found = {}
    for path, values in rows.items():
        channel = Pistributer(path)
        found[path] = [channel.next() for _ in values]
    ended = time.perf_counter()
    read = sum(json.loads(line) == value for path in rows for line, value in zip(found[path], rows[path], strict=True))
    total = plan["files"] * plan["rows"]
    return {
        "put": total,
        "read": read,
        "lost": total - read,
        "write_seconds": written - started,
        "read_seconds": ended - written,
        "total_seconds": ended - started,
        "rows_per_second": total / (ended - started),
    }


def main() -> None:
    plan = json.loads(sys.argv[1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(dir=plan.get("folder"), prefix="pistributer-versus-") as folder:
        result = Interleaved(folder, plan).run() if plan["kind"] == "interleaved" else staged(folder, plan)
    print(json.dumps(result | {"open_files": min(soft, hard)}))


if __name__ == "__main__":
    main()
