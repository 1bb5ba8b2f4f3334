"""How users write tasks, for type checkers: each line marked `# wrong` is an error to mypy and to pyright, no other is.

Not imported by anybody: test_typing.py has both look at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from pistributer import App, Call, Job, RateLimit, chain, chord, group
from pistributer.testing import eager, memory

app = App("jobs")


@app.task
def add(a: int, b: int = 0) -> int:
    return a + b


@app.task(retries=2, queue="texts")
def join(*words: str, glue: str = " ") -> str:
    return glue.join(words)


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


@app.task(soft_time_limit=3.0)
async def count(url: str, *, most: int = 10) -> dict[str, int]:
    return {url: most}


@app.task
def longest(words: list[str]) -> int:
    return max(map(len, words))


# -- calling here

total: int = add(1, 2)
add("1", 2)  # wrong
text: str = add(1, 2)  # wrong

# -- sending

job: Job[int] = add.send(1, b=2)
add.send("1")  # wrong
add.send(1, c=2)  # wrong
add.send()  # wrong
join.send("a", "b", glue="-")
join.send("a", 2)  # wrong
join.send("a", glue=0)  # wrong
count.send("https://example.org", most="ten")  # wrong

# -- sending with options

later: Job[int] = add.options(delay=timedelta(minutes=1)).send(1)
add.options(delay=60).send("1")  # wrong
add.options(retries=3).send(1, 2, 3)  # wrong
add.options(dely=60).send(1)  # wrong
add.options(delay="a minute").send(1)  # wrong
freed: Job[int] = add.options(soft_time_limit=None, hard_time_limit=5.0, results=False, rate_limit="5/s").send(1)
add.options(rate_limit=None, results=3600.0).send("1")  # wrong
add.options(hard_time_limit="5")  # wrong
add.options(results=None, rate_limit=5)  # wrong
several: list[Job[int]] = add.options(priority=7).send_many([(1,), (2, 3)])
several_texts: list[Job[str]] = add.options(priority=7).send_many([(1,)])  # wrong
planned: Call[int] = add.options(retries=2).call(1)
add.options(retries=2).call("1")  # wrong

# -- calls

call: Call[str] = join.call("a")
join.call(1)  # wrong
count.call(most=3)  # wrong


@app.producer
def numbers() -> Iterator[Call[int]]:
    yield add.call(1)
    yield add.call("1")  # wrong


# -- results

number: int = job.result(timeout=3)
words: str = job.result()  # wrong
data: bytes = fetch.send("https://example.org").result()
found: str = fetch.send("https://example.org").result()  # wrong
job.result().upper()  # wrong
job.result(timeout="3")  # wrong
other: Job[str] = add.send(1)  # wrong


async def main() -> int:
    value: int = await add.send(1)
    raw: str = await fetch.send("https://example.org")  # wrong
    counts: dict[str, int] = await count("https://example.org")
    both: dict[str, int] = count("https://example.org")  # wrong
    return value + len(raw) + len(counts) + len(both)


# -- keys, rates and compositions


@app.task(key="user", unique="join", unique_key=lambda user, n: n, rate_limit=RateLimit(10), tags=["a"], results=60.0)
def mark(user: str, n: int) -> bytes:
    return b""


@app.task(unique="once")  # wrong
def mark_once(user: str) -> None: ...


mark.options(key="a", idempotency_id="b", unique="replace", tags=["c"]).send("a", 1)
mark.options(key=1)  # wrong
doubled: Call[int] = chain(add.call(1), add.then(2), add.then(b=3))
digest: bytes = chain(join.call("a"), mark.then(2)).send().result()
chain(join.call("a"), mark.then("2"))  # wrong
picked: Call[bytes] = chain(join.call("a"), mark.options(results=60.0).then(2))
chain(join.call("a"), mark.options(results=60.0).then("2"))  # wrong
chain(join.call("a"), mark.then(2)).send().result().hex(1, 2, 3)  # wrong
sums: list[int] = group(add.call(n) for n in range(3)).send().result()
words_of: list[str] = group(add.call(n) for n in range(3)).send().result()  # wrong
size: int = chord([join.call("a")], longest.then()).send().result()
size_text: str = chord([join.call("a")], longest.then()).send().result()  # wrong
mapped: Iterator[int] = add.map(range(3), window=2)
mapped_text: Iterator[str] = add.map(range(3))  # wrong

# -- testing

with eager(app, propagate=True) as run:
    run.clock.advance(60)
    run.clock.advance("60")  # wrong
with memory(app) as box:
    first: str = box.calls(add)[0].task
    box.calls("add")  # wrong
