"""Tasks and the processes that run them. Knows queues; knows nothing of the command line.

    app, tasks, jobs, messages     what users write: an app, its tasks, handles on calls
    run, loading, home             running an app: finding its code, its folder, its processes
    worker, consumers, producers   what those processes do; `loop` is what they share
    checkpoints, schedules, scheduler   producers that go on where they were, calls at set times
    log_jobs, metrics              hooks that log and count
    options, terms                 what a sender may say of one call; what then holds for its job
    hooks, time_limits, calling, results, ready   around each run of a job
    longest                        how long results have to stay
    result_dict                    results in a persistent dictionary instead of logs
    retries, cancelling            what becomes of a job that failed or was called off
    gate, gate_*                   keys, uniqueness, ids and rates: who may go on, and what follows from an end
    composition, skipped           jobs made of jobs; the handle on one that was not sent
    sending, dead, finding, copying, moments   for those who have the folder but not the code
    supervisor, decisions          the rim that makes processes, and the pure function that decides
    child, roles                   a process as the supervisor, and as its own code, sees it
    status, watching, board, pages, gauge    what a run tells about itself
    plan, crew, pools, lanes       what a run is made of, and which worker takes from where
    runs, turns                    several supervisors beside each other
    control, control_server, run_control, sockets   controlling a run from elsewhere
    run_state, paused              what operators asked for, and how workers see it
    autoscaling, recycling, reloading, preloading, notify   the life of a pool
    history, segment_log, life, tail   what happened to each job; the log that results and histories are kept in
    deaths, oom, last_words        how a worker died
    progress, rerun                the run that a task is part of; running a recorded job again
    stand_in                       the seam at which a test puts something else in the place of folders and processes
    stress, stress_*, ledger       the stress run and its independent judge

Public names are handed on by `pistributer` itself; nothing is imported here.
"""
