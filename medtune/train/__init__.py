"""From questions to an adapter: the stage finetune."""
