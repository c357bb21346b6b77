"""`drivepost api`: serves the REST API until told to stop."""

import resource
import socket
import ssl
import sys
from pathlib import Path
from typing import Any, Final

import uvicorn

from deployments.api.envelope import log_to_stderr
from deployments.api.tokens import read_local_token
from models.errors import DrivepostError, SettingsError
from models.locations import load_locations
from models.settings import Settings
from models.tables import require_current_tables

_STOP_SECONDS_MAX: Final = 5
_START_SECONDS_MAX: Final = 60
_BACKLOG: Final = 128


def serve(ready: Path | None = None) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered first.

    Args:
        ready: a file that is written once it listens: its address.

    Raises:
        SettingsError: a setting is impossible, or the port is taken.
        DatabaseError: the tables are not those of this version.
    """
    settings = Settings()
    require_current_tables()
    load_locations(settings.locations_file)
    if not settings.api_issuer:
        read_local_token(settings.token_file)
    log_to_stderr()
    config = uvicorn.Config(**uvicorn_settings(settings))
    _require_certificate(settings)
    _allow_many_connections()
    try:
        listening = _listen(settings.api_host, settings.api_port)
    except socket.gaierror:
        raise SettingsError("DRIVEPOST_API_HOST: is no address or name of this machine") from None
    except OSError:
        raise SettingsError(
            f"DRIVEPOST_API_PORT: {settings.api_host}:{settings.api_port} cannot be listened on; end what does, "
            "or name another"
        ) from None
    if ready:
        aside = ready.with_name(f"{ready.name}.new")
        aside.write_text(address_of(settings, listening.getsockname()[1]), "utf-8")
        aside.replace(ready)
    if config.workers > 1:
        from uvicorn.supervisors import Multiprocess  # noqa: PLC0415  of many processes alone

        Multiprocess(config, sockets=[listening]).run()
    else:
        uvicorn.Server(config).run(sockets=[listening])


def _require_certificate(settings: Settings) -> None:
    """Refuse a certificate that cannot be served, before a process is started that would only end by it."""
    if settings.api_tls_certificate_file is None:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # A key that wants a password would else ask for it at the terminal.
        context.load_cert_chain(settings.api_tls_certificate_file, settings.api_tls_key_file, password="")
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"DRIVEPOST_API_TLS_CERTIFICATE_FILE: cannot be served with its key: {type(error).__name__}; both "
            "must be PEM, belong together, and the key have no password"
        ) from None


def _allow_many_connections() -> None:
    """Let this process have as many connections open as the system grants: idle ones take none from others."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _listen(host: str, port: int) -> socket.socket:
    """Listen at once: who calls before the application is up waits for it."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
    )[0]
    # The protocol is named: asyncio sends small answers at once (TCP_NODELAY) on such sockets alone.
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
        listening.set_inheritable(True)
    except OSError:
        listening.close()
        raise
    return listening


def uvicorn_settings(settings: Settings) -> dict[str, Any]:
    """Tell uvicorn how to serve."""
    return {
        "app": "deployments.api.application:make_application",
        "factory": True,
        "host": settings.api_host,
        "port": settings.api_port,
        "workers": settings.api_processes,
        "ssl_certfile": settings.api_tls_certificate_file,
        "ssl_keyfile": settings.api_tls_key_file,
        "ws": "none",  # it would write path and query into the log
        "proxy_headers": False,  # ours are stricter
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "timeout_graceful_shutdown": _STOP_SECONDS_MAX,
        "lifespan": "on",
        # A process answers only once it has imported all; taken for dead before that, it would be killed.
        "timeout_worker_healthcheck": _START_SECONDS_MAX,
    }


def address_of(settings: Settings, port: int) -> str:
    """Tell at which address the API is."""
    scheme = "https" if settings.api_tls_certificate_file else "http"
    host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    return f"{scheme}://{host}:{port}"


if __name__ == "__main__":
    try:
        serve(Path(sys.argv[1]))
    except DrivepostError as refused:
        sys.exit(refused.line)
