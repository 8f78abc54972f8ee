"""The command line: one small file a command; heavy imports wait until a command runs."""

from mfuroof.cli.main import main

__all__ = ["main"]
