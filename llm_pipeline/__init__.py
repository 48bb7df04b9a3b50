"""The model: checkpoints, text, forward passes; the only package that knows LLaMA."""
