"""A PostgreSQL server of the tests' own, at a socket in a folder that goes with it."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_NUMBER = itertools.count()


def there() -> bool:
    """Whether PostgreSQL is installed, and its driver."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return False
    return _program("postgres") is not None and _program("initdb") is not None


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The folder of the socket of a running server."""
    folder = tempfile.mkdtemp(prefix="steadygrad-postgres-")
    user = _user()
    if user is not None:
        shutil.chown(folder, user)
    data, common = f"{folder}/data", {"user": user, "cwd": folder}
    made = [_program("initdb"), "-D", data, "-U", "steady", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL, **common)
    settings = ["listen_addresses=", "fsync=off", "max_connections=100", f"unix_socket_directories={folder}"]
    words = [word for setting in settings for word in ("-c", setting)]
    with open(f"{folder}.log", "wb") as log:
        process = subprocess.Popen([_program("postgres"), "-D", data, *words], stdout=log, stderr=log, **common)
        try:
            _wait(folder, process)
            yield folder
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            shutil.rmtree(folder, ignore_errors=True)
            os.unlink(log.name)


def new_database(folder: str) -> str:
    """The address of an empty database of a server."""
    import psycopg

    name = f"study_{next(_NUMBER)}"
    with psycopg.connect(host=folder, user="steady", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql://steady@/{name}?host={folder}"


def _wait(folder: str, process: subprocess.Popen[bytes]) -> None:
    import psycopg

    for _ in range(300):
        assert process.poll() is None, Path(f"{folder}.log").read_text()
        try:
            psycopg.connect(host=folder, user="steady", dbname="postgres").close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("PostgreSQL did not start")


def _program(name: str) -> str | None:
    found = shutil.which(name)
    if found is not None:
        return found
    return next((str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)


def _user() -> str | None:
    """Root may not run it: somebody else does."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)
