"""A model that answers questions: the base model or, with an adapter, the tuned one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from medtune.answer.batches import AnswerLog, answer_in_batches
from medtune.answer.choices import choice_log_likelihoods
from medtune.answer.generation import generate_answers
from medtune.answer.params import AnswerParams, Settings
from medtune.answer.questions import Question
from medtune.core.answers import AnswerText
from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.model.adapter import check_adapter, load_adapter, merge
from medtune.model.base import (
    base_folder,
    context_of,
    end_ids,
    load_model,
    load_tokenizer,
    require_context,
)
from medtune.model.chat import ChatEncoder
from medtune.model.origin import differing_prompt, tell_other_prompt
from medtune.run.device import frozen_dtype, set_up


@dataclass(frozen=True)
class Answerer:
    """Answers greedily.

    `shots` are examples by the kind of question that they are shown before.
    """

    model: PreTrainedModel
    encoder: ChatEncoder
    params: AnswerParams
    shots: Mapping[str, Sequence[Example]] = field(default_factory=dict)

    @classmethod
    def load(cls, adapter: Path | str | None = "models/adapter") -> "Answerer":
        """The adapter of a folder on its base model (None: the base model as it is), with the settings of
        the params.yaml in the current folder, but the prompt that the adapter was trained with.
        """
        settings = Settings.load()
        if adapter is not None:
            origin = check_adapter(Path(adapter), settings.model, settings.compute)
            if origin is not None:
                tell_other_prompt(adapter, origin.prompt, settings.prompt)
                settings = replace(settings, prompt=origin.prompt)
        return cls._assemble(settings, adapter)

    @classmethod
    def build(cls, settings: Settings, adapter: Path | str | None, *, quantized: bool = True) -> "Answerer":
        """As `load`, with settings of one's own.

        The base is quantised as they say; with `quantized=False` it is not, and is in the dtype that it would
        be served in (bfloat16 where the device has it).
        """
        if adapter is not None:
            origin = check_adapter(Path(adapter), settings.model, settings.compute)
            if origin is not None and (names := differing_prompt(origin.prompt, settings.prompt)):
                raise MedtuneError(
                    f"{adapter}: trained with another prompt than that of params.yaml ({names}); "
                    "run `dvc repro`"
                )
        return cls._assemble(settings, adapter, quantized=quantized)

    @classmethod
    def _assemble(
        cls, settings: Settings, adapter: Path | str | None, *, quantized: bool = True
    ) -> "Answerer":
        """The model and what writes its prompts; an adapter has been checked to be of both."""
        compute = settings.compute
        encoder = ChatEncoder(load_tokenizer(base_folder(settings.model)), settings.prompt)
        device = set_up(compute, settings.answer.seed)
        dtype = frozen_dtype(settings.answer.precision, device, "answer.precision")
        if not quantized:
            compute, dtype = compute.model_copy(update={"quantization": None}), frozen_dtype("auto", device)
        model: Any = load_model(settings.model, compute, dtype, device)
        if adapter is not None:
            model = load_adapter(model, Path(adapter))
            if dtype == torch.float32 and compute.quantization is None:
                # Merged, the adapter costs nothing per token, and only the last bits change. Four bits or
                # bfloat16 would round it to what the base can express.
                model = merge(model, encoder.probes())
        return cls(model, encoder, settings.answer)

    def fitting(self, examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
        """The examples that the model's context has room for, with their longest answer, and the others.

        It is an error if there is room for none.
        """
        context = context_of(self.model.config)
        lengths = [self._longest(self._encode(example)) for example in examples]
        if examples and min(lengths) > context:
            raise MedtuneError(
                f"params.yaml: model.source has a context of {context} tokens, but every question takes more "
                f"with its answer (the shortest {min(lengths)}); shorten prompt.system or the questions, or "
                "lower answer.max_new_tokens"
            )
        sized = list(zip(examples, lengths, strict=True))
        return (
            [example for example, length in sized if length <= context],
            [example for example, length in sized if length > context],
        )

    def answer(
        self, examples: Sequence[Example], progress: str | None = None, log: AnswerLog | None = None
    ) -> list[AnswerText]:
        """Answer examples in batches; `progress` names a progress bar, `log` keeps finished batches.

        Of an example's choices the likeliest is picked (of equally likely ones the first); an example
        without choices is answered freely. One that the context has no room for is an error (`fitting`
        tells them apart).
        """
        questions = {index: self._encode(example) for index, example in enumerate(examples)}
        advice = "lower answer.shots" if self.shots else None
        require_context(self.model.config, max(map(self._longest, questions.values()), default=0), advice)
        free = {index: question for index, question in questions.items() if not question.choices}
        closed = {index: question for index, question in questions.items() if question.choices}
        in_batches = partial(
            answer_in_batches,
            batch_size=self.params.batch_size,
            tokens=(self.params.tokens_per_batch, self._longest),
            beginning=attrgetter("beginning"),
            log=log,
        )
        both = progress is not None and free and closed
        answers = in_batches(free, self._generate, progress=f"{progress}, in words" if both else progress)
        answers |= in_batches(closed, self._choose, progress=f"{progress}, by choice" if both else progress)
        return [answers[index] for index in range(len(examples))]

    def ask(self, question: str, context: str | None = None) -> str:
        """Answer one question."""
        return self.ask_in_full(question, context).text

    def ask_in_full(self, question: str, context: str | None = None) -> AnswerText:
        """As `ask`, with the number of tokens and whether the answer was cut off."""
        # Only what the prompt is made of matters here; an example cannot be without the rest.
        example = Example(id="-", question=question, context=context or None, answer="-", kind="-", group="-")
        return self.answer([example])[0]

    def _encode(self, example: Example) -> Question:
        return Question.of(example, self.encoder, self.shots.get(example.kind, ()))

    def _longest(self, question: Question) -> int:
        return question.longest(self.params.max_new_tokens)

    def _generate(self, questions: list[Question]) -> list[AnswerText]:
        answers = generate_answers(
            self.model,
            [question.prompt for question in questions],
            end_ids={self.encoder.end_id, *end_ids(self.model)},
            max_new_tokens=self.params.max_new_tokens,
        )
        return [
            AnswerText(
                text=self.encoder.decode(answer.ids), tokens=len(answer.ids), truncated=answer.truncated
            )
            for answer in answers
        ]

    def _choose(self, questions: list[Question]) -> list[AnswerText]:
        scores = choice_log_likelihoods(
            self.model,
            [question.prompt for question in questions],
            [[ids for _, ids in question.choices] for question in questions],
        )
        answers = []
        for question, odds in zip(questions, scores, strict=True):
            text, ids = question.choices[odds.texts.index(max(odds.texts))]
            answers.append(
                AnswerText(
                    text=text,
                    tokens=len(ids) - 1,
                    truncated=False,
                    log_likelihoods=odds.texts,
                    end_log_likelihoods=odds.ends,
                )
            )
        return answers
