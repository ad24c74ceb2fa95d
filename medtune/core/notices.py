"""Words that go with everything medtune makes."""

NOT_MEDICAL_ADVICE = (
    "**Not medical advice.** Answers may be wrong and are no basis for any decision about health. "
    "The model exists to show and to study reproducible fine-tuning."
)
