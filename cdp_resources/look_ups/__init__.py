"""What enrichments may look up outside the event: reference tables, queries, answers of web services, and the user's own functions.

One LookUps is made for a run. What is read is kept for as long, so that every batch of a run sees the same; which rows ask for
what, and what becomes of it, is in cdp_assets/enriched_events/enrichments.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from cdp_resources import clock
from cdp_resources.home import Home
from cdp_resources.look_ups.answers import Answered, Answers
from cdp_resources.look_ups.database import Database, ask_database
from cdp_resources.look_ups.functions import Function, load_function
from cdp_resources.look_ups.queries import Query
from cdp_resources.look_ups.service import Service, Spent, ask_service
from cdp_resources.look_ups.tables import LookUpError, NotHereError, Reference, TableRef, find_table

__all__ = ["Answered", "Database", "Function", "LookUpError", "LookUps", "NotHereError", "Reference", "Service", "TableRef"]

T = TypeVar("T")


class LookUps:
    """The door to everything outside, for one run."""

    def __init__(self, folder: Path | None = None, home: Home | None = None, now: Callable[[], datetime] = clock.now) -> None:
        """`folder`: where the files lie that declarations name; `home`: the installation, for lake tables and kept answers."""
        self.folder = folder
        self._home = home
        self._now = now
        self._made: dict[object, Any] = {}
        self.told: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Host of a service, or variable of a database -> what became of its questions, counted by short codes; safe to show."""

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gives, made at the first call with this key."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def table(self, ref: TableRef) -> Reference:
        """A reference table with its version. Raises LookUpError."""
        return self.once(("table", ref), lambda: find_table(ref, self.folder, self._home))

    def function(self, name: str) -> Function:
        """A function of the user's: `functions/score.py:score` below config/, or `package.module:name`. Raises LookUpError."""
        return self.once(("function", name), lambda: load_function(name, self.folder))

    def query(self, sql: str, tables: Mapping[str, TableRef]) -> Query:
        """A query over reference tables and the table `inputs`. Raises LookUpError."""
        key = ("query", sql, tuple(tables.items()))
        return self.once(key, lambda: Query(sql, {name: self.table(ref).frame for name, ref in tables.items()}))

    def database(self, database: Database, sql: str, inputs: Sequence[Mapping[str, str | None]]) -> list[Answered | None]:
        """What a database finds for each row of the table `inputs`, in their order: a JSON list of rows as objects of text.

        None where it could not be had. Raises LookUpError.
        """

        def ask(places: Sequence[int]) -> Iterator[tuple[int, Answered | None]]:
            for place, answered in ask_database(database, sql, [inputs[each] for each in places]):
                yield places[place], answered

        found = self._answers().complete(database.identity(sql), inputs, database.time_to_live, self._now(), ask)
        self.told[database.url.env]["not_answered"] += found.count(None)
        return found

    def service(self, service: Service, inputs: Sequence[Mapping[str, str | None]]) -> list[Answered | None]:
        """The answer of a web service for each row of inputs, in their order; None where it could not be had. Raises LookUpError."""
        spent = self.once(("spent", service.identity), Spent)
        return ask_service(service, inputs, self._answers(), spent, self._now(), self.told[service.host])

    def _answers(self) -> Answers:
        if self._home is None:
            raise NotHereError("there is no CDP_HOME here to keep answers in")
        return Answers(self._home.answers)
