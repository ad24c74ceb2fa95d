"""medtune demo: a page on which the untuned and the tuned model answer side by side.

pip install '.[demo]' && medtune demo
"""

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

from medtune.commands.address import is_loopback, listen, url_of
from medtune.core.errors import MedtuneError
from medtune.core.notices import NOT_MEDICAL_ADVICE


def demo(adapter: Path, host: str, port: int) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    The address, with the port that was found for 0, is printed on standard output when all is ready. The
    process ends here.
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise MedtuneError("demo: starlette or uvicorn is not installed; run: pip install '.[demo]'")
    listening = listen(host, port)
    print(NOT_MEDICAL_ADVICE.replace("*", ""), file=sys.stderr)
    if not is_loopback(host):
        print(
            f"warning: {host} is not loopback: others can reach this page, without encryption or password",
            file=sys.stderr,
        )
    import uvicorn

    from medtune.commands.demo_app import demo_app, shown_of
    from medtune.commands.demo_pair import Pair

    pair = Pair.load(adapter)
    names = ["127.0.0.1", "[::1]", "localhost", f"[{host}]" if ":" in host else host]
    app = demo_app(pair, shown_of(adapter, pair), names, only_these=is_loopback(host))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="asyncio",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
    )
    # uvicorn ends at a signal, and then raises it once more.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    print(f"{adapter} and its base at {url_of(listening)} (Ctrl-C ends it)", flush=True)
    server.run(sockets=[listening])
    # An answer that is under way in a thread would be waited for.
    os._exit(0)
