"""celery on Redis. `hold` is acknowledged late and given back when its worker is lost, as its docs advise for such jobs."""

import celery
import jobs

URL = f"redis+socket://{jobs.REDIS_SOCKET}"
app = celery.Celery("app_celery", broker=URL, backend=URL if jobs.RESULTS else None)
app.conf.update(
    task_ignore_result=not jobs.RESULTS,
    worker_prefetch_multiplier=64,  # its docs, "Optimizing", for many short jobs; 4 is the default
    broker_connection_retry_on_startup=True,
)
TASKS = {name: app.task(name=name)(getattr(jobs, name)) for name in ("nothing", "short", "stamp")}
TASKS["hold"] = app.task(name="hold", acks_late=True, reject_on_worker_lost=True)(jobs.hold)


def send(task, number):
    TASKS[task].delay(number)


if __name__ == "__main__":
    jobs.main(send, None)
