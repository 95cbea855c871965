"""Pruning: making a trained net smaller by removing channels or zeroing weights."""
