"""Who answers: models and lookups, by their keys in metrics/details.json, and how a reader calls them."""

BASE, TUNED, SHOTS, LOOKUP = "base", "tuned", "shots", "lookup"
NAMES = {
    BASE: "untuned",
    TUNED: "tuned",
    SHOTS: "untuned with examples",
    "most_frequent": "most frequent answer",
    "nearest": "nearest question",
    "overlap": "choice in the question",
    LOOKUP: "best lookup",
}
OPPONENTS = {
    BASE: "the untuned model",
    SHOTS: "the untuned model with examples",
    LOOKUP: "the best lookup",
}
"""What the tuned model is compared with."""
