"""Record files: binary logs that are fast, checked and recoverable. Knows storage; knows nothing of queues and workers.

    writing, reading, index      one file: RecordWriter, RecordReader, RecordIndex
    sharded_writing, …_reading   several files in threads; `sharding` names them, `crew` writes them
    checking, converting         verify and repair; from JSON lines and back
    layout, chunks, compression  the bytes, as functions without effects
    walking, healing, damage     from chunk to chunk past damage; where to append; what is said about it
    hot, plain, c/               the hot loops: which ones serve, in Python, in C

What the bytes on disk mean is in docs/records.md.
"""

from __future__ import annotations

from .checking import Report, repair, verify
from .damage import CorruptionStrategy, Damage
from .hot import Bytes
from .index import RecordIndex
from .reading import RecordPosition, RecordReader
from .sharded_reading import MultiThreadedReader
from .sharded_writing import MultiThreadedWriter
from .sharding import Globable, expand_dirs
from .writing import RecordWriter

__all__ = [
    "Bytes", "CorruptionStrategy", "Damage", "Globable", "MultiThreadedReader", "MultiThreadedWriter", "RecordIndex",
    "RecordPosition", "RecordReader", "RecordWriter", "Report", "expand_dirs", "repair", "verify",
]  # fmt: skip
