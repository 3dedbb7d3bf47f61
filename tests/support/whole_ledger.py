"""The ledgers of a small run as one table."""

from collections.abc import Sequence

import pyarrow as pa

from fronthaul.account.ledger import Closing, ledger_schema
from fronthaul.account.used import UsedReports
from fronthaul.log.received import Received
from fronthaul.log.sent import Journal


def close_ledger(journals: Sequence[Journal], logs: Sequence[Received], used: UsedReports) -> pa.Table:
    """Return the rows of all ledgers, `ledger_schema()`."""
    rows = [batch for _, batch in Closing(journals, logs, used).rows()]
    return pa.Table.from_batches(rows, ledger_schema()).combine_chunks()
