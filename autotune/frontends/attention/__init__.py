"""Attention as one kernel: queries by keys, softmax, by values (Vaswani et al., arXiv:1706.03762).

Apart, each score goes to memory and back several times, and each operand is copied first: cut out of what one
projection computed, heads first, keys transposed. Together, scores stay in a core's own caches, and operands
are read where they are. PyTorch's exporter writes ``scaled_dot_product_attention`` out as some twenty
operators; those for rows without any score above minus infinity become a comparison (``finding``).
"""
