"""Every section of params.yaml, in its order."""

from medtune.answer.params import AnswerParams
from medtune.core.section import Section
from medtune.data.params import DataParams
from medtune.evaluate.params import EvaluateParams
from medtune.model.params import ModelParams, PromptParams
from medtune.run.params import ComputeParams
from medtune.train.params import FinetuneParams

SECTION_TYPES: tuple[type[Section], ...] = (
    DataParams,
    ModelParams,
    PromptParams,
    ComputeParams,
    FinetuneParams,
    AnswerParams,
    EvaluateParams,
)
