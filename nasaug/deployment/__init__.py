"""Inference with trained nets, loaded from their runs."""
