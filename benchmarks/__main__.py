"""``python -m benchmarks``: the command `bench`."""

import sys

import cli

sys.exit(cli.main(["bench", *sys.argv[1:]]))
