"""Ours against huey, rq, celery and dramatiq, on this machine, in one go: the same jobs, the same measurements.

    python benchmarks/peers.py --save                       everything: about half an hour
    python benchmarks/peers.py --only nothing --save        one measurement; the others in results/peers.json stay
    python benchmarks/peers.py --peers ours,rq --only idle
    python benchmarks/peers.py --quick --json               a small one without Redis, to see that it works

Needs `redis-server` on the PATH (Debian: `apt-get install redis-server`). It is started for each measurement on a Unix
socket in a temporary folder, without persistence, and ended after it. The peers are installed from the package index, in
the versions below, into an environment of their own (`--environment` keeps it for the next time).

The jobs are in peer_apps/jobs.py and count themselves. Each peer runs with two worker processes, in the fastest setting of
its documentation that we found (`Peer.note`), and otherwise as it comes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
import psutil
from peer_apps.jobs import read_tallies

APPS = Path(__file__).resolve().parent / "peer_apps"
PACKAGES = {"huey": "3.5.4", "rq": "3.0.0", "celery[redis]": "5.7.0", "dramatiq": "2.2.1", "redis": "8.1.0"}
WORKERS = 2

#: Seconds after which a measurement is given up.
LIMIT = 150.0
#: Seconds that the rerun of a job is waited for after its worker was killed.
RESCUE_LIMIT = 20.0
#: Seconds over which an idle pool is watched, once it has been idle for SETTLED.
IDLE, SETTLED = 10.0, 3.0


@dataclass(frozen=True)
class Peer:
    """One library with one storage."""

    name: str
    package: str | None
    app: str
    #: Where jobs wait, and what that survives.
    durability: str
    #: How it is run, if that is not as it comes.
    note: str
    #: The arguments of its worker command; {bin} is its environment's folder of programs, {socket} the Redis.
    command: tuple[str, ...]
    store: str = "redis"
    #: Jobs per measurement: as many as take it a second or a few.
    jobs: dict[str, int] = field(default_factory=dict)
    #: Whether it can send many at once.
    bulk: bool = False


IN_REDIS = "Redis without persistence: lost with Redis"
RQ_COMMAND = (
    "{bin}/rq",
    "worker-pool",
    "jobs",
    "-n",
    "2",
    "-u",
    "unix://{socket}",
    "-w",
    "rq.worker.SimpleWorker",
    "-q",
)
PEERS = [
    Peer(
        "ours", None, "app_ours", "page cache: survives kill -9; a power cut may cost the last seconds",
        "run --processes 2",
        ("{bin}/python", "-m", "pistributer", "run", "app_ours.py", "--processes", "2"),
        "files", {"nothing": 200_000, "short": 6_000}, True,
    ),
    Peer(
        "huey sqlite", "huey", "app_huey", "as ours (fsync=False is its default)",
        "-k process -w 2",
        ("{bin}/huey_consumer", "app_huey.huey", "-k", "process", "-w", "2", "-q"),
        "sqlite", {"nothing": 4_000, "short": 3_000},
    ),
    Peer(
        "huey file", "huey", "app_huey", "as ours",
        "-k process -w 2",
        ("{bin}/huey_consumer", "app_huey.huey", "-k", "process", "-w", "2", "-q"),
        "file", {"nothing": 1_500, "short": 1_500},
    ),
    Peer(
        "huey Redis", "huey", "app_huey", IN_REDIS,
        "-k process -w 2",
        ("{bin}/huey_consumer", "app_huey.huey", "-k", "process", "-w", "2", "-q"),
        "redis", {"nothing": 10_000, "short": 4_000},
    ),
    Peer(
        "rq", "rq", "app_rq", IN_REDIS,
        "worker-pool -n 2 with SimpleWorker, which does not fork per job",
        RQ_COMMAND, "redis", {"nothing": 3_000, "short": 2_000}, True,
    ),
    Peer(
        "celery", "celery", "app_celery", IN_REDIS,
        "prefork, 2 processes, prefetch 64, without gossip, mingle and heartbeat",
        ("{bin}/celery", "-A", "app_celery", "-q", "worker", "-c", "2", "-l", "ERROR",
         "--without-gossip", "--without-mingle", "--without-heartbeat"),
        "redis", {"nothing": 8_000, "short": 4_000},
    ),
    Peer(
        "dramatiq", "dramatiq", "app_dramatiq", IN_REDIS,
        "-p 2 -t 8",
        ("{bin}/dramatiq", "app_dramatiq", "-p", "2", "-t", "8"),
        "redis", {"nothing": 10_000, "short": 4_000},
    ),
]  # fmt: skip


# -- one measurement: a folder, perhaps a Redis, perhaps workers


class Bench:
    """A place to measure one peer in: its folder, its Redis, its environment variables."""

    def __init__(self, peer: Peer, programs: Path, results: bool) -> None:
        self.peer, self.results, self._programs = peer, results, programs
        self._redis: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Bench:
        # Short, because a Unix socket's path has about a hundred bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="peers-"))
        self.socket = self.folder / "redis.sock"
        if self.peer.store == "redis":
            self._redis = start_redis(self.folder, self.socket)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._redis is not None:
            self._redis.kill()
            self._redis.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        root = [str(machine.ROOT)] if self.peer.package is None else []
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(APPS), *root]),
            "PEERS_FOLDER": str(self.folder),
            "PEERS_RESULTS": str(int(self.results)),
            "PEERS_STORE": self.peer.store,
            "PYTHONWARNINGS": "ignore",
        }

    def send(self, *what: str) -> float:
        """Run the app's file as a sender; what it printed, the seconds that it took."""
        command = [str(self._programs / "python"), f"{self.peer.app}.py", *what]
        done = subprocess.run(
            command, env=self.environment, cwd=APPS, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT
        )
        return float(done.stdout or 0)

    @contextlib.contextmanager
    def workers(self) -> Iterator[int]:
        """The peer's worker processes, in a session of their own; the process id of the first."""
        command = [part.format(bin=self._programs, socket=self.socket) for part in self.peer.command]
        log = self.folder / "log"
        with open(log, "wb") as out:
            pool = subprocess.Popen(
                command, env=self.environment, cwd=APPS, stdout=out, stderr=out, start_new_session=True
            )
        try:
            yield pool.pid
            if pool.poll() is not None:
                raise SystemExit(f"{self.peer.name} ended by itself:\n{log.read_text()[-2000:]}")
        except TimeoutError as error:
            raise SystemExit(f"{self.peer.name}: {error}\n{log.read_text()[-2000:]}") from None
        finally:
            end(pool)

    def processes(self, pool: int) -> list[int]:
        """All processes of the peer, and the Redis."""
        found = [pool, *(child.pid for child in psutil.Process(pool).children(recursive=True))]
        return [*found, *([self._redis.pid] if self._redis is not None else [])]


def start_redis(folder: Path, socket: Path) -> subprocess.Popen[bytes]:
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    wait_for(socket.exists, "Redis")
    return server


def end(pool: subprocess.Popen[bytes]) -> None:
    """TERM, and then the whole session, because a peer whose parent was lost leaves its children behind."""
    if pool.poll() is None:
        pool.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            pool.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pool.pid, signal.SIGKILL)
    pool.wait()


def wait_for(condition: Callable[[], Any], what: str, seconds: float = LIMIT, pause: float = 0.005) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)
    return found


# -- the measurements; each gives figures, of which the median run is kept


def throughput(task: str) -> Callable[[Peer, Path, bool, float], dict[str, float]]:
    def measure(peer: Peer, programs: Path, results: bool, share: float) -> dict[str, float]:
        """Jobs a second: enqueued with nobody working, then done with nobody enqueueing."""
        jobs = max(20, round(peer.jobs[task] * share))
        found = {}
        with Bench(peer, programs, results) as bench:
            one = min(jobs, 20_000)
            found["send"] = one / bench.send(task, str(one), "one")
        with Bench(peer, programs, results) as bench:
            sent = bench.send(task, str(jobs), "bulk" if peer.bulk else "one")
            if peer.bulk:
                found["send_many"] = jobs / sent
            with bench.workers():
                wait_for(lambda: read_tallies(bench.folder)[0] >= jobs, f"{jobs} jobs")
                done, seconds = read_tallies(bench.folder)
        return found | {"done": done / seconds, "whole": jobs / (sent + seconds), "extra": done - jobs}

    return measure


def latency(peer: Peer, programs: Path, results: bool, share: float) -> dict[str, float]:
    """Milliseconds from the send to the start of the job, in an idle pool."""
    with Bench(peer, programs, results) as bench, bench.workers():
        bench.send("stamps", "3")
        count = max(5, round(100 * share))
        bench.send("stamps", str(count))
        late = sorted(int(line) / 1e6 for line in (bench.folder / "stamps").read_text().split()[3:])
    return {"p50": statistics.median(late), "p99": late[int(len(late) * 0.99) - 1]}


def idle(peer: Peer, programs: Path, results: bool, share: float) -> dict[str, float]:
    """The share of one processor that an idle pool takes, by the scheduler's clock: all its processes and its Redis."""
    with Bench(peer, programs, results) as bench, bench.workers() as pool:
        bench.send("stamps", "1")
        time.sleep(SETTLED * share)
        pids, started = bench.processes(pool), time.monotonic()
        before = sum(map(machine.scheduled_seconds, pids))
        time.sleep(IDLE * share)
        return {"share": (sum(map(machine.scheduled_seconds, pids)) - before) / (time.monotonic() - started)}


def rescue(peer: Peer, programs: Path, results: bool, share: float) -> dict[str, float]:
    """Seconds from `kill -9` of the process that runs a job to the next start of that job; nothing if it is too long."""
    with Bench(peer, programs, results) as bench:
        holds = bench.folder / "holds"

        def begun() -> list[list[str]]:
            return [line.split() for line in holds.read_text().splitlines()] if holds.exists() else []

        with contextlib.suppress(SystemExit), bench.workers():  # some peers give the whole pool up
            bench.send("hold", "1", "one")
            wait_for(begun, "the job's start")
            killed = time.monotonic_ns()
            os.kill(int(begun()[0][0]), signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                wait_for(lambda: len(begun()) > 1, "the rerun", RESCUE_LIMIT, pause=0.001)
        again = begun()[1:]
        return {"seconds": (int(again[0][1]) - killed) / 1e9} if again else {}


@dataclass(frozen=True)
class Measurement:
    title: str
    measure: Callable[[Peer, Path, bool, float], dict[str, float]]
    #: Whether it is done with and without results.
    both: bool = False


MEASUREMENTS = {
    "nothing": Measurement("No-op jobs", throughput("nothing"), both=True),
    "short": Measurement("Jobs of 1 ms of processor time", throughput("short"), both=True),
    "latency": Measurement("Idle pool: send to start", latency),
    "idle": Measurement("Idle pool: processor time", idle),
    "rescue": Measurement("kill -9 of the worker to the rerun of its job", rescue),
}


def measure(name: str, peers: list[Peer], programs: Callable[[Peer], Path], repeats: int, share: float) -> Any:
    """{"without results" or "with results": {peer: figures}}; the peers in turn, `repeats` times, so that a noisy moment
    hits all of them."""
    one = MEASUREMENTS[name]
    found: dict[str, Any] = {}
    for results in (False, True) if one.both else (False,):
        runs: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in peers}
        for _ in range(repeats):
            for peer in peers:
                if is_hopeless(runs[peer.name]):
                    continue
                say(f"{one.title}, {'with' if results else 'without'} results: {peer.name}")
                runs[peer.name].append(one.measure(peer, programs(peer), results, share))
        found["with results" if results else "without results"] = {
            peer: {key: statistics.median(run[key] for run in done) for key in done[-1]} for peer, done in runs.items()
        }
    return found


def is_hopeless(runs: list[dict[str, float]]) -> bool:
    """It was waited for in vain once, and will be again."""
    return {} in runs


# -- the report


def page(document: dict[str, Any]) -> str:
    lines = [
        "# Ours against huey, rq, celery and dramatiq",
        "",
        f"Two worker processes each. Versions: {document['versions']}.",
        "",
        machine.markdown_table(
            ["peer", "how it is run", "where jobs wait"],
            [[peer.name, peer.note, peer.durability] for peer in PEERS if peer.name in document["peers"]],
        ),
        "",
    ]
    for name, one in MEASUREMENTS.items():
        if name not in document["measurements"]:
            continue
        part = document["measurements"][name]
        lines += [f"## {one.title}", "", f"Machine: {machine.facts_line(part['machine'])}.", ""]
        for results, figures in part["found"].items():
            if one.both:
                lines += [f"{results.capitalize()}:", ""]
            lines += [TABLES[name](figures), ""]
    return "\n".join([*lines, "## Targets", "", *verdicts(document["measurements"])]).rstrip()


def throughput_table(figures: dict[str, dict[str, float]]) -> str:
    ours = figures.get("ours", {}).get("whole", 0.0)
    rows = []
    for peer, found in figures.items():
        cells = [f"{found[key]:,.0f}" if key in found else "" for key in ("send", "send_many", "done", "whole")]
        rows.append([peer, *cells, "" if peer == "ours" else f"{ours / found['whole']:.1f}x"])
    return machine.markdown_table(["jobs a second", "sent", "sent, in bulk", "done", "sent and done", "ours is"], rows)


def latency_table(figures: dict[str, dict[str, float]]) -> str:
    rows = [[peer, f"{found['p50']:.2f} ms", f"{found['p99']:.2f} ms"] for peer, found in figures.items()]
    return machine.markdown_table(["", "p50", "p99"], rows)


def idle_table(figures: dict[str, dict[str, float]]) -> str:
    return machine.markdown_table(["", "of one core"], [[peer, f"{it['share']:.2%}"] for peer, it in figures.items()])


def rescue_table(figures: dict[str, dict[str, float]]) -> str:
    def shown(it: dict[str, float]) -> str:
        return f"{it['seconds'] * 1000:,.0f} ms" if it else f"not within {RESCUE_LIMIT:g} s"

    return machine.markdown_table(["", "after"], [[peer, shown(it)] for peer, it in figures.items()])


TABLES: dict[str, Callable[[dict[str, dict[str, float]]], str]] = {
    "nothing": throughput_table,
    "short": throughput_table,
    "latency": latency_table,
    "idle": idle_table,
    "rescue": rescue_table,
}


def verdicts(measured: dict[str, Any]) -> list[str]:
    """The targets of ours, and whether they were met."""
    lines = []

    def verdict(text: str, met: bool) -> None:
        lines.append(f"- {text}: {'met' if met else '**missed**'}")

    def ours(name: str) -> dict[str, float] | None:
        return measured[name]["found"]["without results"].get("ours") if name in measured else None

    if found := ours("nothing"):
        verdict(f"50,000 no-op jobs a second, sent and done: {found['whole']:,.0f}", found["whole"] >= 50_000)
        others = [it["whole"] for peer, it in measured["nothing"]["found"]["without results"].items() if peer != "ours"]
        if others:
            times = found["whole"] / max(others)
            verdict(f"10 times the fastest peer: {times:.1f} times", times >= 10)
    if found := ours("latency"):
        met = found["p50"] <= 1 and found["p99"] <= 5
        verdict(f"p50 1 ms, p99 5 ms: {found['p50']:.2f} ms, {found['p99']:.2f} ms", met)
    if found := ours("idle"):
        verdict(f"less than 0.5 % of a core when idle: {found['share']:.2%}", found["share"] < 0.005)
    if (found := ours("rescue")) is not None:
        seconds = found.get("seconds", RESCUE_LIMIT)
        verdict(f"rerun within 250 ms: {seconds * 1000:.0f} ms", seconds <= 0.25)
    return lines


# -- the command


def main() -> None:
    options = parse()
    chosen = choose(options)
    if options.save and options.peers:
        raise SystemExit("--save keeps what was measured of all peers in one run: leave --peers out")
    if any(peer.store == "redis" for peer in chosen) and shutil.which("redis-server") is None:
        raise SystemExit("redis-server is not on the PATH; on Debian: apt-get install redis-server")
    with contextlib.ExitStack() as stack:
        programs = programs_of(chosen, options, stack)
        share, repeats = (0.02, 1) if options.quick else (options.share, options.repeats)
        folder = Path(tempfile.gettempdir())
        measured = {
            name: {"machine": machine.facts(folder), "found": measure(name, chosen, programs, repeats, share)}
            for name in options.only
        }
    names = [peer.name for peer in chosen]
    document = {"versions": versions(), "peers": names, "measurements": measured}
    if options.save:
        document = merged(document)
    text = page(document)
    print(json.dumps(document) if options.json else text)
    if options.save:
        machine.save("peers", document, text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = ", ".join(peer.name for peer in PEERS)
    parser.add_argument("--only", type=comma, default=list(MEASUREMENTS), help=f"of {', '.join(MEASUREMENTS)}")
    parser.add_argument("--peers", type=comma, help=f"of {names}")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, of which the median counts (default: 3)")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the jobs and of the time per measurement (default: 1)"
    )
    parser.add_argument("--environment", type=Path, help="install the peers here, and keep it for the next time")
    parser.add_argument(
        "--quick", action="store_true", help="small, without Redis, peers only if they are installed here"
    )
    parser.add_argument("--save", action="store_true", help="put the results into those in benchmarks/results/")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser.parse_args()


def comma(text: str) -> list[str]:
    return text.split(",")


def choose(options: argparse.Namespace) -> list[Peer]:
    import importlib.util

    chosen = [peer for peer in PEERS if options.peers is None or peer.name in options.peers]
    if options.quick:
        here = {None, *(name for name in PACKAGES if importlib.util.find_spec(name.partition("[")[0]))}
        chosen = [peer for peer in chosen if peer.store != "redis" and peer.package in here]
    return chosen


def programs_of(chosen: list[Peer], options: argparse.Namespace, stack: contextlib.ExitStack) -> Callable[[Peer], Path]:
    """Where the programs of each peer's environment are."""
    # Not resolved: `python` of a virtual environment is a link to one that is outside of it.
    here = Path(sys.executable).parent
    if options.quick or all(peer.package is None for peer in chosen):
        return lambda peer: here
    place = options.environment or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-env-")))
    if not (place / "bin" / "celery").exists():
        say("installing the peers")
        venv.create(place, with_pip=True)
        wanted = [f"{name}=={version}" for name, version in PACKAGES.items()]
        subprocess.run([place / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted], check=True)
    return lambda peer: here if peer.package is None else place / "bin"


def versions() -> str:
    server = shutil.which("redis-server")
    shown = [f"{name} {version}" for name, version in PACKAGES.items()]
    if server:
        found = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout.split()
        shown.append(
            next((part.replace("v=", "redis-server ") for part in found if part.startswith("v=")), "redis-server")
        )
    return ", ".join(shown)


def merged(document: dict[str, Any]) -> dict[str, Any]:
    """With the measurements of earlier runs that were not made this time."""
    before = {"measurements": {}, "peers": []} | machine.saved("peers")
    names = [peer.name for peer in PEERS if peer.name in document["peers"] or peer.name in before["peers"]]
    return document | {"peers": names, "measurements": before["measurements"] | document["measurements"]}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
