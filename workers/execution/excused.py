"""Jobs that died beside others: who is not to blame, `run/excused` in the app's folder, and who may be, `run/suspects`.

An attempt is counted on disk before it begins. When the supervisor kills a process because one of its jobs has reached its
hard time limit, the others that ran beside it are not to blame: the supervisor notes each here, a line per attempt, and
whoever claims it next takes so many off its count. Noted before the kill, because after it another worker may be faster.

Where a process with several jobs died by itself, any of them may have killed it. The next time each runs alone: else the one
would use up the attempts of the others, and they would be buried together.
"""

from __future__ import annotations

from ..job_notes import JobNotes


def excused(folder: str) -> JobNotes:
    """The notes, of which `read()[job]` says how many attempts of a job do not count."""
    return JobNotes(folder, "excused")


def suspects(folder: str) -> JobNotes:
    """The notes about the jobs that ran at once in a process that died."""
    return JobNotes(folder, "suspects")
