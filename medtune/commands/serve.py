"""medtune serve: the exported GGUF behind an OpenAI-compatible server, llama.cpp's own.

medtune export gguf && medtune serve
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from medtune.commands.address import is_loopback, require_free
from medtune.commands.served_template import describe_gguf, served_template
from medtune.core.errors import MedtuneError
from medtune.core.hashing import file_sha256
from medtune.core.notices import NOT_MEDICAL_ADVICE
from medtune.core.outputs import read_json
from medtune.export.places import EXPORT, METRICS, folder_sha256

GGUF = EXPORT / "gguf"
ADAPTER = Path("models/adapter")
WEIGHTS = ADAPTER / "adapter_model.safetensors"
MODEL = "medtune-not-medical-advice"
"""What clients see: in the list of models and in every answer."""
API_KEY = "MEDTUNE_API_KEY"
"""An environment variable: what clients have to send, if it is set."""
AT_ONCE = 4
"""Conversations that are answered at the same time; others wait."""
CONTEXT = 8192
"""Tokens that are kept of all of them together, if the model's own context is not shorter."""
_HINT = "run: medtune export gguf"


@dataclass(frozen=True)
class Served:
    """A GGUF file, and the section `prompt` that it was checked with."""

    path: Path
    prompt: Mapping[str, Any]


def serve(*, base: bool, precision: str, host: str, port: int, threads: int | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM: the export of the adapter, or the base model as it is.

    The address, with the port that was found for 0, is printed on standard output when all is ready. The
    process ends here. `threads` takes the place of `compute.threads`.
    """
    if threads is not None and threads < 1:
        raise MedtuneError(f"--threads is {threads}: must be 1 or more")
    if find_spec("xllamacpp") is None:
        raise MedtuneError(
            "serve: xllamacpp, which runs llama.cpp, is not installed; run: pip install '.[export]'"
        )
    served = find_base() if base else find_export(precision)
    require_free(host, port)
    print(NOT_MEDICAL_ADVICE.replace("*", ""), file=sys.stderr)
    if warning := exposure(host):
        print(warning, file=sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    server = _started(server_params(served, host, port, threads), served.path)
    print(f'{served.path} as "{MODEL}" at {server.listening_address}/v1 (Ctrl-C ends it)', flush=True)
    stop.wait()
    # llama.cpp waits half a minute for an answer whose reader has gone.
    os._exit(0)


def find_export(precision: str) -> Served:
    """The export of the adapter that is here, whole, as it passed."""
    path = GGUF / f"model-{precision}.gguf"
    if not path.is_file():
        raise MedtuneError(f"{path}: not there; {_HINT}")
    if not WEIGHTS.is_file():
        raise MedtuneError(f"{WEIGHTS}: not there; run `dvc repro` to train it or `dvc pull` to fetch it")
    try:
        figures = read_json(METRICS)
        adapter, prompt, checked = figures["adapter"], figures["prompt"], figures["formats"]["gguf"]
        known, passed = checked["sha256"], checked["passed"]
    except FileNotFoundError:
        raise MedtuneError(f"{METRICS}: not there, nothing tells of {GGUF}; {_HINT}") from None
    except (ValueError, KeyError, TypeError):
        raise MedtuneError(f"{METRICS}: tells nothing of {GGUF}; {_HINT}") from None
    if adapter != file_sha256(WEIGHTS):
        raise MedtuneError(f"{GGUF}: made from another adapter than {ADAPTER}; {_HINT}")
    if known != folder_sha256(GGUF):
        raise MedtuneError(f"{GGUF}: not the files that {METRICS} tells of; {_HINT}")
    if passed is not True:
        raise MedtuneError(f"{GGUF}: has not passed its check ({METRICS}), and is not served; {_HINT}")
    _tell_other_prompt(prompt)
    return Served(path, prompt)


def find_base() -> Served:
    """The base model of params.yaml, if it is a GGUF."""
    from medtune.model.files import locate
    from medtune.model.params import ModelParams, PromptParams

    model = ModelParams.load()
    if not model.source.endswith(".gguf"):
        raise MedtuneError(
            f"params.yaml: model.source is '{model.source}', but --base serves a GGUF alone: "
            "package:NAME==VERSION/FILE.gguf"
        )
    return Served(locate(model).path, PromptParams.load().model_dump())


def exposure(host: str) -> str | None:
    """What to say of an address that others can reach."""
    if is_loopback(host):
        return None
    key = "" if os.environ.get(API_KEY) else f", and no key is asked for ({API_KEY} sets one)"
    return f"warning: {host} is not loopback: others can reach this server, without encryption{key}"


def server_params(served: Served, host: str, port: int, threads: int | None = None) -> Any:
    """llama.cpp's parameters: answers as they were evaluated, if a client asks for nothing else."""
    import xllamacpp

    from medtune.answer.params import AnswerParams
    from medtune.run.params import ComputeParams

    described = describe_gguf(served.path)
    params = xllamacpp.CommonParams()
    params.model.path = str(served.path)
    params.model_alias, params.model_tags = {MODEL}, {"not medical advice"}
    params.hostnames, params.port = [host], port
    params.api_keys = [key] if (key := os.environ.get(API_KEY)) else []
    params.n_parallel, params.kv_unified = AT_ONCE, True
    params.n_ctx, params.fit_params = min(CONTEXT, described.context), False
    params.use_jinja, params.chat_template = True, served_template(described, served.prompt)
    # What is said is the answer: a parser of thinking puts the prompt's last blanks before it.
    params.force_pure_content_parser = True
    # The beginning of an answer that a client sends would follow the template's text as it is.
    params.prefill_assistant = False
    params.sampling.temp = 0.0
    params.n_predict = AnswerParams.load().max_new_tokens
    # No page of a browser but this machine's own may ask; no conversation can be read by others.
    params.cors_origins, params.ui, params.endpoint_slots = "localhost", False, False
    params.offline, params.verbosity = True, 1
    pinned = threads or ComputeParams.load().threads
    for cpu in (params.cpuparams, params.cpuparams_batch):
        # For -1, as for `auto`, llama.cpp counts the cores.
        cpu.n_threads, cpu.poll = (pinned if isinstance(pinned, int) else -1), 0
    return params


def _tell_other_prompt(prompt: Mapping[str, Any]) -> None:
    from medtune.model.origin import tell_other_prompt
    from medtune.model.params import PromptParams

    try:
        exported = PromptParams.model_validate(prompt)
    except ValueError:
        raise MedtuneError(f"{METRICS}: does not say how {GGUF} was asked; {_HINT}") from None
    tell_other_prompt(GGUF, exported, PromptParams.load())


def _started(params: Any, path: Path) -> Any:
    import xllamacpp

    with _standard_error_kept() as said:
        try:
            return xllamacpp.Server(params)
        except RuntimeError:
            reasons = [line.split(":", 1)[-1].strip() for line in said() if " E " in line]
    raise MedtuneError(f"{path}: llama.cpp cannot serve it: {reasons[0] if reasons else 'no reason given'}")


@contextmanager
def _standard_error_kept() -> Iterator[Any]:
    """Let nothing through that llama.cpp, which is not Python, says meanwhile; what it said can be read."""
    sys.stderr.flush()
    before = os.dup(2)
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as log:

        def said() -> list[str]:
            log.seek(0)
            return log.read().splitlines()

        os.dup2(log.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)
