"""Tasks and the processes that run them. Knows queues; knows nothing of the command line.

Here are the things that users have words for:

    app, declarations              an app, and what its decorators make of functions
    tasks, jobs, messages          tasks, handles on calls, and what a call looks like on its way
    sending, composition, skipped  sending without the code, jobs made of jobs, the handle on a job that was not sent
    options, terms                 what a sender may say of one call, and what then holds for its job
    schedules, checkpoints         calls at set times; producers that go on where they were
    retries, cancelling, job_notes   what becomes of a job that failed or was called off
    hooks, log_jobs, progress      around each run of a job: what users add, what is logged, how far it says that it is
    results, result_dict, longest   results in logs, or in a persistent dictionary; how long they have to stay
    history, segment_log           what happened to each job, and the logs that it and results are kept in
    home, loading                  where an app's things lie, and where its code is
    pools, plan, run               which processes take from where, what a run is made of, and running it
    control, reloading             controlling a run from elsewhere; beginning anew when the code changes
    stand_in, checks               the seam for tests; checks of options

and these are the rooms behind them:

    tickets       who may go into a queue, and begin: keys, uniqueness, ids, rates
    supervision   processes: starting, watching, replacing and steering them, and the pages of memory that they share
    execution     what those processes do with an app's queues
    inspection    looking at an app, and tidying it, from outside
    stress        proof that queues lose nothing
    chaos         proof that apps lose nothing when their processes are killed

From top to bottom. A module may know its own line and lower ones, never a higher one; `tests/test_layers.py` sees to it:

    run, plan, stress, chaos    run and plan put all the rest together; no room knows them
    inspection
    execution
    the other files here, with tickets: they send through tickets, and tickets hold their messages
    supervision                 knows processes, and nothing of apps, tasks and jobs
    checks

Public names are handed on by `pistributer` itself; nothing is imported here or in a room's `__init__`.
"""
