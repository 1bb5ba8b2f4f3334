"""Ours. Durability sync="none": a killed process loses nothing, a power cut may cost the last seconds."""

import jobs

from pistributer import App

app = App(jobs.FOLDER / "jobs")
TASKS = {name: app.task(results=jobs.RESULTS)(getattr(jobs, name)) for name in ("nothing", "short", "stamp")}
TASKS["hold"] = app.task(results=jobs.RESULTS, crash_retries=5)(jobs.hold)


def send(task, number):
    TASKS[task].send(number)


def send_many(task, numbers):
    TASKS[task].send_many((number,) for number in numbers)


if __name__ == "__main__":
    jobs.main(send, send_many)
