"""Files that are safe to read and to write: errors that name the file, and nothing half-written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# More values than any medical image holds: a damaged header must not ask for all memory.
MAX_VALUES = 2**30
# Nor may a small compressed file unfold without end.
MAX_BYTES = 2**31


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it."""


class DataError(ValueError):
    """A file or folder that cannot be used; the message names it, and says what was expected."""


class NoSuchSplit(DataError):
    """A data set without the split that was asked for."""


@contextmanager
def reading(file: Path, expected: str) -> Iterator[None]:
    """Whatever a library raises on a damaged file becomes a `DataError` that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the libraries document no common type, and damaged files raise many
        cause = str(error).splitlines()[0] if str(error) else "no details"
        raise DataError(f"{file}: expected {expected}, but {type(error).__name__}: {cause}") from error


@contextmanager
def writing(file: str | Path) -> Iterator[Path]:
    """A temporary path of the same extension beside `file`, renamed to `file` if all goes well."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".writing-") as folder:
        temporary = Path(folder) / file.name
        yield temporary
        os.replace(temporary, file)


def require_folder(root: str | Path, what: str) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"root: expected the folder of {what}, but {root} is no folder")
    return root


def read_list(file: Path, *endings: str) -> list[str]:
    """The names in a list file, one a line; of the endings, one is taken off.

    Raises:
        DataError: no file, no names, a name twice, or a name that leads out of the folder.
    """
    with reading(file, "a text file with one name a line"):
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    names = [without(line, endings) for line in lines if line]
    if not names:
        raise DataError(f"{file}: expected at least one name, found an empty list")
    seen: set[str] = set()
    for name in names:
        if name != Path(name).name or name in ("..", ".") or "\\" in name or "\0" in name:
            raise DataError(f"{file}: expected plain file names, found {name!r}")
        if name in seen:
            raise DataError(f"{file}: expected every name once, found {name} twice")
        seen.add(name)
    return names


def without(name: str, endings: tuple[str, ...]) -> str:
    for ending in endings:
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


def require_files(names: list[str], folder: Path, ending: str, source: Path) -> list[Path]:
    """The file of every name, each of which is there."""
    files = [folder / f"{name}{ending}" for name in names]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: expected this file, as {source} lists it, found none")
    return files
