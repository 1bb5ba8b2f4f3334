"""The figures of DESIGN section 6 that need running workers: wake-up, idle CPU, rescue, tasks a second, backlog.

Used by `floors.py --pool`; on its own, `python benchmarks/pool.py` prints the same lines.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import machine
import psutil

#: The app of all measurements. Tasks tell by appending to a file, which needs no help from the library.
APP = """
import os, time
from pathlib import Path
from pistributer import App

HERE = Path(__file__).parent
app = App(HERE / "jobs")

def tell(name, text):
    with open(HERE / name, "a") as file:
        file.write(text + "\\n")

@app.task
def stamp(sent):
    tell("stamps", str(time.monotonic_ns() - sent))

@app.task(crash_retries=5)
def hold(number):
    tell("holds", f"{number} {os.getpid()} {time.monotonic_ns()}")
    if not (HERE / f"rescued-{number}").exists():
        time.sleep(60)

@app.task
def nothing():
    pass

@app.task(queue="other", priority=3)
def stamp_elsewhere(sent):
    tell("stamps", str(time.monotonic_ns() - sent))

@app.task(results=False)
def suddenly(slow):
    if slow:
        tell("slow", "")
        time.sleep(10)
    tell("done", "")
"""
WAKE_UPS = 200
RESCUES = 20
TASKS = 100_000
BACKLOG_ROWS, BACKLOG_ROW = 1_000_000, "x" * 985  # with its quotes, braces and newline, 1 GB
IDLE_SECONDS = 3.0


@dataclass
class Figure:
    name: str
    shown: str
    target: str
    met: bool
    values: dict[str, float]


def measure(folder: Path) -> Iterator[Figure]:
    for number, one in enumerate((wake_up, wake_up_in_turns, rescue, take_over, tasks_per_second, backlog)):
        print(f"measuring: {one.__name__}", file=sys.stderr, flush=True)
        place = folder / f"pool-{number}"
        place.mkdir()
        (place / "app.py").write_text(APP)
        yield from one(place)


# -- wake-up and idle CPU


def wake_up(folder: Path) -> Iterator[Figure]:
    # One pool that takes from one queue only: the app's other tasks stay where they are.
    yield from wake_ups(folder, "idle pool", ["--queues", "default"], ["stamp"])


def wake_up_in_turns(folder: Path) -> Iterator[Figure]:
    options = ["--queues", "more,other,default"]
    yield from wake_ups(folder, "idle pool of three queues and a priority", options, ["stamp", "stamp_elsewhere"])


def wake_ups(folder: Path, name: str, options: list[str], tasks: list[str]) -> Iterator[Figure]:
    app = load(folder)
    with running(folder, *options, processes=2) as pool:
        wait_until_up(folder, 2)
        for number in range(WAKE_UPS):
            getattr(app, tasks[number % len(tasks)]).send(time.monotonic_ns())
            wait_for(lambda: lines(folder / "stamps") > number)  # noqa: B023 - called before the next turn
            time.sleep(0.01)  # the worker has gone back to sleep
        idle = idle_share(pool.pid)
    app.app.close()
    found = sorted(int(line) / 1e6 for line in (folder / "stamps").read_text().split())
    p50, p99 = rank(found, 50), rank(found, 99)
    shown = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"
    met = p50 <= 1 and p99 <= 5
    yield Figure(f"send to start of the task, {name}", shown, "p50 1 ms, p99 5 ms", met, {"p50_ms": p50, "p99_ms": p99})
    yield Figure(f"CPU of the {name}", f"{idle:.2%} of a core", "under 0.5 %", idle < 0.005, {"share": idle})


def idle_share(pid: int) -> float:
    """Processor time of the supervisor and all its children over a while in which nothing happens."""
    before, started = processor_seconds(pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return (processor_seconds(pid) - before) / (time.monotonic() - started)


def processor_seconds(pid: int) -> float:
    root = psutil.Process(pid)
    return sum(machine.scheduled_seconds(process.pid) for process in (root, *root.children(recursive=True)))


# -- rescue


def rescue(folder: Path) -> Iterator[Figure]:
    app = load(folder)
    found = []
    # More workers than kills, because one that is killed again and again comes back after growing pauses.
    with running(folder, "--queues", "default", processes=RESCUES + 4):
        wait_until_up(folder, RESCUES + 4)
        for number in range(RESCUES):
            app.hold.send(number)
            wait_for(lambda: len(holds(folder, number)) == 1)  # noqa: B023 - called before the next turn
            (folder / f"rescued-{number}").touch()
            [(victim, _)] = holds(folder, number)
            killed = time.monotonic_ns()
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: len(holds(folder, number)) == 2)  # noqa: B023 - as above
            found.append((holds(folder, number)[1][1] - killed) / 1e6)
    app.app.close()
    found.sort()
    p50, p99 = rank(found, 50), rank(found, 99)
    shown = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, of {RESCUES}"
    yield Figure("kill -9 to the task in another worker", shown, "250 ms", p99 <= 250, {"p50_ms": p50, "p99_ms": p99})


def holds(folder: Path, number: int) -> list[tuple[int, int]]:
    """(process, start in nanoseconds) of each time that task `number` began."""
    path = folder / "holds"
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(int(pid), int(at)) for which, pid, at in rows if int(which) == number]


# -- what waits behind a long job


def take_over(folder: Path) -> Iterator[Figure]:
    """Two workers; one has claimed 200 jobs that look short, and the first takes 10 s. When are the others done?"""
    app = load(folder)
    found: list[float] = []
    with running(folder, "--queues", "default", processes=2):
        wait_until_up(folder, 2)
        app.suddenly.send_many((False,) for _ in range(2000))  # both learn that these jobs are short
        wait_for(lambda: lines(folder / "done") == 2000)
        time.sleep(1)
        started = time.monotonic()
        app.suddenly.send_many((number == 0,) for number in range(200))
        wait_for(lambda: lines(folder / "done") == 2199)
        found.append(time.monotonic() - started)
    app.app.close()
    seconds = found[0]
    yield Figure("199 jobs behind one that takes 10 s", f"{seconds:.2f} s", "1 s", seconds <= 1, {"seconds": seconds})


# -- throughput


def tasks_per_second(folder: Path) -> Iterator[Figure]:
    app = load(folder)
    started = time.perf_counter()
    app.nothing.send_many(() for _ in range(TASKS))
    sent = time.perf_counter() - started
    app.app.close()
    with running(folder, "--until-empty", processes=2) as pool:
        pool.wait(timeout=300)
    whole = time.perf_counter() - started
    rate = TASKS / whole
    shown = f"{rate:,.0f} a second (sent in {sent:.2f} s, all done after {whole:.2f} s, start of the pool included)"
    yield Figure("no-op tasks, 2 processes", shown, "50,000 a second", rate >= 50_000, {"per_second": rate})


def backlog(folder: Path) -> Iterator[Figure]:
    """The peak memory of a process that drains 1 GB, and of the one that wrote it."""
    url = str(folder / "queue")
    writer = peak_of(f"q.put_many({{'text': {BACKLOG_ROW!r}}} for _ in range({BACKLOG_ROWS}))", url)
    reader = peak_of("while items := q.claim(256): q.ack(items)", url)
    worst = max(writer, reader) / 1e6
    shown = f"{reader / 1e6:.0f} MB to drain, {writer / 1e6:.0f} MB to fill"
    yield Figure("resident memory with 1 GB of backlog", shown, "under 60 MB", worst < 60, {"megabytes": worst})


def peak_of(work: str, url: str) -> int:
    """Peak resident bytes of a Python process that does `work` with the queue `q`."""
    script = (
        f"import resource\nfrom pistributer import open_queue\nq = open_queue({url!r})\n{work}\nq.close()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


# -- running an app


def load(folder: Path):  # type: ignore[no-untyped-def]  # a module
    """The app's module, imported here to send tasks."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(f"app_{folder.name.replace('-', '_')}", folder / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def running(folder: Path, *options: str, processes: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-m",
        "pistributer",
        "run",
        str(folder / "app.py"),
        "--processes",
        str(processes),
        *options,
    ]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, env=environment(), stderr=log) as pool:
        try:
            yield pool
        finally:
            if pool.poll() is None:
                pool.send_signal(signal.SIGTERM)
                pool.wait(timeout=60)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(machine.ROOT)}


def wait_until_up(folder: Path, workers: int) -> None:
    from pistributer.workers.inspection.status import read_status

    def is_up() -> bool:
        return sum(worker.alive for worker in read_status(folder / "jobs").workers) == workers

    wait_for(lambda: (folder / "jobs" / "queues").exists() and is_up())


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the pool did not answer; see its log")
        time.sleep(0.0005)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def rank(ordered: list[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pistributer-pool-") as folder:
        print(machine.facts_line(machine.facts(Path(folder))))
        for figure in measure(Path(folder)):
            print(f"{figure.name}: {figure.shown} (target {figure.target}: {'met' if figure.met else 'MISSED'})")


if __name__ == "__main__":
    main()
