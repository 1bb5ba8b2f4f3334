"""huey, on sqlite, files or Redis (PEERS_STORE)."""

import os

import huey as library
import jobs

OPTIONS = {"results": jobs.RESULTS}
match os.environ["PEERS_STORE"]:
    case "sqlite":
        huey = library.SqliteHuey(filename=str(jobs.FOLDER / "huey.db"), **OPTIONS)
    case "file":
        huey = library.FileHuey(path=str(jobs.FOLDER / "huey"), **OPTIONS)
    case "redis":
        huey = library.RedisHuey(url=f"unix://{jobs.REDIS_SOCKET}", **OPTIONS)
TASKS = {name: huey.task()(getattr(jobs, name)) for name in ("nothing", "short", "stamp")}
TASKS["hold"] = huey.task(retries=3)(jobs.hold)


def send(task, number):
    TASKS[task](number)


if __name__ == "__main__":
    jobs.main(send, None)
