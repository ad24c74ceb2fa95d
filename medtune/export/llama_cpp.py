"""llama.cpp as a runtime: its own server, asked on loopback."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from medtune.core.errors import MedtuneError
from medtune.export.llama_server import READY
from medtune.export.runtimes import Likelihood, Message, Said

PACKAGE = "xllamacpp"
SERVER = "medtune.export.llama_server"
_FORCED = 1e4
"""Far above any logit."""
_ALL = 10**6
"""More tokens than any vocabulary has."""
_PATIENCE = 600
"""Seconds that one answer may take."""


def require_llama_cpp() -> None:
    """Refuse to begin where llama.cpp is not installed: an export that nobody asked is none."""
    if find_spec(PACKAGE) is None:
        raise MedtuneError(
            f"gguf: {PACKAGE}, which runs llama.cpp, is not installed; run: pip install '.[export]'"
        )


class LlamaCpp:
    """A server of llama.cpp at an address."""

    def __init__(self, address: str) -> None:
        self._address = address
        # A proxy that the environment names is not asked for this machine.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self.name = f"llama.cpp ({PACKAGE} {_version()})"

    def prompts(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """As `Runtime`."""
        found = []
        for messages in conversations:
            text = self._ask("apply-template", {"messages": list(messages)})["prompt"]
            # As the endpoint for conversations does it.
            asked = {"content": text, "add_special": True, "parse_special": True}
            found.append(list(self._ask("tokenize", asked)["tokens"]))
        return found

    def answers(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[Said]:
        """As `Runtime`."""
        return [self._answer(prompt, max_new_tokens) for prompt in prompts]

    def likelihoods(self, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[Likelihood]:
        """As `Runtime`."""
        return [
            Likelihood(sum(values[:-1]), values[-1])
            for values in (self._forced(*pair) for pair in zip(prompts, answers, strict=True))
        ]

    def _answer(self, prompt: list[int], max_new_tokens: int) -> Said:
        answer = self._complete(prompt, max_new_tokens)
        ended = answer["stop_type"] == "eos"
        return Said(answer["content"].strip(), answer["tokens_predicted"] - ended, not ended)

    def _forced(self, prompt: list[int], answer: list[int]) -> list[float]:
        """Log-likelihoods of an answer's tokens, one by one: those before lie in the cache."""
        values = []
        for number, token in enumerate(answer):
            before = [*prompt, *answer[:number]]
            # Its logit is raised for the choice alone; what is told are the probabilities before that.
            said = self._complete(before, 1, logit_bias=[[token, _FORCED]])
            is_told = "completion_probabilities" in said
            if not is_told:
                # Nothing of a token that is a part of a character; but it is one of all the others where
                # another, which ends a text, is chosen.
                said = self._complete(before, 1, logit_bias=[[answer[-1], _FORCED]], n_probs=_ALL)
            [step] = said["completion_probabilities"]
            told = [step] if is_told else step["top_logprobs"]
            found = [float(one["logprob"]) for one in told if one["id"] == token]
            if len(found) != 1:
                raise MedtuneError("llama.cpp did not take a token that it was to score; another version may")
            values += found
        return values

    def _complete(self, prompt: list[int], tokens: int, **options: Any) -> dict[str, Any]:
        asked = {
            "prompt": prompt,
            "n_predict": tokens,
            "temperature": 0,
            "n_probs": 1,
            "return_tokens": True,
            "cache_prompt": True,
        }
        return self._ask("completion", asked | options)

    def _ask(self, endpoint: str, content: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self._address}/{endpoint}",
            json.dumps(content).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with self._open(request, timeout=_PATIENCE) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = " ".join(error.read().decode(errors="replace").split())[:200]
            raise MedtuneError(f"llama.cpp refuses a question: {said}") from None
        except (OSError, ValueError) as error:
            raise MedtuneError(f"llama.cpp gave no answer: {error}") from None


@contextmanager
def llama_cpp(file: Path, context: int, threads: int) -> Iterator[LlamaCpp]:
    """Serve a GGUF until the block ends; `context` is the most tokens of a prompt with its answer."""
    command = [sys.executable, "-m", SERVER, str(file), str(context), str(threads)]
    # A file, since nobody reads a pipe while questions are asked, and a full one would stop the server.
    with (
        TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            # Its own words may come before.
            line = next((one for one in process.stdout if one.startswith(READY)), "")
            if not line:
                log.seek(0)
                said = [one.strip() for one in log if "error" in one.lower()]
                reason = said[-1] if said else "no reason given"
                raise MedtuneError(f"{file.name}: llama.cpp cannot load it: {reason}")
            yield LlamaCpp(line.removeprefix(READY).strip())
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "unknown"
