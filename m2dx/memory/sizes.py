"""Bytes in words."""


def gigabytes(count: float) -> str:
    """Such as "3.42 GB", or "78 MB" below a tenth of one; 1 GB is 2^30 bytes, as the sizes of GPUs are told."""
    gb = count / 2**30
    return f"{gb:.2f} GB" if abs(gb) >= 0.1 else f"{count / 2**20:.0f} MB"
