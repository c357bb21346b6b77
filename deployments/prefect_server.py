"""Prefect's command line, whose server on SQLite lets writers wait for each other instead of turning them away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prefect.cli import app
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class QueueingSqlite(AioSqliteConfiguration):
    """Prefect's SQLite, where a transaction that will write takes the lock as it begins.

    Prefect's own reads first and takes the lock later. SQLite refuses it then at once where another has written in
    between, and the server answers 503: to whoever sends a form, *Oops. Something went wrong*.
    """

    @asynccontextmanager
    async def begin_transaction(
        self,
        session: AsyncSession,
        with_for_update: bool = False,  # noqa: ARG002, FBT001, FBT002  Prefect's signature
    ) -> AsyncIterator[AsyncSessionTransaction]:
        """Begin a transaction; who waits for the lock for a minute is refused, as by Prefect's own."""
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def main() -> None:
    """Run a command of Prefect's."""
    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if make_url(url).get_backend_name() == "sqlite":
        set_database_config(QueueingSqlite(connection_url=url))
    app()


if __name__ == "__main__":
    main()
