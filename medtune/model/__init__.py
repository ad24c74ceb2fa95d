"""A base model and its adapter: files, tokens, weights, passes."""
