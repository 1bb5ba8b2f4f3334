"""Who may go into a queue now, and who may begin: keys, uniqueness, idempotency ids, rate limits, and what follows a job.

    store    the tickets themselves, one SQLite file per app, and why they hold whatever is killed: begin here
    wishes   what a sender asks for, and is answered
    gate     the sender's side: who goes in, who waits, who is not sent at all
    worker   the worker's side: may this row begin, and what follows from its end
    sweep    tickets whose sender or row is gone
    rates    rate limits, a hook that counts in the same file

A job that needs none of it has no ticket, and its app has no file of them.
"""
