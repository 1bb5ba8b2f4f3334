"""The stress run: many writers and readers on shared queues, kills on request, and a judge who does not ask the queue.

run                             `run_stress`: all of it
plan, rows                      the scenario as arithmetic; the rows, and how each API puts and takes them
children, crews                 what writers and readers do, and who runs them
ledger, oracle                  their evidence and its judge
report, plot                    what a run was, in lines, JSON and pictures
"""
