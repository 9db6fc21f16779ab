"""How a part is obtained: where it may be had, in which order, whether it is right, where it is kept."""
