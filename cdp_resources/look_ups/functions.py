"""Functions of the user's own, in a file below config/ or in a module that can be imported. What they are called for is not here."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import xxhash

from cdp_resources.look_ups.tables import LookUpError

NAME = re.compile(
    r"(?P<file>[^:]+\.py):(?P<inner>[A-Za-z_]\w*)|(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<member>[A-Za-z_]\w*)"
)
"""`functions/score.py:score`, or `package.module:name`."""


class Function(NamedTuple):
    """A function and the version of the file that it stands in."""

    call: Callable[..., Any]
    version: str
    file: Path


def load_function(name: str, folder: Path | None) -> Function:
    """The function. Raises LookUpError, which tells of an error in the user's file its type and line, and not its message."""
    found = NAME.fullmatch(name)
    if found is None:
        raise LookUpError(f"{name!r} names no function; write functions/score.py:score or package.module:name")
    try:
        module = _of_file(found["file"], folder) if found["file"] else importlib.import_module(found["module"])
    except LookUpError:
        raise
    except Exception as error:  # whatever the user's module does when it is imported
        line = error.lineno if isinstance(error, SyntaxError) else error.__traceback__ and _last_line(error)
        raise LookUpError(f"{name} cannot be imported: {type(error).__name__} in line {line}") from None
    inner = found["inner"] or found["member"]
    call = getattr(module, inner, None)
    if not callable(call) or not module.__file__:
        raise LookUpError(f"{name}: there is no function {inner}")
    file = Path(module.__file__)
    return Function(call, xxhash.xxh3_128_hexdigest(file.read_bytes()), file)


def _of_file(name: str, folder: Path | None) -> ModuleType:
    path = Path(name).expanduser() if folder is None else folder / Path(name).expanduser()
    if not path.is_file():
        raise LookUpError(f"{name}: there is no such file")
    spec = importlib.util.spec_from_file_location(f"cdp_functions_{xxhash.xxh3_64_hexdigest(str(path).encode())}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _last_line(error: BaseException) -> int | None:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_lineno if trace is not None else None
