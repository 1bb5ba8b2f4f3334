"""rq. Jobs are plain functions; a job whose worker died is retried only if it has a Retry."""

import jobs
import redis
import rq

queue = rq.Queue("jobs", connection=redis.Redis(unix_socket_path=str(jobs.REDIS_SOCKET)))
TTL = 500 if jobs.RESULTS else 0


def send(task, number):
    retry = rq.Retry(max=3) if task == "hold" else None
    queue.enqueue(f"jobs.{task}", number, result_ttl=TTL, retry=retry)


def send_many(task, numbers):
    queue.enqueue_many(rq.Queue.prepare_data(f"jobs.{task}", (number,), result_ttl=TTL) for number in numbers)


if __name__ == "__main__":
    jobs.main(send, send_many)
