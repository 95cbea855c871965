"""Smaller nets by taking channels or weights away from a trained one."""
