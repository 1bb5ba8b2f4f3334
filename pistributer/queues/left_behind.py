"""What dead consumers left behind: rows in journals whose kernel lock is free, and claims that were cut short.

A consumer that needs rows takes them from a dead owner's journal D into its own, J, with D's lock held:

    1  D gets a line "moving … to J"        killed after: J did not record the move, so the rows stay in D
    2  the rows are recorded in J           killed after: J did, so they are done in D
    3  D gets a line "done"

Only as many rows as are wanted are moved, so that one slow consumer does not sit on all that a dead one left.

`resolve` finishes what the owner of a journal was in the middle of when it died: a claim from a shard, from the delayed rows,
or such a move, as source or as target. It is called with that journal's lock held, before anything is read from the
journal or written to it, and may itself be killed anywhere. Whoever holds one journal's lock waits for another's only if
that one is named as the source of a move to his; otherwise he tries and passes on, so nobody waits in a circle.
"""

from __future__ import annotations

import os

from .delayed import DelayedRows
from .envelope import Envelope, wrap
from .folder import Folder
from .items import FileItem, RowReader
from .journal import MOVED_AT_ONCE, Content, Held, Journal, Move, pending_move, try_journal
from .shard import Cursor, Position, read_cursor, row_id


class LeftBehind:
    """Access to dead owners' journals for one queue object."""

    def __init__(self, folder: Folder, delayed: DelayedRows, rows: RowReader, *, durable: bool) -> None:
        self._folder = folder
        self._delayed = delayed
        self._rows = rows
        self._durable = durable
        #: Journals that may belong to dead owners and hold rows.
        self.candidates: list[int] = []

    def look(self, own: int | None) -> None:
        """Find candidates. A living owner's journal is one too; `claim` finds its lock held."""
        self.candidates = [
            number
            for number in self._folder.journal_numbers()
            if number != own and self._folder.journal_has_rows(number)
        ]

    def take_journal(self) -> Journal:
        """A journal for a new consumer: the first that is empty and nobody owns, or a new one."""
        numbers = self._folder.journal_numbers()
        for number in [*numbers, *range(numbers[-1] + 1 if numbers else 1, 1 << 16)]:
            if self._folder.journal_has_rows(number) or (opened := try_journal(self._folder, number)) is None:
                continue
            journal, content = opened
            if self.resolve(journal, content, None) and not journal.held:
                return journal
            journal.release()
        raise AssertionError("65,536 consumers of one queue")

    # -- taking rows

    def claim(self, own: Journal, n: int, *, start: bool) -> list[FileItem]:
        """Move up to `n` rows of dead owners to `own`."""
        items: list[FileItem] = []
        waiting, self.candidates = self.candidates, []
        for number in waiting:
            if len(items) >= n:
                self.candidates.append(number)
            elif (opened := try_journal(self._folder, number)) is not None:
                journal, content = opened
                try:
                    if self.resolve(journal, content, own):
                        items += self._claim_from(own, journal, min(n - len(items), MOVED_AT_ONCE), start)
                    if journal.held:
                        self.candidates.append(number)
                finally:
                    journal.release()
        return items

    def _claim_from(self, own: Journal, journal: Journal, n: int, start: bool) -> list[FileItem]:
        tokens = sorted(journal.held)[:n]
        items = self._move(own, journal, tokens, start) if tokens else []
        journal.tidy(idle=True, durable=False)
        return items

    def _move(self, own: Journal, journal: Journal, tokens: list[int], start: bool) -> list[FileItem]:
        source = f"journal-{journal.number:04d}"
        batch = self._rows.batch([self._wrapped(journal.held[token]) for token in tokens], source, tokens[0])
        move = Move(os.urandom(8).hex(), own.number, tokens)
        journal.record_move(move)
        try:
            first = own.record_claim(
                batch.rows,
                source=source,
                row=tokens[0],
                skip=batch.skip,
                start=start,
                sync=self._durable,
                move=move.name,
            )
        except BaseException:
            journal.record("stay", tokens)
            raise
        self._done(journal, tokens)
        return batch.hand_out(own, first, int(start))

    def _done(self, journal: Journal, tokens: list[int]) -> None:
        journal.record("done", tokens)
        for token in tokens:
            journal.held.pop(token, None)

    def _wrapped(self, held: Held) -> bytes:
        """The row with its id and all attempts in one line, so that nothing of them hangs on where it was."""
        value, envelope = self._rows.parse(held.line)
        found = envelope or Envelope(row_id(held.source, held.row), 0, held.line, value)
        found.attempt += held.attempts
        return wrap(found, self._folder.codec)[:-1]

    # -- finishing what a dead owner began

    def resolve_number(self, number: int, own: Journal) -> None:
        """Finish what the owner of journal `number` began, if it is dead."""
        if (opened := try_journal(self._folder, number)) is not None:
            journal, content = opened
            try:
                self.resolve(journal, content, own)
            finally:
                journal.release()

    def resolve(self, journal: Journal, content: Content, own: Journal | None) -> bool:
        """False if a move out of `journal` can not be judged yet, because somebody is busy with its target."""
        for number in self._folder.shard_numbers():
            position = read_cursor(self._folder, number)
            if position is not None and position.claimant == journal.number:
                self._resolve_shard(journal, content, number)
        if self._delayed.exist():
            with self._delayed.lock:
                self._delayed.resolve(journal.number, content.delayed_ids)
        self._resolve_moves_to(journal)
        return content.pending is None or self._resolve_move(journal, content.pending, own)

    def _resolve_shard(self, journal: Journal, content: Content, number: int) -> None:
        cursor = Cursor(self._folder.cursor(number))
        with cursor.lock:
            position = cursor.read()
            if position is not None and position.claimant == journal.number:
                claim = content.last_claim
                if claim and (claim.source, claim.row) == (f"{number:04d}", position.row):
                    journal.undo(claim)
                cursor.write(Position(position.segment, position.offset, position.row))
        cursor.lock.close()

    def _resolve_moves_to(self, journal: Journal) -> None:
        """Moves to `journal` in the middle of which its owner died: their sources are dead owners' journals."""
        for number in self._folder.journal_numbers():
            if number != journal.number:
                move = pending_move(self._folder.journal(number))
                if move is not None and move.to == journal.number:
                    self._resolve_source(number, journal)

    def _resolve_source(self, number: int, target: Journal) -> None:
        opened = try_journal(self._folder, number, wait=True)
        assert opened is not None
        source, content = opened
        try:
            if content.pending is not None and content.pending.to == target.number:
                self._judge(source, content.pending, recorded=content.pending.name in target.moves)
        finally:
            source.release()

    def _resolve_move(self, journal: Journal, move: Move, own: Journal | None) -> bool:
        if own is not None and move.to == own.number:
            self._judge(journal, move, recorded=move.name in own.moves)
            return True
        opened = try_journal(self._folder, move.to)
        if opened is None:
            return False
        target, _ = opened
        try:
            self._judge(journal, move, recorded=move.name in target.moves)
        finally:
            target.release()
        return True

    def _judge(self, journal: Journal, move: Move, *, recorded: bool) -> None:
        if recorded:
            self._done(journal, move.tokens)
        else:
            journal.record("stay", move.tokens)
