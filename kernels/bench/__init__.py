"""``python -m codistill.kernels.bench``: is it right, how long does it take, and how much memory does it need.

Every operation is measured beside what one would use instead: eager torch, torch.compile, and Liger-Kernel or faiss
where they are installed and have an equal. Results go into a CSV that is only ever appended to; ``compare`` tells
whether one of two is slower. docs/kernels.md says how to read it.
"""
