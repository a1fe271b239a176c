"""From the store into a file."""

from pathlib import Path

from db.exchange.formats import Format
from db.exchange.items import Exported, Observe, unobserved
from db.store import Store


def write(
    store: Store, path: Path, format: Format, workload: str | None = None, observe: Observe = unobserved
) -> Exported:
    """Writes measurements, all or those of one workload (by its hash); the file is there whole or not at all.

    Raises:
        NoUsableRecords: The format can hold none of them.
    """
    match format:
        case Format.PORTABLE:
            from db.exchange import portable

            return portable.write(store, path, workload, observe)
        case Format.METASCHEDULE:
            from db.exchange import metaschedule

            return metaschedule.write(store, path, workload, observe)
        case _:
            from db.exchange import table_files

            return table_files.write(store, path, format, workload, observe)
