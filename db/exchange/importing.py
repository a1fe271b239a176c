"""From a file of records into the store."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import StatementError

from db.errors import NoSuchRecord, NoUsableRecords
from db.exchange.formats import Format, guess, metaschedule_folder
from db.exchange.items import Item, Observe, Row, Skipped, Tally, reason, unobserved
from db.store import Store
from search.problem import Workload

_CHUNK = 500
"""Rows a transaction. On a disk that takes 10 ms to sync, 20 µs a row."""
_MODULES = 50
"""Workloads a transaction: they are large."""
_REFUSED = (StatementError, ValueError, OverflowError, NoSuchRecord)


@dataclass
class Imported(Tally):
    """How much of a file came into the database.

    Attributes:
        added: Measurements that are new.
        known: Measurements that were there.
    """

    added: int = 0
    known: int = 0


def read(path: Path, format: Format | None = None) -> Iterator[Item]:
    """What a file holds, in any format.

    Args:
        format: Guessed where it is None.

    Raises:
        BadRecords: At once, where the file is something else.
    """
    format = format or guess(path)
    match format:
        case Format.PORTABLE:
            from db.exchange import portable

            return portable.read(path)
        case Format.METASCHEDULE:
            from db.exchange import metaschedule

            return metaschedule.read(metaschedule_folder(path))
        case Format.TRACES:
            from db.exchange import traces

            return traces.read(path)
        case _:
            from db.exchange import knobs

            return knobs.read(path, format)


def add(store: Store, items: Iterable[Item], observe: Observe = unobserved) -> Imported:
    """Stores what reading a file yields, a transaction for some hundred rows.

    What was committed stays, however this ends. A measurement that is there already (same candidate, same
    conditions, same moment, and the same samples or kind of error) is not added again; what a file gives no
    moment for has ``items.NO_MOMENT``. So the same file can be imported again, or on from where it stopped.

    Raises:
        NoUsableRecords: There is no measurement that could be stored.
    """
    done = Imported()
    workloads, rows = list[Workload](), list[Row]()
    for item in items:
        match item:
            case Skipped():
                done.skip(item)
            case Workload():
                workloads.append(item)
            case Row():
                rows.append(item)
        if len(rows) >= _CHUNK or len(workloads) >= _MODULES:
            _commit(store, workloads, rows, done)
            workloads, rows = [], []
        observe(done.added + done.known + done.skipped + len(rows))
    _commit(store, workloads, rows, done)
    if not done.added + done.known:
        first = f"; {done.reasons[0]}" if done.reasons else ""
        raise NoUsableRecords(f"Of {done.skipped} records none could be imported{first}.")
    return done


def _commit(store: Store, workloads: Sequence[Workload], rows: Sequence[Row], done: Imported) -> None:
    """Stores all, or where the database refuses that, each by itself: so a bad one spoils no other."""
    try:
        added = store.add_missing(workloads, [(r.conditions, r.measurement) for r in rows])
    except _REFUSED as error:
        if len(workloads) + len(rows) == 1:
            place = rows[0].place if rows else f"workload {workloads[0].name!r:.40}"
            done.skip(
                Skipped(place, f"the database refuses it: {reason(getattr(error, 'orig', None) or error)}")
            )
            return
        for workload in workloads:
            _commit(store, [workload], [], done)
        for row in rows:
            _commit(store, [], [row], done)
        return
    done.added += added
    done.known += len(rows) - added
