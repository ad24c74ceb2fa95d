"""The page of `medtune demo` as an ASGI application, for Starlette.

GET  /                the page, with its style and script
POST /ask             {"question": "..."}: a line of JSON for each piece of the answers
GET  /examples        what matches words, kind and change
GET  /examples/NUMBER one of them, with both answers and their verdicts
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medtune.commands.demo_pair import Pair
from medtune.commands.demo_run import CHANGES, Evaluated, describe_run, read_evaluated
from medtune.core.errors import MedtuneError
from medtune.core.notices import NOT_MEDICAL_ADVICE

PAGE = Path(__file__).with_name("page")
SIDES = (("base", "Untuned"), ("tuned", "Tuned"))
WAITING = 64
"""People who may wait for an answer; whoever comes then is told so."""
LISTED = 100
"""Examples in the list at once: more are found by searching."""
MOST = 2**20
"""Bytes of a question: what is longer is not even read."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src data:; script-src 'self'; style-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""With which a browser fetches nothing from elsewhere and keeps nothing, whatever the page says."""


@dataclass(frozen=True)
class Shown:
    """What the page shows beside answers; `doubt` is why there are no examples."""

    described: Sequence[tuple[str, str]]
    evaluated: Sequence[Evaluated]
    doubt: str | None


def shown_of(adapter: Path, pair: Pair) -> Shown:
    """What is to be said of the adapter in a folder, and of the run that made it, if one here did."""
    try:
        evaluated, doubt = read_evaluated(adapter), None
    except MedtuneError as error:
        evaluated, doubt = [], str(error)
    return Shown(describe_run(adapter, pair, doubt), evaluated, doubt)


def demo_app(pair: Pair, shown: Shown, names: Sequence[str], only_these: bool = True) -> Starlette:
    """The application; with `only_these` it answers under these names of its host alone.

    Else a page from elsewhere could have its own name lead here, and ask.
    """
    hosts = list(names) if only_these else ["*"]
    markup = _render(shown)
    files = {"demo.css": "text/css", "demo.js": "text/javascript"}
    return Starlette(
        routes=[
            Route("/", lambda _: HTMLResponse(markup)),
            *(Route(f"/{name}", partial(_file, PAGE / name, kind)) for name, kind in files.items()),
            Route("/ask", partial(_ask, pair, Line(WAITING)), methods=["POST"]),
            Route("/examples", partial(_search, shown.evaluated)),
            Route("/examples/{number:int}", partial(_example, shown.evaluated)),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        ],
    )


class Line:
    """People who wait, in the order in which they came."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._people: list[object] = []
        self._moved = asyncio.Event()

    @contextmanager
    def place(self) -> Iterator[AsyncIterator[int]]:
        """How many stand before one, whenever that changes, until it is none: then it is one's turn.

        The next one's turn comes when the block ends, however it does. A MedtuneError if the line is full.
        """
        if len(self._people) > self._most:
            raise MedtuneError(f"{self._most} people are waiting already: try again later")
        me = object()
        self._people.append(me)
        try:
            yield self._ahead(me)
        finally:
            self._people.remove(me)
            self._moved.set()
            self._moved = asyncio.Event()

    async def _ahead(self, me: object) -> AsyncIterator[int]:
        while ahead := self._people.index(me):
            moved = self._moved
            yield ahead
            await moved.wait()
        yield 0


class _Headers:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)


async def _file(path: Path, kind: str, _: Request) -> Response:
    return Response(path.read_bytes(), media_type=kind)


async def _ask(pair: Pair, line: Line, request: Request) -> Response:
    try:
        question = await _question(request)
    except MedtuneError as error:
        return Response(_json_line(error=str(error)), status_code=400, media_type="application/x-ndjson")
    return StreamingResponse(_answers(pair, line, question), media_type="application/x-ndjson")


async def _question(request: Request) -> str:
    # A page from elsewhere can send anything but JSON without asking first.
    if request.headers.get("content-type") != "application/json":
        raise MedtuneError("accepted: application/json")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST:
            raise MedtuneError(f"the question is longer than {MOST:,} bytes: ask more briefly")
    try:
        question = json.loads(body)["question"]
    except (ValueError, KeyError, TypeError, RecursionError):
        question = None
    if not isinstance(question, str):
        raise MedtuneError('accepted: {"question": "a text"}')
    return question


async def _answers(pair: Pair, line: Line, question: str) -> AsyncIterator[bytes]:
    try:
        with line.place() as places:
            async for ahead in places:
                yield _json_line(ahead=ahead)
            with closing(await run_in_threadpool(pair.ask, question)) as pieces:
                async for said in iterate_in_threadpool(pieces):
                    yield _json_line(base=said.base, tuned=said.tuned)
            yield _json_line(note=said.note)
    except MedtuneError as error:
        yield _json_line(error=str(error))


async def _search(evaluated: Sequence[Evaluated], request: Request) -> Response:
    words, kind, change = (request.query_params.get(name, "") for name in ("words", "kind", "change"))
    found = [
        {"number": number, "question": one.example.question}
        for number, one in enumerate(evaluated)
        if kind in ("", one.example.kind)
        and change in ("", one.change)
        and words.casefold().strip() in _searched(one)
    ]
    listed = f"; the first {LISTED} are listed" if len(found) > LISTED else ""
    said = f"{len(found):,} of {len(evaluated):,} questions{listed}"
    return JSONResponse({"said": said, "examples": found[:LISTED]})


async def _example(evaluated: Sequence[Evaluated], request: Request) -> Response:
    number = request.path_params["number"]
    if number >= len(evaluated):
        return JSONResponse({"error": f"there are {len(evaluated)} examples"}, status_code=404)
    one = evaluated[number]
    return JSONResponse(
        {
            "asked": one.asked,
            "plain": one.is_plain,
            "right": "\nor: ".join(one.example.right_answers),
            "base": asdict(one.base),
            "tuned": asdict(one.tuned),
        }
    )


def _searched(one: Evaluated) -> str:
    return "\n".join(
        [one.example.id, one.asked, *one.example.right_answers, one.base.text, one.tuned.text]
    ).casefold()


def _json_line(**content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _render(shown: Shown) -> str:
    strong, _, rest = NOT_MEDICAL_ADVICE.removeprefix("**").partition("**")
    kept = shown.evaluated
    exact = {side: sum(getattr(one, side).verdict == "exact" for one in kept) for side, _ in SIDES}
    template = Environment(loader=FileSystemLoader(PAGE), autoescape=True).get_template("demo.html.jinja")
    return template.render(
        notice=(strong, rest),
        sides=SIDES,
        doubt=shown.doubt,
        counted=f"Of {len(kept):,} test questions were answered exactly: untuned {exact['base']:,}, "
        f"tuned {exact['tuned']:,}.",
        kinds=sorted({one.example.kind for one in kept}),
        changes=CHANGES,
        described=shown.described,
    )
