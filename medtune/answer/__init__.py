"""What a model says to a question: the stages answer-base and answer-tuned."""
