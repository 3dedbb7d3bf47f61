"""Print docs/columns.md: ``python docs/describe_columns.py RUN > docs/columns.md``, from any run with its controls."""

import sys

import pyarrow.parquet as pq

import cofix
from sim.records.columns import COLUMNS

HEAD = """# Columns of a run's tables

Made by `python docs/describe_columns.py RUN`. Parquet files have these words as metadata of their columns, under
`description`. Times `t_…_ns` are nanoseconds on the run's clock: Unix time, or the simulated clock, which begins at 0.
`reports` and `links` are tables that the [Python API](api.md) makes of the ledgers, `links/bs-….parquet`.
"""


def markdown(run: cofix.Run) -> str:
    """Return the page, with the types that the columns of a run have."""
    lines = [HEAD]
    for name, words in COLUMNS.items():
        schema = pq.read_schema(run.folder / name) if name.endswith(".parquet") else run.table(name).schema
        lines += [f"## `{name}`", "", "| column | type | meaning |", "|---|---|---|"]
        lines += [f"| `{column}` | {schema.field(column).type} | {text} |" for column, text in words.items()]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(markdown(cofix.open(sys.argv[1])))
