"""``python -m kaleidoscene`` is the command line."""

from kaleidoscene.cli.main import entry

entry()
