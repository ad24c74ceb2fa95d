"""What a stage's code means: `digests/STAGE.json`, which DVC has as a dependency of the stage.

    {"modules":  {"medtune/train/loss.py": "5f0c..."},
     "packages": {"torch": "2.13.0"}}

Modules are all those of this repository that the stage's entry point can import, each with a digest of its
syntax tree: a comment, a docstring or other formatting changes none, and so reruns nothing. Beside them stand
the templates, styles and scripts in the folders of their packages, by their bytes. Packages are
those that the modules import and that can change a byte of an output, with their versions in the runtime
lock. The stage `code` writes the files; they stand in git, so that `git diff digests/` shows why a stage ran
again.
"""

import ast
import hashlib
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from medtune.core.errors import MedtuneError
from medtune.core.pipeline_file import PIPELINE_FILE, outputs_in
from medtune.run.shadowing import ROOT

RUNTIME_LOCK = Path("requirements/runtime.txt")
DIGESTS = Path("digests")
CODE = ("medtune", "stages")
ENTRY_POINTS = ("prepare", "finetune", "answer", "evaluate")
"""The shipped modules of `stages` that have a digest file; those named answer-* are one module."""

CAN_CHANGE_BYTES = {
    "accelerate": ("accelerate",),
    "bitsandbytes": ("bitsandbytes",),
    "datasets": ("datasets",),
    "gguf": ("gguf",),
    "networkx": ("networkx",),
    "numpy": ("numpy",),
    "obonet": ("obonet",),
    "peft": ("peft",),
    "pyarrow": ("pyarrow",),
    "regex": ("regex",),
    "sacrebleu": ("sacrebleu",),
    "safetensors": ("safetensors",),
    "scipy": ("scipy",),
    "tokenizers": ("tokenizers",),
    "torch": ("torch",),
    "transformers": ("gguf", "jinja2", "numpy", "tokenizers", "transformers"),
    "vl_convert": ("itables", "jinja2", "vl-convert-python"),
    "yaml": ("pyyaml",),
}
"""Packages by the name they are imported by, with those that do their work unseen: transformers renders chat
templates with Jinja, its tokenizers are those of `tokenizers`, and it dequantises with gguf and numpy; beside
Vega, the report has the table that itables ships, in a page that Jinja renders."""
CANNOT_CHANGE_BYTES = frozenset(
    {
        "dvc",
        "dvc_data",
        "filelock",
        "httpx2",
        "huggingface_hub",
        "jinja2",
        "psutil",
        "pydantic",
        "pydantic_core",
        "ruamel",
        "tqdm",
    }
)
"""Packages that fetch (what is pinned by hash), check, lock or show, or that no stage imports. A new version
reruns nothing. Where Jinja renders, transformers and vl_convert stand for it above."""
PAGE_SUFFIXES = (".css", ".jinja", ".js")
"""Of what a package of this repository may hold beside modules and use."""
IGNORED = ("ctx", "kind")
"""Fields of a syntax tree that say nothing: how a name is used (its place tells), and the `u` of u"text"."""
ONLY_QUANTISED = "bitsandbytes"
"""Imported with `compute.quantization` alone: without it, its version is nobody's business."""


def digest(entry_point: str, *, quantised: bool, root: Path = ROOT) -> dict[str, dict[str, str]]:
    """The content of the digest file of a stage whose module is `entry_point`, such as stages.finetune."""
    modules = closure(entry_point, root)
    counted = {
        distribution
        for name, module in modules.items()
        for package in _foreign(name, module)
        if quantised or package != ONLY_QUANTISED
        for distribution in CAN_CHANGE_BYTES.get(package, ())
    }
    versions = locked_versions(root / RUNTIME_LOCK)
    meanings = {name: module.meaning for name, module in modules.items()}
    return {
        "modules": dict(sorted((meanings | _page_digests(modules, root)).items())),
        "packages": {name: versions[name] for name in sorted(counted)},
    }


def digests_of(content: Mapping[str, Any]) -> dict[str, dict[str, dict[str, str]]]:
    """The content of every digest file, by entry point, for the parameters `content` of params.yaml."""
    quantised = is_quantised(content)
    return {module: digest(f"stages.{module}", quantised=quantised) for module in entry_points()}


def entry_points(root: Path = ROOT) -> tuple[str, ...]:
    """The modules of `stages` that have a digest file: the shipped, and those of the outputs of `code`."""
    pipeline = root / PIPELINE_FILE
    added = [path.stem for path in outputs_in(DIGESTS, "code", pipeline) if path.stem not in ENTRY_POINTS]
    for module in added:
        if not (root / "stages" / f"{module}.py").is_file():
            raise MedtuneError(
                f"{PIPELINE_FILE}: the stage code has {DIGESTS / module}.json among its outs, but there is "
                f"no stages/{module}.py"
            )
    return (*ENTRY_POINTS, *added)


def is_quantised(content: Mapping[str, Any]) -> bool:
    """Whether params.yaml asks for a quantised base."""
    compute = content.get("compute")
    return isinstance(compute, Mapping) and compute.get("quantization") is not None


@dataclass(frozen=True)
class Module:
    """What a module is to the digests: its meaning's digest, and what it imports, names in modules too.

    Imports are those anywhere in it but for type checkers alone.
    """

    meaning: str
    imports: frozenset[str]


def closure(entry_point: str, root: Path = ROOT) -> dict[str, Module]:
    """Every module of this repository that `entry_point` can import, by its path."""
    found: dict[str, Module] = {}
    waiting = [entry_point]
    while waiting:
        name = waiting.pop()
        file = _source_file(name, root)
        if file is None or (path := file.relative_to(root).as_posix()) in found:
            continue
        found[path] = _read(path, file.read_bytes())
        parents = [name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1)]
        waiting += [*parents, *found[path].imports]
    return found


def locked_versions(lock: Path) -> dict[str, str]:
    """Versions by package in a file of `name==version` lines."""
    try:
        lines = lock.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise MedtuneError(f"{lock}: no such file; run this in the top folder of the repository") from None
    matches = (re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==([^\s;#]+)", line) for line in lines)
    return {match[1].lower().replace("_", "-"): match[2] for match in matches if match}


def require_installed(packages: dict[str, str]) -> None:
    """Refuse other versions of packages than a digest names: the outputs would be recorded as theirs."""
    for name, wanted in packages.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise MedtuneError(
                f"{name} is not installed; {RUNTIME_LOCK} has {wanted}: make install"
            ) from None
        # torch has a build for each kind of device, told apart behind a plus sign.
        if found.partition("+")[0] != wanted.partition("+")[0]:
            raise MedtuneError(
                f"{name} {found} is installed, but {RUNTIME_LOCK} has {wanted}: run `make install`, or put "
                "the installed version there"
            )


def undeclared(modules: Iterable[str]) -> list[str]:
    """Files here that this process has imported and `modules` lacks: by their path here, or a whole one.

    Here is the top folder of the repository, and the current one; what a Python environment inside holds is
    the libraries' own. A link is where it stands and where it leads to.
    """
    here, environment = (ROOT, Path.cwd()), _environment()
    loaded = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    # torch names a file that there is not for modules that it makes up.
    files = {Path(file).absolute() for file in loaded if file and Path(file).exists()}
    places = [_place(file, here) for file in files if not _is_in(file, environment)]
    found = [path for path in places if path]
    names = {path.relative_to(ROOT).as_posix() if _is_in(path, [ROOT]) else str(path) for path in found}
    return sorted(names - set(modules))


def _place(file: Path, folders: Iterable[Path]) -> Path | None:
    """Where in one of the folders a file stands, or leads to; None if it does not."""
    return next((path for path in (file, file.resolve()) if _is_in(path, folders)), None)


def _environment() -> list[Path]:
    """The folders of Python and of what is installed for it; one that holds the repository is none."""
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    names = [sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), *site.getsitepackages(), *user]
    folders = [path for name in names for path in (Path(name).absolute(), Path(name).resolve())]
    return [folder for folder in folders if not _is_in(ROOT, [folder])]


def _is_in(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _foreign(name: str, module: Module) -> Iterator[str]:
    for imported in module.imports:
        package = imported.partition(".")[0]
        if package in CODE or package in sys.stdlib_module_names:
            continue
        if package not in CAN_CHANGE_BYTES and package not in CANNOT_CHANGE_BYTES:
            raise MedtuneError(
                f"{name} imports {package}: medtune/run/code.py is to say whether it can change an output"
            )
        yield package


def _source_file(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _read(path: str, source: bytes) -> Module:
    """The module with that source. Stages ask at their start and at their end: no source is parsed twice."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise MedtuneError(f"{path}, line {line}: not Python: {error}") from None
    return Module(_short_digest(repr(_meaning(tree)).encode()), frozenset(_imports(tree, path)))


def _imports(tree: ast.AST, path: str) -> Iterator[str]:
    for node in _running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise MedtuneError(f"{path}, line {node.lineno}: a relative import; accepted: absolute ones")
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that can be run: all but those under `if TYPE_CHECKING`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _page_digests(modules: Iterable[str], root: Path) -> dict[str, str]:
    """Digests of what is no module, in the folder of each package among `modules`, by its path."""
    folders = [(root / name).parent for name in modules if name.endswith("/__init__.py")]
    found = [file for folder in folders for file in folder.iterdir() if file.suffix in PAGE_SUFFIXES]
    return {file.relative_to(root).as_posix(): _short_digest(file.read_bytes()) for file in found}


def _short_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _meaning(node: Any) -> Any:
    """A syntax tree as nested tuples, without what has no effect, and alike in every version of Python.

    Versions differ in the fields that a node has; those that are empty are left out.
    """
    if isinstance(node, ast.JoinedStr):
        # Python 3.12 alone finds an empty text between the parts of a format.
        parts = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
        return "JoinedStr", *map(_meaning, parts)
    if isinstance(node, ast.AST):
        fields = [(name, _meaning(value)) for name, value in ast.iter_fields(node) if name not in IGNORED]
        return type(node).__name__, *(field for field in fields if field[1] not in (None, ()))
    if isinstance(node, list):
        return tuple(_meaning(part) for part in node if not _without_effect(part))
    # Left out above: a field without a value, and the value of the constant None, which then is one without.
    return None if node is None else repr(node)


def _without_effect(statement: Any) -> bool:
    """Whether it is a docstring, of whatever, or a `pass`, which a docstring makes needless."""
    is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass) or (is_text and isinstance(statement.value.value, str))
