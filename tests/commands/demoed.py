"""The page of `medtune demo` on a tiny pair of models, served on loopback by the server it has."""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
import uvicorn
from transformers import PreTrainedTokenizerFast

from medtune.answer.answerer import Answerer
from medtune.commands.address import listen, url_of
from medtune.commands.demo_app import Shown, demo_app
from medtune.commands.demo_pair import Pair, Said
from medtune.commands.demo_run import Answered, Evaluated
from medtune.model.base import end_ids
from medtune.model.chat import ChatEncoder
from tests.answer.test_answerer import ANSWER, PROMPT
from tests.conftest import build_tiny_llama, example
from tests.project import wait_until

HOSTILE = "<img src=x onerror='window.pwned = 1'><script>window.pwned = 1</script> & &lt;b&gt; {{ 7 }} ${7}"


def build_pair(tokenizer: PreTrainedTokenizerFast, most: int = 24) -> Pair:
    """Two Llamas of other random weights, whose answers go on for so many tokens: none ends by itself."""
    params = ANSWER.model_copy(update={"max_new_tokens": most})
    base = Answerer(build_tiny_llama(), ChatEncoder(tokenizer, PROMPT), params)
    other = build_tiny_llama()
    with torch.no_grad():
        for weights in other.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    for model in (base.model, other):
        with torch.no_grad():
            # A logit of nought is never the largest of some hundred.
            model.get_output_embeddings().weight[[base.encoder.end_id, *end_ids(model)]] = 0
    return Pair(base, replace(base, model=other), PROMPT, None)


class SlowPair(Pair):
    """One that is still at its answer when the next thing happens, on whatever machine."""

    @classmethod
    def of(cls, pair: Pair) -> "SlowPair":
        return cls(pair.base, pair.tuned, pair.prompt, pair.origin)

    def ask(self, question: str) -> Generator[Said, None, None]:
        for said in super().ask(question):
            time.sleep(0.02)
            yield said


def evaluated(count: int) -> list[Evaluated]:
    """Questions with every other answer gained; the first is hostile, and so are its answers."""
    wrong, right = Answered(HOSTILE, "incorrect", True), Answered("A high temperature.", "exact", False)
    first = Evaluated(example(id="0", question=HOSTILE, answer=HOSTILE, kind=HOSTILE), wrong, wrong)
    others = [
        Evaluated(example(id=f"F:{number}", question=f"What is fever {number}?"), wrong, after)
        for number, after in zip(range(1, count), [right, wrong] * count, strict=False)
    ]
    return [first, *others]


def shown(rows: Sequence[Evaluated], doubt: str | None = None) -> Shown:
    return Shown([("Adapter", f"models/adapter {HOSTILE}"), ("Commit", "0" * 40)], rows, doubt)


@contextmanager
def served(pair: Pair, what: Shown) -> Iterator[str]:
    """The page's address."""
    listening = listen("127.0.0.1", 0)
    app = demo_app(pair, what, ["127.0.0.1"])
    server = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield url_of(listening)
    finally:
        server.should_exit = True
        thread.join()
