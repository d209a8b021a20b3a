"""Ways to choose a mask: the same inputs, the same MaskSet out."""

from proxsparse.methods.magnitude import magnitude

__all__ = ["magnitude"]
