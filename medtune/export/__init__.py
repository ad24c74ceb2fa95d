"""The trained adapter in the forms that other runtimes load, and how far each is from what was evaluated."""
