"""The command line: `proxsparse learn|compare|sweep|resume|fork|send|eval|export|verify|bench|runs|app|auth`."""

from proxsparse.cli.main import main

__all__ = ["main"]
