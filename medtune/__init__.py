"""medtune: reproducible LoRA fine-tuning of Llama models on medical questions, under DVC."""
