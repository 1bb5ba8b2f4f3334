"""dramatiq on Redis."""

import dramatiq
import jobs
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends.redis import RedisBackend

URL = f"unix://{jobs.REDIS_SOCKET}"
broker = RedisBroker(url=URL)
if jobs.RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=URL), store_results=True))
dramatiq.set_broker(broker)
TASKS = {name: dramatiq.actor(getattr(jobs, name)) for name in ("nothing", "short", "stamp", "hold")}


def send(task, number):
    TASKS[task].send(number)


if __name__ == "__main__":
    jobs.main(send, None)
