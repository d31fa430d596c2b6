"""`cdp query`: one question in SQL to every table, answered as a table to look at, as JSON or as CSV.

What the tables are is cdp_assets/contract.py's part, how they are read cdp_resources/warehouse.py's.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import IO, Any

import click
import msgspec

from cdp_assets.pipeline import contract_tables, warehouse
from cdp_assets.project import Project
from cdp_resources.home import Home, config_dir
from cdp_resources.warehouse import Answer, QueryError, View

SHOWN_ROWS = 500
"""A table to look at has at most this many rows; the other formats have all."""
CELL_WIDTH = 60
NARROWEST = 8
"""Columns narrower than this make rows unreadable: they are then shown one below the other."""
PIPED_WIDTH = 200
_JSON = msgspec.json.Encoder(decimal_format="number")


@click.command(name="query")
@click.argument("sql", required=False)
@click.option(
    "--format",
    "shape",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="table: to look at; json: a list of objects; csv: with a header line.",
)
@click.option("--tables", "is_listing", is_flag=True, help="List the tables with their columns instead.")
def query(sql: str | None, shape: str, is_listing: bool) -> None:
    """Ask every table in SQL (DuckDB's). Nothing can be written.

    Instants are UTC: ISO 8601 with Z in json and csv. Money is in minor units (cents). What each table holds: docs/tables.md.

    \b
    Examples:
      cdp query "from profiles limit 5"
      cdp query "select segment, count(*) from segment_members group by all" --format csv
      cdp query "select properties->>'$.total' from enriched_events where event = 'Order Completed'" --format json
      cdp query --tables
    """
    if (sql is None) != is_listing:
        raise click.UsageError("give one query, or --tables")
    project = Project.load(config_dir())
    if sql is None:
        views = contract_tables(project)
        if shape == "table":
            _print_listing(views)
        else:
            _print(_listing(views), shape)
        return
    try:
        with warehouse(Home.from_env(), project) as tables:
            _print(tables.query(sql), shape)
    except QueryError as error:
        raise click.ClickException(str(error)) from None


def _print(answer: Answer, shape: str) -> None:
    out = sys.stdout
    if shape == "json":
        write_json(answer, out)
    elif shape == "csv":
        write_csv(answer, out)
    else:
        print_table(answer)


def write_json(answer: Answer, out: IO[str]) -> None:
    """A list of objects, one a line."""
    lead = "["
    for row in answer.rows:
        out.write(f"{lead}{_JSON.encode(dict(zip(answer.columns, map(plain, row), strict=True))).decode()}")
        lead = ",\n "
    out.write("[]\n" if lead == "[" else "]\n")


def write_csv(answer: Answer, out: IO[str]) -> None:
    """RFC 4180 with a header; null is an empty field, lists and structures are JSON."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows([text(value) for value in row] for row in answer.rows)


def print_table(answer: Answer) -> None:
    """The first rows, with long cells cut; rows too wide for the terminal one column below the other."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    rows = [[cut(text(value)) for value in row] for row in islice(answer.rows, SHOWN_ROWS + 1)]
    is_more = len(rows) > SHOWN_ROWS
    rows = rows[:SHOWN_ROWS]
    widths = [max([NARROWEST, len(name), *(len(row[place]) for row in rows)]) + 3 for place, name in enumerate(answer.columns)]
    if sum(widths) > console.width and rows and console.width // max(1, len(widths)) < NARROWEST + 3:
        _print_records(console, answer.columns, rows)
    else:
        _print_grid(console, answer, rows)
    if is_more:
        click.echo(f"the first {SHOWN_ROWS} rows; --format csv or json gives all")
    else:
        click.echo(f"{len(rows)} row{'' if len(rows) == 1 else 's'}")


def _print_grid(console: Any, answer: Answer, rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, kind in zip(answer.columns, answer.types, strict=True):
        is_number = kind.startswith(_NUMBERS)
        table.add_column(Text(name), justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _print_records(console: Any, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.text import Text

    widest = max(map(len, columns))
    for number, row in enumerate(rows, start=1):
        console.rule(f"row {number}", align="left", characters="-")
        for name, cell in zip(columns, row, strict=True):
            console.print(Text(f"{name:>{widest}}  {cell}", overflow="ellipsis", no_wrap=True))


_NUMBERS = ("BIGINT", "INTEGER", "HUGEINT", "DOUBLE", "DECIMAL", "FLOAT", "SMALLINT", "TINYINT", "UBIGINT", "NUMBER")


def plain(value: Any) -> Any:
    """A value as JSON has it: instants with Z, also where the time zone was dropped; whole numbers of any size."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else text(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 63:
        return Decimal(value)
    return value


def text(value: Any) -> str:
    """A value as one cell of text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    shown = _JSON.encode(plain(value)).decode()
    return str(msgspec.json.decode(shown)) if shown.startswith('"') else shown


def cut(cell: str) -> str:
    """One line of at most CELL_WIDTH characters."""
    line = " ".join(cell.split("\n")) if "\n" in cell else cell
    return line if len(line) <= CELL_WIDTH else line[: CELL_WIDTH - 1] + "…"


def _listing(views: Iterable[View]) -> Answer:
    def rows() -> Iterator[tuple[str, ...]]:
        for view in views:
            yield from ((view.name, column.name, column.type, column.description) for column in view.columns)

    return Answer(("table", "column", "type", "description"), ("VARCHAR",) * 4, rows())


def _print_listing(views: Iterable[View]) -> None:
    for view in views:
        click.echo(click.style(view.name, bold=True) + f"  {view.description}")
        widest = max((len(column.name) for column in view.columns), default=0)
        for column in view.columns:
            click.echo(f"  {column.name:<{widest}}  {_short(column.type):<9}  {column.description}")
        click.echo()


def _short(kind: str) -> str:
    return "TIMESTAMP" if kind == "TIMESTAMP WITH TIME ZONE" else kind
