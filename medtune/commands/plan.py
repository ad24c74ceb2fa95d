"""`medtune plan`: how much memory a stage needs at its peak, and whether the device has it.

Everything is arithmetic on the model's shape and `params.yaml`; docs/memory.md explains each row, and
tests/commands/test_plan.py checks it against real models and measured peaks. What decides the peak beside them are
the lengths of the examples: those of data/prepared if they are there, else `finetune.max_length` for all.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache

from medtune.commands.profiles import PROFILES, merged_params
from medtune.core.errors import MedtuneError
from medtune.core.examples import read_jsonl
from medtune.core.outputs import TIMING_FILE
from medtune.core.section import PARAMS_FILE, read_yaml
from medtune.evaluate.params import EvaluateParams
from medtune.model.params import LoraParams, ModelParams, PromptParams
from medtune.model.shape import Shape, find_shape
from medtune.run.launch import Launch
from medtune.run.params import ComputeParams
from medtune.train.params import FinetuneParams

GIB = 2**30
PREPARED = Path("data/prepared")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

RUNTIME = {"cpu": 0.5 * GIB, "cuda": 0.6 * GIB}
"""Python with torch, transformers and PEFT (measured); a CUDA context with cuBLAS's workspaces (not)."""
TRAINER = {"cpu": 0.25 * GIB, "cuda": 0.0}
"""What training adds to it: the Trainer, the data, and the code that oneDNN makes and keeps (measured)."""
HOLES = {"cpu": 0.3, "cuda": 0.1}
"""What an allocator keeps of freed blocks that fit no new one, as a share of what comes and goes: measured
with glibc's, assumed for CUDA's."""


PARTS = (
    "base weights",
    "adapter",
    "cache",
    "activations",
    "logits",
    "restored weights",
    "runtime",
    "holes",
)
"""Rows of a plan, in the order of docs/memory.md."""


@dataclass(frozen=True)
class Pass:
    """What runs through the model at once: `rows` that share their first `shared` tokens and have up to
    `length` of their own; logits are needed at `labelled` positions."""

    rows: int
    shared: int
    length: int
    labelled: int

    @property
    def tokens(self) -> int:
        """Positions computed: the shared ones once."""
        return self.rows * self.length + self.shared

    @property
    def keys(self) -> int:
        """Positions whose keys and values are there, over all rows."""
        return self.rows * (self.shared + self.length)

    @property
    def scores(self) -> int:
        """Attention scores of one head."""
        return self.keys * self.length + self.shared**2


@dataclass(frozen=True)
class Settings:
    """The sections of a params.yaml that decide about memory, and what is made of them."""

    model: ModelParams
    prompt: PromptParams
    compute: ComputeParams
    finetune: FinetuneParams
    evaluate: EvaluateParams

    @classmethod
    def load(cls, profile: str | None = None) -> "Settings":
        """params.yaml, with a profile merged into it if one is named; nothing is written."""
        if profile is None:
            return cls._read(PARAMS_FILE)
        content = merged_params(profile)
        with TemporaryDirectory() as folder:
            path = Path(folder) / PARAMS_FILE.name
            path.write_text(yaml.safe_dump(content), encoding="utf-8")
            try:
                return cls._read(path)
            except MedtuneError as error:
                reason = str(error).removeprefix(f"{path}: ")
                raise MedtuneError(f"{PROFILES / profile}.yaml: {reason}") from None

    @classmethod
    def _read(cls, path: Path) -> "Settings":
        return cls(
            ModelParams.load(path),
            PromptParams.load(path),
            ComputeParams.load(path),
            FinetuneParams.load(path),
            EvaluateParams.load(path),
        )


@dataclass(frozen=True)
class Stage:
    """What a stage needs at its peak: bytes by part."""

    name: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        """Bytes needed."""
        return sum(self.parts.values())


def plan(
    settings: Settings, device: str, *, bfloat16: bool = True, data: bool = True
) -> tuple[list[Stage], bool]:
    """The needs of each process of finetune and evaluate on `device` (cpu, cuda), and whether the lengths
    of data/prepared went into them.

    `bfloat16` tells whether the device computes in it, for `precision: auto`. Without `data` the examples
    are taken to be as long as `params.yaml` allows, whatever lies in data/prepared.
    """
    shape = find_shape(settings.model)
    dtype = settings.finetune.precision
    if dtype == "auto":
        dtype = "bfloat16" if bfloat16 else "float32"
    lengths = _data_passes(settings) if data else None
    training, answering = lengths or (_longest_passes(settings), _longest_prompts(settings))
    stages = [
        _finetune(settings, shape, dtype, device, training),
        _evaluate("evaluate", settings, shape, "float32", device, answering),
    ]
    if settings.compute.quantization and settings.evaluate.unquantized:
        served = "bfloat16" if bfloat16 else "float32"
        whole = settings.compute.model_copy(update={"quantization": None})
        other = Settings(settings.model, settings.prompt, whole, settings.finetune, settings.evaluate)
        stages.append(_evaluate("unquantized", other, shape, served, device, answering))
    return stages, lengths is not None


def weight_bytes(shape: Shape, dtype: str, quantization: str | None) -> float:
    """Bytes of the base model's weights; NF4 has 4 bits a weight and a doubly quantised scale for 64."""
    if quantization is None:
        return BYTES[dtype] * (shape.linear_parameters + shape.other_parameters)
    return BYTES[dtype] * shape.other_parameters + shape.layers * sum(
        _nf4_bytes(inputs * outputs) for inputs, outputs in shape.linears.values()
    )


def adapter_parameters(shape: Shape, lora: LoraParams) -> int:
    """How many weights the adapter has: two thin matrices a linear layer and, for DoRA, its lengths."""
    layers = shape.layers if lora.layers is None else len(set(lora.layers))
    return layers * sum(
        lora.r * (inputs + outputs) + (outputs if lora.dora else 0)
        for inputs, outputs in _adapted(shape, lora).values()
    )


def _adapted(shape: Shape, lora: LoraParams) -> dict[str, tuple[int, int]]:
    """The linear layers of a decoder layer that the adapter changes; PEFT compares ends of names."""
    if lora.target_modules == "all-linear":
        return shape.linears
    names = lora.target_modules
    return {
        name: size
        for name, size in shape.linears.items()
        if any(name == end or f".{name}".endswith(f".{end}") for end in names)
    }


def _nf4_bytes(weights: int) -> float:
    blocks = math.ceil(weights / 64)
    tables = 4 * (16 + 256 + 1)
    return weights / 2 + blocks + 4 * math.ceil(blocks / 256) + tables


def _finetune(settings: Settings, shape: Shape, dtype: str, device: str, passes: Iterable[Pass]) -> Stage:
    params, quantization = settings.finetune, settings.compute.quantization
    launch = Launch.load(params.launch, "finetune.launch")
    shards = launch.processes if _shards(params) else 1
    # Weights, gradients and AdamW's two moments, each in float32.
    adapter = 16 * adapter_parameters(shape, params.lora)
    widest = max(inputs * outputs for inputs, outputs in shape.linears.values())
    largest = max(
        (_pass_bytes(settings, shape, dtype, device, one) for one in passes),
        key=lambda found: found["activations"] + found["logits"],
    )
    return _stage(
        "finetune",
        device,
        {
            "base weights": weight_bytes(shape, dtype, quantization) / shards,
            "adapter": adapter / shards,
            **largest,
            # One layer at a time is restored to the dtype it is computed in.
            "restored weights": BYTES[dtype] * widest if quantization else 0,
        },
    )


def _pass_bytes(settings: Settings, shape: Shape, dtype: str, device: str, one: Pass) -> dict[str, float]:
    """What a forward and backward pass keeps: activations of all layers, then what the loss needs."""
    lora = settings.finetune.lora
    layer = _kept_by_layer(settings, shape, dtype, device, one)
    # Below the first layer with an adapter nothing has a gradient, and nothing is kept.
    layers = shape.layers - min(lora.layers or [0])
    if settings.finetune.gradient_checkpointing:
        kept = layers * one.tokens * shape.hidden * BYTES[dtype] + layer
    else:
        kept = layers * layer
    # Logits, log-probabilities in float32 and, in parts and then as a whole, the gradient of the logits.
    logits = one.labelled * shape.vocabulary * (4 + 3 * BYTES[dtype])
    return {"activations": kept, "logits": max(logits, layer)}


def _kept_by_layer(settings: Settings, shape: Shape, dtype: str, device: str, one: Pass) -> float:
    """Bytes that one decoder layer keeps for its backward pass."""
    lora, size = settings.finetune.lora, BYTES[dtype]
    adapted = _adapted(shape, lora)
    queries = shape.heads * shape.head_dim
    # Where PEFT's own layer computes the update, it turns its input into float32; under autocast each layer
    # then keeps a copy of its own in 16 bits. On CUDA it leaves the input of a quantised layer as it is.
    folded = not (lora.dropout or lora.dora or settings.compute.quantization)
    own_copies = size == 2 and not folded and not (settings.compute.quantization and device == "cuda")
    inputs = [(name if own_copies else _input_of(name), width) for name, (width, _) in adapted.items()]
    per_token = size * sum(width for _, width in set(inputs)) + size * lora.r * len(adapted)
    if lora.dropout:
        per_token += sum(width for width, _ in adapted.values())
    if lora.dora:
        per_token += 2 * size * sum(outputs for _, outputs in adapted.values())
    per_token += 2 * 4 * shape.hidden + 3 * size * shape.intermediate
    flash = settings.compute.attention == "sdpa" and _has_flash(dtype, device, one)
    if flash:
        per_key = 2 * size * shape.kv_heads * shape.head_dim
        per_token += 2 * size * queries + 4 * shape.heads
        return one.tokens * per_token + one.keys * per_key
    # sdpa's plain kernel computes in float32 alone and has keys and values for every head; eager attention
    # has scores in float32 and again in the dtype computed in.
    plain = settings.compute.attention == "sdpa"
    inner, heads = (4, shape.heads) if plain else (size, shape.kv_heads)
    score = 4 if inner == 4 else 4 + size
    return (
        one.tokens * (per_token + inner * queries)
        + one.keys * 2 * inner * heads * shape.head_dim
        + one.scores * shape.heads * score
    )


def _has_flash(dtype: str, device: str, one: Pass) -> bool:
    """Whether sdpa takes flash attention: on CUDA for 16 bits without a mask, on GPUs that have bfloat16.

    Rows that continue a shared prefix need a mask. float16 is for the GPUs before (T4, V100).
    """
    return device == "cpu" or (dtype == "bfloat16" and one.shared == 0)


def _input_of(name: str) -> str:
    """Linear layers with the same input share it."""
    groups = {"q_proj": "attention", "k_proj": "attention", "v_proj": "attention"}
    return (groups | {"gate_proj": "mlp", "up_proj": "mlp"}).get(name.rpartition(".")[2], name)


def _evaluate(
    name: str, settings: Settings, shape: Shape, dtype: str, device: str, passes: Iterable[Pass]
) -> Stage:
    params, quantization = settings.evaluate, settings.compute.quantization
    size, keys = BYTES[dtype], shape.kv_heads * shape.head_dim
    merged = quantization is None and dtype == "float32"
    widest = max(inputs * outputs for inputs, outputs in shape.linears.values())
    largest = {"cache": 0.0, "activations": 0.0, "logits": 0.0}
    for one in passes:
        positions = one.keys + one.rows * params.max_new_tokens
        scores, last = one.scores * shape.heads * 8, 2 * one.keys * shape.heads * shape.head_dim * size
        if settings.compute.attention == "eager":
            last = 0
        elif device == "cpu":
            scores = 0
        found: dict[str, float] = {
            "cache": positions * shape.layers * 2 * keys * size,
            # Of one layer: the MLP's, or the scores and (sdpa) keys and values repeated for every head.
            "activations": one.tokens * 2 * shape.hidden * size
            + max(one.tokens * 3 * shape.intermediate * size, scores + last),
            "logits": 3 * one.rows * shape.vocabulary * 4,
        }
        largest = max(largest, found, key=lambda parts: sum(parts.values()))
    return _stage(
        name,
        device,
        {
            "base weights": weight_bytes(shape, dtype, quantization),
            "adapter": 0 if merged else 4 * adapter_parameters(shape, settings.finetune.lora),
            **largest,
            "restored weights": size * widest if quantization else 0,
        },
    )


def _stage(name: str, device: str, parts: dict[str, float]) -> Stage:
    moving = sum(parts.get(part, 0) for part in ("activations", "logits", "cache"))
    runtime = RUNTIME[device] + (TRAINER[device] if name == "finetune" else 0)
    parts |= {"runtime": runtime, "holes": HOLES[device] * moving}
    return Stage(name, {part: size for part, size in parts.items() if size})


def _shards(params: FinetuneParams) -> bool:
    """Whether the processes of a launch share out the weights (FSDP)."""
    launch = Launch.load(params.launch, "finetune.launch")
    return read_yaml(launch.path).get("distributed_type") == "FSDP"


def _longest_passes(settings: Settings) -> list[Pass]:
    """The largest pass that params.yaml allows: full of the longest examples, which are all answer."""
    params = settings.finetune
    share = params.batch_size // Launch.load(params.launch, "finetune.launch").processes
    fitting = share if _shards(params) else min(share, params.tokens_per_pass // params.max_length)
    rows = max(1, fitting)
    return [Pass(rows, 0, params.max_length, rows * params.max_length)]


def _longest_prompts(settings: Settings) -> list[Pass]:
    rows = settings.evaluate.batch_size
    return [Pass(rows, 0, settings.finetune.max_length, rows)]


def _data_passes(settings: Settings) -> tuple[list[Pass], list[Pass]] | None:
    """The passes of training and evaluation over data/prepared; None if it or the tokenizer is not here."""
    files = [PREPARED / f"{split}.jsonl" for split in ("train", "test")]
    folder = _tokenizer_folder(settings.model)
    if folder is None or not all(file.is_file() for file in files):
        return None
    # Imported here: torch takes seconds to load, and the rest of a plan does not need it.
    from medtune.evaluate.summary import select_indices
    from medtune.model.base import load_tokenizer
    from medtune.model.chat import ChatEncoder
    from medtune.train.batching import encode_examples

    encoder = ChatEncoder(load_tokenizer(folder), settings.prompt)
    rows = encode_examples(read_jsonl(files[0]), encoder, settings.finetune, files[0]).rows
    examples = read_jsonl(files[1])
    asked = [examples[index] for index in select_indices(examples, settings.evaluate)]
    prompts = [encoder.encode_prompt(example) for example in asked]
    return list(_training_passes(rows, settings.finetune)), list(_prompt_passes(prompts, settings.evaluate))


def _training_passes(rows: Any, params: FinetuneParams) -> Iterator[Pass]:
    """Every pass of the first epochs, as the Trainer makes them."""
    from medtune.train.batching import IGNORED, SimilarLengthBatches, pad, shared_prefix_length, split_batch

    processes = Launch.load(params.launch, "finetune.launch").processes
    sharded = _shards(params)
    examples = list(rows)
    batches = SimilarLengthBatches(
        [len(row["input_ids"]) for row in examples],
        params.batch_size,
        params.seed,
        accumulation=params.gradient_accumulation,
        share=(0, processes),
    )
    for epoch in range(math.ceil(params.epochs)):
        batches.set_epoch(epoch)
        for indices in batches:
            batch = pad([examples[index] for index in indices])
            for part in [batch] if sharded else split_batch(batch, params.tokens_per_pass):
                ids, labels = part["input_ids"], part["labels"]
                shared = shared_prefix_length(ids, labels)
                labelled = int((labels != IGNORED).sum())
                yield Pass(len(ids), shared, ids.shape[1] - shared, labelled)


def _prompt_passes(prompts: list[list[int]], params: EvaluateParams) -> Iterator[Pass]:
    ordered = sorted(prompts, key=len)
    for start in range(0, len(ordered), params.batch_size):
        batch = ordered[start : start + params.batch_size]
        shared = 0
        if len(batch) > 1:
            columns = zip(*(prompt[:-1] for prompt in batch), strict=False)
            shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
        yield Pass(len(batch), shared, len(batch[-1]) - shared, len(batch))


def _tokenizer_folder(model: ModelParams) -> Path | None:
    """Where the tokenizer lies; None if it had to be downloaded first."""
    if model.revision is None:
        from medtune.model.base import base_folder

        return base_folder(model)
    cached = try_to_load_from_cache(model.source, "tokenizer_config.json", revision=model.revision)
    return Path(cached).parent if isinstance(cached, str) else None


@dataclass(frozen=True)
class Device:
    """Where a plan is to fit: cpu or cuda, with its memory in bytes, all of it and what is free."""

    kind: str
    name: str
    total: int
    free: int
    bfloat16: bool

    @classmethod
    def find(cls, compute: ComputeParams) -> "Device":
        """The device that the stages would take on this machine."""
        # Imported here: torch takes seconds to load, and a plan for a named device does not need it.
        import torch

        from medtune.run.device import has_native_bfloat16

        if compute.device != "cpu" and torch.cuda.is_available():
            device = torch.device("cuda")
            free, total = torch.cuda.mem_get_info(device)
            name = torch.cuda.get_device_name(device)
            return cls("cuda", name, total, free, has_native_bfloat16(device))
        if compute.device == "cuda":
            raise MedtuneError(
                "compute.device is 'cuda', but no CUDA device is there; "
                "to plan for one elsewhere: --device cuda"
            )
        total, free = _machine_memory()
        return cls("cpu", "CPU", total, free, has_native_bfloat16(torch.device("cpu")))

    def verdict(self, stage: Stage, settings: Settings) -> str:
        """Whether a stage fits; if not, what to change."""
        if stage.total > self.total:
            over = (stage.total - self.total) / GIB
            return f"{stage.name} does not fit: {over:.2f} GiB too much; {_knob(stage, settings)}"
        if stage.total > self.free:
            return f"{stage.name} fits, but not into what is free now"
        return f"{stage.name} fits"


def _machine_memory() -> tuple[int, int]:
    """Bytes of memory of this machine, and how many are free (all, where the system does not tell)."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return total, total
    lines = meminfo.read_text(encoding="utf-8").splitlines()
    return total, next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _knob(stage: Stage, settings: Settings) -> str:
    """What lowers the largest part that a parameter decides about."""
    finetune, quantized = settings.finetune, settings.compute.quantization is not None
    quantize = "set compute.quantization to nf4"
    evaluation = "lower evaluate.batch_size or evaluate.max_new_tokens"
    knobs: dict[str, str] = {}
    if not quantized:
        knobs["base weights"] = quantize
    if stage.name == "finetune":
        fewer = "lower finetune.tokens_per_pass or finetune.max_length"
        again = "" if finetune.gradient_checkpointing else ", or set finetune.gradient_checkpointing to true"
        knobs |= {"adapter": "lower finetune.lora.r", "activations": fewer + again, "logits": fewer}
    else:
        knobs |= {"cache": evaluation, "activations": evaluation, "logits": evaluation}
    if stage.name == "unquantized":
        knobs["base weights"] = "set evaluate.unquantized to false"
    return knobs[max(knobs, key=lambda part: stage.parts.get(part, 0.0))]


def measured_peaks() -> dict[str, float]:
    """GiB that the last run of each stage needed, from metrics/timing.json."""
    try:
        timing = json.loads(TIMING_FILE.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    names = {"finetune": "finetune", "evaluation": "evaluate"}
    return {
        name: timing[key]["peak_memory_gib"]
        for key, name in names.items()
        if "peak_memory_gib" in timing.get(key, {})
    }


def table(stages: list[Stage], measured: dict[str, float]) -> str:
    """The parts of each stage in GiB, with their sums and what was measured."""
    width = max(map(len, PARTS)) + 2
    lines = ["GiB".ljust(width) + "".join(f"{stage.name:>13}" for stage in stages)]
    rows = {part: [stage.parts.get(part) for stage in stages] for part in PARTS}
    rows["total"] = [stage.total for stage in stages]
    rows["measured"] = [measured[stage.name] * GIB if stage.name in measured else None for stage in stages]
    for name, values in rows.items():
        if any(value is not None for value in values):
            cells = ("" if value is None else f"{value / GIB:.2f}" for value in values)
            lines.append((name.ljust(width) + "".join(f"{cell:>13}" for cell in cells)).rstrip())
    return "\n".join(lines)


def describe(profile: str | None, *, kind: str | None, worst: bool, as_json: bool) -> str:
    """What `medtune plan` prints: for the device found here, or for a `kind` of device (cpu, cuda)."""
    settings = Settings.load(profile)
    if kind == "cpu" and settings.compute.device == "cuda":
        raise MedtuneError("compute.device is 'cuda'; accepted with it: --device cuda")
    device = Device.find(settings.compute) if kind is None else None
    stages, from_data = plan(
        settings,
        kind or (device.kind if device else "cpu"),
        bfloat16=device is None or device.bfloat16,
        data=not worst,
    )
    measured = measured_peaks() if profile is None and device else {}
    verdicts = [device.verdict(stage, settings) for stage in stages] if device else []
    if as_json:
        content = {
            "source": settings.model.source,
            "lengths": "data" if from_data else "longest",
            "stages": {
                stage.name: {
                    "gib": {part: round(size / GIB, 3) for part, size in stage.parts.items()},
                    "total_gib": round(stage.total / GIB, 3),
                    "measured_gib": measured.get(stage.name),
                    "fits": stage.total <= device.total if device else None,
                }
                for stage in stages
            },
            "device": asdict(device) if device else {"kind": kind},
        }
        return json.dumps(content, indent=2)
    examples = (
        "the examples of data/prepared"
        if from_data
        else f"examples of {settings.finetune.max_length} tokens (finetune.max_length)"
    )
    lines = [f"{settings.model.source}, for {examples}", "", table(stages, measured)]
    if device:
        lines += ["", f"{device.name}: {device.total / GIB:.2f} GiB, {device.free / GIB:.2f} free", *verdicts]
    return "\n".join(lines)
