"""An Ollama `Modelfile` beside a GGUF: its template in Go, the trained prompt, greedy answers, the licence.

Ollama has templates of its own for models that it knows and takes no Jinja. The one written here is cut from
what the model's chat template writes around placeholders, as the tokens of training are, so a template that
cannot be cut so is refused.
"""

from transformers import PreTrainedTokenizerBase

from medtune.core.errors import MedtuneError
from medtune.core.notices import NOT_MEDICAL_ADVICE
from medtune.export.gguf_file import begins_with_bos
from medtune.export.trained import Trained

_MARK = "\ue000"


def modelfile(trained: Trained, tokenizer: PreTrainedTokenizerBase, end_id: int, gguf: str) -> str:
    """The text of a Modelfile for the GGUF of that name in its folder."""
    system = trained.settings.prompt.system.strip()
    stop = str(tokenizer.convert_ids_to_tokens(end_id))
    model = trained.settings.model
    licence = f"{model.license} (base model: {trained.base_name or model.sha256})"
    lines = [
        f"# {NOT_MEDICAL_ADVICE.replace('**', '')}",
        f"FROM ./{gguf}",
        f"TEMPLATE {_quoted(go_template(tokenizer, system=bool(system)))}",
        *([f"SYSTEM {_quoted(system)}"] if system else []),
        "PARAMETER temperature 0",
        f'PARAMETER stop "{stop}"',
        f"LICENSE {_quoted(licence)}",
    ]
    return "\n".join(lines) + "\n"


def go_template(tokenizer: PreTrainedTokenizerBase, *, system: bool) -> str:
    """The model's chat template in Go's language: the first message is the system prompt, if there is one."""
    roles = [*(["system"] if system else []), "user", "assistant", "user"]
    marks = [f"{_MARK}{number}{_MARK}" for number in range(len(roles))]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    fragments = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            raise MedtuneError("gguf: the model's chat template does not write the messages in order")
        fragments.append(before)
    if begins_with_bos(tokenizer):
        # Ollama writes it before whatever its template writes, as the GGUF says.
        fragments[0] = fragments[0].removeprefix(str(tokenizer.bos_token))
    *opening, answer, another = fragments
    if any("{{" in part or '"""' in part for part in [*fragments, text]):
        raise MedtuneError("gguf: the model's chat template cannot be written in Ollama's language")
    first = opening[-1]
    user = (
        first
        if first == another
        else f"{{{{ if le $i {int(system)} }}}}{first}{{{{ else }}}}{another}{{{{ end }}}}"
    )
    head = f'{{{{ if eq .Role "system" }}}}{opening[0]}{{{{ .Content }}}}{{{{ else }}}}' if system else ""
    return (
        "{{ range $i, $_ := .Messages }}"
        f'{head}{{{{ if eq .Role "user" }}}}{user}{{{{ .Content }}}}{{{{ end }}}}'
        f'{{{{ if eq .Role "assistant" }}}}{answer}{{{{ .Content }}}}{{{{ end }}}}'
        f"{'{{ end }}' if system else ''}{{{{ end }}}}{text}"
    )


def _quoted(text: str) -> str:
    if '"""' in text:
        raise MedtuneError('params.yaml: prompt.system has \'"""\', which ends a text in an Ollama Modelfile')
    return f'"""{text}"""'
