"""From answers to figures: the stage evaluate. No torch."""
