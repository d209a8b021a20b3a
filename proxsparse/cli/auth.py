"""`auth`: who may log in to the explorer. A password comes from the terminal or from stdin, never from the command line,
which everybody on the machine can read."""

from __future__ import annotations

import argparse
import getpass
import json
import sys

from proxsparse.accounts.user_file import OPERATOR, VISITOR, UserFile
from proxsparse.errors import ProxSparseError


def add(arguments: argparse.Namespace) -> int:
    users = UserFile(arguments.file)
    role = OPERATOR if arguments.operator else VISITOR
    users.add(arguments.name, _password(arguments.name), role)
    print(f"{arguments.name} may log in as {role} where `proxsparse app --auth-file {arguments.file}` runs.")
    return 0


def remove(arguments: argparse.Namespace) -> int:
    UserFile(arguments.file).remove(arguments.name)
    print(f"{arguments.name} may no longer log in.")
    return 0


def list_users(arguments: argparse.Namespace) -> int:
    users = UserFile(arguments.file).users()
    if arguments.json:
        print(json.dumps({name: user.role for name, user in users.items()}))
        return 0
    for name, user in sorted(users.items()):
        print(f"{user.role:<10}{name}")
    if not users:
        print(f"Nobody is in {arguments.file}: `proxsparse auth add NAME --file {arguments.file}` adds somebody.")
    return 0


def _password(name: str) -> str:
    """Asked for twice on a terminal; else the first line of stdin, for scripts."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass(f"Password of {name}: ")
    if getpass.getpass("The same again: ") != password:
        raise ProxSparseError("The two passwords differ: try again.")
    return password
