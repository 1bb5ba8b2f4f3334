"""Processes: how they are started, watched, replaced, steered and ended. Nothing here knows apps, tasks or jobs.

supervisor, processes           the rim that makes and reaps processes, reads clocks, sends signals
decisions, events, autoscaling, recycling   what is to be done: pure functions, and what they are told
roles, child, preloading        what a process is to run, as the supervisor and as its own code see it
crew, run_state, paused         the processes that operators wish for
runs                            several supervisors beside each other: a folder for each
board, pages, last_words, oom   what processes say of themselves in shared memory, and how one died
control_server, run_control, sockets, notify   asking a supervisor, and what it tells systemd
"""
