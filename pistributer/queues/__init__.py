"""Durable queues and the classic channels. Knows storage; knows nothing of tasks and workers.

    contract, opening            what every queue promises; from a URL to a queue
    rows, refusals               values to rows and back; what drivers refuse, worded once
    sharded                      the file drivers, jsonl and txt: a folder of shards
      folder, shard              where things lie; one shard, its writer and its cursor
      claiming, journal, items   taking rows, and keeping them in a file that outlives the consumer
      delayed, setaside, room    rows that are not due, damaged or dead; limits
      envelope, looking          rows with a history; counting and scanning
    sqlite, sqlite_*             the sqlite driver
    memory, memory_store         the driver without a disk
    classic, classic_*           the channels of release 0.2.0

What the bytes on disk mean is in docs/format.md.
"""
