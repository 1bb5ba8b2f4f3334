"""Attempts that were counted and are not to be: `run/excused` in the app's folder (job_notes.py).

An attempt is counted on disk before it begins. When the supervisor kills a process because one of its jobs has reached its
hard time limit, the others that ran beside it are not to blame: the supervisor notes each here, a line per attempt, and
whoever claims it next takes so many off its count. Noted before the kill, because after it another worker may be faster.
"""

from __future__ import annotations

from .job_notes import JobNotes


def excused(folder: str) -> JobNotes:
    """The notes, of which `read()[job]` says how many attempts of a job do not count."""
    return JobNotes(folder, "excused")
