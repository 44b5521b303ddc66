"""Launch on a GPU every kernel that the build check compiles: what a memory or race checker is put over.

``python -m codistill.tests.kernels.build.launch [NAME ...]``

The cases are those of ``dry.py``, with their tensors on the GPU. Prints what failed; exit status 1 if anything did.
"""

import sys

import torch

from .dry import discovered


def main() -> int:
    """Run the command line."""
    torch.set_default_device("cuda")
    cases, failed = discovered(sys.argv[1:]), 0
    for name, call in cases.items():
        try:
            call()
            torch.cuda.synchronize()
        except Exception as error:  # the other cases are of interest too, where the GPU still answers
            failed += 1
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    print(f"{len(cases)} cases, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
