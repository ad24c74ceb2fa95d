"""Where a server of medtune listens, and who can reach it there. Imports no server."""

import ipaddress
import socket

from medtune.core.errors import MedtuneError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there (port 0: on a free one), or the one line that says why there is none."""
    if not 0 <= port < 2**16:
        raise MedtuneError(f"--port is {port}; accepted: 0 (a free one) to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        # Python adds the address, which is told already.
        reason = str(error.strerror).partition(" (while")[0]
        raise MedtuneError(f"--host {host} --port {port}: cannot be listened on: {reason}") from None


def require_free(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on."""
    listen(host, port).close()


def is_loopback(host: str) -> bool:
    """Whether this machine alone can reach it."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_of(listening: socket.socket) -> str:
    """The address of a socket as a browser takes it."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
