"""The chaos run: a whole app at work while its processes are killed at random, and an account of every row.

run                             `run_chaos`: the storm and what follows
app                             the app that it strikes, with a ledger beside its queues
oracle                          the judge of that ledger
"""
