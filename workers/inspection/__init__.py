"""What people and commands look at an app with, and tidy it with: from outside, beside its workers, most of it without its code.

status, gauge, watching         what runs and what waits, now; how much of a run is left; what its processes use
metrics                         counts and durations by task
life, tail                      what happened to one job; what ends, as it ends
finding, dead, moments          rows by id, task, error or time; dead letters
whole_queue                     a queue with the lanes of its priorities
copying, archive, rerun         moving rows elsewhere and back; running a recorded job again
"""
