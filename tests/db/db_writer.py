"""Another process, for tests: ``python db_writer.py URL WRITER BATCHES`` stores batches of measurements.

Half of the candidates are the same for every writer, in another order. It says that it is ready, waits
for a line, and then names each batch that is committed: who reads it knows what must not be lost.
"""

import random
import sys

from db_samples import HERE, candidate, timed, workload

from db.store import Store

BATCH = 10


def batch(writer: int, number: int) -> list[int]:
    """Numbers of the candidates in one batch: some of this writer's own, and some of everybody's."""
    half = BATCH // 2
    own = [1_000_000 * (writer + 1) + half * number + i for i in range(half)]
    everybodys = [half * number + i for i in range(half)]
    mixed = own + everybodys
    random.Random(writer).shuffle(mixed)
    return mixed


def main(url: str, writer: int, batches: int) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    with Store.open(url, create=True) as store:
        store.add_workload(workload())
        for number in range(batches):
            store.add_measurements(None, HERE, [timed(candidate(i), 1.0 + i) for i in batch(writer, number)])
            print(number, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
