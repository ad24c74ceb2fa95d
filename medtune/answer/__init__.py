"""What a model says to a question: the stages answer-base, answer-tuned and answer-shots."""
