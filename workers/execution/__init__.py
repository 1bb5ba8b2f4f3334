"""What an app's processes do: take rows, run jobs, settle them.

worker, consumers, producers, scheduler   the four kinds of processes
loop, lanes                     claim ahead, handle, settle together; which queue is next
calling, attempts, concurrency, time_limits   running functions, several at once, not for ever
ready                           the app's tasks with all that does not change from job to job
turns                           which of several supervisors runs a producer
overdue, orphans                jobs that have reached their hard time limit, of this supervisor and of dead ones
excused, deaths                 the jobs of a worker that died: who is to blame, and what is noted of it
"""
