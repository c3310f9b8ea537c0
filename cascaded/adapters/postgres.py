"""Tiers and budgets of users out of a PostgreSQL table, which is only ever read.

The driver is psycopg 3: it composes SQL with quoted names, which asyncpg leaves to us, and its
libpq reads every connection string that an operator's other tools read.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cascaded.types.errors import PlansUnreadError
from cascaded.types.plans import PlanRow

if TYPE_CHECKING:
    import psycopg

BATCH_ROWS = 256
"""Rows that are taken at once: about a millisecond of the event loop's time."""
MAX_MESSAGE_CHARACTERS = 300
REQUIRED_COLUMNS = ("user_id_column", "tier_column")
COLUMNS = (*REQUIRED_COLUMNS, "budget_column")
MS_PER_S = 1000
Take = Callable[[list[PlanRow]], None]


class TierConfigGenerator:
    """Reads who has which tier, and which budget."""

    def __init__(
        self, connection_string: str, query: "psycopg.sql.Composed", *, timeout_s: float
    ) -> None:
        self._connection_string = connection_string
        self._query = query
        self._timeout_s = timeout_s

    @classmethod
    def from_database(
        cls,
        connection_string: str,
        mapping: Mapping[str, str],
        *,
        table: str = "users",
        max_rows: int = 100_000,
        timeout_s: float = 10.0,
    ) -> "TierConfigGenerator":
        """A reader of `table` (`users` or `schema.users`, a table or a view).

        `mapping` has `user_id_column`, `tier_column` and, where there are budgets, `budget_column`
        (numeric or whole dollars). Names are taken as they are in the database, quoted. A table
        with more than `max_rows` is refused whole, and a reading that takes longer than
        `timeout_s` is given up. Connects to nothing yet. Raises `PlansUnreadError`.
        """
        if not set(REQUIRED_COLUMNS) <= mapping.keys() <= set(COLUMNS):
            raise PlansUnreadError(
                f"the mapping is of {', '.join(COLUMNS)}; only the last may lack"
            )
        psycopg = _driver()
        try:
            psycopg.conninfo.conninfo_to_dict(connection_string)
        except psycopg.ProgrammingError:  # its own words repeat a part of the string
            raise PlansUnreadError("the connection string is not one of PostgreSQL's") from None
        sql = psycopg.sql
        budget = mapping.get("budget_column")
        # Names go in quoted, whatever they hold. `trunc` takes numbers that are exact and no other.
        query = sql.SQL("SELECT {}::text, {}::text, {} FROM {} LIMIT {}").format(
            *(sql.Identifier(mapping[column]) for column in REQUIRED_COLUMNS),
            sql.SQL("NULL")
            if budget is None
            else sql.SQL("trunc({}, 9)").format(sql.Identifier(budget)),
            sql.Identifier(*table.split(".", 1)),
            sql.Literal(max_rows + 1),
        )
        return cls(connection_string, query, timeout_s=timeout_s)

    async def read(self, take: Take) -> None:
        """Hand over every row, in batches; one more than `max_rows`, where there are more.

        Raises `PlansUnreadError`, and what `take` raises.
        """
        psycopg = _driver()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._read(psycopg, take)
        except TimeoutError:
            raise PlansUnreadError(f"no answer within {self._timeout_s:g} s") from None
        except psycopg.errors.UndefinedFunction:
            raise PlansUnreadError(
                "the budget column is neither numeric nor a whole number: floats and texts are no"
                " exact amounts (a view can cast it)"
            ) from None
        except (psycopg.Error, UnicodeError) as error:
            raise PlansUnreadError(_said(error)) from None

    async def _read(self, psycopg: Any, take: Take) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._connection_string,
            client_encoding="utf8",
            application_name="cascaded",
            prepare_threshold=None,  # poolers between us and the server know no prepared statements
        )
        try:
            await connection.set_read_only(True)
            await connection.execute(
                "SELECT set_config('statement_timeout', %s, true)",
                (str(int(self._timeout_s * MS_PER_S)),),
            )
            async with connection.cursor(name="cascaded_tiers") as cursor:
                await cursor.execute(self._query)
                while rows := await cursor.fetchmany(BATCH_ROWS):
                    take(list(map(PlanRow._make, rows)))
        finally:
            await connection.close()


def _said(error: Exception) -> str:
    """The server's words, on one line. They hold names and addresses, and no password."""
    said = getattr(getattr(error, "diag", None), "message_primary", None) or str(error)
    return " ".join(str(said).split())[:MAX_MESSAGE_CHARACTERS] or type(error).__name__


def _driver() -> Any:
    """psycopg, which is an extra: loaded when somebody wants it."""
    try:
        import psycopg
        import psycopg.conninfo
        import psycopg.sql
    except ImportError as error:
        raise PlansUnreadError(
            "PostgreSQL needs an extra: `pip install 'cascaded[postgres]'`"
        ) from error
    return psycopg
