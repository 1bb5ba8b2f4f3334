"""Durable queues and the classic channels.

    contract      what every queue promises; Item, Row, Stats
    opening       `open_queue`: from a URL to a queue
    rows          values to rows and back
"""
